"""Tables of rows: Parquet files, one unit per row group, and files of JSON lines, one unit each.

Listing reads the footers of Parquet files alone. A row group is read row by row through a buffer of 1 MiB, with its
pages' checksums where it has them, so that memory holds one page and one row whatever a group unpacks to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.files import Entry, Files, require
from ichigo.corpus.jsonlines import json_lines
from ichigo.corpus.lines import Record, Unit
from ichigo.corpus.rows import SetAsideError
from ichigo.hashing import sha256_json

PARQUET, JSON_LINES = (".parquet",), (".jsonl", ".ndjson")

_BUFFER = 1 << 20
_TOGETHER = 64  # rows of a table without sound; with sound one, because its size is only known once it is unpacked
_BROKEN = (OSError, pa.ArrowException)


class Tables:
    """The tables of one place; ``wanted`` are the columns that are read where a file has them."""

    def __init__(self, files: Files, suffixes: tuple[str, ...], wanted: Sequence[str], sound: str | None) -> None:
        self._files, self._suffixes, self._wanted, self._sound = files, suffixes, wanted, sound

    def units(self) -> list[Unit]:
        """Every row group and every file of JSON lines; a Parquet file without a readable footer is one unit."""
        what = " or ".join(f"*{suffix}" for suffix in self._suffixes)
        entries = require(self._files, self._files.entries(*self._suffixes), f"{what} file")
        return [unit for entry in entries for unit in self._units(entry)]

    def records(self, unit: Unit) -> Iterator[Record]:
        """Every row of ``unit`` in order, numbered within its file."""
        try:
            with self._files.open(unit.name) as handle:
                if unit.name.endswith(PARQUET):
                    yield from self._rows(handle, unit)
                else:
                    yield from json_lines(handle, unit.name)
        except SetAsideError as error:  # absent, or outside the root
            yield Record(0, unit.size, error)

    def digest(self) -> str:
        """SHA-256 over the content of every file, whatever the files are called."""
        return sha256_json([self._files.digest(entry.name) for entry in self._files.entries(*self._suffixes)])

    def columns(self) -> list[str]:
        """The columns of the first file, as far as its footer or first line tells."""
        for unit in self.units():
            try:
                with self._files.open(unit.name) as handle:
                    if unit.name.endswith(PARQUET):
                        return list(_opened(handle).schema_arrow.names)
                    first = next((record.values for record in json_lines(handle, unit.name)), {})
                    return [] if isinstance(first, SetAsideError) else list(first)
            except (SetAsideError, *_BROKEN):
                continue
        return []

    def first(self, columns: Sequence[str]) -> str | None:
        """What the first row holds in the first of ``columns`` that it has, as text; None if it has none of them."""
        probe = Tables(self._files, self._suffixes, columns, None)
        for record in (record for unit in self.units() for record in probe.records(unit)):
            if not isinstance(record.values, SetAsideError):
                return next((str(record.values[name]) for name in columns if record.values.get(name)), None)
        return None

    def _units(self, entry: Entry) -> Iterator[Unit]:
        if not entry.name.endswith(PARQUET):
            yield Unit(entry.name, entry.size)
            return
        try:
            with self._files.open(entry.name) as handle:
                footer = _opened(handle).metadata
                groups = [footer.row_group(part) for part in range(footer.num_row_groups)]
                sizes = [(group.num_rows, group.total_byte_size) for group in groups]
        except (SetAsideError, *_BROKEN):
            yield Unit(entry.name, entry.size)  # reading it says why
            return
        unpacked, first = max(sum(size for _, size in sizes), 1), 0
        for part, (rows, size) in enumerate(sizes):
            yield Unit(entry.name, entry.size * size // unpacked, rows, first, part)
            first += rows

    def _rows(self, handle: BinaryIO, unit: Unit) -> Iterator[Record]:
        """The rows of a group; where it breaks off, each row that is left is set aside."""
        done, error = 0, None
        try:
            file = _opened(handle)
            names = self._present(file.schema_arrow, unit)
            batches = file.iter_batches(1 if self._sound else _TOGETHER, row_groups=[unit.part], columns=names)
            for batch in batches:
                for place in range(batch.num_rows):
                    done += 1
                    yield self._record(batch, place, unit, done)
        except SetAsideError as reason:
            error = reason
        except _BROKEN as reason:
            error = SetAsideError("unreadable", f"{unit.name}: {' '.join(str(reason).split())}; copy the file again")
        if unit.lines is None and error:
            yield Record(0, unit.size, error)
        for number in range(done + 1, (unit.lines or 0) + 1):
            lost = error or SetAsideError("truncated", f"{unit.name}: the row group ends early; copy the file again")
            yield Record(unit.first + number, _share(unit), lost)

    def _present(self, schema: pa.Schema, unit: Unit) -> list[str]:
        names = [name for name in self._wanted if name in schema.names]
        if self._sound is None:
            return names
        if self._sound not in names:
            known = ", ".join(schema.names[:20])
            raise SetAsideError("no_column", f"{unit.name}: no column {self._sound}; it has {known}; set columns.audio")
        if not _holds_sound(kind := schema.field(self._sound).type):
            raise SetAsideError(
                "no_column", f"{unit.name}: {self._sound} is {kind}; it must be binary or a struct of bytes and path"
            )
        return names

    def _record(self, batch: pa.RecordBatch, place: int, unit: Unit, number: int) -> Record:
        values: dict[str, Any] | SetAsideError
        try:
            values = {name: batch.column(name)[place].as_py() for name in batch.schema.names}
        except UnicodeDecodeError as error:
            values = SetAsideError("invalid_utf8", f"{error}; write text columns as UTF-8")
        except (ValueError, OverflowError) as error:  # such as a date of the year 200000
            values = SetAsideError("bad_field", f"{error}; write these columns as strings")
        return Record(unit.first + number, _share(unit), values)


def _opened(handle: BinaryIO) -> pq.ParquetFile:
    return pq.ParquetFile(
        pa.PythonFile(handle, mode="r"), pre_buffer=False, buffer_size=_BUFFER, page_checksum_verification=True
    )


def _holds_sound(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        names = {kind.field(place).name: kind.field(place).type for place in range(kind.num_fields)}
        return "bytes" in names and _is_binary(names["bytes"])
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _share(unit: Unit) -> int:
    return unit.size // unit.lines if unit.lines else 0
