"""Members of a tar file as a stream: nothing is unpacked to disk, and nothing large is held that nobody asked for.

``tarfile`` reads extended headers of any size into memory, keeps every member it saw, and follows what GNU's sparse
maps say; here a header has at most 1 MiB, members are forgotten, and a member is read only if it is a plain file of at
most the size that the caller allows. POSIX (ustar, pax) and GNU long names are read, the latter two for names and
sizes alone.
"""

from __future__ import annotations

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

BLOCK = 512
MAX_HEADER = 1 << 20
_SKIP = 1 << 20

_LONG_NAME, _LONG_LINK, _PAX, _PAX_GLOBAL = b"L", b"K", b"x", b"g"
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.SYMTYPE: "a symbolic link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a named pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


class TarError(Exception):
    """The tar cannot be read on from here."""


@dataclass(frozen=True, slots=True)
class Member:
    """One entry that is no folder; ``data`` is None where it is no plain file (``kind``) or too large (no kind)."""

    name: str
    size: int
    data: bytes | None
    kind: str = ""


def members(stream: BinaryIO, limit: Callable[[str], int]) -> Iterator[Member]:
    """Every member in order, read if it has at most ``limit(name)`` bytes; :class:`TarError` where there is damage."""
    told: dict[str, str] = {}
    while block := _read(stream, BLOCK):
        if not block.strip(b"\0"):
            return  # the end mark
        header = _header(block)
        if header.type in (_PAX, _PAX_GLOBAL, _LONG_NAME, _LONG_LINK):
            content = _content(stream, header)
            if header.type == _LONG_NAME:
                told["path"] = content.rstrip(b"\0").decode("utf-8", "surrogateescape")
            elif header.type == _PAX:
                told |= _pax(content)
            continue
        name, size = told.get("path", header.name), _size(told, header)
        told = {}
        if header.type == tarfile.DIRTYPE:
            _skip(stream, size)
            continue
        plain = header.type in _PLAIN
        data = _padded(stream, size) if plain and size <= limit(name) else None
        if data is None:
            _skip(stream, size if plain or header.type == tarfile.GNUTYPE_SPARSE else 0)
        kind = "" if plain else _KINDS.get(header.type, f"an entry of type {header.type!r}")
        yield Member(name, size, data, kind)


def _header(block: bytes) -> tarfile.TarInfo:
    if len(block) < BLOCK:
        raise TarError("it ends inside a header")
    try:
        header = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError) as error:
        raise TarError(f"a header is damaged ({error})") from None
    if header.size < 0:
        raise TarError(f"a header claims {header.size} bytes")
    return header


def _content(stream: BinaryIO, header: tarfile.TarInfo) -> bytes:
    if header.size > MAX_HEADER:
        raise TarError(f"an extended header claims {header.size} bytes, more than {MAX_HEADER}")
    return _padded(stream, header.size)


def _pax(content: bytes) -> dict[str, str]:
    """The records ``LENGTH KEY=VALUE\\n`` of an extended header."""
    found: dict[str, str] = {}
    while content:
        length, space, _ = content.partition(b" ")
        if not space or not length.isdigit() or not len(length) < int(length) <= len(content):
            raise TarError("an extended header is damaged")
        key, _, value = content[len(length) + 1 : int(length) - 1].partition(b"=")
        found[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
        content = content[int(length) :]
    return found


def _size(told: dict[str, str], header: tarfile.TarInfo) -> int:
    if any(key.startswith("GNU.sparse") for key in told):
        raise TarError("it has sparse files in pax form; write it without --sparse")
    text = told.get("size", str(header.size))
    if not text.isdecimal():
        raise TarError(f"a member claims {text!r} bytes")
    return int(text)


def _padded(stream: BinaryIO, size: int) -> bytes:
    """The next ``size`` bytes and the padding behind them."""
    data = _read(stream, size)
    if len(data) < size:
        raise TarError(f"it ends {size - len(data)} bytes before the end of a member")
    _skip(stream, -size % BLOCK, size_is_padded=True)
    return data


def _skip(stream: BinaryIO, size: int, *, size_is_padded: bool = False) -> None:
    left = size if size_is_padded else size + -size % BLOCK
    while left:
        part = stream.read(min(left, _SKIP))
        if not part:
            raise TarError(f"it ends {left} bytes before the end of a member")
        left -= len(part)


def _read(stream: BinaryIO, size: int) -> bytes:
    """``size`` bytes, fewer only at the end; in parts, so that a false size allocates nothing."""
    parts: list[bytes] = []
    while size and (part := stream.read(min(size, _SKIP))):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)
