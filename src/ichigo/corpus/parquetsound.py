"""Recordings in Parquet: a column of the files' bytes, or the Hugging Face struct of bytes and path.

Where a struct has a path and no bytes, the path is looked up below the place of the table and nowhere else.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ichigo.corpus.files import Files, read_whole
from ichigo.corpus.lines import Line, Maker, Record, Unit, described, recording
from ichigo.corpus.rows import SetAsideError
from ichigo.corpus.tables import PARQUET, Tables
from ichigo.recipe.schema import Recordings
from ichigo.speech.audio import MAX_BYTES


class ParquetSound:
    """A source of kind ``parquet``: a unit per row group."""

    def __init__(self, files: Files, settings: Recordings, max_seconds: float, label: str) -> None:
        self.label, self.place = label, files.place
        self._files, self._settings, self._max_seconds = files, settings, max_seconds
        columns = settings.columns
        told = (columns.text, columns.answer, columns.speaker, columns.split, columns.language, columns.license)
        self._tables = Tables(files, PARQUET, (columns.audio, *told), columns.audio)

    def units(self) -> list[Unit]:
        """Row groups, from the footers."""
        return self._tables.units()

    def read(self, unit: Unit) -> Iterator[Line]:
        """Every row of the group.

        One is set aside as ``unreadable`` or ``truncated`` (damaged pages), ``no_column``, ``no_audio``,
        ``invalid_utf8``, ``too_large``, ``missing``, ``outside_folder``, or with a reason of
        :func:`~ichigo.corpus.lines.described` or :func:`~ichigo.corpus.lines.recording`.
        """
        return Maker(self.label, unit.name, self._line).lines(map(self._with_file, self._tables.records(unit)))

    def digest(self) -> str:
        """SHA-256 over the content of the tables; a recording that lies beside them is known by its path alone."""
        return self._tables.digest()

    def _with_file(self, record: Record) -> Record:
        if isinstance(record.values, SetAsideError):
            return record
        sound = record.values.get(self._settings.columns.audio)
        path = sound.get("path") if isinstance(sound, dict) else None
        return Record(record.number, record.size, record.values, path if isinstance(path, str) and path else None)

    def _line(self, record: Record) -> Line:
        assert not isinstance(record.values, SetAsideError)
        told = described(record.values, self._settings)
        audio = self._audio(record.values.get(self._settings.columns.audio), record.file)
        name = record.file or f"row {record.number}"
        row = recording(told, audio, name, self._max_seconds, "parquet")
        return Line(record.number, record.size, rows=(row,), split=told.split)

    def _audio(self, sound: Any, path: str | None) -> bytes:
        data = sound.get("bytes") if isinstance(sound, dict) else sound
        if isinstance(data, bytes):
            if len(data) > MAX_BYTES:
                raise SetAsideError("too_large", f"{len(data)} bytes of sound, more than {MAX_BYTES}; split it")
            return data
        if path is None:
            raise SetAsideError("no_audio", f"{self._settings.columns.audio} is empty; write the file's bytes into it")
        return read_whole(self._files, path, MAX_BYTES)
