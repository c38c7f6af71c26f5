"""A corpus on disk: Parquet shards, the lines that were set aside, and a summary.

::

    shard-00000.parquet …   rows in the order of their ids, dealt out in turn: sizes differ by one row at most, or by
                            one dialogue, whose turns stay together and in order
    quarantine.parquet      one row per line that was set aside, with its reason
    summary.json            counts and seconds

A row's place depends on its content and the number of shards only. The same rows give the same bytes in every file.
Rows never are in memory as a whole: writing keeps them in a temporary file and of each an entry of some 300 bytes, and
shards are read in groups of rows.
"""

from __future__ import annotations

import json
import math
import pickle
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import accumulate, groupby, pairwise
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.rows import Rejected, Row
from ichigo.errors import DataError
from ichigo.speech.synthesis import Phone, Word

QUARANTINE = "quarantine.parquet"
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
        pa.field("codes", pa.list_(pa.int16()), nullable=False),
        pa.field("tokenizer", pa.string(), nullable=False),
    ]
)
_QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("line", pa.int64(), nullable=False),
        pa.field("file", pa.string()),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
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
_REPEATING = ["speaker", "split", "language", "license", "origin", "topic", "suite", "tokenizer"]  # worth a dictionary
_COUNTED = ("split", "origin", "speaker", "language", "license", "topic", "suite")
_COMPRESSION = {name: "none" if name == "audio" else "zstd" for name in _SCHEMA.names}  # FLAC does not shrink further
_GROUP = 512  # rows of a row group, if their speech is short: 14 MB of 1.4 s each
_GROUP_BYTES = 16 << 20  # of sound in a row group, if it is long
_TOGETHER = 64  # rows that are read at a time
_DETAIL = 1000  # characters of a detail: what is wrong with a row may be a megabyte long


@dataclass(frozen=True, slots=True)
class CorpusSummary:
    """What a corpus holds: the rows of each split, origin, speaker, language, licence, topic and suite, set-aside lines
    by reason."""

    rows: int
    seconds: float
    shards: int
    splits: dict[str, int]
    origins: dict[str, int]
    speakers: dict[str, int]
    languages: dict[str, int]
    licenses: dict[str, int]
    topics: dict[str, int]
    suites: dict[str, int]
    train_seconds: float
    test_seconds: float
    rejected: dict[str, int]


class Quarantine:
    """The table of lines that were set aside, written as they come: a context that ends with a whole file.

    ``counts`` has them by reason.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.counts: Counter[str] = Counter()
        self._waiting: list[Rejected] = []
        self._writer = pq.ParquetWriter(folder / QUARANTINE, _QUARANTINE_SCHEMA, compression="zstd")

    def add(self, entry: Rejected) -> None:
        """Write one line's reason."""
        self.counts[entry.reason] += 1
        self._waiting.append(replace(entry, detail=entry.detail[:_DETAIL]))
        if len(self._waiting) == _GROUP:
            self._flush()

    def __enter__(self) -> Quarantine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._waiting or not self.counts:  # a table without rows still has its columns
            self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = {name: [getattr(entry, name) for entry in self._waiting] for name in _QUARANTINE_SCHEMA.names}
        for name in ("unit", "file", "detail"):
            columns[name] = [_storable(value) for value in columns[name]]
        self._writer.write_table(pa.table(columns, schema=_QUARANTINE_SCHEMA))
        self._waiting.clear()


def read_quarantine(folder: Path) -> list[Rejected]:
    """The lines that were set aside, in the order in which they were read."""
    return [Rejected(**entry) for entry in pq.read_table(folder / QUARANTINE).to_pylist()]


def written(folder: Path) -> tuple[int, int]:
    """How many rows the shards in ``folder`` hold, and its quarantine, by their footers."""
    shards = sorted(folder.glob("shard-*.parquet"))
    rows = sum(pq.read_metadata(shard).num_rows for shard in shards)
    return rows, pq.read_metadata(folder / QUARANTINE).num_rows


def write_shards(
    rows: Iterable[Row],
    folder: Path,
    shards: int,
    rejected: Mapping[str, int] | None = None,
    held_out: Callable[[], Collection[str]] = frozenset,
) -> CorpusSummary:
    """Write ``rows`` into ``folder`` as ``shards`` files, and the summary; older shards there are replaced.

    Args:
        rows: are drawn once.
        folder: is made if it is absent.
        shards: how many files.
        rejected: lines that were set aside, by reason, for the summary; read after the last row.
        held_out: ids of rows that go to the test split whatever they say; called after the last row.

    Raises:
        DataError: two rows have one id, there are fewer rows than shards, or the corpus lacks train rows to learn from
            or test rows to be judged by.
    """
    with tempfile.TemporaryFile() as file:
        kept = [_spooled(row, file) for row in rows]
        test = held_out()
        kept.sort(key=lambda entry: (entry.together, entry.turn, entry.id))
        totals = _Totals()
        _check(kept, shards, file, test)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("shard-*.parquet"):
            old.unlink()
        for number, own in enumerate(_dealt(kept, shards)):
            _write((_unspooled(entry, file, test) for entry in own), folder / f"shard-{number:05d}.parquet", totals)
    summary = totals.summary(shards, rejected or {})
    (folder / SUMMARY).write_text(json.dumps(asdict(summary), sort_keys=True, indent=2) + "\n")
    return summary


def read_shard(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """All of :func:`iter_rows`."""
    return list(iter_rows(path, columns))


def iter_rows(path: Path, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """Rows of one shard, or of all shards of a folder in their order, with 64 rows in memory at a time.

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
class _Entry:
    """A row that lies in the temporary file, and what decides its place."""

    together: str  # its dialogue, or itself
    turn: int
    id: str
    split: str
    offset: int


def _spooled(row: Row, file: IO[bytes]) -> _Entry:
    offset = file.tell()
    pickle.dump(row, file, pickle.HIGHEST_PROTOCOL)
    return _Entry(row.dialogue or row.id, row.turn, row.id, row.split, offset)


def _unspooled(entry: _Entry, file: IO[bytes], test: Collection[str]) -> Row:
    file.seek(entry.offset)
    row: Row = pickle.load(file)  # written above, into a file that has no name
    return replace(row, split="test") if row.id in test else row


def _dealt(rows: Sequence[_Entry], shards: int) -> list[list[_Entry]]:
    """The rows in as many lists; each dialogue, and each row without one, goes to the shortest list, the first of
    them."""
    dealt: list[list[_Entry]] = [[] for _ in range(shards)]
    for _, together in groupby(rows, key=lambda row: row.together):
        min(dealt, key=len).extend(together)
    return dealt


def _check(rows: Sequence[_Entry], shards: int, file: IO[bytes], test: Collection[str]) -> None:
    missing = {"train", "test"} - {"test" if row.id in test else row.split for row in rows}
    if missing:
        raise DataError(
            f"the corpus has {len(rows)} rows, but none in split {' and '.join(sorted(missing))}; "
            "set data.held_out_speakers, data.voices or the rows' split"
        )
    if len(rows) < shards:
        raise DataError(f"data.shards is {shards}, but the corpus has {len(rows)} rows; set at most that many shards")
    if len({row.id for row in rows}) < len(rows):
        identity, count = Counter(row.id for row in rows).most_common(1)[0]
        text = next(_unspooled(row, file, test).text for row in rows if row.id == identity)
        raise DataError(f"{count} rows have the id {identity} (the same sound and text {text!r}); keep one of them")


def _write(rows: Iterator[Row], path: Path, totals: _Totals) -> None:
    with pq.ParquetWriter(
        path, _SCHEMA, compression=_COMPRESSION, use_dictionary=_REPEATING, write_statistics=_REPEATING
    ) as writer:
        for group in _groups(rows):
            totals.add(group)
            writer.write_table(pa.table([_column(name, group) for name in _SCHEMA.names], schema=_SCHEMA))


def _groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in order, cut after 512 of them or 16 MiB of sound."""
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row.audio)
        if len(group) == _GROUP or size >= _GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def _column(name: str, rows: Sequence[Row]) -> pa.Array:
    values = [getattr(row, name) for row in rows]
    if name not in _SPANS:
        return pa.array(values, _SCHEMA.field(name).type)
    struct = _SPANS[name][1]
    spans = [span for own in values for span in own]
    parts = [pa.array([getattr(span, part.name) for span in spans], part.type) for part in struct]
    offsets = pa.array([0, *accumulate(map(len, values))], pa.int32())
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays(parts, fields=list(struct)))


def _storable(text: str | None) -> str | None:
    """Names in a tar need not be UTF-8; Parquet's strings are."""
    return None if text is None else text.encode("utf-8", "replace").decode()


def _batches(file: Path, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        with pq.ParquetFile(file, pre_buffer=False) as shard:  # True holds the whole file: 200 of 200 MB, not 17
            if lacking := sorted(set(columns) - set(known := shard.schema_arrow.names)):
                raise DataError(f"{file}: no column {', '.join(lacking)}; known are {', '.join(known)}")
            yield from shard.iter_batches(_TOGETHER, columns=columns)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: not a corpus shard ({error}); write it again with the corpus step") from None


def _values(name: str, column: pa.Array) -> list[Any]:
    """The Python values of a column; phones and words are built from flat lists, 6 times faster than from dicts."""
    if name not in _SPANS:
        values: list[Any] = column.to_pylist()
        return list(map(tuple, values)) if name == "codes" else values
    kind = _SPANS[name][0]
    spans = list(map(kind, *(part.to_pylist() for part in column.flatten().flatten())))
    ends = list(accumulate(column.value_lengths().to_pylist(), initial=0))
    return [tuple(spans[start:end]) for start, end in pairwise(ends)]


class _Totals:
    """What goes into the summary, gathered while rows are written."""

    def __init__(self) -> None:
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._seconds: dict[str, array[float]] = {"train": array("d"), "test": array("d")}

    def add(self, rows: Sequence[Row]) -> None:
        """Count some rows."""
        for name, counter in self._counts.items():
            counter.update(getattr(row, name) for row in rows)
        for row in rows:
            self._seconds[row.split].append(row.seconds)

    def summary(self, shards: int, rejected: Mapping[str, int]) -> CorpusSummary:
        """All of it; sums of seconds do not depend on the order of the rows."""
        train, test = (round(math.fsum(self._seconds[split]), 3) for split in ("train", "test"))
        return CorpusSummary(
            rows=self._counts["split"].total(),
            seconds=round(math.fsum(value for own in self._seconds.values() for value in own), 3),
            shards=shards,
            **{f"{name}s": dict(sorted(counter.items())) for name, counter in self._counts.items()},
            train_seconds=train,
            test_seconds=test,
            rejected=dict(sorted(rejected.items())),
        )
