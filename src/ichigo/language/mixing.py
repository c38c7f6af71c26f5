"""Which samples a stage sees: exact quotas per kind, drawn by seed from the training rows.

The paper mixes 70/20/10 speech answers, transcription and text in the second stage, and conversations with 5 % noise in
the third (arXiv 2410.15316, section 3). What feeds what::

    sound                  every spoken row
    transcription, speak   spoken rows whose words are known (those of published token strings are not)
    speech                 spoken rows with an answer that needs nothing before it
    mixed                  those of them whose words' ends are known: cut between two words, one side of the cut written
    multi_turn             spoken conversations; where there is none, two or more of the rows of ``speech`` in a row
    text                   written questions and conversations
    noise                  random codes as long as real rows, and by turns recorded noise where there is any, answered
                           by a polite refusal

A row of a later turn is understood by its conversation alone, so only kinds that ask no answer of it have it alone.
What is known from text alone has no spoken row, and every sound comes from a spoken row: it is heard in no kind.

Each kind has its own random stream (seed, stage, kind), so changing one share does not change the rows of another.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from typing import TypeVar, get_args

import numpy as np

from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.language.contract import SOUND_CODES
from ichigo.language.layouts import Codes, Part, Sample, Turn, speak_prompt, transcription_prompt
from ichigo.recipe.schema import SampleType, Stage

NOISE_ANSWERS = (
    "sorry, i could not hear that.",
    "sorry, i could not make out any words.",
    "i did not catch that, please say it again.",
    "that was not clear to me, could you repeat it?",
    "i heard only noise, please try once more.",
    "i could not understand the audio, please speak again.",
)
"""What the assistant says to unintelligible sound where the corpus has no recorded noise with an answer of its own;
evaluation counts exactly these as refusals."""

FOUR_TURN_SHARE = 1 / 15
"""Conversations of four turns; the others have two (the paper's 140,000 two-turn and 10,000 longer rows)."""

_FEEDS: dict[SampleType, str] = {
    "sound": "spoken training rows",
    "transcription": "spoken training rows whose words are known",
    "speak": "spoken training rows whose words are known",
    "speech": "spoken training rows with an answer",
    "mixed": "spoken training rows with an answer, two or more words and their ends",
    "multi_turn": "at least two spoken training rows with an answer",
    "text": "sentences with an answer",
    "noise": "spoken training rows (their lengths)",
}


@dataclass(frozen=True, eq=False)
class SpokenRow:
    """A tokenised utterance: codes int16 (n,) at 25 per second, what was said ("" for noise, and where nobody wrote it
    down), and the answer if it has one.

    Rows of one conversation share ``dialogue`` and count ``turn`` from 0. ``word_ends``, where known, are the sound
    tokens up to the end of each word of ``text``.
    """

    id: str
    codes: Codes
    text: str
    answer: str | None
    split: str = "train"
    dialogue: str = ""
    turn: int = 0
    word_ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class TextPair:
    """A question and its answer in text; conversations as in :class:`SpokenRow`."""

    id: str
    text: str
    answer: str
    split: str = "train"
    dialogue: str = ""
    turn: int = 0


Row = TypeVar("Row", SpokenRow, TextPair)
Item = TypeVar("Item")


@dataclass(frozen=True)
class Pool:
    """The rows of the training split; :func:`draw` refuses any other. ``noise`` is sound without words, answered by a
    refusal."""

    spoken: tuple[SpokenRow, ...] = ()
    texts: tuple[TextPair, ...] = ()
    noise: tuple[SpokenRow, ...] = ()


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

    A kind's rows or conversations come in random order without repetition; when they are used up, another pass in a new
    order begins. So topics come as often as the pool has them. Raises :class:`DataError` for a row that is outside the
    training split or empty, and for a kind that nothing in the pool can feed.
    """
    _check_rows(pool)
    counts = quotas(stage.mix, stage.examples)
    samples = [
        sample
        for kind, count in counts.items()
        if count
        for sample in islice(_fed(kind, count, pool, seed, stage.name), count)
    ]
    order = _generator(seed, stage.name, "order").permutation(len(samples))
    return Draw(tuple(samples[index] for index in order), counts)


def cuts(row: SpokenRow) -> list[int]:
    """Numbers of words after which ``row`` can be cut into two parts that both have words and sound."""
    ends = row.word_ends if len(row.word_ends) == len(row.text.split()) else ()
    return [words for words, end in enumerate(ends[:-1], start=1) if 0 < end < len(row.codes)]


def mixed_question(row: SpokenRow, cut: int, spoken_first: bool) -> tuple[Part, Part]:
    """``row`` cut after ``cut`` words: the first part's codes and the other words, or the first words and the other
    codes."""
    words, end = row.text.split(), row.word_ends[cut - 1]
    if spoken_first:
        return row.codes[:end], " ".join(words[cut:])
    return " ".join(words[:cut]), row.codes[end:]


def _fed(kind: SampleType, count: int, pool: Pool, seed: int, stage: str) -> Iterator[Sample]:
    """At least ``count`` samples of ``kind``; :class:`DataError` if there is too little to make one."""
    generator = _generator(seed, stage, kind)
    asked = [row for row in pool.spoken if row.answer and not row.turn]
    if kind == "text":
        samples: Iterator[Sample] | None = _written(pool.texts, generator)
    elif kind == "noise":
        samples = _noise(pool, generator)
    elif kind == "multi_turn":
        samples = _multi_turn(pool.spoken, asked, generator)
    else:
        worded = [row for row in pool.spoken if row.text]
        alone: dict[SampleType, list[SpokenRow]] = {
            "speech": asked, "mixed": [row for row in asked if cuts(row)], "transcription": worded, "speak": worded
        }  # fmt: skip
        samples = _single(kind, alone.get(kind, pool.spoken), generator, seed)
    if samples is None:
        raise DataError(
            f"stage {stage}: mix.{kind} asks for {count} samples but the corpus has too little to make them from; add "
            f"{_FEEDS[kind]}, or take '{kind}' out of the mix"
        )
    return samples


def _single(
    kind: SampleType, rows: Sequence[SpokenRow], generator: np.random.Generator, seed: int
) -> Iterator[Sample] | None:
    """Samples of one turn, one row each."""
    stream = enumerate(_passes(rows, generator))
    return (_alone(kind, row, generator, (seed, place)) for place, row in stream) if rows else None


def _alone(kind: SampleType, row: SpokenRow, generator: np.random.Generator, key: tuple[int, int]) -> Sample:
    own = (row.id,)
    if kind == "transcription":
        return Sample(kind, (Turn(row.codes, row.text),), transcription_prompt(*key, row.id), own)
    if kind == "speak":
        return Sample(kind, (Turn(row.text, row.codes),), speak_prompt(*key, row.id), own)
    if kind == "mixed":
        spoken_first = bool(generator.integers(2))
        cut = int(generator.choice(cuts(row)))
        return Sample(kind, (Turn(mixed_question(row, cut, spoken_first), row.answer or ""),), rows=own)
    return Sample(kind, (Turn(row.codes, "" if kind == "sound" else row.answer or ""),), rows=own)


def _written(pairs: Sequence[TextPair], generator: np.random.Generator) -> Iterator[Sample] | None:
    chats = [*([pair] for pair in pairs if not pair.dialogue), *_conversations(pairs)]
    return (_chat(rows) for rows in _passes(chats, generator)) if chats else None


def _chat(rows: Sequence[TextPair]) -> Sample:
    return Sample("text", tuple(Turn(row.text, row.answer) for row in rows), rows=tuple(row.id for row in rows))


def _noise(pool: Pool, generator: np.random.Generator) -> Iterator[Sample] | None:
    answers = tuple({row.answer or "": None for row in pool.noise}) or NOISE_ANSWERS
    recorded = _passes(pool.noise, generator) if pool.noise else None

    def samples() -> Iterator[Sample]:
        for row in _passes(pool.spoken, generator):
            codes = generator.integers(0, SOUND_CODES, size=len(row.codes), dtype=np.int16)
            yield Sample("noise", (Turn(codes, answers[int(generator.integers(len(answers)))]),))
            if recorded:
                heard = next(recorded)
                yield Sample("noise", (Turn(heard.codes, heard.answer or ""),), rows=(heard.id,))

    return samples() if pool.spoken else None


def _multi_turn(
    spoken: Sequence[SpokenRow], asked: Sequence[SpokenRow], generator: np.random.Generator
) -> Iterator[Sample] | None:
    if dialogues := [rows for rows in _conversations(spoken) if len(rows) > 1]:
        return (_conversation(rows) for rows in _passes(dialogues, generator))
    return _joined(asked, generator) if len(asked) > 1 else None


def _joined(rows: Sequence[SpokenRow], generator: np.random.Generator) -> Iterator[Sample]:
    """Conversations of independent rows."""
    stream = _passes(rows, generator)
    while True:
        length = min(4 if generator.random() < FOUR_TURN_SHARE else 2, len(rows))
        chosen: dict[str, SpokenRow] = {}  # a row may come up again where two passes meet; a conversation has it once
        while len(chosen) < length:
            row = next(stream)
            chosen.setdefault(row.id, row)
        yield _conversation(chosen.values())


def _conversation(rows: Collection[SpokenRow]) -> Sample:
    turns = tuple(Turn(row.codes, row.answer or "") for row in rows)
    return Sample("multi_turn", turns, rows=tuple(row.id for row in rows))


def _conversations(rows: Iterable[Row]) -> list[list[Row]]:
    """The rows of each dialogue from turn 0 on, as far as the turns follow each other and have answers."""
    dialogues: dict[str, dict[int, Row]] = {}
    for row in rows:
        if row.dialogue and row.answer:
            dialogues.setdefault(row.dialogue, {})[row.turn] = row
    whole = [[turns[turn] for turn in range(_reach(turns))] for _, turns in sorted(dialogues.items())]
    return [found for found in whole if found]


def _reach(turns: Mapping[int, object]) -> int:
    """How many of the turns 0, 1, 2 ... are there before the first gap."""
    return next(turn for turn in range(len(turns) + 1) if turn not in turns)


def _passes(items: Sequence[Item], generator: np.random.Generator) -> Iterator[Item]:
    """Endless ``items``: each pass is a new permutation."""
    while True:
        yield from (items[index] for index in generator.permutation(len(items)).tolist())


def _generator(seed: int, *key: str) -> np.random.Generator:
    return np.random.default_rng(int(sha256_json([seed, *key])[:16], 16))


def _check_rows(pool: Pool) -> None:
    rows: list[SpokenRow | TextPair] = [*pool.spoken, *pool.texts, *pool.noise]
    wordless = {row.id for row in pool.noise}
    for row in rows:
        if row.split != "train":
            raise DataError(
                f"row {row.id} of the pool is of split '{row.split}'; training draws from split 'train' alone, leave "
                "the others out"
            )
        unanswered = not (row.answer or "").strip() and (row.answer is not None or row.id in wordless)
        unsaid = isinstance(row, SpokenRow) and row.text == ""  # sound whose words nobody wrote down
        blank = unanswered or not (row.text.strip() or unsaid)
        if blank or (isinstance(row, SpokenRow) and not len(row.codes)):
            raise DataError(f"row {row.id} of the pool has blank text, a blank answer or no codes; set the row aside")
