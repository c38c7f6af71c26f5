"""Results beside the bars: measure, bar and result of one run, or of several seeds the mean with its interval and each.

What is shown, in what unit, and the bars of each recipe are in ``bars.yaml`` beside this file. A measure that no run
has is left out, so a recipe without such suites has no table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from ichigo.evaluation.group import mean_interval

Metrics = Mapping[str, float]

_FILE = Path(__file__).with_name("bars.yaml")
_LABEL, _BAR = 59, 13  # columns of the plain table

_UNITS: dict[str, tuple[float, int, str]] = {
    "percent": (100.0, 1, " %"),
    "points": (1.0, 1, ""),
    "p": (1.0, 2, ""),
    "count": (1.0, 0, ""),
    "seconds": (1.0, 0, " s"),
    "GiB": (2.0**-30, 2, " GiB"),
}
"""Unit -> factor, digits, and what stands behind a bar."""


@dataclass(frozen=True)
class Measure:
    """One line of the table."""

    metric: str
    label: str
    unit: str

    def number(self, value: float) -> str:
        """``value`` in the measure's unit, without the unit."""
        factor, digits, _ = _UNITS[self.unit]
        return f"{factor * value:.{digits}f}"

    def with_unit(self, value: float) -> str:
        """``88.0 %``."""
        return self.number(value) + _UNITS[self.unit][2]

    def result(self, metrics: Metrics) -> str:
        """The value with its interval, where it has one; ``-`` where it is missing."""
        value, low, high = (metrics.get(f"{self.metric}{end}") for end in ("", ".low", ".high"))
        if value is None:
            return "-"
        interval = "" if low is None or high is None else f" [{self.number(low)}, {self.number(high)}]"
        return self.number(value) + interval


@dataclass(frozen=True)
class Bar:
    """What a value must reach or must not exceed."""

    at_least: float | None = None
    at_most: float | None = None

    def kept(self, value: float) -> bool:
        """Whether ``value`` keeps the bar; not finite never does."""
        above = self.at_least is None or value >= self.at_least
        return math.isfinite(value) and above and (self.at_most is None or value <= self.at_most)

    def words(self, measure: Measure) -> str:
        """``≥ 88.0 %``."""
        sides = (("≥", self.at_least), ("≤", self.at_most))
        return " ".join(f"{sign} {measure.with_unit(bound)}" for sign, bound in sides if bound is not None)


@dataclass(frozen=True)
class Row:
    """One measure over one or more runs.

    Attributes:
        bar: None where the recipe sets none.
        results: value and interval of each run, as text.
        mean: of the runs; None where a run lacks the measure, and of p-values, whose mean says nothing.
        interval: of the mean over runs (:mod:`ichigo.evaluation.group`); None without a mean and of a single run.
        kept: whether the mean keeps the bar; None without bar or mean.
    """

    measure: Measure
    bar: Bar | None
    results: tuple[str, ...]
    mean: float | None
    interval: tuple[float, float] | None = None

    @property
    def mean_words(self) -> str:
        """The mean with its interval, or ``-``."""
        if self.mean is None:
            return "-"
        ends = f" [{', '.join(map(self.measure.number, self.interval))}]" if self.interval else ""
        return self.measure.number(self.mean) + ends

    @property
    def kept(self) -> bool | None:
        return None if self.bar is None or self.mean is None else self.bar.kept(self.mean)

    @property
    def bar_words(self) -> str:
        """The bar, or nothing."""
        return self.bar.words(self.measure) if self.bar else ""

    @property
    def verdict(self) -> str:
        """``kept``, ``missed``, or nothing where nothing is asked; a bar without a result is missed."""
        if self.bar is None:
            return ""
        return "kept" if self.kept else "missed"


def known() -> list[str]:
    """The metrics that the table can show, in its order."""
    return [measure.metric for measure in _read()[0]]


def measures() -> tuple[Measure, ...]:
    """Every line that the table can have, in its order."""
    return _read()[0]


def bars(recipe: str) -> dict[str, Bar]:
    """The bars of a recipe by metric; none where it sets none."""
    return _read()[1].get(recipe, {})


def rows(runs: Sequence[Metrics], recipe: str) -> list[Row]:
    """The table of ``runs`` of the recipe named ``recipe``: every measure that a run has, in the file's order."""
    asked, metrics = bars(recipe), set().union(*runs)
    return [_row(one, asked.get(one.metric), runs) for one in _read()[0] if one.metric in metrics]


def _row(measure: Measure, bar: Bar | None, runs: Sequence[Metrics]) -> Row:
    known = [run[measure.metric] for run in runs if measure.metric in run]
    results = tuple(measure.result(run) for run in runs)
    if len(known) < len(runs) or measure.unit == "p":
        return Row(measure, bar, results, None)
    mean, low, high = mean_interval(known)
    return Row(measure, bar, results, mean, (low, high) if len(known) > 1 else None)


def plain(metrics: Metrics, recipe: str) -> list[str]:
    """The table of one run for a terminal: measure, bar, result with its interval."""
    table = rows([metrics], recipe)
    lines = [f"{row.measure.label:<{_LABEL}}{row.bar_words:<{_BAR}}{row.results[0]}{_flag(row)}" for row in table]
    return [f"{'measure':<{_LABEL}}{'bar':<{_BAR}}result [95 %]", *lines] if lines else []


def reported(metrics: Metrics, recipe: str) -> list[Row]:
    """The table of one run; every number that has an interval, under its own name, where no suite of it was asked."""
    known = rows([metrics], recipe)
    if any(not row.measure.metric.startswith("tokenizer.") for row in known):
        return known
    names = sorted(name for name in metrics if f"{name}.low" in metrics)
    ours = [Measure(name, name.replace("_", " ").replace(".", ": ", 1), "percent") for name in names]
    return [Row(one, None, (one.result(metrics),), metrics[one.metric]) for one in ours]


COLUMNS = ("measure", "metric", "value", "low", "high", "bar", "kept")
"""Of :func:`plain_rows`."""


def plain_rows(metrics: Metrics, recipe: str) -> list[list[str | float | None]]:
    """What :func:`reported` gives, as data: numbers in the metrics' own units, the bar in words."""
    found: list[list[str | float | None]] = []
    for row in reported(metrics, recipe):
        name = row.measure.metric
        numbers = [metrics.get(f"{name}{end}") for end in ("", ".low", ".high")]
        found.append([row.measure.label, name, *numbers, row.bar_words, row.verdict])
    return found


def _flag(row: Row) -> str:
    return "  missed" if row.verdict == "missed" else ""


def markdown(runs: Mapping[str, Metrics], recipe: str) -> str:
    """The table of several runs by their names, in Markdown: measure, bar, mean, whether it keeps the bar, each run."""
    table = rows(list(runs.values()), recipe)
    head = ["measure", "bar", "mean", "", *runs]
    lines = [
        [
            row.measure.label,
            row.bar_words,
            row.mean_words,
            row.verdict,
            *row.results,
        ]
        for row in table
    ]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines]) + "\n"


@cache
def _read() -> tuple[tuple[Measure, ...], dict[str, dict[str, Bar]]]:
    content: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    measures = tuple(Measure(**entry) for entry in content["measures"])
    goals = {name: {metric: Bar(**bar) for metric, bar in asked.items()} for name, asked in content["bars"].items()}
    return measures, goals
