"""Tokenised shards: what a row became, without its audio, as Parquet beside the contract that its ids will follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.rows import Origin, Row, Split
from ichigo.hashing import sha256_json
from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND

TOKENS_FILE = "tokens.parquet"
_GROUP = 1024  # rows of a row group: 0.3 MB of text and tokens

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("codes", pa.list_(pa.int16())),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("speaker", pa.string()),
        ("split", pa.string()),
        ("language", pa.string()),
        ("license", pa.string()),
        ("seconds", pa.float64()),
        ("origin", pa.string()),
        ("topic", pa.string()),
        ("suite", pa.string()),
        ("dialogue", pa.string()),
        ("turn", pa.int32()),
        ("word_ends", pa.list_(pa.int32())),
        ("heard", pa.string()),
    ]
)


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One utterance: ``codes`` int16 (n,), 25 per second, codes 0..512; the other fields are those of its row.

    ``word_ends[i]`` is how many sound tokens there are up to the end of word ``i`` of ``text.split()``, 0..n, never
    falling; it is empty where nothing is known about the words' times. ``heard`` is what the tokenizer's own
    recogniser hears in the recording (:mod:`ichigo.speech.hearing`), and "" where it was not asked.
    """

    id: str
    codes: npt.NDArray[np.int16]
    text: str
    answer: str | None
    speaker: str
    split: Split
    language: str
    license: str
    seconds: float
    origin: Origin
    topic: str = ""
    suite: str = ""
    dialogue: str = ""
    turn: int = 0
    word_ends: tuple[int, ...] = ()
    heard: str = ""


def token_row(row: Row, codes: npt.NDArray[np.int16]) -> TokenRow:
    """The row with its sound tokens in place of its audio."""
    return TokenRow(
        id=row.id,
        codes=codes,
        text=row.text,
        answer=row.answer,
        speaker=row.speaker,
        split=row.split,
        language=row.language,
        license=row.license,
        seconds=row.seconds,
        origin=row.origin,
        topic=row.topic,
        suite=row.suite,
        dialogue=row.dialogue,
        turn=row.turn,
        word_ends=tuple(min(round(word.end_s * SOUND_TOKENS_PER_SECOND), len(codes)) for word in row.words),
    )


def in_random_order(row: TokenRow) -> TokenRow:
    """The row with its sound tokens in an order drawn by its id: which sounds there are stays known, speech does not.

    A model that learns as much from this had no use for the order; one that learns nothing from it had.
    """
    generator = np.random.default_rng(int(sha256_json(["random order", row.id])[:16], 16))
    return replace(row, codes=generator.permutation(row.codes))


def write_tokens(rows: Iterable[TokenRow], folder: Path) -> Path:
    """Write ``folder/tokens.parquet`` in the order of ``rows``, 1024 in memory at a time; same rows, same bytes."""
    waiting = iter(rows)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TOKENS_FILE
    with pq.ParquetWriter(path, _SCHEMA, compression="zstd") as writer:
        while group := list(islice(waiting, _GROUP)):
            columns = {name: [getattr(row, name) for row in group] for name in _SCHEMA.names}
            writer.write_table(pa.table(columns, schema=_SCHEMA))
    return path


def read_tokens(folder: Path) -> list[TokenRow]:
    """Read what :func:`write_tokens` wrote."""
    rows = pq.read_table(folder / TOKENS_FILE, schema=_SCHEMA).to_pylist()
    return [
        TokenRow(**{**row, "codes": np.asarray(row["codes"], np.int16), "word_ends": tuple(row["word_ends"])})
        for row in rows
    ]
