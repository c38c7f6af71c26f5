"""The folder where a machine keeps what outlives a process: where it is, and who holds a part of it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

HOME_VARIABLE = "ICHIGO_HOME"
LOCK = "lock"
"""The file of a held folder; the kernel lets go of it when its holder dies."""


def default_home(environ: Mapping[str, str]) -> Path:
    """``ICHIGO_HOME``, or ``.ichigo`` in the current folder."""
    return Path(environ.get(HOME_VARIABLE) or ".ichigo")


def lasting_home() -> Path | None:
    """``ICHIGO_HOME`` as the engine of this machine tells its steps; None in a pod, whose folders end with it."""
    home = os.environ.get(HOME_VARIABLE)
    return Path(home) if home else None


def claim(folder: Path, stack: ExitStack) -> bool:
    """Hold the lock of ``folder``, which is made if need be, until ``stack`` closes; False if another process does."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / LOCK
    try:
        handle = stack.enter_context(path.open("a"))
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(handle.fileno()).st_ino == path.stat().st_ino  # and nobody has removed it since
    except OSError:  # held, or just removed, or on a file system without locks
        return False
