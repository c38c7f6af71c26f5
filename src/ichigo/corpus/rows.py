"""What a row of a corpus is, and what is written down about a row that was set aside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ichigo.hashing import sha256_bytes, sha256_json
from ichigo.speech.audio import pcm16
from ichigo.speech.synthesis import Phone, Word

Split = Literal["train", "test"]
Origin = Literal["folder", "parquet", "webdataset", "tokens", "instructions", "spoken", "world"]

UNKNOWN_LANGUAGE = "und"  # BCP 47: undetermined
UNKNOWN_LICENSE = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance with its text and, for a question, its answer; the rows of one ``dialogue`` follow ``turn``."""

    id: str  # 16 hexadecimal digits, see row_id
    text: str
    answer: str | None
    speaker: str  # "" where the source names none
    split: Split
    language: str
    license: str
    seconds: float
    audio: bytes  # FLAC, 16 kHz, mono, 16 bit; b"" where the source gave codes
    origin: Origin
    phones: tuple[Phone, ...] = ()  # timed; only synthetic speech has them
    words: tuple[Word, ...] = ()  # timed, those of text.split(); only synthetic speech has them
    topic: str = ""  # what it is about, in a generated world
    suite: str = ""  # the evaluation suite that asks this test row; "" leaves it to those that take any row
    dialogue: str = ""  # "" stands alone
    turn: int = 0  # from 0
    codes: tuple[int, ...] = ()  # 0..512, 25 per second, of a row that came as sound tokens
    tokenizer: str = ""  # who made the codes, as the recipe says


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line of a source that was set aside: ``reason`` is a short code for counting, ``detail`` is for a person."""

    line: int  # from 1, within the unit; 0 is the unit itself
    file: str | None  # the recording that the line names
    reason: str
    detail: str
    source: str = ""  # where the recipe names it: data.folder, data.sources.0
    unit: str = ""  # the file of the source


class SetAsideError(Exception):
    """Why one line gives no row; never leaves this room."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


def sound_digest(waveform: npt.NDArray[np.float32]) -> str:
    """SHA-256 of the 16-bit samples of ``waveform``."""
    return hashlib.sha256(pcm16(waveform).tobytes()).hexdigest()


def row_id(sound: str, text: str, answer: str | None, *place: str | int) -> str:
    """Identity by content: the same samples (:func:`sound_digest`), text and answer have the same id wherever they lie.

    ``place`` (suite, dialogue, turn) tells apart what is asked twice on purpose.
    """
    return sha256_json([sound, text, answer, *place])[:16]


def held_out(keys: Iterable[str], share: float, seed: int) -> set[str]:
    """The ``share`` of the distinct ``keys`` whose seeded hash is lowest: their order and number of uses do not matter.

    0 holds out none, 1 all; anything between leaves at least one key on each side, where there are two.
    """
    ranked = sorted(set(keys), key=lambda key: sha256_bytes(f"{seed}:{key}".encode()))
    count = round(share * len(ranked))
    if 0 < share < 1 and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    return set(ranked[:count])
