"""Recordings in the Hugging Face AudioFolder shape: a folder with ``metadata.jsonl`` and the files it names.

A line is an object with ``file_name`` (relative to the folder) and ``text``, and optionally ``answer``, ``speaker``,
``split``, ``language`` and ``license``; other keys are ignored, and so are blank lines. Every other line becomes a row
or is set aside with its reason. Only files inside the folder are ever opened: an absolute name, ``..`` or a symbolic
link that leaves the folder sets the line aside.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

from ichigo.corpus.files import Files, LocalFiles, read_whole
from ichigo.corpus.jsonlines import json_lines
from ichigo.corpus.lines import Line, Maker, Record, Unit, described, recording, shortened
from ichigo.corpus.rows import SetAsideError
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Recordings
from ichigo.speech.audio import MAX_BYTES

METADATA = "metadata.jsonl"


class AudioFolder:
    """The source behind ``data.folder`` and sources of kind ``folder``; its one unit is ``metadata.jsonl``."""

    def __init__(self, files: Files, settings: Recordings, max_seconds: float, label: str) -> None:
        self.label, self.place = label, files.place
        self._files, self._settings, self._max_seconds = files, settings, max_seconds

    def units(self) -> list[Unit]:
        """The description; :class:`~ichigo.errors.DataError` if the folder has none."""
        try:
            return [Unit(METADATA, self._files.size(METADATA))]
        except SetAsideError:
            raise DataError(
                f"{self.label} {self._files.place}: no {METADATA} in it; write one line per recording, such as "
                '{"file_name": "a.wav", "text": "hello"}'
            ) from None

    def read(self, unit: Unit) -> Iterator[Line]:
        """Every line of the description with its recording.

        A line is set aside as ``invalid_utf8``, ``invalid_json``, ``too_large``, ``no_file_name``,
        ``duplicate_file``, ``outside_folder``, ``missing``, or with a reason of :func:`~ichigo.corpus.lines.described`
        or :func:`~ichigo.corpus.lines.recording`.
        """
        seen: dict[str, int] = {}
        maker = Maker(self.label, unit.name, lambda record: self._line(record, seen))
        for record in self._records(unit):
            yield maker.line(record)

    def digest(self) -> str:
        """SHA-256 over ``metadata.jsonl`` and the content of every file it names, absent ones by that fact."""
        names = {_named(record.values) for unit in self.units() for record in self._records(unit)} - {""}
        files = {name: self._files.digest(name) for name in sorted(names)}
        return sha256_json({"metadata": self._files.digest(METADATA), "files": files})

    def speakers(self) -> list[str]:
        """Whom the description names, in alphabetical order, whether or not their recordings can be read."""
        found: set[str] = set()
        for record in (record for unit in self.units() for record in self._records(unit)):
            if not isinstance(record.values, SetAsideError):
                with suppress(SetAsideError):
                    found.add(described(record.values, self._settings).speaker)
        return sorted(found - {""})

    def _records(self, unit: Unit) -> Iterator[Record]:
        with self._files.open(unit.name) as handle:
            for record in json_lines(handle, unit.name):
                yield Record(record.number, record.size, record.values, _named(record.values) or None)

    def _line(self, record: Record, seen: dict[str, int]) -> Line:
        assert not isinstance(record.values, SetAsideError)
        name = record.file
        if name is None:
            found = shortened(record.values.get("file_name"))
            raise SetAsideError("no_file_name", f"file_name is {found}; name the recording's file")
        told = described(record.values, self._settings)
        first = seen.setdefault(str(PurePosixPath(name)), record.number)
        if first != record.number:
            raise SetAsideError("duplicate_file", f"the same file as on line {first}; remove one of the two")
        audio = read_whole(self._files, name, MAX_BYTES)
        row = recording(told, audio, name, self._max_seconds, "folder")
        return Line(record.number, record.size, rows=(row,), split=told.split)


def open_folder(files: Files, settings: Recordings, max_seconds: float, label: str) -> AudioFolder:
    """The AudioFolder at ``files``; :class:`~ichigo.errors.DataError` for a place that is no folder."""
    if isinstance(files, LocalFiles) and not files.is_folder and Path(files.place).name != METADATA:
        raise DataError(f"{label} {files.place}: not a folder; give the path of a folder with {METADATA}")
    return AudioFolder(files, settings, max_seconds, label)


def _named(values: Any) -> str:
    name = None if isinstance(values, SetAsideError) else values.get("file_name")
    return name if isinstance(name, str) else ""
