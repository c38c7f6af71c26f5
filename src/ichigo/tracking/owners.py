"""Who runs a run: a process of this machine, named so that it can never be taken for another.

The name stands in the tag ``ichigo.owner`` of every MLflow run that a process of ours keeps open. A run whose owner is
gone for certain can be closed by anybody (:mod:`ichigo.engines.platform.reaper`).
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import astuple, dataclass
from pathlib import Path

OWNER = "ichigo.owner"
"""Tag of an MLflow run: the text of an :class:`Owner`."""
REASON = "ichigo.reason"
"""Tag of an MLflow run that did not end by itself: why."""
OWNER_VARIABLE = "ICHIGO_OWNER"
"""Names the process that a whole pipeline run lives and dies with; set by the engine for the steps."""

_PROC = Path("/proc")
_ENDED = {"Z", "X"}  # states in /proc/PID/stat: a zombie, dead


@dataclass(frozen=True)
class Owner:
    """A process: ``started`` in clock ticks since the machine's start, which no change of the clock moves."""

    host: str
    machine: str  # /etc/machine-id, "-" where there is none
    boot: str  # differs after every start of the machine
    namespace: int  # of process ids; differs in every container
    user: int
    pid: int
    started: int

    def __str__(self) -> str:
        return " ".join(map(str, astuple(self)))

    @classmethod
    def parse(cls, text: str) -> Owner | None:
        """The owner that ``str`` wrote, or None for any other text."""
        try:
            host, machine, boot, *numbers = text.split(" ")
            return cls(host, machine, boot, *map(int, numbers))
        except (ValueError, TypeError):
            return None

    @classmethod
    def this(cls) -> Owner | None:
        """This process, or None on a system without Linux's ``/proc``, where nobody can be told to be gone."""
        pid = os.getpid()
        try:
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
            namespace = (_PROC / "self/ns/pid").stat().st_ino
        except OSError:
            return None
        return cls(socket.gethostname(), _machine(), boot, namespace, os.getuid(), pid, _started(pid) or 0)

    def is_gone(self, began: float) -> bool:
        """Whether the process ended for certain; ``began`` is when its run began (seconds since the epoch).

        False whenever this process cannot know: the owner is of another machine, container or user.
        """
        me = Owner.this()
        if me is None or (me.host, me.machine, me.user) != (self.host, self.machine, self.user):
            return False
        if me.boot != self.boot:
            # Clones of one disk image share host name and machine id: a run that began after our start is of a clone.
            return self.machine != "-" and began < time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return me.namespace == self.namespace and _started(self.pid) != self.started


def _machine() -> str:
    try:
        return Path("/etc/machine-id").read_text().strip() or "-"
    except OSError:
        return "-"


def _started(pid: int) -> int | None:
    """When a process began, in clock ticks since the machine's start; None if it ended (a zombie has)."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in _ENDED else int(fields[19])
