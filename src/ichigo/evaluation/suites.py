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

A metric is called ``<suite>.<name>``. The outcome rates are ``exact_match``, ``mute_rate`` (an empty answer),
``degenerate_rate`` (a loop, or never ended) and ``stray_sound_rate`` (sound tokens in the answer); see
:mod:`ichigo.evaluation.measures` for intervals. ``set_aside`` counts rows that cannot be asked or compared: nothing to
hear, or no word to expect.

Rows are chosen by a hash of seed and id: the same rows for every model, and the same rows in every suite that can use
them, whatever order they come in.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ichigo.evaluation import measures
from ichigo.evaluation.asking import Examiner
from ichigo.evaluation.items import EvalRow, EvalText, Findings, ItemResult, Question, Report, Suite, by_id
from ichigo.evaluation.world import WordRecogniser, ask_world
from ichigo.language.layouts import transcription_prompt
from ichigo.recipe.schema import Evaluation

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine

__all__ = ["EvalRow", "EvalText", "ItemResult", "Report", "evaluate"]


def evaluate(
    engine: Engine,
    items: Sequence[EvalRow],
    settings: Evaluation,
    seed: int,
    *,
    texts: Sequence[EvalText] = (),
    base: Engine | None = None,
    recogniser: WordRecogniser | None = None,
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

    Raises:
        DataError: two rows with one id, a row that names a suite there is not, or what :meth:`Engine.generate` refuses.
    """
    rows, written = by_id(items), by_id(texts)
    exam = Examiner(engine, settings, seed)
    findings = Findings()
    plain = [row for row in rows if not row.suite]
    if plain or not (rows or written):
        _ask_any_corpus(exam, plain, findings)
    if written or len(plain) < len(rows):
        text_exam = Examiner(base, settings, seed) if base else None
        ask_world(exam, [row for row in rows if row.suite], written, text_exam, recogniser, findings)
    loss = _held_out_loss(engine, findings.answered, settings.batch)
    return Report(findings.metrics | loss, tuple(findings.results), settings, seed, engine.contract.digest)


def _ask_any_corpus(exam: Examiner, rows: Sequence[EvalRow], findings: Findings) -> None:
    """``spoken_answers``, ``text_answers`` and ``transcription``."""
    spoken, read = _spoken_answers(rows), _transcription(rows, exam.seed)
    for suite in (spoken, _text_answers(rows)):
        findings.add(suite, results := exam.ask(suite.name, exam.choose(suite)), measures.answers(suite.name, results))
    results = exam.ask(read.name, exam.choose(read))
    by_source = measures.groups(read.name, results, lambda result: result.topic)
    findings.add(read, results, measures.transcripts(read.name, results, exam.seed), by_source)
    findings.answered += [*exam.choose(spoken), *exam.choose(read)]


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


def _held_out_loss(engine: Engine, questions: Sequence[Question], batch: int) -> dict[str, float]:
    """Nats per token of answers and transcripts; of a diverged model (nan) ``loss.held_out`` stays missing."""
    examples = [engine.layouts.example(question.sample, loss_on="answers") for question in questions]
    total, tokens = engine.loss(examples, batch, what="loss")
    metrics = {"loss.items": float(len(examples)), "loss.tokens": float(tokens)}
    if tokens and math.isfinite(total):
        metrics["loss.held_out"] = total / tokens
    elif tokens:
        print(f"loss.held_out is left out: the sum over {tokens} tokens is {total}", flush=True)
    return metrics
