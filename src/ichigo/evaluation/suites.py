"""The suites of any corpus, and the report over these and the suites of a generated world.

===================  ==========================================  =================================================
suite                asks                                        metrics beside ``items`` and ``set_aside``
===================  ==========================================  =================================================
``spoken_answers``   the speech of each row that has an answer   exact_match, f1, the outcome rates
``text_answers``     each distinct question of them, as text     exact_match, f1, the outcome rates
``transcription``    the speech of each row, "transcribe"        wer, cer, the outcome rates
``loss``             nothing: answers and transcripts are given  held_out (nats per answer token), tokens
===================  ==========================================  =================================================

``transcription`` is told apart by the rows' topics too, which the step of the pipeline sets to where a row is from: the
share of exact transcripts of human recordings is ``transcription.folder``.

They are asked about rows whose ``suite`` is empty; rows and texts that name one go to :mod:`ichigo.evaluation.world`.

A metric is called ``<suite>.<name>``; all of them, and how each follows from the rows of the report, are in
:mod:`ichigo.evaluation.recount`. ``set_aside`` counts rows that cannot be asked or compared: nothing to hear, or no
word to expect.

Rows are chosen by a hash of seed and id: the same rows for every model, and the same rows in every suite that can use
them, whatever order they come in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ichigo.errors import UserError
from ichigo.evaluation import world
from ichigo.evaluation.asking import Examiner
from ichigo.evaluation.items import BASE, MODEL, EvalRow, EvalText, Findings, ItemResult, Question, Report, Suite, by_id
from ichigo.evaluation.recount import metrics_of, notes_of
from ichigo.evaluation.world import WordRecogniser, ask_world, refusals_of
from ichigo.language.layouts import transcription_prompt
from ichigo.recipe.schema import Evaluation

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine

__all__ = ["EvalRow", "EvalText", "ItemResult", "Report", "evaluate"]

_PLAIN = ("spoken_answers", "text_answers", "transcription")


def evaluate(
    engine: Engine,
    items: Sequence[EvalRow],
    settings: Evaluation,
    seed: int,
    *,
    texts: Sequence[EvalText] = (),
    base: Engine | None = None,
    recogniser: WordRecogniser | None = None,
    hearers: Mapping[str, WordRecogniser] | None = None,
    only: Sequence[str] = (),
    systems: Mapping[str, str] | None = None,
) -> Report:
    """Ask ``engine`` every suite that ``items`` and ``texts``, the held-out rows, belong to.

    Args:
        engine: the opened model.
        items: held-out recordings with distinct ids, in any order.
        settings: items per suite, limit on new tokens, batch.
        seed: the recipe's seed; chooses rows and prompts, and seeds intervals.
        texts: held-out questions in writing, with distinct ids.
        base: the text model that training began with; without it nothing is compared with it, nor with a cascade.
        recogniser: reads words from sound codes; without it generated speech is not judged.
        hearers: recognisers by name that owe nothing to the model. Each transcribes as the system of its name, and the
            base model answers its transcripts as ``cascade_<name>``.
        only: patterns (``spoken.*``) of the suites to ask; all of them by default. A spoken suite brings the
            transcription that its cascade reads.
        systems: what each system is, for the report.

    Raises:
        DataError: two rows with one id, a row that names a suite there is not, or what :meth:`Engine.generate` refuses.
        UserError: a pattern of ``only`` that fits no suite.
    """
    rows, written = by_id(items), by_id(texts)
    plain = [row for row in rows if not row.suite]
    of_world = bool(written) or len(plain) < len(rows)
    known = [*(_PLAIN if plain or not of_world else ()), *(world.SUITES if of_world else ())]
    refusals = refusals_of(rows)
    exam = Examiner(engine, settings, seed, refusals=refusals)
    findings = Findings(wanted=_wanted(known, only))
    if plain or not of_world:
        _ask_any_corpus(exam, plain, findings)
    if of_world:
        spoken = [row for row in rows if row.suite]
        text_exam = Examiner(base, settings, seed, system=BASE, refusals=refusals) if base else None
        ask_world(exam, spoken, written, text_exam, recogniser, findings, hearers or {})
    results, notes = _with_loss(exam, findings)
    metrics = metrics_of([*results, *findings.set_aside], findings.suites, margin=settings.margin, seed=seed)
    return Report(
        metrics,
        tuple(results),
        settings,
        seed,
        engine.contract.digest,
        suites=tuple(findings.suites),
        set_aside=tuple(findings.set_aside),
        systems=dict(systems or {}),
        notes=(*notes, *notes_of(metrics, settings.margin)),
    )


def _wanted(known: Sequence[str], only: Sequence[str]) -> frozenset[str]:
    """The suites among ``known`` that fit a pattern of ``only``, or all of them."""
    if strange := [pattern for pattern in only if not any(fnmatchcase(name, pattern) for name in known)]:
        raise UserError(f"no suite is called {', '.join(strange)}; the rows of this model have {', '.join(known)}")
    return frozenset(name for name in known if not only or any(fnmatchcase(name, pattern) for pattern in only))


def _ask_any_corpus(exam: Examiner, rows: Sequence[EvalRow], findings: Findings) -> None:
    """``spoken_answers``, ``text_answers`` and ``transcription``."""
    for suite in (_spoken_answers(rows), _text_answers(rows), _transcription(rows, exam.seed)):
        if not findings.wants(suite.name):
            continue
        findings.add(suite, exam.ask(suite.name, chosen := exam.choose(suite)))
        if suite.name != "text_answers":
            findings.answered += [(suite.name, question) for question in chosen]


def _spoken_answers(rows: Iterable[EvalRow]) -> Suite:
    suite = Suite("spoken_answers")
    for row in rows:
        if row.answer is not None:
            suite.offer(Question.of(row, "speech", row.codes, row.answer))
    return suite


def _text_answers(rows: Iterable[EvalRow]) -> Suite:
    """Each distinct pair of question and answer once, under the first of its rows' ids."""
    suite, seen = Suite("text_answers"), set()
    for row in rows:
        if row.answer is not None and (row.text, row.answer) not in seen:
            seen.add((row.text, row.answer))
            suite.offer(Question.of(row, "text", row.text, row.answer))
    return suite


def _transcription(rows: Iterable[EvalRow], seed: int) -> Suite:
    suite = Suite("transcription")
    for row in rows:
        suite.offer(Question.of(row, "transcription", row.codes, row.text, transcription_prompt(seed, row.id)))
    return suite


def _with_loss(exam: Examiner, findings: Findings) -> tuple[list[ItemResult], list[str]]:
    """The answers with the nats of their references, where the loss is measured, and what there is to say about it."""
    each = exam.losses([question for _, question in findings.answered])
    found = {(suite, one.id): nats for (suite, one), nats in zip(findings.answered, each, strict=True)}
    total, tokens = math.fsum(nats for nats, _ in each), sum(count for _, count in each)
    notes = [] if math.isfinite(total) else [f"loss.held_out is left out: the sum over {tokens} tokens is {total}"]
    results = []
    for result in findings.results:
        nats = found.get((result.suite, result.id)) if result.system == MODEL else None
        results.append(replace(result, nats=nats[0], nats_tokens=nats[1]) if nats else result)
    return results, notes
