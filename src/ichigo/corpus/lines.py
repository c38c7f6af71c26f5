"""What every source gives: units that can be listed without reading them, and lines that became rows or were set aside.

A *unit* is what is read alone: a file, or a row group of a Parquet file. A *line* is what its author would call a row:
a line of JSON, a row of a table, a sample of a tar, a conversation of several turns. Every line of a unit comes out
once, in order: with rows of speech, with texts, or with the reason why it was set aside.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ichigo.corpus.rows import (
    UNKNOWN_LANGUAGE,
    UNKNOWN_LICENSE,
    Origin,
    Rejected,
    Row,
    SetAsideError,
    Split,
    row_id,
    sound_digest,
)
from ichigo.corpus.texts import TextRow
from ichigo.recipe.schema import Columns, Instructions, Recordings, TokenStrings
from ichigo.speech.audio import SAMPLE_RATE, AudioError, read_audio, write_flac
from ichigo.speech.codes import token_count

Settings = Recordings | TokenStrings | Instructions

SPLITS: dict[str, Split] = {"train": "train", "test": "test", "validation": "test"}
MAX_TEXT = 50_000
"""Characters: an hour of speech has as many; longer texts are books or accidents."""

MAX_LINE = 16 << 20
"""Bytes of one line of JSON: 750 sound tokens take 12 kB."""


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a source that is read alone.

    Attributes:
        name: the file, below the source's root.
        size: bytes, for progress.
        lines: how many it has, where a footer says so.
        first: lines of the file before it.
        part: the row group, from 0.
    """

    name: str
    size: int
    lines: int | None = None
    first: int = 0
    part: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """A line as it was read: its number (from 1; 0 is the unit itself), bytes, values, or why there are none.

    ``file`` is the recording that belongs to it, ``audio`` its bytes.
    """

    number: int
    size: int
    values: Mapping[str, Any] | SetAsideError
    file: str | None = None
    audio: bytes | None = None


@dataclass(frozen=True, slots=True)
class Line:
    """What became of a record. Rows whose split nobody gave say ``train`` until all are known (``split`` is None)."""

    number: int
    size: int
    rows: tuple[Row, ...] = ()
    texts: tuple[TextRow, ...] = ()
    split: Split | None = None
    rejected: Rejected | None = None


class Source(Protocol):
    """Anything that rows come from."""

    label: str  # how the recipe calls it: data.folder, data.sources.0
    place: str  # where it lies

    def units(self) -> list[Unit]:
        """What there is to read, in order; :class:`~ichigo.errors.DataError` if nothing can be."""
        ...

    def read(self, unit: Unit) -> Iterator[Line]:
        """Every line of ``unit`` in order, one in memory at a time."""
        ...

    def digest(self) -> str:
        """What the content is known by; where it lies does not matter."""
        ...


@dataclass(frozen=True, slots=True)
class Described:
    """What a line says about itself beside its sound."""

    text: str
    answer: str | None
    speaker: str
    language: str
    license: str
    split: Split | None


@dataclass
class Maker:
    """Turns records into lines; ``make`` raises :class:`SetAsideError` for one that cannot be used."""

    source: str
    unit: str
    make: Callable[[Record], Line]

    def lines(self, records: Iterable[Record]) -> Iterator[Line]:
        """A line for every record."""
        for record in records:
            yield self.line(record)

    def line(self, record: Record) -> Line:
        """What becomes of one record."""
        try:
            if isinstance(record.values, SetAsideError):
                raise record.values
            return self.make(record)
        except SetAsideError as error:
            return self.set_aside(record, error)

    def set_aside(self, record: Record, error: SetAsideError) -> Line:
        """The line of a record that gives no row."""
        detail = Rejected(record.number, record.file, error.reason, error.detail, self.source, self.unit)
        return Line(record.number, record.size, rejected=detail)


def described(values: Mapping[str, Any], source: Settings, *, wordless: bool = False) -> Described:
    """The written fields of a line, checked; the source's own values stand in for what the line does not say.

    Raises :class:`SetAsideError` as ``no_text`` (never if ``wordless``), ``bad_field``, ``unknown_split``,
    ``text_too_long`` or ``control_characters``.
    """
    columns = source.columns
    text = values.get(columns.text)
    if not wordless and (not isinstance(text, str) or not text.strip()):
        raise SetAsideError("no_text", f"{columns.text} is {shortened(text)}; write what is said")
    answer = optional(values, columns.answer)
    split = given_split(values, columns, source.split)
    for name, value in ((columns.text, text), (columns.answer, answer)):
        check_text(name, value)
    return Described(
        text="" if wordless or text is None else str(text).strip(),
        answer=answer,
        speaker=_speaker(values, columns) or source.speaker or "",
        language=optional(values, columns.language) or source.language or UNKNOWN_LANGUAGE,
        license=optional(values, columns.license) or source.license or UNKNOWN_LICENSE,
        split=split,
    )


def recording(told: Described, audio: bytes, name: str, max_seconds: float, origin: Origin) -> Row:
    """The row of a recording; :class:`SetAsideError` as ``too_short`` (under 40 ms) or with a reason of
    :class:`~ichigo.speech.audio.AudioError`."""
    try:
        waveform = read_audio(audio, name, max_seconds=max_seconds)
    except AudioError as error:
        raise SetAsideError(error.reason, str(error)) from None
    if not token_count(waveform.size):
        milliseconds = waveform.size / SAMPLE_RATE * 1000
        raise SetAsideError("too_short", f"{name}: {milliseconds:.0f} ms, less than one sound token; record it again")
    return Row(
        id=row_id(sound_digest(waveform), told.text, told.answer),
        text=told.text,
        answer=told.answer,
        speaker=told.speaker,
        split=told.split or "train",
        language=told.language,
        license=told.license,
        seconds=waveform.size / SAMPLE_RATE,
        audio=write_flac(waveform),
        origin=origin,
    )


def optional(values: Mapping[str, Any], key: str) -> str | None:
    """A string, stripped, or None; :class:`SetAsideError` for anything else."""
    value = values.get(key)
    if value is not None and not isinstance(value, str):
        raise SetAsideError("bad_field", f"{key} is {shortened(value)} ({type(value).__name__}); write it as a string")
    return (value or "").strip() or None


def given_split(values: Mapping[str, Any], columns: Columns, default: str | None) -> Split | None:
    """The split that the line or its source gives."""
    value = optional(values, columns.split) or default
    if value is not None and value not in SPLITS:
        raise SetAsideError("unknown_split", f"split is {shortened(value)}; use {', '.join(SPLITS)}, or leave it out")
    return None if value is None else SPLITS[value]


def check_text(name: str, text: Any) -> None:
    """Refuse texts that no utterance has."""
    if not isinstance(text, str):
        return
    if len(text) > MAX_TEXT:
        raise SetAsideError("text_too_long", f"{name} has {len(text)} characters, more than {MAX_TEXT}; split it")
    odd = next((char for char in text if unicodedata.category(char) in {"Cc", "Cs"} and char not in "\t\n\r"), None)
    if odd is not None:
        raise SetAsideError("control_characters", f"{name} holds U+{ord(odd):04X}; remove it")


def shortened(value: Any, most: int = 80) -> str:
    """``value`` as Python writes it, cut to ``most`` characters: what is set aside may be a megabyte."""
    text = repr(value[: most + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= most else text[:most] + "…"


def _speaker(values: Mapping[str, Any], columns: Columns) -> str | None:
    """Speakers may be numbers in a table, as LibriSpeech's are."""
    value = values.get(columns.speaker)
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return optional(values, columns.speaker)
