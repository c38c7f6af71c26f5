"""WebDataset tar files: members that follow each other and share a key are one sample.

The key of ``a/b/0001.left.wav`` is ``a/b/0001``: all up to the first dot of the file name. A sample has one recording
(``.wav .flac .mp3 .ogg .opus``) and what is said, in ``.json`` (an object with the source's columns) or ``.txt``;
members of other kinds are left alone. Plain and gzipped tars are read as streams.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from ichigo.corpus.files import Files, inside, require
from ichigo.corpus.jsonlines import parsed
from ichigo.corpus.lines import MAX_LINE, Line, Maker, Record, Unit, described, recording
from ichigo.corpus.rows import SetAsideError
from ichigo.corpus.tar import BLOCK, Member, TarError, members
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Recordings
from ichigo.speech.audio import MAX_BYTES

SUFFIXES = (".tar", ".tar.gz", ".tgz")
SOUND = ("wav", "flac", "mp3", "ogg", "opus")


@dataclass
class _Sample:
    """Members of one key, by what stands behind the first dot of their names."""

    key: str
    parts: dict[str, bytes] = field(default_factory=dict)
    size: int = 0
    error: SetAsideError | None = None

    def add(self, part: str, member: Member) -> None:
        """Take a member, or note why the sample cannot be used."""
        self.size += BLOCK + member.size
        try:
            self._check(part, member)
        except SetAsideError as error:
            self.error = self.error or error
            self.parts.clear()
            return
        if member.data is not None and self.error is None:
            self.parts[part] = member.data

    def _check(self, part: str, member: Member) -> None:
        inside(member.name)
        if member.kind:
            raise SetAsideError("not_a_file", f"{member.name}: {member.kind}; store the file itself")
        if not _used(part):
            return
        if part in self.parts:
            raise SetAsideError("duplicate_file", f"{member.name}: twice in one sample; keep one of them")
        if member.data is None:
            raise SetAsideError("too_large", f"{member.name}: {member.size} bytes; split it")


class WebDataset:
    """A source of kind ``webdataset``: a unit per tar."""

    def __init__(self, files: Files, settings: Recordings, max_seconds: float, label: str) -> None:
        self.label, self.place = label, files.place
        self._files, self._settings, self._max_seconds = files, settings, max_seconds

    def units(self) -> list[Unit]:
        """Every tar of the place."""
        entries = require(self._files, self._files.entries(*SUFFIXES), "*.tar file")
        return [Unit(entry.name, entry.size) for entry in entries]

    def read(self, unit: Unit) -> Iterator[Line]:
        """Every sample; what follows damage is one line more.

        A sample is set aside as ``outside_folder``, ``not_a_file`` (links, devices), ``duplicate_file``,
        ``too_large``, ``no_audio``, ``invalid_json``, ``invalid_utf8``, ``damaged_tar``, or with a reason of
        :func:`~ichigo.corpus.lines.described` or :func:`~ichigo.corpus.lines.recording`.
        """
        return Maker(self.label, unit.name, self._line).lines(self._records(unit))

    def digest(self) -> str:
        """SHA-256 over the content of every tar, whatever they are called."""
        return sha256_json([self._files.digest(unit.name) for unit in self.units()])

    def _records(self, unit: Unit) -> Iterator[Record]:
        number = 0
        try:
            with self._files.open(unit.name) as raw:
                for number, sample in enumerate(_samples(_unpacked(raw, unit.name)), start=1):
                    yield self._record(number, sample)
        except SetAsideError as error:
            yield Record(0, unit.size, error)
        except (TarError, OSError, EOFError, zlib.error) as error:  # gzip.BadGzipFile is an OSError
            what = f"{unit.name}: after sample {number} {error}; copy or write it again"
            yield Record(number + 1, 0, SetAsideError("damaged_tar", what))

    def _record(self, number: int, sample: _Sample) -> Record:
        names = [name for name in SOUND if name in sample.parts]
        file = f"{sample.key}.{names[0]}" if names else sample.key
        values: dict[str, Any] | SetAsideError
        if sample.error:
            values = sample.error
        elif len(names) != 1:
            found = f"{len(names)} recordings" if names else "no recording"
            values = SetAsideError("no_audio", f"{sample.key}: {found}; a sample has one of {', '.join(SOUND)}")
        else:
            values = self._told(sample)
        return Record(number, sample.size, values, file, sample.parts.get(names[0]) if names else None)

    def _told(self, sample: _Sample) -> dict[str, Any] | SetAsideError:
        values = parsed(sample.parts["json"]) if "json" in sample.parts else {}
        text = self._settings.columns.text
        if isinstance(values, SetAsideError) or text in values or "txt" not in sample.parts:
            return values
        try:
            return {**values, text: sample.parts["txt"].decode()}
        except UnicodeDecodeError as error:
            return SetAsideError("invalid_utf8", f"{sample.key}.txt: {error}; write it as UTF-8")

    def _line(self, record: Record) -> Line:
        assert not isinstance(record.values, SetAsideError)
        assert record.audio is not None
        told = described(record.values, self._settings)
        row = recording(told, record.audio, record.file or "", self._max_seconds, "webdataset")
        return Line(record.number, record.size, rows=(row,), split=told.split)


def _samples(stream: BinaryIO) -> Iterator[_Sample]:
    """Runs of members with one key."""
    sample: _Sample | None = None
    try:
        for member in members(stream, _limit):
            key, part = _split(member.name)
            if sample is None or key != sample.key:
                if sample is not None:
                    yield sample
                sample = _Sample(key)
            sample.add(part, member)
    except (TarError, OSError, EOFError, zlib.error):
        if sample is not None and sample.parts and sample.error is None and _whole(sample):
            yield sample
        raise
    if sample is not None:
        yield sample


def _whole(sample: _Sample) -> bool:
    """Whether nothing can be missing of the last sample before damage."""
    return any(part in sample.parts for part in SOUND) and any(part in sample.parts for part in ("json", "txt"))


def _split(name: str) -> tuple[str, str]:
    """The key of a member and what stands behind the first dot of its file name, in lower case."""
    folder, slash, base = name.rpartition("/")
    key, _, part = base.partition(".")
    return f"{folder}{slash}{key}", part.lower()


def _used(part: str) -> bool:
    return part in (*SOUND, "json", "txt")


def _limit(name: str) -> int:
    """How many bytes of a member are read at most; 0 of what is not used."""
    part = _split(name)[1]
    return MAX_BYTES if part in SOUND else MAX_LINE if _used(part) else 0


def _unpacked(raw: BinaryIO, name: str) -> BinaryIO:
    return raw if name.endswith(".tar") else cast(BinaryIO, gzip.GzipFile(fileobj=raw))
