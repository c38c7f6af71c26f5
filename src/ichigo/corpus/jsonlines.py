"""JSON lines, one at a time and never more than 16 MiB of one: each becomes an object or a reason."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from ichigo.corpus.lines import MAX_LINE, Record
from ichigo.corpus.rows import SetAsideError

_MARK = b"\xef\xbb\xbf"  # of UTF-8, which some editors write first


def json_lines(handle: BinaryIO, unit: str) -> Iterator[Record]:
    """Every line of ``handle`` that is not blank, numbered from 1 with the blank ones counted."""
    number = 0
    try:
        while line := handle.readline(MAX_LINE + 1):
            number += 1
            size = len(line)
            if size > MAX_LINE and not line.endswith(b"\n"):
                size += _skip_line(handle)
                reason = f"the line has {size} bytes, more than {MAX_LINE}; write one row per line"
                yield Record(number, size, SetAsideError("too_large", reason))
            elif stripped := line.removeprefix(_MARK if number == 1 else b"").strip():
                yield Record(number, size, parsed(stripped))
    except OSError as error:
        yield Record(number + 1, 0, SetAsideError("unreadable", f"{unit}: {error}; copy the file again"))


def parsed(line: bytes) -> dict[str, Any] | SetAsideError:
    """The object that ``line`` spells, or why it is none (``invalid_utf8``, ``invalid_json``)."""
    try:
        values = json.loads(line.decode())
        json.dumps(values, ensure_ascii=False).encode()  # half a surrogate pair could be stored nowhere
    except UnicodeDecodeError as error:
        return SetAsideError("invalid_utf8", f"{error}; write the file as UTF-8")
    except (ValueError, RecursionError) as error:
        return SetAsideError("invalid_json", f"{error}; write one JSON object per line")
    if not isinstance(values, dict):
        return SetAsideError("invalid_json", f"found {type(values).__name__}; write one JSON object per line")
    return values


def _skip_line(handle: BinaryIO) -> int:
    """Read to the end of the line; returns how many bytes it still had."""
    skipped = 0
    while part := handle.readline(1 << 20):
        skipped += len(part)
        if part.endswith(b"\n"):
            break
    return skipped
