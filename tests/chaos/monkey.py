"""Waits for a moment in the life of a process, then kills one process of its family at random."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import psutil

_POLL = 0.005  # seconds; a save of a small model takes 20 ms
_GRACE = 30.0  # seconds until the family of a killed process has to be gone
PATIENCE = 3600.0  # seconds until a run that goes on, or lost a process, counts as hanging


@dataclass
class Try:
    """A process under way and the lines that it has said."""

    process: subprocess.Popen[str]
    home: Path
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.before = set(self.files("checkpoints/*/*/manifest.json"))
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines += [line]

    def files(self, pattern: str) -> list[Path]:
        """What lies in the home now."""
        return list(self.home.glob(pattern))

    def ended(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        self._reader.join()
        return True


Moment = Callable[[Try], bool]


def says(pattern: str) -> Moment:
    """When a line matches."""
    return lambda run: any(re.search(pattern, line) for line in list(run.lines))


def saving(run: Try) -> bool:
    """When the ranks are inside a save."""
    return bool(run.files("checkpoints/*/saving-*"))


def uploading(run: Try) -> bool:
    """When a checkpoint was sealed, and is recorded and uploaded next."""
    return bool(set(run.files("checkpoints/*/*/manifest.json")) - run.before)


def committing(run: Try) -> bool:
    """When the work of a step is finished, and its artifact is uploaded."""
    return bool(run.files("work/*/finished.json"))


@dataclass(frozen=True)
class Target:
    """What to wait for, and how long at most after it (seconds) the kill comes."""

    name: str
    moment: Moment
    longest: float


@dataclass(frozen=True)
class Strike:
    """One kill: at which moment, of whom, with which exit status, and who was still there long after."""

    target: str
    victim: str
    status: int | None  # None: it hung
    orphans: tuple[str, ...]


def strike(run: Try, target: Target, random: Random) -> Strike | None:
    """Kill a random process of the family once the moment has come; None if the process ended before."""
    while not target.moment(run):
        if run.ended(_POLL):
            return None
    if run.ended(random.uniform(0, target.longest)):
        return None
    family = family_of(run.process.pid)
    if not family:
        return None
    victim = random.choice(family)
    name = _name(victim, run.process.pid)
    victim.kill()
    hung = not run.ended(PATIENCE)
    if hung:
        run.process.kill()
        run.ended(_GRACE)
    alive = psutil.wait_procs(family, timeout=_GRACE)[1]
    found = tuple(_name(process, run.process.pid) for process in alive)
    for process in alive:
        process.kill()
    return Strike(target.name, name, None if hung else run.process.returncode, found)


def family_of(pid: int) -> list[psutil.Process]:
    """A process and everybody below it."""
    try:
        return [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


_NAMES = {
    "ichigo.training.worker": "rank",
    "torch.distributed.run": "torchrun",
    "ichigo.engines.kfp_runner": "kfp runner",
    "kfp.dsl.executor_main": "step",
    "tests.chaos.one_step": "step",
    "ichigo.cli.main": "ichigo run",
}


def _name(process: psutil.Process, root: int) -> str:
    """What a process is, for the report."""
    try:
        words = process.cmdline()
    except psutil.Error:
        return "a process that had ended"
    known = next((name for part, name in reversed(_NAMES.items()) if any(part in word for word in words)), None)
    if "torch.distributed.run" in words:
        known = "torchrun"
    return known or Path(words[0] if words else "?").name
