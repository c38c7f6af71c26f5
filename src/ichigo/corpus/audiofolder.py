"""Recordings in the Hugging Face AudioFolder shape: a folder with ``metadata.jsonl`` and the files it names.

A line is an object with ``file_name`` (relative to the folder) and ``text``, and optionally ``answer``, ``speaker``,
``split``, ``language`` and ``license``; other keys are ignored, and so are blank lines. Every other line becomes a row
or is set aside with its reason. Only files inside the folder are ever opened: an absolute name, ``..`` or a symbolic
link that leaves the folder sets the line aside.

How rows are split (:func:`read_folder`):

- Where any line names a ``split``, the author's word holds: ``test`` and ``validation`` are held out, ``train`` and
  lines without a split are not.
- Speakers whose names are in ``leave_out`` are held out whole, whatever their lines say.
- Where there is neither, ``held_out_speakers`` of the speakers are held out whole, chosen by a seeded hash of their
  names.
- Rows without a speaker, or all of one speaker's if there is no other, are held out one by one, by a hash of their ids.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ichigo.corpus.rows import UNKNOWN_LANGUAGE, UNKNOWN_LICENSE, Rejected, Row, Split, held_out, row_id, sound_digest
from ichigo.errors import DataError
from ichigo.hashing import sha256_file, sha256_json
from ichigo.progress import Progress
from ichigo.recipe.schema import Data
from ichigo.speech.audio import SAMPLE_RATE, AudioError, read_audio, write_flac
from ichigo.speech.codes import token_count

METADATA = "metadata.jsonl"

_SPLITS: dict[str, Split] = {"train": "train", "test": "test", "validation": "test"}
_OPTIONAL = ("answer", "speaker", "split", "language", "license")


class _SetAsideError(Exception):
    """Why one line gives no row."""

    def __init__(self, reason: str, detail: str) -> None:
        self.reason, self.detail = reason, detail
        super().__init__(detail)


@dataclass(slots=True)
class _Seen:
    """Lines on which a file and a content were met first."""

    files: dict[str, int]
    rows: dict[str, int]


def read_folder(folder: Path, settings: Data, seed: int) -> tuple[list[Row], list[Rejected]]:
    """Rows in the order of ``metadata.jsonl``, and the lines that were set aside; together they are all of its lines.

    A line is set aside as ``invalid_json``, ``bad_field``, ``no_file_name``, ``no_text``, ``unknown_split``,
    ``duplicate_file``, ``duplicate_row`` (same sound, text and answer), ``outside_folder``, ``too_short`` (under
    40 ms), or with a reason of :class:`~ichigo.speech.audio.AudioError`. Raises :class:`~ichigo.errors.DataError` if
    the folder or its ``metadata.jsonl`` is missing, if no line is usable, or if nobody is called as in ``leave_out``.
    """
    lines = list(_lines(folder))
    root = folder.resolve()
    drafts: list[tuple[Row, Split | None]] = []
    rejected: list[Rejected] = []
    seen = _Seen({}, {})
    progress = Progress("reading recordings", len(lines), "rows")
    for number, line in lines:
        fields: dict[str, Any] = {}
        try:
            fields = _fields(line)
            drafts.append(_row(number, fields, root, settings, seen))
        except _SetAsideError as reason:
            rejected.append(Rejected(number, _name(fields), reason.reason, reason.detail))
        progress.advance()
    if not drafts:
        raise DataError(_nothing_usable(folder, rejected))
    return _split(drafts, settings, seed), rejected


def speakers_of(folder: Path) -> list[str]:
    """The speakers whom ``metadata.jsonl`` names, in alphabetical order; lines that :func:`read_folder` would set aside
    count too, as far as they can be read."""
    found: set[str | None] = set()
    for _, line in _lines(folder):
        with suppress(_SetAsideError):
            found.add(_optional(_fields(line), "speaker"))
    return sorted(filter(None, found))


def source_digest(folder: Path) -> str:
    """SHA-256 over ``metadata.jsonl`` and the content of every file it names; where the folder lies does not matter.

    A file that is missing or cannot be read counts by that fact.
    """
    root = folder.resolve()
    files = {}
    for _, line in _lines(folder):
        try:
            name = _file_name(_fields(line))
            path = _locate(root, name)
        except _SetAsideError:
            continue  # the line itself is part of metadata.jsonl
        files[name] = _content(path)
    return sha256_json({"metadata": sha256_file(folder / METADATA), "files": files})


def _content(path: Path) -> str:
    try:
        return sha256_file(path) if path.is_file() else "missing"
    except OSError:
        return "unreadable"


def _lines(folder: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of ``metadata.jsonl`` that are not blank."""
    if not folder.is_dir():
        raise DataError(f"data.folder {folder}: not a folder; give the path of a folder with {METADATA}")
    metadata = folder / METADATA
    if not metadata.is_file():
        raise DataError(
            f"data.folder {folder}: no {METADATA} in it; write one line per recording, such as "
            '{"file_name": "a.wav", "text": "hello"}'
        )
    content = metadata.read_bytes().removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(content.split(b"\n"), start=1):
        if line.strip():
            yield number, line


def _fields(line: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(line)
        json.dumps(fields, ensure_ascii=False).encode()  # half a surrogate pair could be stored nowhere
    except (ValueError, RecursionError) as error:  # ValueError: also bytes that are not UTF-8
        raise _SetAsideError("invalid_json", f"{error}; write one JSON object per line") from None
    if not isinstance(fields, dict):
        raise _SetAsideError("invalid_json", f"found {type(fields).__name__}; write one JSON object per line")
    return fields


def _name(fields: dict[str, Any]) -> str | None:
    name = fields.get("file_name")
    return name if isinstance(name, str) else None


def _file_name(fields: dict[str, Any]) -> str:
    name = _name(fields)
    if not name:
        raise _SetAsideError("no_file_name", f"file_name is {fields.get('file_name')!r}; name the recording's file")
    return name


def _row(number: int, fields: dict[str, Any], root: Path, settings: Data, seen: _Seen) -> tuple[Row, Split | None]:
    """The row of one line, and the split that its author gave it."""
    name = _file_name(fields)
    text = fields.get("text")
    if not isinstance(text, str) or not text.strip():
        raise _SetAsideError("no_text", f"text is {text!r}; write what is said")
    optional = {key: _optional(fields, key) for key in _OPTIONAL}
    split = _given_split(optional["split"])
    _first(seen.files, str(PurePosixPath(name)), number, "duplicate_file", "file")
    draft = _record(root, name, text.strip(), optional, settings)
    _first(seen.rows, draft.id, number, "duplicate_row", "sound and text")
    return draft, split


def _optional(fields: dict[str, Any], key: str) -> str | None:
    value = fields.get(key)
    if value is not None and not isinstance(value, str):
        raise _SetAsideError("bad_field", f"{key} is {value!r} ({type(value).__name__}); write it as a string")
    return (value or "").strip() or None


def _given_split(value: str | None) -> Split | None:
    if value is not None and value not in _SPLITS:
        raise _SetAsideError("unknown_split", f"split is {value!r}; use {', '.join(_SPLITS)}, or leave it out")
    return None if value is None else _SPLITS[value]


def _first(seen: dict[str, int], key: str, number: int, reason: str, what: str) -> None:
    first = seen.setdefault(key, number)
    if first != number:
        raise _SetAsideError(reason, f"the same {what} as on line {first}; remove one of the two")


def _record(root: Path, name: str, text: str, optional: dict[str, str | None], settings: Data) -> Row:
    """Read the recording; the split is decided later."""
    path = _locate(root, name)
    try:
        waveform = read_audio(path, name, max_seconds=settings.max_seconds)
    except AudioError as error:
        raise _SetAsideError(error.reason, str(error)) from None
    if not token_count(waveform.size):
        milliseconds = waveform.size / SAMPLE_RATE * 1000
        raise _SetAsideError("too_short", f"{name}: {milliseconds:.0f} ms, less than one sound token; record it again")
    return Row(
        id=row_id(sound_digest(waveform), text, optional["answer"]),
        text=text,
        answer=optional["answer"],
        speaker=optional["speaker"] or "",
        split="train",
        language=optional["language"] or UNKNOWN_LANGUAGE,
        license=optional["license"] or UNKNOWN_LICENSE,
        seconds=waveform.size / SAMPLE_RATE,
        audio=write_flac(waveform),
        origin="folder",
    )


def _locate(root: Path, name: str) -> Path:
    """The file called ``name`` inside ``root`` (resolved), which it must not leave, be it by a symbolic link."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts:
        raise _SetAsideError("outside_folder", f"{name}: name files relative to the folder and inside it")
    try:
        path = (root / relative).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL character
        raise _SetAsideError("unreadable", f"{name!r}: {error}; correct the name") from None
    if not path.is_relative_to(root):
        raise _SetAsideError("outside_folder", f"{name}: a link that leaves the folder; copy the file into it")
    return path


def _split(drafts: list[tuple[Row, Split | None]], settings: Data, seed: int) -> list[Row]:
    if settings.leave_out:
        _check_known(settings.leave_out, {row.speaker for row, _ in drafts} - {""})
    if settings.leave_out or any(given for _, given in drafts):
        return [
            replace(row, split="test" if row.speaker in settings.leave_out else given or "train")
            for row, given in drafts
        ]
    rows = [row for row, _ in drafts]
    share, speakers = settings.held_out_speakers, {row.speaker for row in rows if row.speaker}
    if len(speakers) < 2:
        speakers = set()  # one voice cannot be on both sides: go by row
    test = held_out(speakers, share, seed)
    alone = [row.id for row in rows if row.speaker not in speakers]
    test_rows = held_out(alone, share, seed)
    return [replace(row, split="test" if row.speaker in test or row.id in test_rows else "train") for row in rows]


def _check_known(names: Sequence[str], speakers: set[str]) -> None:
    if unknown := [name for name in names if name not in speakers]:
        known = ", ".join(sorted(speakers)) or "none, no line has a speaker"
        raise DataError(f"data.leave_out: nobody is called {', '.join(unknown)}; the folder's speakers are {known}")


def _nothing_usable(folder: Path, rejected: list[Rejected]) -> str:
    counts = Counter(entry.reason for entry in rejected)
    if not counts:
        return f"data.folder {folder}: {METADATA} has no lines; write one line per recording"
    reasons = ", ".join(f"{reason} x {count}" for reason, count in counts.most_common())
    first = f"line {rejected[0].line}: {rejected[0].detail}"
    return f"data.folder {folder}: none of {len(rejected)} lines is usable ({reasons}); {first}"
