"""Metrics from results: every function takes the items of one suite and gives ``<suite>.<name>`` -> number.

Rates are shares in [0, 1]. A number with an interval has its 95 % ends as ``.low`` and ``.high``: Wilson for rates of
independent items, seeded bootstrap for error rates, for rates over clusters and for paired differences. A suite without
items gives ``items`` = 0 and nothing else that could be taken for a measurement.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence

from ichigo.evaluation.items import ItemResult
from ichigo.evaluation.scorers import (
    ErrorRate,
    Outcome,
    character_errors,
    normalise,
    token_f1,
    wilson_interval,
    word_errors,
)
from ichigo.evaluation.statistics import bootstrap_ratio, clustered_rate_interval, mcnemar_exact

Metrics = dict[str, float]

REPEAT = "repeat"  # the topic in which the answer is the user's own words: hearing without understanding

_RATES: dict[str, Outcome] = {
    "exact_match": "right",
    "mute_rate": "empty",
    "degenerate_rate": "degenerate",
    "stray_sound_rate": "stray_sound",
}


def answers(suite: str, results: Sequence[ItemResult]) -> Metrics:
    """``items``, ``exact_match``, ``f1`` and the outcome rates of text answers."""
    metrics = outcomes(suite, results)
    if results:
        f1 = math.fsum(token_f1(result.reference, result.hypothesis) for result in results)
        metrics[f"{suite}.f1"] = f1 / len(results)
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


def turns(suite: str, conversations: Iterable[Sequence[ItemResult]]) -> Metrics:
    """The share of right answers in every first, second ... turn: ``<suite>.turn_1`` and so on."""
    results = [result for conversation in conversations for result in conversation]
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
    """``wer`` and ``cer`` over the corpus, resampled by utterance, and the rate of each outcome."""
    metrics = outcomes(suite, results)
    for name, errors in (("wer", word_errors), ("cer", character_errors)):
        if results:
            counted = [errors(result.reference, result.hypothesis) for result in results]
            metrics |= error_rate(f"{suite}.{name}", counted, seed)
    return metrics


def error_rate(name: str, counted: Sequence[ErrorRate], seed: int) -> Metrics:
    """Errors per reference unit, each entry of ``counted`` being an utterance."""
    errors, units = [float(one.errors) for one in counted], [float(one.units) for one in counted]
    low, high = bootstrap_ratio(errors, units, range(len(counted)), seed)
    return {name: sum(counted, ErrorRate()).rate, f"{name}.low": low, f"{name}.high": high}


def lost_points(suite: str, before: Sequence[ItemResult], after: Sequence[ItemResult], seed: int) -> Metrics:
    """``lost_points``: percentage points of exact match that ``after`` lacks of ``before``, on the same items.

    Positive is a loss. The interval resamples pairs by the expected answer; ``p`` is McNemar's exact p.
    """
    pairs = _pairs(before, after)
    if not pairs:
        return {}
    lost = [100.0 * (first.right - second.right) for first, second in pairs]
    low, high = bootstrap_ratio(lost, [1.0] * len(lost), [first.reference for first, _ in pairs], seed)
    name, p = f"{suite}.lost_points", mcnemar_exact(*_discordant(pairs, _item))
    return {name: math.fsum(lost) / len(lost), f"{name}.low": low, f"{name}.high": high, f"{name}.p": p}


def against_cascade(
    suite: str, direct: Sequence[ItemResult], cascade: Sequence[ItemResult], *, by_fact: bool = False
) -> Metrics:
    """The cascade's own metrics and how it differs from direct answers to the same items.

    ``only_direct`` and ``only_cascade`` count the items that one alone has right, ``p`` is McNemar's exact p of them.
    With ``by_fact`` the unit is a fact instead, asked several times and counted for whoever has it right more often (a
    sign test), because the answers of one fact are not independent.
    """
    metrics, pairs = answers(f"{suite}.cascade", cascade), _pairs(direct, cascade)
    if pairs:
        first, second = _discordant(pairs, _fact if by_fact else _item)
        counts = {"only_direct": float(first), "only_cascade": float(second), "p": mcnemar_exact(first, second)}
        metrics |= {f"{suite}.cascade.{name}": value for name, value in counts.items()}
    return metrics


def false_refusals(suite: str, results: Sequence[ItemResult], refusals: Iterable[str]) -> Metrics:
    """``rate``: the share of clean questions that got a refusal."""
    known = set(map(normalise, refusals))
    asked = [result for result in results if normalise(result.reference) not in known]
    refused = sum(normalise(result.hypothesis) in known for result in asked)
    return {f"{suite}.items": float(len(asked)), **(rate(f"{suite}.rate", refused, len(asked)) if asked else {})}


Pair = tuple[ItemResult, ItemResult]


def _pairs(first: Sequence[ItemResult], second: Sequence[ItemResult]) -> list[Pair]:
    """Both results of each item, in the order of ids; KeyError where the second lacks an item of the first."""
    other: Mapping[str, ItemResult] = {result.id: result for result in second}
    return [(result, other[result.id]) for result in sorted(first, key=_item)]


def _discordant(pairs: Iterable[Pair], unit: Callable[[ItemResult], str]) -> tuple[int, int]:
    """Units that the first, and that the second, has right more often."""
    lead: Counter[str] = Counter()
    for first, second in pairs:
        lead[unit(first)] += first.right - second.right
    return sum(value > 0 for value in lead.values()), sum(value < 0 for value in lead.values())


def _item(result: ItemResult) -> str:
    return result.id


def _fact(result: ItemResult) -> str:
    return result.reference
