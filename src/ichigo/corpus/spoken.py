"""The recipe's own sentences, spoken by synthetic voices.

Train rows are every sentence by every train voice, ``takes`` times; test rows are every sentence by every held-out
voice, once. So no voice is on both sides, while every sentence is on both: the question asked is whether the model
understands a new voice, not whether it knows an answer that it was never told.

Speeds and pitches are drawn by a seeded hash of voice and sentence, so adding one of either changes no other row.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from ichigo.corpus.rows import Row, Split, row_id
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Sentence, Voices
from ichigo.speech.audio import SAMPLE_RATE, write_flac
from ichigo.speech.synthesis import Request, Utterance, speak_all

LICENSE = "synthetic (espeak-ng)"


@dataclass(frozen=True, slots=True)
class _Take:
    sentence: Sentence
    split: Split
    request: Request


def speak_sentences(sentences: Sequence[Sentence], voices: Voices, seed: int, processes: int) -> list[Row]:
    """One row per sentence, voice and take; the same arguments give the same bytes, whatever ``processes``.

    Raises :class:`~ichigo.errors.DataError` for a sentence or voice that appears twice, and for voices, speeds and
    pitches that espeak-ng does not have.
    """
    _check(sentences, voices)
    takes = list(_takes(sentences, voices, seed))
    utterances = speak_all([take.request for take in takes], processes)
    return [_row(take, utterance) for take, utterance in zip(takes, utterances, strict=True)]


def _check(sentences: Sequence[Sentence], voices: Voices) -> None:
    _refuse_twice("data.sentences", [sentence.text for sentence in sentences])
    _refuse_twice("data.voices", [*voices.train, *voices.held_out])
    for field, (lowest, highest) in (("words_per_minute", voices.words_per_minute), ("pitch", voices.pitch)):
        if lowest > highest:
            raise DataError(f"data.voices.{field}: lowest {lowest} exceeds highest {highest}; swap them")
    combinations = len(_inclusive(voices.words_per_minute)) * len(_inclusive(voices.pitch))
    if voices.takes > combinations:
        raise DataError(
            f"data.voices.takes is {voices.takes}, but there are {combinations} pairs of words_per_minute and pitch; "
            "widen them or take fewer"
        )


def _refuse_twice(field: str, values: list[str]) -> None:
    value, count = Counter(values).most_common(1)[0] if values else ("", 0)
    if count > 1:
        raise DataError(f"{field}: {value!r} appears {count} times; each may appear once")


def _takes(sentences: Sequence[Sentence], voices: Voices, seed: int) -> Iterator[_Take]:
    sides: tuple[tuple[Split, tuple[str, ...], int], ...] = (
        ("train", voices.train, voices.takes),
        ("test", voices.held_out, 1),
    )
    for split, names, takes in sides:
        for voice in names:
            for sentence in sentences:
                for speed, pitch in _draw(sentence.text, voice, takes, voices, seed):
                    yield _Take(sentence, split, Request(sentence.text, voice, speed, pitch))


def _draw(text: str, voice: str, takes: int, voices: Voices, seed: int) -> list[tuple[int, int]]:
    """``takes`` different pairs of words per minute and pitch."""
    pairs = list(product(_inclusive(voices.words_per_minute), _inclusive(voices.pitch)))
    return random.Random(sha256_json([seed, voice, text])).sample(pairs, takes)


def _inclusive(bounds: tuple[int, int]) -> range:
    return range(bounds[0], bounds[1] + 1)


def _row(take: _Take, utterance: Utterance) -> Row:
    sentence, request = take.sentence, take.request
    return Row(
        id=row_id(utterance.waveform, sentence.text, sentence.answer),
        text=sentence.text,
        answer=sentence.answer,
        speaker=request.voice,
        split=take.split,
        language=request.voice.partition("+")[0].partition("-")[0],  # "en-us+f2" speaks "en"
        license=LICENSE,
        seconds=utterance.waveform.size / SAMPLE_RATE,
        audio=write_flac(utterance.waveform),
        origin="spoken",
        phones=utterance.phones,
    )
