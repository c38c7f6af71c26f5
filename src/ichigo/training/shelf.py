"""Where the checkpoints of one stage stand: on this machine, and in the store for whoever goes on elsewhere.

::

    <ICHIGO_HOME>/checkpoints/<lineage>/<name>/   on disk first: survives a killed process and an outage of the store
    checkpoints/<lineage>/<name>/…                in the store: files, then the manifest
    checkpoints/<lineage>/LATEST.json             the pointer, written last: name -> digest of the manifest

Only what the pointer names counts in the store, so nobody ever sees a part of a checkpoint.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ichigo.errors import IntegrityError
from ichigo.hashing import canonical_json
from ichigo.home import claim, lasting_home
from ichigo.store.objects import NoSuchObject, Objects
from ichigo.training.checkpoint import (
    MANIFEST,
    Checkpoint,
    checked_manifest,
    clear_unfinished,
    finish_saving,
    kept,
    saving_folder,
    sealed,
    step_of,
    verified,
    write_whole,
)

POINTER = "LATEST.json"
LINEAGE = "ichigo.lineage"
"""Tag of a training's MLflow run; checkpoints are recorded in the runs that have the same."""

Say = Callable[[str], None]


@contextmanager
def place_of(lineage: str) -> Iterator[Path]:
    """A folder for the checkpoints of one lineage, for this process alone while the block runs.

    Below ``<ICHIGO_HOME>/checkpoints``, where it outlives a killed process; a temporary one where there is no such home
    (a pod), or while another process trains the very same.
    """
    home = lasting_home()
    with ExitStack() as stack:
        place = home / "checkpoints" / lineage if home else None
        if place is None or not claim(place, stack):
            place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ichigo-checkpoints-")))
        yield place


@dataclass(frozen=True)
class Shelf:
    """The checkpoints of one lineage: in the folder ``place``, which has one writer at a time, and in the store."""

    place: Path
    objects: Objects
    lineage: str

    @property
    def prefix(self) -> str:
        """Where they lie below the store's root."""
        return f"checkpoints/{self.lineage}"

    def newest(self, recorded: Mapping[str, str], say: Say) -> Checkpoint | None:
        """The newest checkpoint that is whole; ``recorded`` is the digest of each manifest by the checkpoint's name.

        What is here without being recorded, or is not what was recorded, is removed and said. Raises
        :class:`~ichigo.errors.PlatformError` when the store does not answer.
        """
        clear_unfinished(self.place)
        for folder in sealed(self.place):
            if folder.name not in recorded:
                say(f"the checkpoint {folder.name} was never recorded and is not used")
                shutil.rmtree(folder)
        published = self.published()
        for name in sorted(recorded, reverse=True):
            found = self._here(name, recorded[name], say)
            if found is None and name in published:
                found = self._there(name, recorded[name], say)
            if found is not None:
                return found
        return None

    def published(self) -> dict[str, str]:
        """What the pointer in the store names: digest of the manifest by name."""
        try:
            found: dict[str, str] = json.loads(self.objects.get(f"{self.prefix}/{POINTER}"))
        except NoSuchObject:
            return {}
        return found

    def publish(self, checkpoint: Checkpoint, last: int, every: int) -> None:
        """Upload a checkpoint, point to it, and remove those in the store that the rules no longer keep."""
        before, key = self.published(), f"{self.prefix}/{checkpoint.name}"
        for file in checkpoint.manifest.files:
            self.objects.put_file(f"{key}/{file.path}", checkpoint.folder / file.path)
        self.objects.put(f"{key}/{MANIFEST}", checkpoint.manifest.to_bytes())
        known = {**before, checkpoint.name: checkpoint.manifest.digest}
        stay = kept(known, last, every)
        self._point({name: digest for name, digest in known.items() if name in stay})
        for name in known.keys() - stay:
            self._remove(name)

    def begin_anew(self) -> None:
        """Remove every checkpoint of the lineage, here and in the store, so that the stage begins anew."""
        clear_unfinished(self.place)
        for folder in sealed(self.place):
            shutil.rmtree(folder)
        self.retire(0)

    def retire(self, every: int) -> None:
        """Remove from the store what only served to go on; a multiple of ``every`` steps stays for good."""
        published = self.published()
        stay = kept(published, 0, every)
        if published.keys() - stay:
            self._point({name: digest for name, digest in published.items() if name in stay})
        for name in published.keys() - stay:
            self._remove(name)

    def _point(self, names: Mapping[str, str]) -> None:
        if names:
            self.objects.put(f"{self.prefix}/{POINTER}", canonical_json(names))
        else:
            self.objects.delete(f"{self.prefix}/{POINTER}")

    def _remove(self, name: str) -> None:
        for key, _ in self.objects.list(f"{self.prefix}/{name}/"):
            self.objects.delete(key)

    def _here(self, name: str, recorded: str, say: Say) -> Checkpoint | None:
        folder = self.place / name
        if not (folder / MANIFEST).exists():
            return None
        try:
            return verified(folder, recorded)
        except IntegrityError as error:
            say(f"a checkpoint on this machine is damaged and not used: {error}")
            shutil.rmtree(folder)
            return None

    def _there(self, name: str, recorded: str, say: Say) -> Checkpoint | None:
        try:
            return self._fetch(name, recorded)
        except (IntegrityError, NoSuchObject) as error:
            say(f"a checkpoint in the store is damaged and not used: {error}")
            return None

    def _fetch(self, name: str, recorded: str) -> Checkpoint:
        key = f"{self.prefix}/{name}"
        data = self.objects.get(f"{key}/{MANIFEST}")
        manifest = checked_manifest(data, recorded, key)
        folder = saving_folder(self.place, step_of(name), name.rpartition("-")[2])
        for file in manifest.files:
            target = folder / file.path
            target.parent.mkdir(parents=True, exist_ok=True)
            self.objects.get_file(f"{key}/{file.path}", target)
        write_whole(folder / MANIFEST, data)
        verified(folder, recorded)
        finish_saving(folder)
        return Checkpoint(self.place / name, manifest)
