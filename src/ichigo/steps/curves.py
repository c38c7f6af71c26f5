"""The curves of a training: points of its journal on their way to MLflow, in batches."""

from __future__ import annotations

import time

from ichigo.steps.context import Step
from ichigo.tracking.runs import Point
from ichigo.training import journal

_SHIP_SECONDS = 5.0
_CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second")


class Shipper:
    """Collects the journal's points and sends them to MLflow every few seconds."""

    def __init__(self, step: Step) -> None:
        self._step, self._last = step, time.monotonic()
        self._points: list[Point] = []

    def add(self, point: journal.Point) -> None:
        """Take one line of the journal."""
        step, moment = int(point["step"]), int(point["time"])
        self._points += [Point(name, point[name], step, moment) for name in _CURVES]
        if time.monotonic() - self._last > _SHIP_SECONDS:
            self.ship()

    def ship(self) -> None:
        """Send what has been collected."""
        points, self._points, self._last = self._points, [], time.monotonic()
        if points:
            self._step.log_points(points)
