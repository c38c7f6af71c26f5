"""A fresh look beside the evaluation: the same measures on new questions by new voices, and whether they agree.

Both are samples. If a model is exactly as good on the new items, a rate over 300 of them lies within the interval of
one over 600 with a probability of 74 % (1.96 standard errors of the latter are 1.13 of the difference), and the two
intervals overlap with one of 99.4 % (2.73 of the difference). So ``overlaps`` happens to honest models, and ``apart``
says that the evaluation promised too much or too little.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ichigo.evaluation import table
from ichigo.evaluation.table import Metrics

MEASURES = (
    "spoken.held_out.exact_match",
    "spoken.held_out.without_repeat",
    "spoken.held_out.repeat",
    "transcription.held_out_voices.wer",
    "refusal.false_refusals.rate",
)
_LABEL, _RESULT = 59, 21  # columns
_ROUNDING = 1e-9  # ends of an interval at 0 or 1 are computed, not exact

Agreement = Literal["within", "overlaps", "apart", ""]


@dataclass(frozen=True)
class Line:
    """One measure: what the look found beside what the evaluation found.

    Attributes:
        label: for a person; ``shown`` are both results with their intervals in the measure's unit.
        look: ``value``, ``low`` and ``high`` (95 %), as a share; likewise ``evaluation``, empty where it has none.
        agreement: ``within``: the look's value lies in the evaluation's interval; ``overlaps``: only the intervals
            meet; ``apart``: they do not; "" where the evaluation has no such measure.
    """

    metric: str
    label: str
    shown: tuple[str, str]
    look: Mapping[str, float]
    evaluation: Mapping[str, float]
    agreement: Agreement


def compare(look: Metrics, evaluation: Metrics) -> list[Line]:
    """A line for each of :data:`MEASURES` that ``look`` has, in this order."""
    chosen = [
        {name: value for name, value in metrics.items() if name.startswith(MEASURES)} for metrics in (look, evaluation)
    ]
    rows = {row.measure.metric: row for row in table.rows(chosen, recipe="")}
    return [_line(rows[metric], look, evaluation) for metric in MEASURES if metric in look]


def _line(row: table.Row, look: Metrics, evaluation: Metrics) -> Line:
    metric = row.measure.metric
    found, known = _with_interval(metric, look), _with_interval(metric, evaluation)
    new, old = row.results
    return Line(metric, row.measure.label, (new, old), found, known, _agreement(found, known))


def _with_interval(metric: str, metrics: Metrics) -> dict[str, float]:
    names = {"value": metric, "low": f"{metric}.low", "high": f"{metric}.high"}
    return {name: metrics[key] for name, key in names.items()} if metrics.keys() >= set(names.values()) else {}


def _agreement(found: Mapping[str, float], known: Mapping[str, float]) -> Agreement:
    if not (found and known):
        return ""
    low, high = known["low"] - _ROUNDING, known["high"] + _ROUNDING
    if low <= found["value"] <= high:
        return "within"
    return "overlaps" if found["low"] <= high and low <= found["high"] else "apart"


def plain(lines: Sequence[Line]) -> list[str]:
    """The lines as a table for a terminal."""
    cells = [("measure", "look [95 %]", "evaluation [95 %]", "")]
    cells += [(line.label, *line.shown, line.agreement) for line in lines]
    return [
        f"{label:<{_LABEL}}{new:<{_RESULT}}{old:<{_RESULT}}{agreement}".rstrip() for label, new, old, agreement in cells
    ]
