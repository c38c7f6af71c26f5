"""Takes care of checkpoints while a stage trains: a thread of the launcher, so no rank ever waits for a disk or S3.

Each save that the ranks finish is sealed with its manifest and recorded; the newest recorded one goes to the store. A
service that does not answer costs nothing but time: what could not be done is tried again, less and less often, and
stays on this machine's disk meanwhile.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable
from types import TracebackType

from ichigo.recipe.schema import Checkpoints
from ichigo.training.checkpoint import Checkpoint, kept, seal, sealed, unsealed
from ichigo.training.job import StageJob
from ichigo.training.shelf import Say, Shelf

Record = Callable[[str, str], None]
"""Called with a checkpoint's name and the digest of its manifest; returns when others can find it."""

_POLL_SECONDS = 0.2
_LONGEST_WAIT = 60.0  # seconds between two tries of something that fails


class Keeper:
    """Seals, records, uploads and prunes the checkpoints of one stage while the ``with`` block runs."""

    def __init__(self, shelf: Shelf, job: StageJob, record: Record, say: Say, resumed: Checkpoint | None) -> None:
        self._shelf, self._job, self._record, self._say = shelf, job, record, say
        self._unrecorded: list[Checkpoint] = []
        self._recorded = [resumed] if resumed else []
        self._published = set(shelf.published())
        self._wait, self._not_before = _POLL_SECONDS, 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def __enter__(self) -> Keeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish what is under way, and try once more what is still to be done."""
        self._stop.set()
        self._thread.join()
        self._not_before = 0.0
        self._turn()

    @property
    def _rules(self) -> Checkpoints:
        return self._job.launch.checkpoints

    def _watch(self) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            self._turn()

    def _turn(self) -> None:
        """One round; an error of any kind is said and tried again later, because it must not end a training."""
        try:
            self._seal()
            self._prune()
            if time.monotonic() >= self._not_before:
                self._record_new()
                self._publish()
                self._wait = _POLL_SECONDS
        except Exception as error:
            if self._wait == _POLL_SECONDS:
                self._say(f"checkpoints stay in {self._shelf.place} for now: {error}")
            self._wait = min(2 * max(self._wait, 1.0), _LONGEST_WAIT)
            self._not_before = time.monotonic() + self._wait

    def _seal(self) -> None:
        for folder in unsealed(self._shelf.place):
            self._unrecorded.append(seal(folder, self._shelf.lineage, self._job.world, self._job.launch.zero))

    def _record_new(self) -> None:
        while self._unrecorded:
            one = self._unrecorded[0]
            self._record(one.name, one.manifest.digest)
            self._recorded.append(self._unrecorded.pop(0))

    def _publish(self) -> None:
        for checkpoint in self._due():
            self._shelf.publish(checkpoint, self._rules.keep_last, self._rules.keep_every)
            self._published.add(checkpoint.name)

    def _due(self) -> list[Checkpoint]:
        """What is to be uploaded: the newest, and those that stay for good."""
        stay = kept([one.name for one in self._recorded], 1, self._rules.keep_every)
        return [one for one in self._recorded if one.name in stay - self._published]

    def _prune(self) -> None:
        """Keep the newest on this machine, and the newest that can be gone on from; others have been overtaken."""
        folders = {folder.name: folder for folder in sealed(self._shelf.place)}
        needed = {one.name for one in [*self._due(), *self._recorded[-1:]]}
        needed |= kept([one.name for one in self._unrecorded], 0, self._rules.keep_every)
        for name in folders.keys() - kept(folders, self._rules.keep_last, 0) - needed:
            shutil.rmtree(folders[name])
        self._unrecorded = [one for one in self._unrecorded if one.folder.exists()]
        self._recorded = [one for one in self._recorded if one.folder.exists()]
