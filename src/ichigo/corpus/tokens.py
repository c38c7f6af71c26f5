"""Tokenised shards: what a row became, without its audio, as Parquet beside the contract that its ids will follow."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.rows import Origin, Row, Split

TOKENS_FILE = "tokens.parquet"

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
    ]
)


@dataclass(frozen=True, eq=False)
class TokenRow:
    """One utterance: ``codes`` int16 (n,), 25 per second, codes 0..512; the other fields are those of its row."""

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


def token_row(row: Row, codes: npt.NDArray[np.int16]) -> TokenRow:
    """The row with its sound tokens in place of its audio."""
    return TokenRow(
        row.id, codes, row.text, row.answer, row.speaker, row.split, row.language, row.license, row.seconds, row.origin
    )


def write_tokens(rows: Iterable[TokenRow], folder: Path) -> Path:
    """Write ``folder/tokens.parquet``, rows by id; same rows, same bytes."""
    ordered = sorted(rows, key=lambda row: row.id)
    columns = {name: [getattr(row, name) for row in ordered] for name in _SCHEMA.names}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TOKENS_FILE
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")
    return path


def read_tokens(folder: Path) -> list[TokenRow]:
    """Read what :func:`write_tokens` wrote."""
    rows = pq.read_table(folder / TOKENS_FILE, schema=_SCHEMA).to_pylist()
    return [TokenRow(**{**row, "codes": np.asarray(row["codes"], dtype=np.int16)}) for row in rows]
