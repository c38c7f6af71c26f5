"""Every metric that comes of answers, from the rows of ``items.parquet``: an evaluation computes them here, and anybody
can again (``python -m ichigo.evaluation.recount FOLDER`` says whether the numbers of a report are those of its rows).

Beside the rows it takes three things that stand in ``evaluation.json``: the names of the suites that were asked (one
without items counts 0), the seed of the intervals, and the margin of the recipe. What other modules measure
(contamination, benchmarks) is not among these metrics; they say where their rows are.

A suite's metrics follow from the kind of its questions:

=====================  ==============================================================================================
kind                   metrics, named ``<suite>.<name>``
=====================  ==============================================================================================
any                    items, set_aside, exact_match, mute_rate, degenerate_rate, stray_sound_rate, refused_rate
all but the next two   f1, answer_tokens; of ``spoken.*`` and ``text.*`` each topic, and ``without_repeat``
``transcription``      wer, cer; of the suite ``transcription`` each topic (where the rows are from)
``speak``              wer, real_wer, tokens_per_second
``multi_turn``         turn_1, turn_2 ...; all the others are of the last turn
``mixed``              speech_first, text_first
=====================  ==============================================================================================

Another system's answers to a suite have the same metrics under ``<suite>.<system>``, and are compared: the base model
gives ``lost_points``, ``bound``, ``non_inferior``, ``power``, ``items_needed``; any other ``only_direct``,
``only_<system>`` and ``p``. ``p_holm`` stands beside every ``p``, ``refusal.false_refusals`` counts refusals in clean
speech, ``loss`` adds up the nats.
"""

from __future__ import annotations

import math
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from ichigo.evaluation import measures
from ichigo.evaluation.items import BASE, MODEL, REAL_SPEECH, ItemResult, Report, measured_as
from ichigo.evaluation.measures import Metrics
from ichigo.evaluation.statistics import POWER

FACTS = "spoken.facts"  # asked by several voices in several phrasings, so that the fact is the unit
CLEAN = ("spoken.held_out", "spoken.seen_voices", FACTS)  # questions by people, in which nothing is to be refused
_REFUSALS = "refusal.false_refusals"

Asked = dict[str, list[ItemResult]]  # the answers to one suite by system


def recount(report: Report) -> Metrics:
    """The metrics of ``report`` that come of answers, computed from its rows."""
    rows = (*report.items, *report.set_aside)
    return metrics_of(rows, report.suites, margin=report.settings.margin, seed=report.seed)


def metrics_of(rows: Iterable[ItemResult], suites: Sequence[str], *, margin: float, seed: int) -> Metrics:
    """The metrics of ``rows``, answers and questions that were set aside, of the named ``suites``; what is not finite
    is left out.

    Raises:
        DataError: two systems were asked different items of one suite.
    """
    asked, aside = _by_suite(rows)
    metrics: Metrics = {}
    for suite in suites:
        metrics |= _suite(suite, asked[suite], margin, seed)
        metrics[f"{suite}.set_aside"] = float(aside[suite])
    everything = [result for suite in suites for result in asked[suite].get(MODEL, [])]
    metrics |= _refused(asked, suites) | _loss(everything)
    metrics |= measures.family(metrics)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def notes_of(metrics: Metrics, margin: float) -> list[str]:
    """What a reader must know: tests with too few items for the margin."""
    notes = []
    for name in sorted(name for name in metrics if name.endswith(".items_needed")):
        suite = name.removesuffix(".items_needed")
        if (power := metrics[f"{suite}.power"]) < POWER:
            notes.append(
                f"{suite}: {metrics[f'{suite}.items']:.0f} items show a loss below {margin:g} points with a power of "
                f"{power:.0%}; {metrics[name]:.0f} are needed for {POWER:.0%}"
            )
    return notes


def _by_suite(rows: Iterable[ItemResult]) -> tuple[defaultdict[str, Asked], defaultdict[str, int]]:
    asked: defaultdict[str, Asked] = defaultdict(dict)
    aside: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row.outcome == "set_aside":
            aside[row.suite] += 1
        else:
            asked[row.suite].setdefault(row.system, []).append(row)
    return asked, aside


def _suite(suite: str, asked: Asked, margin: float, seed: int) -> Metrics:
    own, real = asked.get(MODEL, []), asked.get(REAL_SPEECH, [])
    metrics = _answered(suite, own, real, seed)
    for system, results in sorted(asked.items()):
        if system in (MODEL, REAL_SPEECH):
            continue
        metrics |= _answered(measured_as(suite, system), results, [], seed, alone=False)
        if system == BASE and own:
            metrics |= measures.lost_points(suite, results, own, margin, seed)
        elif own:
            metrics |= measures.against(suite, system, own, results, by_fact=suite == FACTS)
    return metrics


def _answered(
    name: str, results: Sequence[ItemResult], real: Sequence[ItemResult], seed: int, alone: bool = True
) -> Metrics:
    """The metrics of one system's answers; with ``alone`` those of its topics, too."""
    kinds = {result.kind for result in results}
    if kinds == {"speak"}:
        return measures.speech(name, results, real, seed)
    if kinds == {"transcription"}:
        by_source = measures.groups(name, results, lambda result: result.topic) if name == "transcription" else {}
        return measures.transcripts(name, results, seed) | by_source
    last = _last_turns(results)
    metrics = measures.answers(name, last)
    if kinds == {"multi_turn"}:
        metrics |= measures.turns(name, results)
    elif name.startswith(("spoken.", "text.")) and alone:
        metrics |= measures.topics(name, last)
    metrics |= measures.groups(name, last, lambda result: result.variant)
    return metrics | (measures.by_fact(name, last, seed) if name == FACTS else {})


def _last_turns(results: Sequence[ItemResult]) -> list[ItemResult]:
    last: dict[str, ItemResult] = {}
    for result in sorted(results, key=lambda result: result.key):
        last[result.id] = result
    return list(last.values())


def _refused(asked: defaultdict[str, Asked], suites: Sequence[str]) -> Metrics:
    """Refusals in clean speech, where there is a way to refuse: a suite that expects it and those that do not."""
    expecting = any(name.startswith("refusal.") and asked[name] for name in suites)
    if not expecting or not set(CLEAN) <= set(suites):
        return {}
    return measures.false_refusals(_REFUSALS, [one for name in CLEAN for one in asked[name].get(MODEL, [])])


def _loss(results: Iterable[ItemResult]) -> Metrics:
    """Nats per token of answers and transcripts; of a diverged model (nan) there is none."""
    scored = [(result.nats, result.nats_tokens or 0) for result in results if result.nats is not None]
    total, tokens = math.fsum(nats for nats, _ in scored), sum(count for _, count in scored)
    metrics = {"loss.items": float(len(scored)), "loss.tokens": float(tokens)}
    return {**metrics, "loss.held_out": total / tokens} if tokens else metrics


def main(folder: str) -> int:
    """Compare the numbers in ``folder`` with its rows; 0 if all that come of answers are the same."""
    report = Report.read(Path(folder))
    found = recount(report)
    wrong = sorted(name for name, value in found.items() if report.metrics.get(name) != value)
    for name in wrong:
        print(f"{name}: {found[name]} in the rows, {report.metrics.get(name)} in the report")
    print(f"{len(found) - len(wrong)} of {len(report.metrics)} numbers are those of {len(report.items)} answers")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
