"""Where every rank stands: asked by the launcher when a stage makes no step any more.

A rank that waits inside a collective runs no Python, so it is asked by a signal, which ``faulthandler`` answers from
within the signal handler. A rank that is stopped or stuck in the kernel cannot answer; its state is told instead.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

_NAME = re.compile(r"stacks-(?P<rank>\d+)-(?P<pid>\d+)\.txt")
_SECONDS = 5.0  # for all ranks to answer; one needs milliseconds
_STATES = {"T": "stopped by a signal", "D": "waiting inside the kernel (disk or driver)", "Z": "dead", "": "gone"}
_MUTE = {"T", "Z", ""}  # states in which no answer can come
_files: list[IO[str]] = []


def offer(folder: Path, rank: int) -> None:
    """Write the stacks of all threads of this process below ``folder`` when SIGUSR1 comes, and on a crash to stderr."""
    faulthandler.enable()
    file = (folder / f"stacks-{rank}-{os.getpid()}.txt").open("w", encoding="utf-8")
    _files.append(file)  # open as long as the process lives
    faulthandler.register(signal.SIGUSR1, file, all_threads=True)


def clear(folder: Path) -> None:
    """Forget the ranks of an earlier try."""
    for path in folder.glob("stacks-*.txt"):
        path.unlink()


def ask(folder: Path) -> str:
    """The stacks of every rank that offered them in ``folder``, one block per rank, the innermost call first."""
    ranks = sorted(
        (int(match["rank"]), int(match["pid"]), path) for path in folder.iterdir() if (match := _match(path))
    )
    for _, pid, _ in ranks:
        _signal(pid)
    _wait_for([path for _, pid, path in ranks if _letter(pid) not in _MUTE])
    return "\n".join(f"rank {rank}:\n{_words(pid, path)}" for rank, pid, path in ranks)


def _match(path: Path) -> re.Match[str] | None:
    return _NAME.fullmatch(path.name)


def _signal(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGUSR1)


def _wait_for(paths: list[Path]) -> None:
    """Until every file has an answer that has stopped growing, or time is up."""
    deadline, before = time.monotonic() + _SECONDS, [-1]
    while time.monotonic() < deadline:
        sizes = [path.stat().st_size for path in paths]
        if all(sizes) and sizes == before:
            return
        before = sizes
        time.sleep(0.1)


def _words(pid: int, path: Path) -> str:
    return path.read_text(encoding="utf-8").rstrip() or f"  no answer from process {pid}: {_state(pid)}"


def _state(pid: int) -> str:
    letter = _letter(pid)
    return _STATES.get(letter, f"state {letter}")


def _letter(pid: int) -> str:
    """The state of a process in Linux's one letter (proc(5)); none for one that is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
