"""A corpus on disk: Parquet shards, the lines that were set aside, and a summary.

::

    shard-00000.parquet …   rows in the order of their ids, dealt out in turn: sizes differ by one row at most
    rejected.jsonl          one line per row that was set aside
    summary.json            counts and seconds

A row's place depends on its content and the number of shards only. The same rows give the same bytes in every file.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.rows import Rejected, Row
from ichigo.errors import DataError
from ichigo.hashing import canonical_json
from ichigo.speech.synthesis import Phone

REJECTED = "rejected.jsonl"
SUMMARY = "summary.json"

_PHONE = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("symbol", pa.string())])
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("speaker", pa.string(), nullable=False),
        pa.field("split", pa.string(), nullable=False),
        pa.field("language", pa.string(), nullable=False),
        pa.field("license", pa.string(), nullable=False),
        pa.field("seconds", pa.float64(), nullable=False),
        pa.field("audio", pa.binary(), nullable=False),
        pa.field("origin", pa.string(), nullable=False),
        pa.field("phones", pa.list_(_PHONE), nullable=False),
    ]
)
_BLANK = Row(
    id="",
    text="",
    answer=None,
    speaker="",
    split="train",
    language="",
    license="",
    seconds=0.0,
    audio=b"",
    origin="folder",
)
_REPEATING = ["speaker", "split", "language", "license", "origin"]  # worth a dictionary; the rest is not


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """What a corpus holds; the rows of each split, origin and speaker, and the set-aside lines of each reason."""

    rows: int
    seconds: float
    shards: int
    splits: dict[str, int]
    origins: dict[str, int]
    speakers: dict[str, int]
    train_seconds: float
    test_seconds: float
    rejected: dict[str, int]


def write_shards(rows: Sequence[Row], folder: Path, shards: int, rejected: Sequence[Rejected] = ()) -> CorpusSummary:
    """Write ``rows`` into ``folder`` as ``shards`` files, with quarantine and summary; older shards there are replaced.

    Raises :class:`~ichigo.errors.DataError` for two rows of one id, for fewer rows than shards, and for a corpus that
    lacks train rows to learn from or test rows to be judged by.
    """
    _check(rows, shards)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("shard-*.parquet"):
        old.unlink()
    ordered = sorted(rows, key=lambda row: row.id)
    for number in range(shards):
        _write(ordered[number::shards], folder / f"shard-{number:05d}.parquet")
    summary = _summary(ordered, shards, rejected)
    (folder / REJECTED).write_bytes(b"".join(canonical_json(asdict(entry)) + b"\n" for entry in rejected))
    (folder / SUMMARY).write_text(json.dumps(asdict(summary), sort_keys=True, indent=2) + "\n")
    return summary


def read_shard(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Rows of one shard, or of all shards of a folder in their order.

    With ``columns`` only those fields are read and the others are blank (``""``, ``None``, 0, ``b""``, ``()``): asking
    for ``["id", "text"]`` leaves the audio on disk. Raises :class:`~ichigo.errors.DataError` for what is no shard.
    """
    files = sorted(path.glob("shard-*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no shard-*.parquet in this folder; give the folder that the corpus step wrote")
    wanted = list(columns) if columns is not None else _SCHEMA.names
    return [_row(record) for file in files for record in _records(file, wanted)]


def _check(rows: Sequence[Row], shards: int) -> None:
    missing = {"train", "test"} - {row.split for row in rows}
    if missing:
        raise DataError(
            f"the corpus has {len(rows)} rows, but none in split {' and '.join(sorted(missing))}; "
            "set data.held_out_speakers, data.voices or the rows' split"
        )
    if len(rows) < shards:
        raise DataError(f"data.shards is {shards}, but the corpus has {len(rows)} rows; set at most that many shards")
    identity, count = Counter(row.id for row in rows).most_common(1)[0]
    if count > 1:
        text = next(row.text for row in rows if row.id == identity)
        raise DataError(f"{count} rows have the id {identity} (the same sound and text {text!r}); keep one of them")


def _write(rows: Sequence[Row], path: Path) -> None:
    table = pa.Table.from_pylist([asdict(row) for row in rows], schema=_SCHEMA)
    pq.write_table(table, path, compression="zstd", use_dictionary=_REPEATING, write_statistics=_REPEATING)


def _records(file: Path, columns: list[str]) -> list[dict[str, Any]]:
    try:
        with pq.ParquetFile(file) as shard:
            known = shard.schema_arrow.names
            records: list[dict[str, Any]] = shard.read(columns=columns).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a corpus shard ({error}); write it again with the corpus step") from None
    if lacking := sorted(set(columns) - set(known)):
        raise DataError(f"{file}: no column {', '.join(lacking)}; known are {', '.join(known)}")
    return records


def _row(record: dict[str, Any]) -> Row:
    phones = tuple(Phone(**phone) for phone in record.get("phones", ()))
    return replace(_BLANK, **(record | {"phones": phones}))


def _summary(rows: Sequence[Row], shards: int, rejected: Sequence[Rejected]) -> CorpusSummary:
    def count(key: Callable[[Row], str]) -> dict[str, int]:
        return dict(sorted(Counter(key(row) for row in rows).items()))

    def seconds(split: str) -> float:
        return round(sum(row.seconds for row in rows if row.split == split), 3)

    return CorpusSummary(
        rows=len(rows),
        seconds=round(sum(row.seconds for row in rows), 3),
        shards=shards,
        splits=count(lambda row: row.split),
        origins=count(lambda row: row.origin),
        speakers=count(lambda row: row.speaker),
        train_seconds=seconds("train"),
        test_seconds=seconds("test"),
        rejected=dict(sorted(Counter(entry.reason for entry in rejected).items())),
    )
