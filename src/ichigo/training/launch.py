"""Starts one stage by torchrun on this machine, follows its journal and says why it failed.

Imports no torch. The workers' output goes on to this process's standard output, torchrun's own to ``torchrun.log``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from ichigo.errors import UserError
from ichigo.training import failure
from ichigo.training.job import StageJob, StageResult
from ichigo.training.journal import JournalReader, Point
from ichigo.training.orphans import die_with

LAUNCHER = "ICHIGO_LAUNCHER"
"""Environment variable that tells a worker the process id of its launcher."""

_POLL_SECONDS = 0.1
_LAST_LINES = 30


def run_stage(job: StageJob, workdir: Path, on_point: Callable[[Point], None]) -> StageResult:
    """Run ``job`` to its end; every journal point goes to ``on_point`` within about 0.1 s.

    ``workdir`` keeps the job, torchrun's log and the failures of workers. Raises the error of the rank that failed
    first (``StepError`` with its traceback, or Ichigo's own error as it was raised there). All processes are gone when
    this returns, raises, or is killed. Stay in the calling thread: its end counts as being killed.
    """
    if job.launch.nodes != 1:
        raise UserError(f"launch.nodes is {job.launch.nodes}: one machine runs one node; set launch.nodes to 1")
    workdir.mkdir(parents=True, exist_ok=True)
    job.journal.parent.mkdir(parents=True, exist_ok=True)
    job.journal.unlink(missing_ok=True)
    failure.clear(workdir)
    job_file, log = workdir / "job.json", workdir / "torchrun.log"
    job.write(job_file)
    began = time.monotonic()
    points = []
    journal = JournalReader(job.journal)
    with _torchrun(job, job_file, log) as (process, last_lines):
        running = True
        while running:
            running = _still_running(process)
            for point in journal.new_points():
                points.append(point)
                on_point(point)
    if process.returncode != 0:
        raise failure.read(workdir, job.name, list(last_lines), log.read_text(errors="replace"))
    return StageResult(
        model=job.output,
        steps=len(points),
        loss=points[-1]["loss"],
        tokens=int(sum(point["tokens"] for point in points)),
        labelled_tokens=int(sum(point["labelled_tokens"] for point in points)),
        seconds=time.monotonic() - began,
    )


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
