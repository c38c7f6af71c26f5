"""What a checkpoint is, on disk and in the store, and when one may be trusted.

::

    <stage's place>/saving-00000040-1f2e3d4c/   the ranks write; whoever dies here leaves only this name behind
    <stage's place>/00000040-1f2e3d4c/          renamed by rank 0 once every rank has saved
        state/…                                 what DeepSpeed's ``save_checkpoint`` wrote, pickles among it
        journal.jsonl                           the points of steps 0 to 39
        manifest.json                           sizes and SHA-256 of all of this, written last

``40`` optimizer steps are done; ``1f2e3d4c`` is the try that saved it, so two tries never write into one folder. A
folder without a manifest is no checkpoint. Nothing of a checkpoint is unpickled before the manifest has the digest that
was recorded when it was made, and every file the digest in the manifest.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from ichigo.errors import IntegrityError
from ichigo.hashing import canonical_json, sha256_bytes, sha256_file
from ichigo.store.artifacts import File

STATE = "state"
"""DeepSpeed's tag, and so the folder of its files."""

JOURNAL = "journal.jsonl"
MANIFEST = "manifest.json"
_SAVING = "saving-"
_NAME = re.compile(r"(?P<step>\d{8})-[0-9a-f]{8}")


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds and fits: ``step`` optimizer steps done by ``world`` processes under ZeRO ``zero``.

    ``lineage`` is the digest of everything that decides the numbers of a stage: settings, inputs and code.
    """

    lineage: str
    step: int
    world: int
    zero: int
    files: tuple[File, ...]

    def to_bytes(self) -> bytes:
        """The manifest as it is stored."""
        return canonical_json(asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Read what :meth:`to_bytes` gave."""
        body = json.loads(data)
        return cls(**{**body, "files": tuple(File(**file) for file in body["files"])})

    @property
    def digest(self) -> str:
        """What is recorded of a checkpoint: it covers every byte."""
        return sha256_bytes(self.to_bytes())


@dataclass(frozen=True)
class Checkpoint:
    """A sealed checkpoint on this machine."""

    folder: Path
    manifest: Manifest

    @property
    def name(self) -> str:
        """Step and try; also its name in the store."""
        return self.folder.name


def saving_folder(place: Path, step: int, attempt: str) -> Path:
    """Where the ranks write the state after ``step`` steps."""
    return place / f"{_SAVING}{step:08d}-{attempt}"


def finish_saving(folder: Path) -> None:
    """Give a folder into which every rank has saved its final name."""
    folder.rename(folder.with_name(folder.name.removeprefix(_SAVING)))


def clear_unfinished(place: Path) -> None:
    """Remove what killed tries left: saves that were not finished, and those that nobody came to seal."""
    for folder in place.iterdir():
        unsealed = _NAME.fullmatch(folder.name) and not (folder / MANIFEST).exists()
        if unsealed or folder.name.startswith(_SAVING):
            shutil.rmtree(folder)


def unsealed(place: Path) -> list[Path]:
    """Finished saves without a manifest, oldest first."""
    found = (folder for folder in place.iterdir() if _NAME.fullmatch(folder.name))
    return sorted(folder for folder in found if not (folder / MANIFEST).exists())


def seal(folder: Path, lineage: str, world: int, zero: int) -> Checkpoint:
    """Write the manifest of a finished save, after its bytes have reached the disk."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _to_disk(path)
        files.append(File(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_file(path)))
    manifest = Manifest(lineage, step_of(folder.name), world, zero, tuple(files))
    write_whole(folder / MANIFEST, manifest.to_bytes())
    return Checkpoint(folder, manifest)


def verified(folder: Path, recorded: str) -> Checkpoint:
    """The checkpoint in ``folder``; :class:`IntegrityError` unless its manifest has the digest ``recorded`` and every
    file the one in the manifest."""
    manifest = checked_manifest((folder / MANIFEST).read_bytes(), recorded, str(folder))
    for file in manifest.files:
        path = folder / file.path
        if not path.is_file() or sha256_file(path) != file.sha256:
            raise IntegrityError(f"{path} is not what was saved; its SHA-256 should be {file.sha256[:12]}…")
    return Checkpoint(folder, manifest)


def checked_manifest(data: bytes, recorded: str, where: str) -> Manifest:
    """The manifest that ``data`` holds; :class:`IntegrityError` unless it has the digest ``recorded``."""
    if sha256_bytes(data) != recorded:
        raise IntegrityError(f"{where}: its manifest is not the one that was recorded, {recorded[:12]}…")
    return Manifest.from_bytes(data)


def sealed(place: Path) -> list[Path]:
    """The folders in ``place`` that have a manifest, oldest step first."""
    return sorted(folder for folder in place.iterdir() if _NAME.fullmatch(folder.name) and (folder / MANIFEST).exists())


def step_of(name: str) -> int:
    """The number of steps in a checkpoint's name; :class:`IntegrityError` for a name that is none."""
    match = _NAME.fullmatch(name)
    if not match:
        raise IntegrityError(f"{name!r} is no name of a checkpoint")
    return int(match["step"])


def kept(names: Iterable[str], last: int, every: int) -> set[str]:
    """Of checkpoints by name those that stay: the ``last`` newest, and all whose step is a multiple of ``every``."""
    ordered = sorted(names)
    for_good = [name for name in ordered if every and step_of(name) % every == 0]
    return {*ordered[max(len(ordered) - last, 0) :], *for_good}


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` at ``path`` so that a reader, or whoever comes after a crash, finds all of it or nothing."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_bytes(data)
    _to_disk(partial)
    partial.replace(path)
    _to_disk(path.parent)


def _to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
