"""The two parts that Swift's configuration names: a cache inside the process and a logger on standard error.

Swift itself offers a memcached client and syslog for these; the embedded server needs neither service.
"""

from __future__ import annotations

import json
import logging
import sys
import time as clock
from collections.abc import Callable, Iterable, Mapping
from typing import Any

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class MemoryCache:
    """Swift's memcache client interface over a dictionary; ``time`` is a lifetime in seconds, 0 for ever.

    Values are kept as JSON, as in memcached, because Swift changes what ``get`` returned.
    """

    def __init__(self) -> None:
        self._entries: dict[str, tuple[str, float]] = {}

    def get(self, key: str, raise_on_error: bool = False) -> Any:
        """The value, or None when it is absent or has expired."""
        text, expires = self._entries.get(key, ("null", 0.0))
        if expires and expires < clock.monotonic():
            self._entries.pop(key, None)
            return None
        return json.loads(text)

    def set(
        self,
        key: str,
        value: Any,
        serialize: bool = True,
        time: float = 0,
        min_compress_len: int = 0,
        raise_on_error: bool = False,
    ) -> None:
        """Keep ``value`` for ``time`` seconds."""
        self._entries[key] = (json.dumps(value), clock.monotonic() + time if time else 0.0)

    def incr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Add ``delta``, never going below 0, and return the new value."""
        value: int = max(int(self.get(key) or 0) + delta, 0)
        self.set(key, value, time=time)
        return value

    def decr(self, key: str, delta: int = 1, time: float = 0) -> int:
        """Subtract ``delta``, never going below 0, and return the new value."""
        return self.incr(key, -delta, time)

    def delete(self, key: str, server_key: str | None = None) -> None:
        """Forget ``key``."""
        self._entries.pop(key, None)

    def set_multi(
        self,
        mapping: Mapping[str, Any],
        server_key: str | None = None,
        serialize: bool = True,
        time: float = 0,
        min_compress_len: int = 0,
    ) -> None:
        """:meth:`set` for every pair."""
        for key, value in mapping.items():
            self.set(key, value, time=time)

    def get_multi(self, keys: Iterable[str], server_key: str | None = None) -> list[Any]:
        """:meth:`get` for every key, in order."""
        return [self.get(key) for key in keys]


def cache_factory(global_conf: Mapping[str, str], **local_conf: str) -> Callable[[App], App]:
    """PasteDeploy filter that puts one :class:`MemoryCache` into every request as ``swift.cache``."""
    cache = MemoryCache()

    def wrap(app: App) -> App:
        def with_cache(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            environ["swift.cache"] = cache
            return app(environ, start_response)

        return with_cache

    return wrap


def log_to_stderr(
    conf: Mapping[str, str], name: str, console: bool, route: str, fmt: str, logger: logging.Logger, adapter: object
) -> None:
    """Swift's ``log_custom_handlers`` hook: takes the syslog handler away, which Swift always adds, and adds stderr."""
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
        handler.close()
    stream = logging.StreamHandler(sys.__stderr__)
    stream.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(stream)
