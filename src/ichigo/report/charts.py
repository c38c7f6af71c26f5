"""Curves as inline SVG, and intervals and spans of time as marks on a track. Numbers in, markup out.

A chart is drawn 380 units wide and shown about as wide, on a desk beside others and on a phone alone, so that its
letters keep their size.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ichigo.report.markup import Html, tag

_WIDTH, _HEIGHT = 380, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 6, 8, 22  # around the plot
_BUCKETS = 150  # of steps; a point of a curve is the mean of a bucket
_TICKS = 4

Points = Sequence[tuple[float, float]]
"""(step, value), finite, in the order of their steps."""


@dataclass(frozen=True)
class Curve:
    """A named line; ``style`` is the class of its stroke ("" for the accent)."""

    name: str
    points: Points
    style: str = ""


@dataclass(frozen=True)
class _Scale:
    """Data to units: ``low`` to ``start``, ``high`` to ``end``."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return round(self.start + share * (self.end - self.start), 1)


def finite(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points that can be drawn, in the order of their steps."""
    return sorted((step, value) for step, value in points if math.isfinite(value))


def curves(lines: Sequence[Curve], band: bool = True) -> Html:
    """Lines on one pair of axes; with ``band`` the first has the range of its values around it.

    A line has at most 150 points, each the mean of neighbouring steps.
    """
    known = [line for line in lines if line.points]
    if not known:
        return tag("p", "no points", class_="quiet")
    steps = [step for line in known for step, _ in line.points]
    values = [value for line in known for _, value in line.points]
    across = _Scale(min(steps), max(steps), _LEFT, _WIDTH - _RIGHT)
    ticks = _ticks(min(values), max(values))
    up = _Scale(min(ticks[0], min(values)), max(ticks[-1], max(values)), _HEIGHT - _BOTTOM, _TOP)
    drawn = [_band(known[0].points, across, up)] if band else []
    drawn += [_line(line, across, up) for line in known]
    title = ", ".join(line.name for line in known)
    return tag(
        "svg", *_axes(ticks, across, up), *drawn, viewBox=f"0 0 {_WIDTH} {_HEIGHT}", role="img", aria_label=title
    )


def swatch(style: str) -> Html:
    """A piece of the line that has this style, for a key."""
    line = tag("line", x1=0, y1=4, x2=26, y2=4, class_=f"line {style}".strip())
    return tag("svg", line, viewBox="0 0 26 8", aria_hidden="true")


def interval(value: float, low: float | None, high: float | None, bar: float | None = None, kind: str = "") -> Html:
    """A share in [0, 1] on a track, its interval around it and a bar to be reached."""
    marks = []
    if low is not None and high is not None:
        left, right = _percent(low), _percent(high)
        marks.append(tag("i", class_="span", style=f"left:{left:g}%;width:{round(right - left, 2):g}%"))
    if bar is not None:
        marks.append(tag("i", class_="bar", style=f"left:{_percent(bar):g}%"))
    marks.append(tag("i", class_="dot", style=f"left:{_percent(value):g}%"))
    return tag("span", *marks, class_=f"track {kind}".strip())


def span(begin: float, end: float, total: float, hot: bool) -> Html:
    """From ``begin`` to ``end`` of ``total`` seconds."""
    whole = max(total, 1e-9)
    left, right = _percent(begin / whole), _percent(end / whole)
    mark = tag("i", class_="span hot" if hot else "span", style=f"left:{left:g}%;width:{round(right - left, 2):g}%")
    return tag("span", mark, class_="track time")


def _percent(share: float) -> float:
    return round(100.0 * min(max(share, 0.0), 1.0), 2)


def _axes(ticks: Sequence[float], across: _Scale, up: _Scale) -> list[Html]:
    marks = []
    for tick in ticks:
        y = up.at(tick)
        marks.append(tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="rule"))
        marks.append(tag("text", number(tick), x=_LEFT - 7, y=y + 4, text_anchor="end"))
    for step, anchor in ((across.low, "start"), ((across.low + across.high) / 2, "middle"), (across.high, "end")):
        marks.append(tag("text", number(round(step)), x=across.at(step), y=_HEIGHT - 5, text_anchor=anchor))
    return marks


def _line(line: Curve, across: _Scale, up: _Scale) -> Html:
    points = " ".join(f"{across.at(step)},{up.at(mean)}" for step, mean, _, _ in _buckets(line.points))
    return tag("polyline", tag("title", line.name), points=points, class_=f"line {line.style}".strip())


def _band(points: Points, across: _Scale, up: _Scale) -> Html:
    buckets = _buckets(points)
    above = [f"{across.at(step)},{up.at(highest)}" for step, _, _, highest in buckets]
    below = [f"{across.at(step)},{up.at(lowest)}" for step, _, lowest, _ in reversed(buckets)]
    return tag("polygon", points=" ".join([*above, *below]), class_="band")


def _buckets(points: Points) -> list[tuple[float, float, float, float]]:
    """(step, mean, lowest, highest) of neighbouring points, in at most 150 buckets."""
    size = math.ceil(len(points) / _BUCKETS)
    parts = [points[start : start + size] for start in range(0, len(points), size)]
    return [_bucket(part) for part in parts]


def _bucket(points: Points) -> tuple[float, float, float, float]:
    values = [value for _, value in points]
    return (
        math.fsum(step for step, _ in points) / len(points),
        math.fsum(values) / len(values),
        min(values),
        max(values),
    )


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers from at or below ``low`` to at or above ``high``, some four steps apart (1, 2 or 5 times a power of
    ten)."""
    reach = (high - low) or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(reach / _TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * _TICKS >= reach * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [count * step for count in range(first, max(last, first + 1) + 1)]


def number(value: float) -> str:
    """A number for an axis: 12,000 or 0.0035."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        return f"{value:.2g}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == round(value) else f"{value:.3g}"
