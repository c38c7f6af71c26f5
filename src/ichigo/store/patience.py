"""How long to go on asking a service that has stopped answering: one clock for all calls of a client.

An outage belongs to the service and not to a call: a step that has waited its time for one upload does not wait it
again for the next object, nor for the record that says why it ended. The first answer ends the outage.
"""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from typing import TypeVar

from ichigo.errors import PlatformError, UserError

VARIABLE = "ICHIGO_S3_PATIENCE"
SECONDS = 75.0  # a restart of the embedded server takes 2 s, of a node's pod about a minute
_FIRST, _LONGEST = 0.25, 5.0  # seconds between two questions: doubled each time up to the longest

T = TypeVar("T")
_log = logging.getLogger(__name__)


class NoAnswer(PlatformError):
    """The service does not answer, or says "later": worth another try."""


class Patience:
    """Calls again what raises :class:`NoAnswer`, for ``seconds`` from the first failure of an outage on.

    Waits grow from a quarter of a second to five, each cut by a random factor of up to one half, so that clients do
    not come back all at once. ``clock``, ``sleep`` and ``draw`` (uniform in [0, 1)) are the system's.
    """

    def __init__(
        self,
        seconds: float = SECONDS,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.seconds = seconds
        self._clock, self._sleep, self._draw = clock, sleep, draw
        self._silent_since: float | None = None  # shared by the threads of a client; a lost update only waits longer

    @classmethod
    def configured(cls) -> Patience:
        """With the seconds of ``ICHIGO_S3_PATIENCE``; :class:`UserError` for what is no such number."""
        given = os.environ.get(VARIABLE, "")
        try:
            seconds = float(given or SECONDS)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < float("inf"):
            raise UserError(f"{VARIABLE} is {given!r}; give the seconds to wait for an S3 that does not answer, as 75")
        return cls(seconds)

    def call(self, act: Callable[[], T]) -> T:
        """What ``act`` returns; its :class:`NoAnswer` once the time is over."""
        began, attempt = None, 0
        while True:
            try:
                result = act()
            except NoAnswer as error:
                began = began or self._clock()
                self._silent_since = min(began, self._silent_since or began)
                self._wait(error, self._silent_since, attempt)
                attempt += 1
            else:
                self._silent_since = None
                return result

    def _wait(self, error: NoAnswer, since: float, attempt: int) -> None:
        """Sleep until the next question; raises when the time that began at ``since`` is over."""
        waited = self._clock() - since
        if waited >= self.seconds:
            raise NoAnswer(
                f"{error} It was asked for {waited:.0f} s; what is committed stays, run again to go on"
            ) from error
        if not attempt:
            _log.warning("%s Asking again for up to %.0f s", error, self.seconds - waited)
        pause = min(_FIRST * 2.0 ** min(attempt, 16), _LONGEST) * (1 - self._draw() / 2)
        self._sleep(min(pause, self.seconds - waited))
