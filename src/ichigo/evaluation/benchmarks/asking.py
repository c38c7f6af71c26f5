"""Asks a model the recordings of a benchmark and scores every reply both ways; everything is greedy."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ichigo.errors import DataError
from ichigo.evaluation.benchmarks import voicebench
from ichigo.evaluation.benchmarks.audiobench import Normaliser, string_match
from ichigo.evaluation.benchmarks.report import Item, SetReport
from ichigo.evaluation.benchmarks.rows import BenchmarkRow, BenchmarkSet
from ichigo.evaluation.choices import LETTERS, Likelihoods, by_likelihood, choice_outcome, refuses
from ichigo.evaluation.scorers import normalise, outcome, token_f1, word_errors
from ichigo.language.layouts import Codes, Ids, Sample, Turn, transcription_prompt
from ichigo.speech.audio import AudioError, read_audio

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine, Generation
    from ichigo.speech.vq import WhisperVQ

_LABEL = re.compile(r"^\(?[A-J][).:]\s*")

MAX_SECONDS = 30.0
"""Longest recording that is asked: what a Whisper encoder hears at once."""


def ask_set(
    engine: Engine,
    tokenizer: WhisperVQ,
    found: BenchmarkSet,
    *,
    max_new_tokens: int,
    batch: int,
    seed: int,
    normaliser: Normaliser | None = None,
) -> SetReport:
    """Ask ``engine`` every row of ``found``.

    Args:
        engine: the model.
        tokenizer: of its contract.
        found: the rows.
        max_new_tokens: limit per reply.
        batch: prompts, and options, at once.
        seed: chooses transcription prompts.
        normaliser: of AudioBench's word errors; None makes one without British spellings.

    A recording that cannot be decoded is set aside with the reason of :class:`~ichigo.speech.audio.AudioError`, one too
    short for a sound token as ``too_short``, one that leaves no room for a reply as ``too_long``.

    Raises :class:`~ichigo.errors.DataError` where every row is set aside.
    """
    aside = Counter(found.set_aside)
    heard = _hear(tokenizer, found.rows, aside)
    asked = [(row, _prompt(engine, row, codes, found, seed)) for row, codes in heard]
    room = engine.positions - max_new_tokens
    aside["too_long"] += sum(len(prompt) > room for _, prompt in asked)
    asked = [(row, prompt) for row, prompt in asked if len(prompt) <= room]
    if not asked:
        reasons = ", ".join(f"{count} {name}" for name, count in sorted(aside.items()) if count)
        raise DataError(
            f"{found.name}: none of its rows can be asked ({reasons}); correct the file or name another one"
        )
    replies = engine.generate([prompt for _, prompt in asked], max_new_tokens, batch, what=found.name)
    letters: Sequence[Likelihoods | None] = [None] * len(asked)
    if found.scoring == "choice":
        letters = by_likelihood(engine, [(prompt, LETTERS[: len(row.options)]) for row, prompt in asked], batch)
    scorer = _Scorer(engine, found, normaliser or Normaliser())
    scored = zip(asked, replies, letters, strict=True)
    items = tuple(scorer.item(row, reply, likelihoods) for (row, _), reply, likelihoods in scored)
    return SetReport(found.name, found.benchmark, found.scoring, items, {name: n for name, n in aside.items() if n})


def _hear(tokenizer: WhisperVQ, rows: Sequence[BenchmarkRow], aside: Counter[str]) -> list[tuple[BenchmarkRow, Codes]]:
    waveforms, usable = [], []
    for row in rows:
        try:
            waveforms.append(read_audio(row.audio, row.id, max_seconds=MAX_SECONDS))
            usable.append(row)
        except AudioError as error:
            aside[error.reason] += 1
    heard = list(zip(usable, tokenizer.encode(waveforms) if waveforms else [], strict=True))
    aside["too_short"] += sum(not len(codes) for _, codes in heard)
    return [(row, codes) for row, codes in heard if len(codes)]


def _prompt(engine: Engine, row: BenchmarkRow, codes: Codes, found: BenchmarkSet, seed: int) -> Ids:
    """Speech alone, as VoiceBench asks; with the question in writing where AudioBench asks about the sound."""
    if found.scoring == "words":
        sample = Sample("transcription", (Turn(codes),), transcription_prompt(seed, row.id))
    elif found.scoring == "match" and row.words:
        sample = Sample("mixed", (Turn((codes, " ".join([row.words, *row.options]))),))
    else:
        sample = Sample("speech", (Turn(codes),))
    return engine.layouts.prompt_for(sample)


class _Scorer:
    def __init__(self, engine: Engine, found: BenchmarkSet, normaliser: Normaliser) -> None:
        self._engine, self._found, self._normaliser = engine, found, normaliser

    def item(self, row: BenchmarkRow, reply: Generation, letters: Likelihoods | None) -> Item:
        text = self._engine.decode(reply.tokens)
        stray, stopped = self._engine.stray_sound(reply.tokens), reply.stopped == "eot"
        judged = str(outcome(row.reference, text, stray_sound=stray, stopped=stopped))
        theirs = ours = math.nan
        units = (1, 1)
        if self._found.scoring in ("choice", "match"):
            bare = [_LABEL.sub("", option) for option in row.options]
            judged = choice_outcome(text, bare, row.answer, stray_sound=stray, stopped=stopped)
            ours = float(judged == "right")
            theirs = self._option_score(row, text)
        elif self._found.scoring == "refusal":
            theirs, ours = float(voicebench.refuses(text)), float(refuses(text) or not normalise(text))
            judged = "refused" if ours else "answered"
        elif self._found.scoring == "words":
            first, second = self._normaliser.word_errors(row.reference, text), word_errors(row.reference, text)
            theirs, ours, units = float(first.errors), float(second.errors), (first.units, second.units)
        elif row.reference:
            ours = token_f1(row.reference, text)
        said = letters.log_likelihoods if letters else ()
        return Item(
            self._found.name,
            row.id,
            row.words,
            row.reference,
            text,
            len(reply.tokens),
            judged,
            theirs,
            ours,
            *units,
            said,
        )

    def _option_score(self, row: BenchmarkRow, text: str) -> float:
        if self._found.scoring == "choice":
            return voicebench.choice_score(text, row.reference)
        unlabelled = [option[4:] for option in row.options]  # as AudioBench takes "(A) " off, whatever stands there
        return float(string_match(text, unlabelled, row.answer))
