"""No process outlives the one that started it, not even when that one is killed with SIGKILL.

torchrun puts its workers in sessions of their own, so neither a terminal's signal nor a process group reaches them; the
kernel does (``PR_SET_PDEATHSIG``, Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(ancestor: int) -> None:
    """Have the kernel kill this process when its parent ends; ends it now when ``ancestor`` is no longer above it.

    Call it in the child. Whoever dies hands its children to another parent at once, so a parent that died before the
    call shows in the chain, even where ``ancestor`` is left as a zombie. The signal comes when the *thread* that
    started the child ends, so that thread has to wait.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if not _above(ancestor):
        os.kill(os.getpid(), signal.SIGKILL)


def _above(ancestor: int) -> bool:
    """Whether ``ancestor`` is the parent of this process, or the parent's parent, and so on."""
    pid = os.getppid()
    while pid not in (ancestor, 0):
        try:
            state = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return False
        pid = int(state.rpartition(")")[2].split()[1])  # proc(5): after the name in brackets state, then parent
    return pid == ancestor
