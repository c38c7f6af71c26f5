"""Starts one stage by torchrun on this machine, follows its journal and says why it failed.

Imports no torch. The workers' output goes on to this process's standard output, torchrun's own to ``torchrun.log``.
"""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from ichigo.errors import InfrastructureError, UserError
from ichigo.training import failure, stacks
from ichigo.training.job import StageJob, StageResult
from ichigo.training.journal import JournalReader, Point
from ichigo.training.keeper import Keeper
from ichigo.training.orphans import die_with

LAUNCHER = "ICHIGO_LAUNCHER"
"""Environment variable that tells a worker the process id of its launcher."""

_POLL_SECONDS = 0.1
_LAST_LINES = 30
_START_SECONDS = 900.0  # for imports, weights, kernels and the first step
_NUMBERS = ("loss", "grad_norm")


def run_stage(
    job: StageJob, workdir: Path, on_point: Callable[[Point], None], keeper: Keeper | None = None
) -> StageResult:
    """Run ``job`` to its end; every journal point goes to ``on_point`` within about 0.1 s.

    Points of the steps before ``job.resume`` come first, with the times at which they were made; a step that an earlier
    try had reached and that comes out otherwise now is said. ``keeper`` looks after the checkpoints meanwhile.
    ``workdir`` keeps the job, torchrun's log and the failures of workers. Raises the error of the rank that failed
    first (``StepError`` with its traceback, or Ichigo's own error as it was raised there), ``InfrastructureError`` when
    a process was killed or no step ended for ``launch.hang_seconds``. All processes are gone when this returns, raises,
    or is killed. Stay in the calling thread: its end counts as being killed.
    """
    if job.launch.nodes != 1:
        raise UserError(f"launch.nodes is {job.launch.nodes}: one machine runs one node; set launch.nodes to 1")
    workdir.mkdir(parents=True, exist_ok=True)
    failure.clear(workdir)
    stacks.clear(workdir)
    job_file, log = workdir / "job.json", workdir / "torchrun.log"
    job.write(job_file)
    earlier = _begin_journal(job)
    began = time.monotonic()
    points: list[Point] = []
    journal, patience = JournalReader(job.journal), Patience(job)
    with _torchrun(job, job_file, log) as (process, last_lines), keeper or nullcontext():
        running = True
        while running:
            running = _still_running(process)
            for point in journal.new_points():
                points.append(point)
                on_point(point)
                earlier.compare(point)
            patience.check(len(points), workdir)
    if process.returncode != 0:
        words = list(last_lines), log.read_text(errors="replace")
        raise failure.read(workdir, job.name, *words, launcher=process.returncode)
    return _result(job, points, time.monotonic() - began)


def _result(job: StageJob, points: Sequence[Point], seconds: float) -> StageResult:
    mine = points[job.first_step :]
    return StageResult(
        model=job.output,
        steps=len(points),
        loss=points[-1]["loss"],
        tokens=int(sum(point["tokens"] for point in points)),
        labelled_tokens=int(sum(point["labelled_tokens"] for point in points)),
        seconds=seconds,
        tokens_per_second=sum(point["tokens"] for point in mine) / seconds,
        **began_and_ended([point["loss"] for point in points]),
        resumed=job.first_step,
    )


def began_and_ended(losses: Sequence[float]) -> dict[str, float]:
    """``loss_began`` and ``loss_ended``: the means of the first and of the last tenth of a stage's steps."""
    tenth = max(1, len(losses) // 10)
    return {"loss_began": math.fsum(losses[:tenth]) / tenth, "loss_ended": math.fsum(losses[-tenth:]) / tenth}


class Patience:
    """Ends a stage in which no step ended for ``launch.hang_seconds``; the first may take :data:`_START_SECONDS`."""

    def __init__(self, job: StageJob) -> None:
        self._job, self._points, self._last = job, job.first_step, time.monotonic()
        self._limit = max(_START_SECONDS, job.launch.hang_seconds)

    def check(self, points: int, workdir: Path) -> None:
        """``InfrastructureError`` with the stacks of every rank once time is up."""
        now = time.monotonic()
        if points > self._points:
            self._points, self._last, self._limit = points, now, self._job.launch.hang_seconds
        elif now - self._last > self._limit:
            raise InfrastructureError(
                f"stage {self._job.name} hangs: {points} of {self._job.stage.steps} steps, and none ended within "
                f"{self._limit:g} s (launch.hang_seconds); run again to go on\n{stacks.ask(workdir)}"
            )


@dataclass(frozen=True)
class Earlier:
    """What an earlier try journalled beyond the step from which this one goes on; it has to come out the same."""

    points: Mapping[int, Point]

    def compare(self, point: Point) -> None:
        """Say when a step that is repeated has another loss or gradient."""
        before = self.points.get(int(point["step"]))
        if before and (differ := [name for name in _NUMBERS if before[name] != point[name]]):
            found = ", ".join(f"{name} {point[name]!r}, before {before[name]!r}" for name in differ)
            print(f"step {int(point['step'])} did not come out as in the try before: {found}", flush=True)


def _begin_journal(job: StageJob) -> Earlier:
    """Put the journal of the checkpoint, or none, in the place of the one that an earlier try left behind."""
    job.journal.parent.mkdir(parents=True, exist_ok=True)
    left = JournalReader(job.journal).new_points()
    job.journal.unlink(missing_ok=True)
    if job.resume:
        shutil.copyfile(job.resume.journal, job.journal)
    comparable = left if job.resume is None or job.resume.exact else []
    return Earlier({int(point["step"]): point for point in comparable if point["step"] >= job.first_step})


def torchrun_command(processes: int, job_file: Path) -> list[str]:
    """The command line: one node, rendezvous on a free port of the loopback interface, no restarts."""
    return [
        *(sys.executable, "-m", "torch.distributed.run", "--nnodes=1", f"--nproc-per-node={processes}"),
        *("--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1", "--max-restarts=0"),
        *("-m", "ichigo.training.worker", str(job_file)),
    ]


def _environment(job: StageJob) -> dict[str, str]:
    cores = len(os.sched_getaffinity(0))
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(job.threads or max(1, cores // job.launch.processes)),
        "GLOO_SOCKET_IFNAME": "lo",  # else gloo resolves the host's name, which need not resolve in a container
        "PYTHONUNBUFFERED": "1",
        LAUNCHER: str(os.getpid()),
    }


def _still_running(process: subprocess.Popen[str]) -> bool:
    try:
        process.wait(_POLL_SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return False


@contextmanager
def _torchrun(job: StageJob, job_file: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], deque[str]]]:
    """torchrun and the last lines of its workers; leaves no process behind however the body ends."""
    with log.open("w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            torchrun_command(job.launch.processes, job_file),
            env=_environment(job),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
            preexec_fn=partial(die_with, os.getpid()),
        )
    last_lines: deque[str] = deque(maxlen=_LAST_LINES)
    echo = threading.Thread(target=_echo, args=(process, last_lines), daemon=True)
    echo.start()
    try:
        yield process, last_lines
    finally:
        process.kill()
        process.wait()
        echo.join()  # the pipe ends when the last worker has ended


def _echo(process: subprocess.Popen[str], last_lines: deque[str]) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        last_lines.append(line.rstrip("\n"))
        print(line, end="", flush=True)
