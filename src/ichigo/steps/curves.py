"""The curves of a training on their way to MLflow: every point on this disk first, and there until MLflow has it.

``add`` appends a line to a file and returns; a thread sends what the file holds, in batches, and asks again for as long
as the training runs when MLflow does not answer. What is left at the end stays in
``<ICHIGO_HOME>/points/<MLflow run>.jsonl``, and so it does when the process is killed; the next run on this machine
sends it (:func:`ship_left`).

No step gets a second point: MLflow is asked first what it holds, and a repeated step (after a resume, or sent with its
answer lost) is compared with that instead of sent.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ichigo.errors import IntegrityError, PlatformError
from ichigo.home import default_home
from ichigo.steps.context import Step
from ichigo.tracking.patience import PATIENCE, server
from ichigo.tracking.runs import Point, RunTree, client
from ichigo.training import journal

_SHIP_SECONDS = 5.0
_LONGEST_PAUSE = 30.0  # seconds between two attempts during an outage
_LAST_PAUSE = 1.0  # the same while the step waits for the end
_CHUNK = 64 << 10  # bytes of lines, about 300 steps, sent together
_REPEATABLE = ("loss", "learning_rate", "grad_norm")
"""Curves that a resumed training repeats bit for bit."""
CURVES = (*_REPEATABLE, "tokens_per_second")


class Spool:
    """The points of one MLflow run that it may not have yet, one JSON line each, held by one process at a time."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; ``BlockingIOError`` while another process holds it."""
        self.path = path
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._file)
            raise
        self._sent = 0  # bytes
        self._written = self._whole_lines()

    def _whole_lines(self) -> int:
        """Cut off a line that a killed process did not complete."""
        data = os.pread(self._file, os.fstat(self._file).st_size, 0)
        whole = data.rfind(b"\n") + 1
        os.ftruncate(self._file, whole)
        return whole

    @property
    def waiting(self) -> bool:
        """Whether some points have not been taken."""
        return self._sent < self._written

    def append(self, point: journal.Point) -> None:
        """Keep one point."""
        line = json.dumps(point, sort_keys=True).encode() + b"\n"
        os.pwrite(self._file, line, self._written)
        self._written += len(line)

    def ship(self, send: Callable[[list[journal.Point]], None]) -> None:
        """Hand what waits to ``send``, some hundred points a time; what it raises leaves the rest waiting."""
        while self.waiting:
            chunk = os.pread(self._file, min(_CHUNK, self._written - self._sent), self._sent)
            whole = chunk[: chunk.rfind(b"\n") + 1]
            send([json.loads(line) for line in whole.splitlines()])
            self._sent += len(whole)

    def close(self) -> None:
        """Let go of the file, and remove it if nothing waits in it."""
        if not self.waiting:
            self.path.unlink()
        os.close(self._file)


class Curves:
    """The curves of one MLflow run: sends what it does not hold yet, compares what it does."""

    def __init__(self, tree: RunTree, run_id: str) -> None:
        self._tree, self._run = tree, run_id
        self._held: dict[int, dict[str, float]] | None = None  # about 40 MB for 100 000 steps
        self._due: list[Point] = []  # counted as held, and not taken yet

    def send(self, points: list[journal.Point]) -> None:
        """Log what is new of these points.

        Raises:
            PlatformError: MLflow does not answer.
            IntegrityError: MLflow holds another value for a step.
        """
        if self._held is None:
            self._held = self._tree.points(self._run, CURVES)
        for point in points:
            self._due += self._new(point, self._held.setdefault(int(point["step"]), {}))
        self._tree.log_points(self._run, self._due)
        self._due = []

    def _new(self, point: journal.Point, held: dict[str, float]) -> Iterator[Point]:
        for name in CURVES:
            if name not in held:
                held[name] = point[name]
                yield Point(name, point[name], int(point["step"]), int(point["time"]))
            elif name in _REPEATABLE and held[name] != point[name]:
                raise IntegrityError(
                    f"step {point['step']:.0f} has {name} {held[name]!r} in MLflow (run {self._run}), but "
                    f"{point[name]!r} in the journal of this training: it is not the one that was interrupted. "
                    "Its code, libraries, machine or data differ; start a new run to train from the beginning"
                )


class Shipper:
    """Takes the points of a step's training and sees to it that MLflow gets them; :meth:`ship` ends it."""

    def __init__(self, step: Step, patience: float = PATIENCE) -> None:
        self._step, self._patience = step, patience
        self._spool = _spool_of(step.mlflow_run)
        tree = RunTree(step.run.experiment, step.run.mlflow_run, client(patience=0))
        self._curves = Curves(tree, step.mlflow_run)
        self._error: Exception | None = None
        self._problem = ""  # what MLflow said at the last attempt
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name="curves", daemon=True)
        self._thread.start()
        step.draws(CURVES)
        step.after_commit(self._require_all_taken)

    def add(self, point: journal.Point) -> None:
        """Take one point of the journal; a step that was added before is compared and not logged again.

        Raises:
            IntegrityError: MLflow holds other values for an earlier step of this training.
        """
        self._raise_error()
        self._spool.append(point)

    def ship(self) -> None:
        """End: have MLflow take what is left, waiting for it as long as ``patience`` allows.

        What it does not take stays on disk and makes the step end as a :class:`PlatformError`, after its artifact is
        committed: the next run finds the artifact, and sends the points.

        Raises:
            IntegrityError: as :meth:`add`.
        """
        self._ending.set()
        self._thread.join()
        self._spool.close()
        self._raise_error()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error:
            raise error

    def _work(self) -> None:
        try:
            self._ship_until_the_end()
        except Exception as error:
            self._error = error

    def _ship_until_the_end(self) -> None:
        pause = _SHIP_SECONDS
        while not self._ending.wait(pause):
            pause = _SHIP_SECONDS if self._all_taken() else min(2 * pause, _LONGEST_PAUSE)
        deadline = time.monotonic() + self._patience
        while not self._all_taken() and time.monotonic() < deadline:
            time.sleep(_LAST_PAUSE)

    def _all_taken(self) -> bool:
        try:
            self._spool.ship(self._curves.send)
        except PlatformError as error:
            self._problem = str(error)
            return False
        return True

    def _require_all_taken(self) -> None:
        if self._spool.waiting:
            raise PlatformError(
                f"{self._problem}. The artifact is committed and found again, and the points that MLflow lacks are kept"
                f" in {self._spool.path}: the next run on this machine sends them"
            )


def ship_left(say: Callable[[str], None], patience: float = PATIENCE) -> None:
    """Send what earlier processes on this machine could not; those that live are left alone.

    Raises:
        PlatformError: MLflow does not answer within ``patience`` seconds.
    """
    for path in sorted(_folder().glob("*.jsonl")):
        try:
            spool = Spool(path)
        except BlockingIOError:
            continue
        _ship_one(spool, RunTree("", path.stem, client(patience)), say)


def _ship_one(spool: Spool, tree: RunTree, say: Callable[[str], None]) -> None:
    from mlflow.exceptions import MlflowException

    run_id = tree.parent
    try:
        spool.ship(Curves(tree, run_id).send)
        say(f"sent the points of MLflow run {run_id} that an earlier process could not")
    except (IntegrityError, MlflowException) as error:
        say(f"{server()} does not take the points of run {run_id} ({error}); delete {spool.path} if nobody needs them")
    finally:
        spool.close()


def _spool_of(run_id: str) -> Spool:
    path = _folder() / f"{run_id}.jsonl"
    try:
        return Spool(path)
    except BlockingIOError:
        raise PlatformError(f"{path} is held by another process that trains this step; wait for it or end it") from None
    except OSError as error:
        raise PlatformError(f"{path} cannot be written ({error}); set ICHIGO_HOME to a folder of your own") from error


def _folder() -> Path:
    """Where the engine of this machine keeps its state; in a pod, a folder that ends with it."""
    return default_home(os.environ) / "points"
