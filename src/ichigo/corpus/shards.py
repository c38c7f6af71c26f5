"""A corpus on disk: Parquet shards, the lines that were set aside, and a summary.

::

    shard-00000.parquet …   rows in the order of their ids, dealt out in turn: sizes differ by one row at most, or by
                            one dialogue, whose turns stay together and in order
    rejected.jsonl          one line per row that was set aside
    summary.json            counts and seconds

A row's place depends on its content and the number of shards only. The same rows give the same bytes in every file.
Audio never is in memory as a whole: writing keeps it in a temporary file, and shards are read in groups of rows.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.rows import Rejected, Row
from ichigo.errors import DataError
from ichigo.hashing import canonical_json
from ichigo.speech.synthesis import Phone, Word

REJECTED = "rejected.jsonl"
SUMMARY = "summary.json"

_PHONE = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("symbol", pa.string())])
_WORD = pa.struct([("start_s", pa.float64()), ("end_s", pa.float64()), ("text", pa.string())])
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
        pa.field("words", pa.list_(_WORD), nullable=False),
        pa.field("topic", pa.string(), nullable=False),
        pa.field("suite", pa.string(), nullable=False),
        pa.field("dialogue", pa.string(), nullable=False),
        pa.field("turn", pa.int32(), nullable=False),
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
_SPANS: dict[str, tuple[type[Phone] | type[Word], pa.DataType]] = {"phones": (Phone, _PHONE), "words": (Word, _WORD)}
_REPEATING = ["speaker", "split", "language", "license", "origin", "topic", "suite"]  # worth a dictionary
_COMPRESSION = {name: "none" if name == "audio" else "zstd" for name in _SCHEMA.names}  # FLAC does not shrink further
_GROUP = 512  # rows of a row group: 14 MB of speech of 1.4 s


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """What a corpus holds: the rows of each split, origin, speaker, topic and suite, set-aside lines by reason."""

    rows: int
    seconds: float
    shards: int
    splits: dict[str, int]
    origins: dict[str, int]
    speakers: dict[str, int]
    topics: dict[str, int]
    suites: dict[str, int]
    train_seconds: float
    test_seconds: float
    rejected: dict[str, int]


def write_shards(rows: Iterable[Row], folder: Path, shards: int, rejected: Sequence[Rejected] = ()) -> CorpusSummary:
    """Write ``rows`` into ``folder`` as ``shards`` files, with quarantine and summary; older shards there are replaced.

    Raises :class:`~ichigo.errors.DataError` for two rows of one id, for fewer rows than shards, and for a corpus that
    lacks train rows to learn from or test rows to be judged by.
    """
    with tempfile.TemporaryFile() as audio:
        kept = [_without_audio(row, audio) for row in rows]
        kept.sort(key=lambda row: (row.dialogue or row.id, row.turn, row.id))
        _check(kept, shards)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("shard-*.parquet"):
            old.unlink()
        for number, own in enumerate(_dealt(kept, shards)):
            _write(own, audio, folder / f"shard-{number:05d}.parquet")
    summary = _summary(kept, shards, rejected)
    (folder / REJECTED).write_bytes(b"".join(canonical_json(asdict(entry)) + b"\n" for entry in rejected))
    (folder / SUMMARY).write_text(json.dumps(asdict(summary), sort_keys=True, indent=2) + "\n")
    return summary


def read_shard(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """All of :func:`iter_rows`."""
    return list(iter_rows(path, columns))


def iter_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of one shard, or of all shards of a folder in their order, with 512 rows in memory at a time.

    With ``columns`` only those fields are read and the others are blank (``""``, ``None``, 0, ``b""``, ``()``): asking
    for ``["id", "text"]`` leaves the audio on disk. Raises :class:`~ichigo.errors.DataError` for what is no shard.
    """
    files = sorted(path.glob("shard-*.parquet")) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path}: no shard-*.parquet in this folder; give the folder that the corpus step wrote")
    wanted = list(columns) if columns is not None else _SCHEMA.names
    for file in files:
        for batch in _batches(file, wanted):
            values = [_values(name, batch.column(name)) for name in wanted]
            for record in zip(*values, strict=True):
                yield replace(_BLANK, **dict(zip(wanted, record, strict=True)))


@dataclass(frozen=True, slots=True)
class _Kept(Row):
    """A row whose ``audio`` lies in a file, from ``offset`` on."""

    offset: int = 0
    size: int = 0


def _without_audio(row: Row, file: IO[bytes]) -> _Kept:
    values = {field.name: getattr(row, field.name) for field in fields(Row)} | {"audio": b""}
    return _Kept(**values, offset=file.tell(), size=file.write(row.audio))


def _dealt(rows: Sequence[_Kept], shards: int) -> list[list[_Kept]]:
    """The rows in as many lists; each dialogue, and each row without one, goes to the shortest list, the first of
    them."""
    dealt: list[list[_Kept]] = [[] for _ in range(shards)]
    for _, together in groupby(rows, key=lambda row: row.dialogue or row.id):
        min(dealt, key=len).extend(together)
    return dealt


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


def _write(rows: Sequence[_Kept], audio: IO[bytes], path: Path) -> None:
    with pq.ParquetWriter(
        path, _SCHEMA, compression=_COMPRESSION, use_dictionary=_REPEATING, write_statistics=_REPEATING
    ) as writer:
        for start in range(0, len(rows), _GROUP):
            group = rows[start : start + _GROUP]
            writer.write_table(pa.table([_column(name, group, audio) for name in _SCHEMA.names], schema=_SCHEMA))


def _column(name: str, rows: Sequence[_Kept], audio: IO[bytes]) -> pa.Array:
    if name == "audio":
        return pa.array([_audio(row, audio) for row in rows], pa.binary())
    values = [getattr(row, name) for row in rows]
    if name not in _SPANS:
        return pa.array(values, _SCHEMA.field(name).type)
    struct = _SPANS[name][1]
    spans = [span for own in values for span in own]
    parts = [pa.array([getattr(span, part.name) for span in spans], part.type) for part in struct]
    offsets = pa.array([0, *accumulate(map(len, values))], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(parts, fields=list(struct)))


def _audio(row: _Kept, file: IO[bytes]) -> bytes:
    file.seek(row.offset)
    return file.read(row.size)


def _batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file) as shard:
            if lacking := sorted(set(columns) - set(known := shard.schema_arrow.names)):
                raise DataError(f"{file}: no column {', '.join(lacking)}; known are {', '.join(known)}")
            yield from shard.iter_batches(_GROUP, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a corpus shard ({error}); write it again with the corpus step") from None


def _values(name: str, column: pa.Array) -> list[Any]:
    """The Python values of a column; phones and words are built from flat lists, 6 times faster than from dicts."""
    if name not in _SPANS:
        values: list[Any] = column.to_pylist()
        return values
    kind = _SPANS[name][0]
    spans = list(map(kind, *(part.to_pylist() for part in column.flatten().flatten())))
    ends = list(accumulate(column.value_lengths().to_pylist(), initial=0))
    return [tuple(spans[start:end]) for start, end in pairwise(ends)]


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
        topics=count(lambda row: row.topic),
        suites=count(lambda row: row.suite),
        train_seconds=seconds("train"),
        test_seconds=seconds("test"),
        rejected=dict(sorted(Counter(entry.reason for entry in rejected).items())),
    )
