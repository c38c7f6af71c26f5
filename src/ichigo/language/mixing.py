"""Which samples a stage sees: exact quotas per kind, drawn by seed from the training rows.

The paper mixes 70/20/10 speech answers, transcription and text in the second stage, and conversations with 5 % noise in
the third (arXiv 2410.15316, section 3). What feeds what::

    sound, transcription   every spoken row
    speech                 spoken rows with an answer
    multi_turn             two or more spoken rows with answers, every question spoken
    text                   text pairs
    noise                  random codes as long as real rows, answered by a polite refusal

Each kind has its own random stream (seed, stage, kind), so changing one share does not change the rows of another.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import get_args

import numpy as np

from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.language.contract import SOUND_CODES
from ichigo.language.layouts import Codes, Sample, Turn, transcription_prompt
from ichigo.recipe.schema import SampleType, Stage

NOISE_ANSWERS = (
    "sorry, i could not hear that.",
    "sorry, i could not make out any words.",
    "i did not catch that, please say it again.",
    "that was not clear to me, could you repeat it?",
    "i heard only noise, please try once more.",
    "i could not understand the audio, please speak again.",
)
"""What the assistant says to unintelligible sound; evaluation counts exactly these as refusals."""

FOUR_TURN_SHARE = 1 / 15
"""Conversations of four turns; the others have two (the paper's 140,000 two-turn and 10,000 longer rows)."""

_FEEDS: dict[SampleType, str] = {
    "sound": "spoken training rows",
    "transcription": "spoken training rows",
    "speech": "spoken training rows with an answer",
    "multi_turn": "at least two spoken training rows with an answer",
    "text": "sentences with an answer",
    "noise": "spoken training rows (their lengths)",
}


@dataclass(frozen=True, eq=False)
class SpokenRow:
    """A tokenised utterance: codes int16 (n,) at 25 per second, what was said, and the answer if it has one."""

    id: str
    codes: Codes
    text: str
    answer: str | None
    split: str = "train"


@dataclass(frozen=True)
class TextPair:
    """A question and its answer in text."""

    id: str
    text: str
    answer: str
    split: str = "train"


Row = SpokenRow | TextPair


@dataclass(frozen=True)
class Pool:
    """The rows of the training split; :func:`draw` refuses any other."""

    spoken: tuple[SpokenRow, ...] = ()
    texts: tuple[TextPair, ...] = ()


@dataclass(frozen=True)
class Draw:
    """The samples of a stage in shuffled order and how many there are of each kind of its mix."""

    samples: tuple[Sample, ...]
    counts: Mapping[SampleType, int]


def quotas(mix: Mapping[SampleType, float], examples: int) -> dict[SampleType, int]:
    """Counts adding up to ``examples``: largest remainder of the shares' decimal values, ties in schema order."""
    kinds = [kind for kind in get_args(SampleType) if kind in mix]
    shares = {kind: Fraction(str(mix[kind])) for kind in kinds}
    exact = {kind: share * examples / sum(shares.values()) for kind, share in shares.items()}
    counts = {kind: int(value) for kind, value in exact.items()}
    by_remainder = sorted(kinds, key=lambda kind: counts[kind] - exact[kind])
    for kind in by_remainder[: examples - sum(counts.values())]:
        counts[kind] += 1
    return counts


def draw(stage: Stage, pool: Pool, seed: int) -> Draw:
    """Draw ``stage.examples`` samples in the exact proportions of ``stage.mix``; same arguments, same samples.

    A kind's rows come in random order without repetition; when they are used up, another pass in a new order begins.
    Raises :class:`DataError` for a row that is outside the training split or empty, and for a kind that nothing in the
    pool can feed.
    """
    _check_rows(pool)
    counts = quotas(stage.mix, stage.examples)
    samples = [
        sample
        for kind, count in counts.items()
        if count
        for sample in _samples(kind, count, _rows(kind, count, pool, stage.name), seed, stage.name)
    ]
    order = _generator(seed, stage.name, "order").permutation(len(samples))
    return Draw(tuple(samples[index] for index in order), counts)


def _rows(kind: SampleType, count: int, pool: Pool, stage: str) -> Sequence[Row]:
    """The rows that can feed ``kind``; :class:`DataError` if there are too few to make one sample."""
    answered = [row for row in pool.spoken if row.answer]
    rows: dict[SampleType, Sequence[Row]] = {"text": pool.texts, "speech": answered, "multi_turn": answered}
    found = rows.get(kind, pool.spoken)
    if len(found) < (2 if kind == "multi_turn" else 1):
        raise DataError(
            f"stage {stage}: mix.{kind} asks for {count} samples but the corpus has too little to make them from; add "
            f"{_FEEDS[kind]}, or take '{kind}' out of the mix"
        )
    return found


def _samples(kind: SampleType, count: int, rows: Sequence[Row], seed: int, stage: str) -> Iterator[Sample]:
    generator = _generator(seed, stage, kind)
    stream = _passes(len(rows), generator)
    for place in range(count):
        if kind == "multi_turn":
            yield _conversation(rows, stream, generator)
        else:
            yield _single(kind, rows[next(stream)], generator, (seed, place))


def _passes(size: int, generator: np.random.Generator) -> Iterator[int]:
    """Endless indices 0..size-1: each pass is a new permutation."""
    while True:
        yield from generator.permutation(size).tolist()


def _single(kind: SampleType, row: Row, generator: np.random.Generator, key: tuple[int, int]) -> Sample:
    if isinstance(row, TextPair):
        return Sample(kind, (Turn(row.text, row.answer),))
    if kind == "transcription":
        return Sample(kind, (Turn(row.codes, row.text),), transcription_prompt(*key, row.id))
    if kind == "noise":
        codes = generator.integers(0, SOUND_CODES, size=len(row.codes), dtype=np.int16)
        return Sample(kind, (Turn(codes, NOISE_ANSWERS[int(generator.integers(len(NOISE_ANSWERS)))]),))
    return Sample(kind, (Turn(row.codes, "" if kind == "sound" else row.answer or ""),))


def _conversation(rows: Sequence[Row], stream: Iterator[int], generator: np.random.Generator) -> Sample:
    length = min(4 if generator.random() < FOUR_TURN_SHARE else 2, len(rows))
    chosen: dict[int, None] = {}  # a row may come up again where two passes meet; a conversation has it once
    while len(chosen) < length:
        chosen.setdefault(next(stream))
    spoken = [row for row in (rows[index] for index in chosen) if isinstance(row, SpokenRow)]
    return Sample("multi_turn", tuple(Turn(row.codes, row.answer or "") for row in spoken))


def _generator(seed: int, *key: str) -> np.random.Generator:
    return np.random.default_rng(int(sha256_json([seed, *key])[:16], 16))


def _check_rows(pool: Pool) -> None:
    rows: list[Row] = [*pool.spoken, *pool.texts]
    for row in rows:
        if row.split != "train":
            raise DataError(
                f"row {row.id} of the pool is of split '{row.split}'; training draws from split 'train' alone, leave "
                "the others out"
            )
        blank = not row.text.strip() or (row.answer is not None and not row.answer.strip())
        if blank or (isinstance(row, SpokenRow) and not len(row.codes)):
            raise DataError(f"row {row.id} of the pool has blank text, a blank answer or no codes; set the row aside")
