"""What a row of a corpus is, and what is written down about a row that was set aside."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from ichigo.hashing import canonical_json, sha256_bytes
from ichigo.speech.audio import pcm16
from ichigo.speech.synthesis import Phone

Split = Literal["train", "test"]
Origin = Literal["folder", "spoken"]

UNKNOWN_LANGUAGE = "und"  # BCP 47: undetermined
UNKNOWN_LICENSE = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """One utterance with its text and, for a question, its answer."""

    id: str  # 16 hexadecimal digits, see row_id
    text: str
    answer: str | None
    speaker: str  # "" where the source names none
    split: Split
    language: str
    license: str
    seconds: float
    audio: bytes  # FLAC, 16 kHz, mono, 16 bit
    origin: Origin
    phones: tuple[Phone, ...] = ()  # timed; only synthetic speech has them


@dataclass(frozen=True, slots=True)
class Rejected:
    """A line of a source that gave no row: ``reason`` is a short code for counting, ``detail`` is for a person."""

    line: int  # from 1
    file: str | None
    reason: str
    detail: str


def row_id(waveform: npt.NDArray[np.float32], text: str, answer: str | None) -> str:
    """Identity by content: the same 16-bit samples, text and answer have the same id wherever they lie."""
    digest = hashlib.sha256(pcm16(waveform).tobytes())
    digest.update(canonical_json([text, answer]))
    return digest.hexdigest()[:16]


def held_out(keys: Iterable[str], share: float, seed: int) -> set[str]:
    """The ``share`` of the distinct ``keys`` whose seeded hash is lowest: their order and number of uses do not matter.

    0 holds out none, 1 all; anything between leaves at least one key on each side, where there are two.
    """
    ranked = sorted(set(keys), key=lambda key: sha256_bytes(f"{seed}:{key}".encode()))
    count = round(share * len(ranked))
    if 0 < share < 1 and len(ranked) > 1:
        count = min(max(count, 1), len(ranked) - 1)
    return set(ranked[:count])
