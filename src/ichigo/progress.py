"""Progress of long work as plain lines: what, done/total, rate, time left.

A step runs in a process of its own whose output the engine reads, so progress is printed as one line per beat (at most
one every ``every`` seconds) with a fixed prefix; the engine's screen parses the prefix, a log file keeps the line.
Lines of steps that run side by side mix, so each names its step, also in processes that a step starts (torchrun's).
"""

from __future__ import annotations

import os
import sys
import time
from typing import TextIO

PREFIX = "[progress]"
STEP_VARIABLE = "ICHIGO_STEP"
"""The step that this process and its children work for; set by whoever opens a step."""


class Progress:
    """Counts work of a known size and prints ``[progress] step | what 40/200 · 12.5 rows/s · 13 s left · loss 2.31``;
    outside a step, without ``step | ``. ``before`` units were done before this process began."""

    def __init__(
        self, what: str, total: int, unit: str, *, before: int = 0, every: float = 2.0, out: TextIO | None = None
    ) -> None:
        self.what, self.total, self.unit, self.every = what, total, unit, every
        self.done = self.before = before
        self._out = out or sys.stdout
        self._start = self._last = time.monotonic()

    def advance(self, count: int = 1, note: str = "") -> None:
        """Add ``count`` finished units; prints when a beat is due or the work is complete."""
        self.done += count
        now = time.monotonic()
        if self.done >= self.total or now - self._last >= self.every:
            self._last = now
            print(self.line(now, note), file=self._out, flush=True)

    def line(self, now: float, note: str = "") -> str:
        """The line for the moment ``now`` (seconds of ``time.monotonic``)."""
        rate = (self.done - self.before) / max(now - self._start, 1e-9)
        left = max(self.total - self.done, 0) / rate if rate else 0.0
        parts = [f"{self.what} {self.done}/{self.total}", f"{rate:.1f} {self.unit}/s", f"{left:.0f} s left"]
        step = os.environ.get(STEP_VARIABLE)
        return f"{PREFIX} {f'{step} | ' if step else ''}" + " · ".join([*parts, *([note] if note else [])])
