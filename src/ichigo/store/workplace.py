"""Where a draft lies until it is committed: work that has ended outlives its process if the store cannot take it.

Below ``<ICHIGO_HOME>/work`` (the engine on this machine tells its steps the home; in a pod without one drafts are
temporary)::

    <kind>-<fingerprint>/    the draft of one identity
      lock                   held by the process that writes it, released by the kernel when that process dies
      files/…                what will be the artifact
      finished.json          facts, and size and SHA-256 of every file: written in one move when the work has ended

A process that is killed before ``finished.json`` leaves a folder that the next one here removes; one that is killed, or
that S3 does not answer, after it leaves a folder that the next one of the same identity commits without working again.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ichigo.hashing import canonical_json
from ichigo.home import claim, lasting_home

_FINISHED, _FILES = "finished.json", "files"


@dataclass(frozen=True)
class Workplace:
    """A folder for the files of one draft, and what was finished in it earlier (None: nothing)."""

    files: Path
    finished: Mapping[str, Any] | None
    lasting: bool  # whether it outlives the process

    def finish(self, account: Mapping[str, Any]) -> None:
        """Write down that the work has ended, with its ``account``."""
        if self.lasting:
            new = self.files.with_name(f".{_FINISHED}")
            new.write_bytes(canonical_json(account))
            new.replace(self.files.with_name(_FINISHED))


@dataclass(frozen=True)
class Kept:
    """A draft's folder that no living process holds; ``size`` in bytes, ``modified`` since the epoch."""

    folder: Path
    size: int
    modified: float


def folder_of(home: Path) -> Path:
    """Where drafts lie that outlive their process."""
    return home / "work"


@contextmanager
def workplace(name: str, *, lasting: bool) -> Iterator[Workplace]:
    """A place for the draft ``name``, below the home if it shall last and no other process holds that folder.

    It is removed when the block ends, unless it raised after :meth:`Workplace.finish`.
    """
    home = lasting_home() if lasting else None
    root = folder_of(home) if home else None
    with ExitStack() as stack:
        claimed = root is not None and claim(root / name, stack)
        if root and claimed:
            _sweep(root, besides=name)
            folder = root / name
        else:
            folder = Path(tempfile.mkdtemp(prefix=f"ichigo-{name.partition('-')[0]}-"))
        place = _open(folder, claimed)
        try:
            yield place
        except BaseException:
            if not (folder / _FINISHED).exists():
                shutil.rmtree(folder, ignore_errors=True)
            raise
        shutil.rmtree(folder, ignore_errors=True)


def discard(place: Workplace) -> Workplace:
    """The same place, empty."""
    shutil.rmtree(place.files)
    place.files.with_name(_FINISHED).unlink(missing_ok=True)
    return _open(place.files.parent, place.lasting)


def kept(root: Path) -> list[Kept]:
    """What earlier processes left below ``root`` and no living one holds, in the order of their names."""
    found = []
    for folder in sorted(path for path in root.glob("*") if path.is_dir()):
        with ExitStack() as stack:
            if claim(folder, stack):
                files = [path.stat() for path in folder.rglob("*") if path.is_file()]
                found.append(Kept(folder, sum(f.st_size for f in files), max(f.st_mtime for f in files)))
    return found


def remove(found: Kept) -> None:
    """Remove what was kept, unless a process has taken it up meanwhile."""
    with ExitStack() as stack:
        if found.folder.is_dir() and claim(found.folder, stack):
            shutil.rmtree(found.folder)


def _open(folder: Path, lasting: bool) -> Workplace:
    finished = folder / _FINISHED
    account = json.loads(finished.read_bytes()) if finished.exists() else None
    if account is None:
        shutil.rmtree(folder / _FILES, ignore_errors=True)
    (folder / _FILES).mkdir(exist_ok=True)
    return Workplace(folder / _FILES, account, lasting)


def _sweep(root: Path, besides: str) -> None:
    """Remove what processes left that died at work."""
    for found in kept(root):
        if found.folder.name != besides and not (found.folder / _FINISHED).exists():
            remove(found)
