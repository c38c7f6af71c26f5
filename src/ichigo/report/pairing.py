"""Items of two evaluations, paired: what differs, and the test of it; or the reason why they cannot be paired.

Both were asked the same question and judged by the same reference, or their suite is not compared: a difference between
different items is no difference between models. ``first`` is the one compared with, ``second`` the one compared.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from ichigo.evaluation.items import MODEL, ItemResult
from ichigo.evaluation.scorers import word_errors
from ichigo.evaluation.statistics import bootstrap_ratio, holm, mcnemar_exact

Metrics = Mapping[str, float]
Key = tuple[str, int]
"""The id of an item and its turn."""
Pair = tuple[ItemResult, ItemResult]

_NAMED = 3  # items that a refusal names of each kind


@dataclass(frozen=True)
class Refusal:
    """Why a suite is not compared: ids that one side alone was asked, and ids whose question or reference differs."""

    suite: str
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    changed: tuple[str, ...]

    def __str__(self) -> str:
        sides = (("only the first was asked", self.only_first), ("only the second was asked", self.only_second))
        parts = [*sides, ("another question or reference has", self.changed)]
        return f"{self.suite}: not paired, " + "; ".join(f"{what} {_named(ids)}" for what, ids in parts if ids)


@dataclass(frozen=True)
class Difference:
    """One suite, the same items asked of both.

    Attributes:
        measure: ``exact match`` (more is better) or ``word errors`` (fewer are).
        first: the share of the first, in [0, 1] but for word errors; likewise ``second``.
        points: percentage points that the second has more; ``low`` and ``high`` its 95 % interval, from pairs that are
            resampled with everything that belongs to their unit.
        unit: what counts as one: an item, or a fact that was asked several times.
        first_ahead: units that the first does better; likewise ``second_ahead``.
        p: McNemar's exact p of these two (a sign test).
        adjusted: ``p`` after Holm, over all tests of the comparison.
    """

    suite: str
    measure: str
    items: int
    first: float
    second: float
    points: float
    low: float
    high: float
    unit: str
    first_ahead: int
    second_ahead: int
    p: float
    adjusted: float = 1.0


def suites(items: Iterable[ItemResult]) -> dict[str, dict[Key, ItemResult]]:
    """The items by suite and key, without those of other systems (a cascade, the base model)."""
    found: dict[str, dict[Key, ItemResult]] = {}
    for item in items:
        if item.system == MODEL:
            found.setdefault(item.suite, {})[item.key] = item
    return {name: found[name] for name in sorted(found)}


def paired(suite: str, first: Mapping[Key, ItemResult], second: Mapping[Key, ItemResult]) -> list[Pair] | Refusal:
    """Both results of every item, in the order of ids and turns."""
    both = first.keys() & second.keys()
    changed = [key for key in both if _asked(first[key]) != _asked(second[key])]
    if first.keys() != second.keys() or changed:
        return Refusal(suite, _ids(first.keys() - both), _ids(second.keys() - both), _ids(changed))
    return [(first[key], second[key]) for key in sorted(both)]


def difference(suite: str, pairs: Sequence[Pair], metrics: Metrics, seed: int) -> Difference:
    """What ``pairs``, at least one, say; ``metrics`` of either evaluation tell how the suite is scored."""
    by_fact = f"{suite}.facts" in metrics
    units = [one.reference if by_fact else one.id for one, _ in pairs]
    words = f"{suite}.wer" in metrics
    scores = [_errors(pair) if words else (float(pair[0].right), float(pair[1].right), 1.0) for pair in pairs]
    whole = math.fsum(weight for *_, weight in scores)
    first, second = (math.fsum(score[side] for score in scores) / whole for side in (0, 1))
    changes = [100.0 * (score[1] - score[0]) for score in scores]
    low, high = bootstrap_ratio(changes, [weight for *_, weight in scores], units, seed)
    lead: Counter[str] = Counter()
    for unit, score in zip(units, scores, strict=True):
        lead[unit] += int(score[0] - score[1]) * (-1 if words else 1)
    ahead = sum(value > 0 for value in lead.values()), sum(value < 0 for value in lead.values())
    measure, unit = "word errors" if words else "exact match", "fact" if by_fact else "item"
    points = 100.0 * (second - first)
    return Difference(
        suite, measure, len(pairs), first, second, points, low, high, unit, *ahead, p=mcnemar_exact(*ahead)
    )


def adjusted(found: Mapping[str, Difference]) -> dict[str, Difference]:
    """All differences of a comparison with Holm's p-values; keys tell them apart."""
    family = holm({name: one.p for name, one in found.items()})
    return {name: replace(one, adjusted=family[name]) for name, one in found.items()}


def _errors(pair: Pair) -> tuple[float, float, float]:
    """Word errors of both, and the words of their reference."""
    first, second = (word_errors(one.reference, one.hypothesis) for one in pair)
    return float(first.errors), float(second.errors), float(first.units)


def _asked(item: ItemResult) -> tuple[str, str]:
    return item.question, item.reference


def _ids(keys: Iterable[Key]) -> tuple[str, ...]:
    return tuple(sorted({name for name, _ in keys}))


def _named(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _NAMED} more" if len(ids) > _NAMED else ""
    return f"{len(ids)} items ({', '.join(ids[:_NAMED])}{more})"
