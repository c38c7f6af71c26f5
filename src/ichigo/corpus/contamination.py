"""Whether what an evaluation asks stood in the training data: the same text, nearly the same text, or the same sound.

Texts are compared as :func:`~ichigo.corpus.near.normalised` has them and as near-duplicates (:class:`NearTexts`),
sounds by a digest of their sound tokens: the same recording has the same tokens under one tokenizer, and to the model
two recordings with the same tokens are the same. It is reported and sets nothing aside: some suites ask in speech what
training told in writing, on purpose.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.near import NearTexts, normalised
from ichigo.corpus.survey import NEAR

CONTAMINATION_FILE = "contamination.parquet"

Shared = Literal["same_text", "near_text", "same_sound"]
KINDS: tuple[Shared, ...] = get_args(Shared)


@dataclass(frozen=True)
class Asked:
    """One item: ``text`` is what is asked, in words, "" where there are none; ``sound`` the digest of its sound tokens,
    "" in writing."""

    suite: str
    id: str
    turn: int
    text: str
    sound: str = ""


@dataclass(frozen=True)
class Match:
    """What one item shares with training: ``rows`` of them, ``row`` the first by its id, ``row_text`` its text."""

    suite: str
    id: str
    turn: int
    shared: Shared
    text: str
    row: str
    row_text: str
    rows: int


@dataclass
class Training:
    """What was trained on: each distinct text and sound once, with its first row by id and how many there are."""

    texts: dict[str, Match] = field(default_factory=dict)
    sounds: dict[str, Match] = field(default_factory=dict)

    def add(self, id: str, text: str, codes: npt.NDArray[np.int16] | None = None) -> None:
        """Take a training row; ``codes`` where it is spoken."""
        if plain := normalised(text):
            _count(self.texts, plain, "same_text", id, text)
        if codes is not None and len(codes):
            _count(self.sounds, sound_digest(codes), "same_sound", id, text)


def sound_digest(codes: npt.NDArray[np.int16]) -> str:
    """What a string of sound tokens is known by."""
    return hashlib.blake2b(np.ascontiguousarray(codes, np.int16).tobytes(), digest_size=16).hexdigest()


def _count(known: dict[str, Match], key: str, shared: Shared, id: str, text: str) -> None:
    before = known.get(key)
    first = (id, text) if before is None or id < before.row else (before.row, before.row_text)
    known[key] = Match("", "", 0, shared, "", *first, 1 + (before.rows if before else 0))


def contamination(items: Sequence[Asked], training: Training) -> list[Match]:
    """What each of ``items`` shares with ``training``, by suite, id and turn; nearly the same text counts only where no
    row has the very same.

    Each distinct training text is looked up once among the distinct texts that are asked: 24,000 among 4,000 take some
    seconds.
    """
    asked = {plain for item in items if (plain := normalised(item.text))}
    close = _near(asked, training.texts)
    found = []
    for item in items:
        plain = normalised(item.text)
        text = training.texts.get(plain) or close.get(plain)
        for match in (text, training.sounds.get(item.sound)):
            if match:
                found.append(_of(item, match))
    return sorted(found, key=lambda one: (one.suite, one.id, one.turn, one.shared))


def _of(item: Asked, match: Match) -> Match:
    return Match(item.suite, item.id, item.turn, match.shared, item.text, match.row, match.row_text, match.rows)


def _near(asked: set[str], training: Mapping[str, Match]) -> dict[str, Match]:
    """For each asked text that training has in no row, the nearly same training texts as one match."""
    near, close = NearTexts(NEAR), dict[str, Match]()
    for text in sorted(asked - training.keys()):
        near.add(text, text)
    for plain in sorted(training):
        for text in near.matches(plain):
            one, before = training[plain], close.get(text)
            first = before if before and before.row <= one.row else one
            rows = one.rows + (before.rows if before else 0)
            close[text] = Match("", "", 0, "near_text", "", first.row, first.row_text, rows)
    return close


def counts(matches: Iterable[Match], items: Iterable[Asked]) -> dict[str, float]:
    """``contamination.items`` and, over all suites and for each, how many items share what:
    ``contamination.same_text``, ``contamination.spoken.facts.same_text`` ..."""
    each = Counter((match.suite, match.shared) for match in matches)
    sizes = Counter(item.suite for item in items)
    found = {"contamination.items": float(sizes.total())}
    for kind in KINDS:
        found[f"contamination.{kind}"] = float(sum(each[suite, kind] for suite in sizes))
    return found | {
        f"contamination.{suite}.{kind}": float(each[suite, kind]) for suite in sorted(sizes) for kind in KINDS
    }


def write_matches(matches: Sequence[Match], folder: Path) -> Path:
    """Write ``folder/contamination.parquet``, a row per match; same matches, same bytes."""
    kinds = {"int": pa.int32()}
    schema = pa.schema([(one.name, kinds.get(str(one.type), pa.string())) for one in fields(Match)])
    columns = {name: [getattr(match, name) for match in matches] for name in schema.names}
    path = folder / CONTAMINATION_FILE
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")
    return path


def read_matches(folder: Path) -> list[Match]:
    """What :func:`write_matches` wrote."""
    return [Match(**row) for row in pq.read_table(folder / CONTAMINATION_FILE).to_pylist()]
