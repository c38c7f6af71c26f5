"""Metrics from results: every function takes the items of one suite and gives ``<suite>.<name>`` -> number.

Rates are shares in [0, 1]. A number with an interval has its 95 % ends as ``.low`` and ``.high``: Wilson for rates of
independent items, seeded bootstrap for error rates (over speakers where they are known), for rates over clusters and
for paired differences. A suite without items gives ``items`` = 0 and nothing else that could be taken for a
measurement.

Everything is computed from columns of ``items.parquet`` alone, see :mod:`ichigo.evaluation.items`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass

from ichigo.errors import DataError
from ichigo.evaluation.items import ItemResult
from ichigo.evaluation.scorers import Outcome, wilson_interval
from ichigo.evaluation.statistics import bootstrap_ratio, clustered_rate_interval, holm, mcnemar_exact, non_inferiority

Metrics = dict[str, float]

REPEAT = "repeat"  # the topic in which the answer is the user's own words: hearing without understanding

_RATES: dict[str, Outcome] = {
    "exact_match": "right",
    "mute_rate": "empty",
    "degenerate_rate": "degenerate",
    "stray_sound_rate": "stray_sound",
    "refused_rate": "refused",
}
_NAMED = 3  # items that an error message names


def answers(suite: str, results: Sequence[ItemResult]) -> Metrics:
    """``items``, ``exact_match``, ``f1``, the outcome rates of text answers, and the mean ``answer_tokens``."""
    metrics = outcomes(suite, results)
    if results:
        metrics[f"{suite}.f1"] = math.fsum(result.f1 for result in results) / len(results)
        metrics[f"{suite}.answer_tokens"] = sum(result.tokens for result in results) / len(results)
    return metrics


def outcomes(suite: str, results: Sequence[ItemResult]) -> Metrics:
    """``items`` and the rate of each outcome."""
    metrics = {f"{suite}.items": float(len(results))}
    counted = Counter(result.outcome for result in results)
    for name, judged in _RATES.items():
        if results:
            metrics |= rate(f"{suite}.{name}", counted[judged], len(results))
    return metrics


def rate(name: str, successes: int, trials: int) -> Metrics:
    """A share of independent trials with Wilson's interval."""
    low, high = wilson_interval(successes, trials)
    return {name: successes / trials, f"{name}.low": low, f"{name}.high": high}


def topics(suite: str, results: Sequence[ItemResult]) -> Metrics:
    """The share of right answers of each topic, and of all topics but :data:`REPEAT`: ``<suite>.<topic>``."""
    metrics = groups(suite, results, lambda result: result.topic)
    others = [result for result in results if result.topic != REPEAT]
    if 0 < len(others) < len(results):
        metrics |= _group(f"{suite}.without_{REPEAT}", others)
    return metrics


def turns(suite: str, results: Iterable[ItemResult]) -> Metrics:
    """The share of right answers in every first, second ... turn: ``<suite>.turn_1`` and so on."""
    return groups(suite, results, lambda result: f"turn_{result.turn + 1}")


def groups(suite: str, results: Iterable[ItemResult], name: Callable[[ItemResult], str]) -> Metrics:
    """``items`` and the share of right answers of each group that ``name`` gives: ``<suite>.<group>``."""
    members: defaultdict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        members[name(result)].append(result)
    metrics: Metrics = {}
    for group in sorted(filter(None, members)):
        metrics |= _group(f"{suite}.{group}", members[group])
    return metrics


def _group(name: str, results: Sequence[ItemResult]) -> Metrics:
    right = sum(result.right for result in results)
    return {f"{name}.items": float(len(results)), **rate(name, right, len(results))}


def by_fact(suite: str, results: Sequence[ItemResult], seed: int) -> Metrics:
    """Intervals of ``exact_match`` and of each topic over *facts* (the expected answers), each asked by several voices
    in several phrasings; they take the place of Wilson's, which would count them as independent."""
    metrics: Metrics = {f"{suite}.facts": float(len({result.reference for result in results}))} if results else {}
    named: defaultdict[str, list[ItemResult]] = defaultdict(list)
    for result in results:
        named["exact_match"].append(result)
        named[result.topic].append(result)
    for group, members in named.items():
        right, facts = [result.right for result in members], [result.reference for result in members]
        if group:
            low, high = clustered_rate_interval(right, facts, seed)
            metrics |= {f"{suite}.{group}.low": low, f"{suite}.{group}.high": high}
    return metrics


def transcripts(suite: str, results: Sequence[ItemResult], seed: int) -> Metrics:
    """``wer`` and ``cer`` over the corpus, and the rate of each outcome."""
    metrics = outcomes(suite, results)
    if results:
        words = [(result.errors or 0, result.units or 0) for result in results]
        letters = [(result.char_errors or 0, result.char_units or 0) for result in results]
        metrics |= error_rate(f"{suite}.wer", words, blocks(results), seed)
        metrics |= error_rate(f"{suite}.cer", letters, blocks(results), seed)
    return metrics


def speech(suite: str, said: Sequence[ItemResult], real: Sequence[ItemResult], seed: int) -> Metrics:
    """Generated speech: ``wer`` of what a recogniser hears in it, ``real_wer`` of what the same recogniser hears in
    recordings of the same texts, and ``tokens_per_second``: sound tokens for each second that a person takes to say
    the text (25 is a person's own pace). Beside these the rate of each outcome."""
    metrics = outcomes(suite, said)
    for name, results in (("wer", said), ("real_wer", real)):
        if results:
            counted = [(result.errors or 0, result.units or 0) for result in results]
            metrics |= error_rate(f"{suite}.{name}", counted, blocks(results), seed)
    if said:
        counts, seconds = [float(result.tokens) for result in said], [result.seconds for result in said]
        low, high = bootstrap_ratio(counts, seconds, blocks(said), seed)
        pace = f"{suite}.tokens_per_second"
        metrics |= {pace: math.fsum(counts) / math.fsum(seconds), f"{pace}.low": low, f"{pace}.high": high}
    return metrics


def error_rate(name: str, counted: Sequence[tuple[int, int]], clusters: Sequence[Hashable], seed: int) -> Metrics:
    """Errors per reference unit, from errors and units of each item; whole ``clusters`` are resampled."""
    errors, units = [float(one) for one, _ in counted], [float(one) for _, one in counted]
    low, high = bootstrap_ratio(errors, units, clusters, seed)
    return {name: math.fsum(errors) / math.fsum(units), f"{name}.low": low, f"{name}.high": high}


def blocks(results: Sequence[ItemResult]) -> list[str]:
    """What goes together of ``results``: all that a speaker said, where every one is known and there are at least two;
    else single utterances."""
    speakers = [result.speaker for result in results]
    if all(speakers) and len(set(speakers)) > 1:
        return speakers
    return [f"{result.id} {result.turn}" for result in results]


def lost_points(
    suite: str, before: Sequence[ItemResult], after: Sequence[ItemResult], margin: float, seed: int
) -> Metrics:
    """``lost_points``: percentage points of exact match that ``after`` lacks of ``before``, on the same items.

    Positive is a loss. The interval resamples pairs by the expected answer; ``p`` is McNemar's exact p. Whether less
    than ``margin`` points are lost: ``non_inferior`` (1 or 0), ``bound`` (points, one-sided 95 %), ``power`` and
    ``items_needed``, see :func:`~ichigo.evaluation.statistics.non_inferiority`.
    """
    pairs = paired(before, after)
    if not pairs:
        return {}
    lost, facts = [first.right - second.right for first, second in pairs], [first.reference for first, _ in pairs]
    low, high = bootstrap_ratio([100.0 * one for one in lost], [1.0] * len(lost), facts, seed)
    test, name = non_inferiority(lost, facts, margin / 100, seed), f"{suite}.lost_points"
    return {
        name: 100 * sum(lost) / len(lost),
        f"{name}.low": low,
        f"{name}.high": high,
        f"{name}.p": mcnemar_exact(lost.count(1), lost.count(-1)),
        f"{suite}.bound": 100 * test.bound,
        f"{suite}.non_inferior": float(test.shown),
        f"{suite}.power": test.power,
        f"{suite}.items_needed": float(test.items_needed),
    }


def against(
    suite: str, system: str, direct: Sequence[ItemResult], other: Sequence[ItemResult], *, by_fact: bool = False
) -> Metrics:
    """How the answers of ``system`` differ from the model's direct ones to the same items.

    ``only_direct`` and ``only_<system>`` count the items that one alone has right, ``p`` is McNemar's exact p of them.
    With ``by_fact`` the unit is a fact instead, asked several times and counted for whoever has it right more often (a
    sign test), because the answers of one fact are not independent.
    """
    pairs, lead = paired(direct, other), Counter[object]()
    for first, second in pairs:
        lead[first.reference if by_fact else first.key] += first.right - second.right
    ours, theirs = sum(value > 0 for value in lead.values()), sum(value < 0 for value in lead.values())
    found = {"only_direct": float(ours), f"only_{system}": float(theirs), "p": mcnemar_exact(ours, theirs)}
    return {f"{suite}.{system}.{name}": value for name, value in found.items()} if pairs else {}


def false_refusals(suite: str, results: Sequence[ItemResult]) -> Metrics:
    """``rate``: the share of clean questions that got a refusal."""
    asked = [result for result in results if not result.expects_refusal]
    refused = sum(result.outcome == "refused" for result in asked)
    return {f"{suite}.items": float(len(asked)), **(rate(f"{suite}.rate", refused, len(asked)) if asked else {})}


def family(metrics: Metrics) -> Metrics:
    """``p_holm`` beside every ``p``: all tests of one report are a family."""
    adjusted = holm({name: value for name, value in metrics.items() if name.endswith(".p")})
    return {f"{name}_holm": value for name, value in adjusted.items()}


@dataclass(frozen=True)
class _Asked:
    """What makes an item the same for two systems."""

    id: str
    turn: int
    question: str
    reference: str

    @classmethod
    def of(cls, result: ItemResult) -> _Asked:
        return cls(result.id, result.turn, result.question, result.reference)

    def __str__(self) -> str:
        return f"{self.id} turn {self.turn}" if self.turn else self.id


def paired(first: Sequence[ItemResult], second: Sequence[ItemResult]) -> list[tuple[ItemResult, ItemResult]]:
    """Both results of each item, in the order of ids and turns.

    Raises:
        DataError: the two were not asked the same items: another id, question or expected answer, with those.
    """
    left, right = ({_Asked.of(result): result for result in results} for results in (first, second))
    if left.keys() != right.keys():
        raise DataError(
            f"{_who(first)} and {_who(second)} were not asked the same items, so their answers cannot be paired: "
            f"{_only(left.keys() - right.keys())} of the first, {_only(right.keys() - left.keys())} of the second have "
            "no counterpart; evaluate both on the same rows"
        )
    return [(left[asked], right[asked]) for asked in sorted(left, key=lambda asked: (asked.id, asked.turn))]


def _who(results: Sequence[ItemResult]) -> str:
    return f"{results[0].system} in {results[0].suite}" if results else "nobody"


def _only(items: Iterable[_Asked]) -> str:
    names = sorted(map(str, items))
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED]) or 'none'}{more}"
