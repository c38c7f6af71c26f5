"""The files of a source, on this machine or in S3, behind one interface that never leaves the source's root.

A place is a file, a folder, or a pattern with ``*``, as a path or an ``s3://`` address. Listing asks for names and
sizes alone. A file is read in ranges, so that the footer of a Parquet file or the next member of a tar costs no more
than its own bytes, and memory stays that of one buffer. A name that the data gives (``file_name``, the path in a
Parquet struct) is looked up below the root: an absolute name, ``..`` or a link that leaves the root is refused.
"""

from __future__ import annotations

import glob
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol, cast

from ichigo.corpus.rows import SetAsideError
from ichigo.errors import DataError
from ichigo.hashing import sha256_file
from ichigo.store.objects import NoSuchObject, Objects, Stored, open_objects, split_uri

BUFFER = 4 << 20  # bytes of one request to S3: 4 MiB take 40 ms at 1 Gbit/s, the request itself about as long

Opener = Callable[[str], Objects]


@dataclass(frozen=True)
class Entry:
    """One file: its name below the root, with forward slashes, and its size in bytes."""

    name: str
    size: int


class Files(Protocol):
    """What a source reads."""

    place: str

    def entries(self, *suffixes: str) -> list[Entry]:
        """The files that the place means, by name, those with one of ``suffixes`` alone where the place is a folder."""
        ...

    def open(self, name: str) -> BinaryIO:
        """A file below the root, to be read and sought in; :class:`SetAsideError` if it is absent or outside."""
        ...

    def size(self, name: str) -> int:
        """Its size in bytes; errors as :meth:`open`."""
        ...

    def digest(self, name: str) -> str:
        """What its content is known by: SHA-256 here, size and time of writing in S3; "missing" or "unreadable"."""
        ...


def open_files(place: str, opener: Opener = open_objects) -> Files:
    """The files at ``place``; :class:`~ichigo.errors.DataError` if there are none."""
    return S3Files(place, opener) if place.startswith("s3://") else LocalFiles(place)


class LocalFiles:
    """A file, a folder or a pattern on this machine."""

    def __init__(self, place: str) -> None:
        self.place = place
        path = Path(place)
        self._pattern = not path.exists() and _wild(place)
        if not self._pattern and not path.exists():
            raise DataError(
                f"{place}: no such file or folder here; give one that exists, a pattern or an s3:// address"
            )
        self.root = (_above_wild(path) if self._pattern else path if path.is_dir() else path.parent).resolve()

    def entries(self, *suffixes: str) -> list[Entry]:
        """As :class:`Files` says; hidden files are left out of a folder."""
        found = sorted(path for path in self._paths() if path.is_file() or path.is_symlink())
        if self.is_folder:
            found = [path for path in found if path.name.endswith(suffixes) and not path.name.startswith(".")]
        return [Entry(self._name(path), path.stat().st_size if path.is_file() else 0) for path in found]

    @property
    def is_folder(self) -> bool:
        """Whether the place is a folder, whose files its kind of source chooses."""
        return not self._pattern and Path(self.place).is_dir()

    def _paths(self) -> list[Path]:
        if self._pattern:
            return [Path(found) for found in glob.glob(self.place, recursive=True)]
        return list(Path(self.place).rglob("*")) if self.is_folder else [Path(self.place)]

    def _name(self, path: Path) -> str:
        """Relative to the root, without following the last link."""
        return (path.parent.resolve() / path.name).relative_to(self.root).as_posix()

    def locate(self, name: str) -> Path:
        """The file called ``name`` inside the root, which it must not leave, be it by a symbolic link."""
        relative = inside(name)
        try:
            path = (self.root / relative).resolve()
            is_file = path.is_file()  # also keeps named pipes and devices from blocking the reader
        except (OSError, RuntimeError, ValueError) as error:  # too long, a loop of links, a NUL character
            raise SetAsideError("unreadable", f"{name!r}: {error}; correct the name") from None
        if not path.is_relative_to(self.root):
            raise SetAsideError("outside_folder", f"{name}: a link that leaves the folder; copy the file into it")
        if not is_file:
            raise SetAsideError("missing", f"{name}: no such file; correct the name or add it")
        return path

    def open(self, name: str) -> BinaryIO:
        """As :class:`Files` says."""
        try:
            return self.locate(name).open("rb")
        except OSError as error:
            raise SetAsideError("unreadable", f"{name}: {error.strerror}; make the file readable") from None

    def size(self, name: str) -> int:
        """As :class:`Files` says."""
        return self.locate(name).stat().st_size

    def digest(self, name: str) -> str:
        """As :class:`Files` says."""
        try:
            return sha256_file(self.locate(name))
        except OSError:
            return "unreadable"
        except SetAsideError as error:
            return error.reason


class S3Files:
    """Objects below a prefix, or one, or those that a pattern matches (where ``*`` also matches ``/``)."""

    def __init__(self, place: str, opener: Opener = open_objects) -> None:
        self.place = place
        bucket, key = split_uri(place)
        fixed = re.split(r"[*?[]", key, maxsplit=1)[0] if _wild(key) else key
        self._objects = opener(f"s3://{bucket}")
        found = {entry.key: entry for entry in self._objects.stored(fixed)}
        if _wild(key):
            chosen = [name for name in found if fnmatchcase(name, key)]
            root = fixed.rpartition("/")[0]
        elif key in found:
            chosen, root = [key], key.rpartition("/")[0]
        else:
            chosen = [name for name in found if not key or name.startswith(f"{key}/")]
            root = key
        if not chosen:
            raise DataError(f"{place}: nothing lies there; give an object, a prefix or a pattern with *")
        self.is_folder = not _wild(key) and key not in found
        self._prefix = f"{root}/" if root else ""
        below: dict[str, Stored] = {name.removeprefix(self._prefix): entry for name, entry in found.items()}
        self._chosen = sorted(name.removeprefix(self._prefix) for name in chosen)
        self._known = below if self.is_folder else {name: below[name] for name in self._chosen}

    def entries(self, *suffixes: str) -> list[Entry]:
        """As :class:`Files` says."""
        names = [name for name in self._chosen if not self.is_folder or name.endswith(suffixes)]
        return [Entry(name, self._known[name].size) for name in names]

    def _key(self, name: str) -> str:
        key = str(inside(name))
        if key not in self._known:
            raise SetAsideError("missing", f"{name}: no such object; correct the name or add it")
        return key

    def open(self, name: str) -> BinaryIO:
        """As :class:`Files` says."""
        key = self._key(name)
        raw = _Ranges(self._objects, self._prefix + key, self._known[key].size)
        return cast(BinaryIO, io.BufferedReader(raw, BUFFER))

    def size(self, name: str) -> int:
        """As :class:`Files` says."""
        return self._known[self._key(name)].size

    def digest(self, name: str) -> str:
        """As :class:`Files` says."""
        try:
            known = self._known[self._key(name)]
        except SetAsideError as error:
            return error.reason
        return f"{known.size} bytes of {known.modified:.3f}"


class _Ranges(io.RawIOBase):
    """An object as a file: every read is a request for its range."""

    def __init__(self, objects: Objects, key: str, size: int) -> None:
        self._objects, self._key, self._size, self._at = objects, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        try:
            data = self._objects.get_range(self._key, self._at, wanted)
        except NoSuchObject:
            raise OSError(f"{self._key} is gone from the store") from None
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def read_whole(files: Files, name: str, limit: int) -> bytes:
    """A whole file of at most ``limit`` bytes; :class:`SetAsideError` if it is larger, absent or cannot be read."""
    if (size := files.size(name)) > limit:
        raise SetAsideError("too_large", f"{name}: {size} bytes, more than {limit}; split it")
    try:
        with files.open(name) as handle:
            return handle.read(limit + 1)
    except OSError as error:
        raise SetAsideError("unreadable", f"{name}: {error}; make the file readable") from None


def inside(name: str) -> PurePosixPath:
    """``name`` as a relative path without ``..``; :class:`SetAsideError` for any other."""
    relative = PurePosixPath(name)
    if relative.is_absolute() or ".." in relative.parts or re.match(r"[A-Za-z]:|\\\\|[a-z0-9+]+://", name):
        raise SetAsideError("outside_folder", f"{name}: name files relative to the source and inside it")
    return relative


def require(files: Files, entries: Sequence[Entry], what: str) -> Sequence[Entry]:
    """``entries`` if there are any; :class:`~ichigo.errors.DataError` that names ``what`` is missing."""
    if not entries:
        raise DataError(f"{files.place}: no {what} in it; give a folder that has some, or a file")
    return entries


def _wild(text: str) -> bool:
    return bool(re.search(r"[*?[]", text))


def _above_wild(path: Path) -> Path:
    """The longest leading part of ``path`` without a wild card."""
    return next(parent for parent in path.parents if not _wild(str(parent)))
