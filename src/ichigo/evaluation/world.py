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

What is measured in each is in :mod:`ichigo.evaluation.recount`. ``speak`` is read by a recogniser, and so are
recordings of the same texts (``real_speech``), so that the difference is the model's and not the recogniser's.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np

from ichigo.errors import DataError
from ichigo.evaluation.asking import Examiner
from ichigo.evaluation.items import (
    CASCADE,
    REAL_SPEECH,
    EvalRow,
    EvalText,
    Findings,
    ItemResult,
    Question,
    Suite,
)
from ichigo.evaluation.measures import false_refusals
from ichigo.evaluation.recount import metrics_of
from ichigo.evaluation.scorers import Outcome, normalise, outcome
from ichigo.hashing import sha256_json
from ichigo.language.contract import SOUND_CODES
from ichigo.language.layouts import Codes, Part, Sample, Turn, speak_prompt, transcription_prompt
from ichigo.language.mixing import SpokenRow, cuts, mixed_question
from ichigo.recipe.schema import SampleType
from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND

SPOKEN = {"held_out": "held_out_voices", "seen_voices": "seen_voices", "odd_voices": "odd_voices", "facts": "facts"}
"""Suites of spoken questions, and what the transcription of the same rows is called."""

NOISE, RECALL = ("noise_known", "noise_new"), ("recall_seen", "recall_new")
ROW_SUITES = (*SPOKEN, *NOISE, *RECALL)
TEXT_SUITES = ("text_held_out", "text_facts")

SUITES = (
    *(name for row, read in SPOKEN.items() for name in (f"spoken.{row}", f"transcription.{read}")),
    *(name.replace("text_", "text.") for name in TEXT_SUITES),
    *(f"refusal.{name}" for name in (*NOISE, "random_codes")),
    *(name.replace("recall_", "recall.") for name in RECALL),
    "mixed",
    "speak",
)
"""Every suite of a world, in the order in which they are asked."""

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
    hearers: Mapping[str, WordRecogniser],
) -> None:
    """Ask every suite that is wanted and add what comes of it to ``findings``.

    Raises :class:`DataError` for rows of a suite that is not in the module's table, and for a dialogue that misses a
    turn.
    """
    by_suite, written = _by_suite(rows, ROW_SUITES), _by_suite(texts, TEXT_SUITES)
    for name in SPOKEN:
        _ask_spoken(exam, base, name, by_suite[name], findings, hearers)
    for name in TEXT_SUITES:
        _ask_written(exam, base, name, written[name], findings)
    _ask_to_refuse(exam, by_suite, findings)
    for name in RECALL:
        _ask_recall(exam, name, by_suite[name], findings)
    if findings.wants("mixed"):
        _ask_mixed(exam, by_suite["held_out"], findings)
    if findings.wants("speak"):
        _ask_to_speak(exam, recogniser, by_suite["seen_voices"], findings)


def ask_again(exam: Examiner, rows: Sequence[EvalRow]) -> dict[str, float]:
    """What ``spoken.held_out``, its transcription and ``refusal.false_refusals`` measure on other rows, all of them
    questions; the examiner must know the refusals."""
    findings = Findings()
    _ask_spoken(exam, None, "held_out", rows, findings, {})
    metrics = metrics_of(findings.results, findings.suites, margin=1.0, seed=exam.seed)
    clean = [result for result in findings.results if result.suite == "spoken.held_out"]
    return metrics | false_refusals("refusal.false_refusals", clean)


def refusals_of(rows: Iterable[EvalRow]) -> frozenset[str]:
    """The answers, normalised, to rows that are no speech."""
    return frozenset(normalise(row.answer) for row in rows if row.suite in NOISE and row.answer)


Written = TypeVar("Written", EvalRow, EvalText)


def _by_suite(rows: Iterable[Written], known: Sequence[str]) -> dict[str, list[Written]]:
    suites: dict[str, list[Written]] = {name: [] for name in known}
    for row in rows:
        if row.suite not in suites:
            raise DataError(f"row {row.id} is of the suite {row.suite!r}; there are {', '.join(known)}")
        suites[row.suite].append(row)
    return suites


def _ask_spoken(
    exam: Examiner,
    base: Examiner | None,
    name: str,
    rows: Sequence[EvalRow],
    findings: Findings,
    hearers: Mapping[str, WordRecogniser],
) -> None:
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
    wanted, readings = findings.wants(suite.name), dict[str, list[ItemResult]]()
    if findings.wants(read.name) or (wanted and base):
        readings = _transcripts(exam, read.name, exam.choose(read), hearers)
    if wanted:
        answers = exam.ask(suite.name, chosen)
        if base:
            for system, transcripts in readings.items():
                answers += _ask_cascade(base.named(system), suite.name, chosen, transcripts)
        findings.add(suite, answers)
    if readings:
        findings.add(read, [result for results in readings.values() for result in results])
    if name == "held_out":
        findings.answered += [(suite.name, question) for question in chosen if wanted]
        findings.answered += [(read.name, question) for question in exam.choose(read) if readings]


def _transcripts(
    exam: Examiner, suite: str, questions: Sequence[Question], hearers: Mapping[str, WordRecogniser]
) -> dict[str, list[ItemResult]]:
    """What the model and each of ``hearers`` transcribe, by the name of the cascade that reads it."""
    found = {CASCADE: exam.ask(suite, questions)}
    for name, ears in hearers.items():
        heard = [ears.words(_codes_of(question)) for question in questions]
        found[f"{CASCADE}_{name}"] = [
            _transcript(suite, question, text, name) for question, text in zip(questions, heard, strict=True)
        ]
    return found


def _codes_of(question: Question) -> Codes:
    user = question.sample.turns[0].user
    assert not isinstance(user, str | tuple)
    return user


def _transcript(suite: str, question: Question, text: str, system: str) -> ItemResult:
    """What a recogniser hears, judged like an answer."""
    judged = outcome(question.reference, text, stray_sound=False, stopped=True)
    return question.result(suite, 0, text, judged, 0, system=system)


def _ask_cascade(
    base: Examiner, suite: str, questions: Sequence[Question], transcripts: Sequence[ItemResult]
) -> list[ItemResult]:
    """The base model's answers to ``transcripts`` of ``questions``; to an empty transcript nothing can be answered."""
    heard = {transcript.id: transcript.hypothesis for transcript in transcripts if transcript.hypothesis}
    read = [replace(one, sample=Sample("text", (Turn(heard[one.id]),))) for one in questions if one.id in heard]
    said = {result.id: result for result in base.ask(suite, read)}
    answers = [(one, said.get(one.id)) for one in questions]
    return [
        base.result(suite, one, 0, answer.hypothesis, answer.outcome, answer.tokens)
        if answer
        else base.result(suite, one, 0, "", "empty", 0)
        for one, answer in answers
    ]


def _ask_written(
    exam: Examiner, base: Examiner | None, name: str, texts: Sequence[EvalText], findings: Findings
) -> None:
    suite = Suite(name.replace("text_", "text."))
    if not findings.wants(suite.name):
        return
    for dialogue in _dialogues(texts):
        suite.offer(_conversation("text", dialogue, [row.text for row in dialogue]))
    chosen = exam.choose(suite)
    before = base.ask(suite.name, chosen) if base else []
    findings.add(suite, [*exam.ask(suite.name, chosen), *before])


def _ask_to_refuse(exam: Examiner, rows: Mapping[str, Sequence[EvalRow]], findings: Findings) -> None:
    """Noise and random codes; the noise rows say how the world refuses."""
    refusals = sorted({row.answer for name in NOISE for row in rows[name] if row.answer})
    suites = {name: Suite(f"refusal.{name}") for name in (*NOISE, "random_codes")}
    for name in NOISE:
        for row in rows[name]:
            suites[name].offer(Question.of(row, "noise", row.codes, row.answer or ""))
    for row in rows["held_out"] if refusals else ():
        sample = Sample("noise", (Turn(_random_codes(exam.seed, row), refusals[0]),))
        suites["random_codes"].offer(Question(row.id, sample, (refusals[0],), ("",)))
    for suite in suites.values():
        if findings.wants(suite.name):
            findings.add(suite, exam.ask(suite.name, exam.choose(suite)))


def _random_codes(seed: int, row: EvalRow) -> Codes:
    """As many random codes as the row has."""
    generator = np.random.default_rng(int(sha256_json([seed, "random_codes", row.id])[:16], 16))
    return generator.integers(0, _SPEECH_CODES, size=len(row.codes), dtype=np.int16)


def _ask_recall(exam: Examiner, name: str, rows: Sequence[EvalRow], findings: Findings) -> None:
    suite = Suite(name.replace("recall_", "recall."))
    if not findings.wants(suite.name):
        return
    for dialogue in _dialogues(rows):
        suite.offer(_conversation("multi_turn", dialogue, [row.codes for row in dialogue]))
    conversations = exam.converse(suite.name, exam.choose(suite))
    findings.add(suite, [result for turns in conversations for result in turns])


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
    speaker = last.speaker if isinstance(last, EvalRow) else ""
    return Question(last.dialogue or last.id, Sample(kind, turns), answers, words, last.topic, speaker)


def _ask_mixed(exam: Examiner, rows: Sequence[EvalRow], findings: Findings) -> None:
    """Questions cut in the middle, one half written; a hash decides which."""
    suite = Suite("mixed")
    for row in rows:
        spoken = SpokenRow(row.id, row.codes, row.text, row.answer, word_ends=row.word_ends)
        order = ("speech_first", "text_first")[int(sha256_json([exam.seed, "mixed", row.id])[:8], 16) % 2]
        middle = sorted(cuts(spoken), key=lambda words: abs(2 * words - len(row.text.split())))[:1]
        for cut in middle:
            parts = mixed_question(spoken, cut, order == "speech_first")
            suite.offer(replace(Question.of(row, "mixed", parts, row.answer or ""), variant=order))
        if not middle:
            suite.set_aside.append(replace(Question.of(row, "mixed", row.codes, row.answer or ""), variant=order))
    findings.add(suite, exam.ask(suite.name, exam.choose(suite)))


def _ask_to_speak(
    exam: Examiner, recogniser: WordRecogniser | None, rows: Sequence[EvalRow], findings: Findings
) -> None:
    suite, said = Suite("speak"), {row.id: row for row in rows}
    for row in rows if recogniser else ():
        sample = Sample("speak", (Turn(row.text),), speak_prompt(exam.seed, row.id))
        suite.offer(Question(row.id, sample, (row.text,), (row.text,), row.topic, row.speaker))
    chosen = exam.choose(suite)
    limit = _LONGEST * max((len(said[question.id].codes) for question in chosen), default=0)
    results, real = [], []
    for question, codes in zip(chosen, exam.speak(suite.name, chosen, limit), strict=True):
        assert recogniser is not None
        own = said[question.id].codes
        heard = recogniser.words(codes) if len(codes) else ""
        judged = outcome(question.reference, heard, stray_sound=False, stopped=len(codes) < limit)
        results.append(_spoken(suite.name, question, heard, judged, len(codes), len(own), exam.system))
        heard = recogniser.words(own)
        judged = outcome(question.reference, heard, stray_sound=False, stopped=True)
        real.append(_spoken(suite.name, question, heard, judged, len(own), len(own), REAL_SPEECH))
    findings.add(suite, [*results, *real])


def _spoken(
    suite: str, question: Question, heard: str, judged: Outcome, codes: int, own: int, system: str
) -> ItemResult:
    """``codes`` codes in which a recogniser hears these words; a person takes ``own`` of them for the text."""
    result = question.result(suite, 0, heard, judged, codes, system=system)
    return replace(result, seconds=own / SOUND_TOKENS_PER_SECOND)
