"""What came of a benchmark: every item with both scores, the metrics, the table and the Parquet file of items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.evaluation.benchmarks.rows import Benchmark, Scoring
from ichigo.evaluation.choices import Likelihoods, choice_metrics, likelihood_metrics
from ichigo.evaluation.measures import Metrics, error_rate, rate
from ichigo.evaluation.statistics import bootstrap_ratio

ITEMS_FILE = "items.parquet"

_LABELS: Mapping[Scoring, tuple[str, str]] = {
    "choice": ("letter found, else a draw", "right option named"),
    "refusal": ("refusal phrases", "refused or said nothing"),
    "words": ("word errors, Whisper's words", "word errors, our words"),
    "match": ("words of the right option alone", "right option named"),
    "judge": ("needs a hosted judge", "token F1"),
}


@dataclass(frozen=True)
class Item:
    """One reply, scored twice.

    Attributes:
        set, id, words, reference: as its row tells them.
        reply: the text of the answer.
        tokens: generated ids without the stop id.
        outcome: our word for it: of multiple choice one of five, otherwise that of any answer.
        theirs: its authors' score, for ``words`` the errors; nan where it needs a judge.
        ours: our score, likewise; nan where there is no reference.
        their_units, our_units: reference words for ``words``, otherwise 1.
        options: log-likelihood of each letter, of ``choice`` alone.
    """

    set: str
    id: str
    words: str
    reference: str
    reply: str
    tokens: int
    outcome: str
    theirs: float
    ours: float
    their_units: int = 1
    our_units: int = 1
    options: tuple[float, ...] = ()


@dataclass(frozen=True)
class SetReport:
    """The items of one set, and how many rows were set aside, by reason."""

    name: str
    benchmark: Benchmark
    scoring: Scoring
    items: tuple[Item, ...]
    set_aside: Mapping[str, int]

    def metrics(self, seed: int) -> Metrics:
        """``<set>.items``, ``.set_aside``, ``.theirs`` and ``.ours`` with 95 % intervals, and, for multiple choice,
        the outcomes and the accuracy by likelihood. A score that no item has is missing."""
        metrics: Metrics = {
            f"{self.name}.items": float(len(self.items)),
            f"{self.name}.set_aside": float(sum(self.set_aside.values())),
        }
        metrics |= self._score("theirs", [(item.theirs, item.their_units) for item in self.items], seed)
        metrics |= self._score("ours", [(item.ours, item.our_units) for item in self.items], seed)
        if self.scoring == "choice":
            metrics |= self._choice()
        return metrics

    def _score(self, way: str, scores: Sequence[tuple[float, int]], seed: int) -> Metrics:
        known = [(score, units) for score, units in scores if units and not math.isnan(score)]
        name = f"{self.name}.{way}"
        if not known:
            return {}
        if self.scoring == "words":
            return error_rate(name, [(int(score), units) for score, units in known], range(len(known)), seed)
        values = [score for score, _ in known]
        if set(values) <= {0.0, 1.0}:
            return rate(name, int(sum(values)), len(values))
        low, high = bootstrap_ratio(values, [1.0] * len(values), range(len(values)), seed)
        return {name: math.fsum(values) / len(values), f"{name}.low": low, f"{name}.high": high}

    def _choice(self) -> Metrics:
        outcomes = [item.outcome for item in self.items]
        found = [Likelihoods(item.options, (1,) * len(item.options)) for item in self.items]
        answers = ["ABCD".index(item.reference) for item in self.items]
        by_letter = likelihood_metrics(self.name, found, answers)
        by_letter = {name: value for name, value in by_letter.items() if "per_character" not in name}
        return choice_metrics(self.name, outcomes) | by_letter  # type: ignore[arg-type]  # outcomes of a choice


def write_items(reports: Sequence[SetReport], folder: Path) -> Path:
    """Every item of every set in ``folder/items.parquet``, by set and in the order of its rows; equal reports give
    equal bytes."""
    columns = {
        "set": pa.string(), "id": pa.string(), "words": pa.string(), "reference": pa.string(), "reply": pa.string(),
        "tokens": pa.int64(), "outcome": pa.string(), "theirs": pa.float64(), "ours": pa.float64(),
        "their_units": pa.int64(), "our_units": pa.int64(), "options": pa.list_(pa.float64()),
    }  # fmt: skip
    assert list(columns) == [part.name for part in fields(Item)]
    rows = [asdict(item) for report in sorted(reports, key=lambda one: one.name) for item in report.items]
    table = pa.Table.from_pylist(rows, schema=pa.schema(columns))
    pq.write_table(table, folder / ITEMS_FILE)
    return folder / ITEMS_FILE


def plain(reports: Sequence[SetReport], metrics: Metrics) -> str:
    """Both ways side by side, a line per set, then what else there is to say about it."""
    lines = [f"{'set':<24} {'items':>5}  {'their way':<24} {'our way':<24}"]
    for report in sorted(reports, key=lambda one: one.name):
        theirs, ours = _percent(metrics, f"{report.name}.theirs"), _percent(metrics, f"{report.name}.ours")
        lines.append(f"{report.name:<24} {len(report.items):>5}  {theirs:<24} {ours:<24}".rstrip())
        lines += [f"    {note}" for note in _notes(report, metrics)]
    return "\n".join(lines)


def _notes(report: SetReport, metrics: Metrics) -> Iterator[str]:
    yield f"{report.benchmark}: {_LABELS[report.scoring][0]}; ours: {_LABELS[report.scoring][1]}"
    if report.scoring == "choice":
        yield f"by likelihood of the letter {_percent(metrics, f'{report.name}.likelihood.accuracy')}"
    counted = Counter(item.outcome for item in report.items)
    yield "outcomes: " + ", ".join(f"{count} {name}" for name, count in sorted(counted.items()))
    if report.set_aside:
        reasons = ", ".join(f"{count} {name}" for name, count in sorted(report.set_aside.items()))
        yield f"set aside: {reasons}"


def _percent(metrics: Metrics, name: str) -> str:
    if name not in metrics:
        return "-"
    value, low, high = (100 * metrics[f"{name}{end}"] for end in ("", ".low", ".high"))
    return f"{value:.1f} % [{low:.1f}, {high:.1f}]"
