"""The login in front of the embedded MLflow: one user, one random password, no path without them.

MLflow's own ``basic-auth`` app needs Flask-WTF, keeps users in a database of its own, and compares a slow hash at every
request (470 ms on 2 busy cores with MLflow 3.17.2). One person's server needs neither: this gate lets a request pass
that carries the password of the platform's state file, by HTTP basic authentication (RFC 7617), as MLflow's client
sends it and a browser asks for it.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CHALLENGE = b'Basic realm="MLflow of ichigo", charset="UTF-8"'
_REFUSAL = b"This MLflow server asks for a login: `ichigo status --show-login` shows it in a terminal.\n"


def header(user: str, password: str) -> str:
    """The value of the ``Authorization`` header for a login."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


class Gate:
    """An ASGI application that hands on to ``app`` what carries the login, and refuses everything else."""

    def __init__(self, app: App, user: str, password: str) -> None:
        self._app, self._expected = app, header(user, password).encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._knows(scope.get("headers", ())):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send)
        else:
            await send({"type": "websocket.close", "code": 1008})  # before it is accepted: HTTP 403

    def _knows(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Whether the login is among the headers; the comparison takes as long however much of it is right."""
        given = [value for name, value in headers if name.lower() == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._expected)


async def _refuse(send: Send) -> None:
    headers = [
        (b"www-authenticate", _CHALLENGE),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(_REFUSAL)).encode()),
    ]
    await send({"type": "http.response.start", "status": 401, "headers": headers})
    await send({"type": "http.response.body", "body": _REFUSAL})
