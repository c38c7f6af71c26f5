"""The suites of a generated world, each asked about the rows that name it.

==========================  ==========================================================  ================================
suite                       asks                                                        rows
==========================  ==========================================================  ================================
``spoken.held_out``         held-out questions by voices never heard                    ``held_out``
``spoken.seen_voices``      held-out questions by voices of the training                ``seen_voices``
``spoken.odd_voices``       held-out questions by voices that no person has             ``odd_voices``
``spoken.facts``            facts that training only wrote, each by several voices      ``facts``
``spoken.X.cascade``        the same: the model transcribes, the base model answers     as above
``transcription.X``         "transcribe" (X: held_out_voices, seen_voices, …, facts)    as above
``text.held_out``           held-out questions in writing                               ``text_held_out``
``text.facts``              the facts in writing                                        ``text_facts``
``text.X.base``             the same of the base model                                  as above
``refusal.noise_known``     sounds that are no speech, of kinds heard in training       ``noise_known``
``refusal.noise_new``       the same, of kinds never heard                              ``noise_new``
``refusal.random_codes``    random sound tokens, as long as real speech                 ``held_out`` (their lengths)
``refusal.false_refusals``  nothing: clean questions by people that got a refusal       the other three of ``spoken``
``recall.seen``, ``.new``   spoken conversations, scored on the last turn; what is to   ``recall_seen``, ``recall_new``
                            be remembered was, or never was, told in training
``mixed``                   questions half spoken and half written, in both orders      ``held_out``
``speak``                   a text, to be said: sound tokens, read by a recogniser      ``seen_voices``
==========================  ==========================================================  ================================

Beside the metrics of :mod:`ichigo.evaluation.suites`: the topics of ``spoken`` and ``text`` (``spoken.held_out.timer``)
and all but one of them (``.without_repeat``); ``text.X.lost_points`` against the base model; ``spoken.X.cascade.p``;
``recall.X.turn_1`` ...; ``mixed.speech_first`` and ``.text_first``; ``speak.wer`` beside ``speak.real_wer``, the same
recogniser's errors on spoken tokens of the same texts, so that the difference is the model's and not the recogniser's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, TypeVar

import numpy as np

from ichigo.errors import DataError
from ichigo.evaluation import measures
from ichigo.evaluation.asking import Examiner
from ichigo.evaluation.items import EvalRow, EvalText, Findings, ItemResult, Question, Suite
from ichigo.evaluation.scorers import outcome, word_errors
from ichigo.hashing import sha256_json
from ichigo.language.contract import SOUND_CODES
from ichigo.language.layouts import Codes, Part, Sample, Turn, speak_prompt, transcription_prompt
from ichigo.language.mixing import SpokenRow, cuts, mixed_question
from ichigo.recipe.schema import SampleType

SPOKEN = {"held_out": "held_out_voices", "seen_voices": "seen_voices", "odd_voices": "odd_voices", "facts": "facts"}
"""Suites of spoken questions, and what the transcription of the same rows is called."""

NOISE, RECALL = ("noise_known", "noise_new"), ("recall_seen", "recall_new")
ROW_SUITES = (*SPOKEN, *NOISE, *RECALL)
TEXT_SUITES = ("text_held_out", "text_facts")

_SPEECH_CODES = SOUND_CODES - 1  # codes that speech has; WhisperVQ's last one stands for padding
_LONGEST = 2  # generated speech ends at this many times the longest real utterance


class WordRecogniser(Protocol):
    """Reads words from sound codes."""

    def words(self, codes: Codes) -> str:
        """The words in ``codes``, int16 (n,), separated by spaces."""
        ...


def ask_world(
    exam: Examiner,
    rows: Sequence[EvalRow],
    texts: Sequence[EvalText],
    base: Examiner | None,
    recogniser: WordRecogniser | None,
    findings: Findings,
) -> None:
    """Ask every suite and add what comes of it to ``findings``.

    Raises :class:`DataError` for rows of a suite that is not in the module's table, and for a dialogue that misses a
    turn.
    """
    by_suite, written = _by_suite(rows, ROW_SUITES), _by_suite(texts, TEXT_SUITES)
    clean: list[ItemResult] = []
    for name in SPOKEN:
        answers = _ask_spoken(exam, base, name, by_suite[name], findings)
        clean += answers if name != "odd_voices" else ()
    for name in TEXT_SUITES:
        _ask_written(exam, base, name, written[name], findings)
    _ask_refusals(exam, by_suite, clean, findings)
    for name in RECALL:
        _ask_recall(exam, name, by_suite[name], findings)
    _ask_mixed(exam, by_suite["held_out"], findings)
    _ask_to_speak(exam, recogniser, by_suite["seen_voices"], findings)


def ask_again(exam: Examiner, rows: Sequence[EvalRow], refusals: Sequence[str]) -> dict[str, float]:
    """What ``spoken.held_out``, its transcription and ``refusal.false_refusals`` measure on other rows, all of them
    questions; ``refusals`` are the answers to sound that is no speech."""
    findings = Findings()
    clean = _ask_spoken(exam, None, "held_out", rows, findings)
    return findings.metrics | measures.false_refusals("refusal.false_refusals", clean, refusals)


Written = TypeVar("Written", EvalRow, EvalText)


def _by_suite(rows: Iterable[Written], known: Sequence[str]) -> dict[str, list[Written]]:
    suites: dict[str, list[Written]] = {name: [] for name in known}
    for row in rows:
        if row.suite not in suites:
            raise DataError(f"row {row.id} is of the suite {row.suite!r}; there are {', '.join(known)}")
        suites[row.suite].append(row)
    return suites


def _ask_spoken(
    exam: Examiner, base: Examiner | None, name: str, rows: Sequence[EvalRow], findings: Findings
) -> list[ItemResult]:
    """Direct answers, transcripts of the same rows, and the base model's answers to the transcripts."""
    suite, read = Suite(f"spoken.{name}"), Suite(f"transcription.{SPOKEN[name]}")
    for row in rows:
        suite.offer(Question.of(row, "speech", row.codes, row.answer or ""))
    chosen = exam.choose(suite)
    asked = {question.id for question in chosen}
    for row in rows:
        if row.id in asked:
            prompt = transcription_prompt(exam.seed, row.id)
            read.offer(Question.of(row, "transcription", row.codes, row.text, prompt))
    direct = exam.ask(suite.name, chosen)
    findings.add(suite, direct, measures.answers(suite.name, direct), measures.topics(suite.name, direct))
    if name == "facts":
        findings.metrics |= measures.by_fact(suite.name, direct, exam.seed)
    transcripts = exam.ask(read.name, exam.choose(read))
    findings.add(read, transcripts, measures.transcripts(read.name, transcripts, exam.seed))
    if base:
        cascade = _ask_cascade(base, f"{suite.name}.cascade", chosen, transcripts)
        findings.results += cascade
        findings.metrics |= measures.against_cascade(suite.name, direct, cascade, by_fact=name == "facts")
    if name == "held_out":
        findings.answered += [*chosen, *exam.choose(read)]
    return direct


def _ask_cascade(
    base: Examiner, name: str, questions: Sequence[Question], transcripts: Sequence[ItemResult]
) -> list[ItemResult]:
    """The base model's answers to ``transcripts`` of ``questions``; to an empty transcript nothing can be answered."""
    heard = {transcript.id: transcript.hypothesis for transcript in transcripts}
    read = [
        Question(one.id, Sample("text", (Turn(heard[one.id]),)), one.references, one.words, one.topic)
        for one in questions
        if heard.get(one.id)
    ]
    said = {result.id: result for result in base.ask(name, read)}
    return [said.get(one.id) or _mute(name, one) for one in questions]


def _mute(suite: str, question: Question) -> ItemResult:
    return ItemResult(suite, question.id, question.reference, "", "empty", 0, question.words[-1], question.topic)


def _ask_written(
    exam: Examiner, base: Examiner | None, name: str, texts: Sequence[EvalText], findings: Findings
) -> None:
    suite = Suite(name.replace("text_", "text."))
    for dialogue in _dialogues(texts):
        suite.offer(_conversation("text", dialogue, [row.text for row in dialogue]))
    chosen = exam.choose(suite)
    after = exam.ask(suite.name, chosen)
    findings.add(suite, after, measures.answers(suite.name, after), measures.topics(suite.name, after))
    if base:
        before = base.ask(f"{suite.name}.base", chosen)
        findings.results += before
        findings.metrics |= measures.answers(f"{suite.name}.base", before)
        findings.metrics |= measures.lost_points(suite.name, before, after, exam.seed)


def _ask_refusals(
    exam: Examiner, rows: Mapping[str, Sequence[EvalRow]], clean: Sequence[ItemResult], findings: Findings
) -> None:
    """Noise, random codes, and refusals where there was nothing to refuse; the noise rows say how the world refuses."""
    refusals = sorted({row.answer for name in NOISE for row in rows[name] if row.answer})
    suites = {name: Suite(f"refusal.{name}") for name in (*NOISE, "random_codes")}
    for name in NOISE:
        for row in rows[name]:
            suites[name].offer(Question.of(row, "noise", row.codes, row.answer or ""))
    for row in rows["held_out"] if refusals else ():
        sample = Sample("noise", (Turn(_random_codes(exam.seed, row), refusals[0]),))
        suites["random_codes"].offer(Question(row.id, sample, (refusals[0],), ("",)))
    for suite in suites.values():
        results = exam.ask(suite.name, exam.choose(suite))
        findings.add(suite, results, measures.answers(suite.name, results))
    if refusals:
        findings.metrics |= measures.false_refusals("refusal.false_refusals", clean, refusals)


def _random_codes(seed: int, row: EvalRow) -> Codes:
    """As many random codes as the row has."""
    generator = np.random.default_rng(int(sha256_json([seed, "random_codes", row.id])[:16], 16))
    return generator.integers(0, _SPEECH_CODES, size=len(row.codes), dtype=np.int16)


def _ask_recall(exam: Examiner, name: str, rows: Sequence[EvalRow], findings: Findings) -> None:
    suite = Suite(name.replace("recall_", "recall."))
    for dialogue in _dialogues(rows):
        suite.offer(_conversation("multi_turn", dialogue, [row.codes for row in dialogue]))
    conversations = exam.converse(suite.name, exam.choose(suite))
    metrics = measures.answers(suite.name, [turns[-1] for turns in conversations])
    said = [result for turns in conversations for result in turns]
    findings.add(suite, said, metrics, measures.turns(suite.name, conversations))


def _dialogues(rows: Sequence[Written]) -> list[list[Written]]:
    """The rows of each dialogue in the order of its turns; a row without dialogue is one of its own."""
    members: defaultdict[str, list[Written]] = defaultdict(list)
    for row in rows:
        members[row.dialogue or f"row {row.id}"].append(row)
    for name, turns in members.items():
        turns.sort(key=lambda row: row.turn)
        found = [row.turn for row in turns]
        if turns[0].dialogue and found != list(range(len(found))):
            raise DataError(f"dialogue {name} has the turns {found}; they are counted from 0 and none may be missing")
    return [members[name] for name in sorted(members)]


def _conversation(kind: SampleType, rows: Sequence[EvalRow | EvalText], users: Sequence[Part]) -> Question:
    answers = tuple(row.answer or "" for row in rows)
    turns = tuple(Turn(user, answer) for user, answer in zip(users, answers, strict=True))
    words, last = tuple(row.text for row in rows), rows[-1]
    return Question(last.dialogue or last.id, Sample(kind, turns), answers, words, last.topic)


def _ask_mixed(exam: Examiner, rows: Sequence[EvalRow], findings: Findings) -> None:
    """Questions cut in the middle, one half written; a hash decides which."""
    suite, order = Suite("mixed"), {}
    for row in rows:
        spoken = SpokenRow(row.id, row.codes, row.text, row.answer, word_ends=row.word_ends)
        order[row.id] = ("speech_first", "text_first")[int(sha256_json([exam.seed, "mixed", row.id])[:8], 16) % 2]
        middle = sorted(cuts(spoken), key=lambda words: abs(2 * words - len(row.text.split())))[:1]
        for cut in middle:
            parts = mixed_question(spoken, cut, order[row.id] == "speech_first")
            suite.offer(Question.of(row, "mixed", parts, row.answer or ""))
        suite.set_aside += not middle
    results = exam.ask(suite.name, exam.choose(suite))
    by_order = measures.groups(suite.name, results, lambda result: order[result.id])
    findings.add(suite, results, measures.answers(suite.name, results), by_order)


def _ask_to_speak(
    exam: Examiner, recogniser: WordRecogniser | None, rows: Sequence[EvalRow], findings: Findings
) -> None:
    suite, real = Suite("speak"), {row.id: row.codes for row in rows}
    for row in rows if recogniser else ():
        sample = Sample("speak", (Turn(row.text),), speak_prompt(exam.seed, row.id))
        suite.offer(Question(row.id, sample, (row.text,), (row.text,), row.topic))
    chosen = exam.choose(suite)
    limit = _LONGEST * max((len(real[question.id]) for question in chosen), default=0)
    spoken = exam.speak(suite.name, chosen, limit)
    results, errors, real_errors = [], [], []
    for question, codes in zip(chosen, spoken, strict=True):
        assert recogniser is not None
        heard = recogniser.words(codes) if len(codes) else ""
        judged = outcome(question.reference, heard, stray_sound=False, stopped=len(codes) < limit)
        results.append(ItemResult(suite.name, question.id, question.reference, heard, judged, len(codes)))
        errors.append(word_errors(question.reference, heard))
        real_errors.append(word_errors(question.reference, recogniser.words(real[question.id])))
    findings.add(suite, results, measures.outcomes(suite.name, results))
    if results:
        findings.metrics |= measures.error_rate("speak.wer", errors, exam.seed)
        findings.metrics |= measures.error_rate("speak.real_wer", real_errors, exam.seed)
