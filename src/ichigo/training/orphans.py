"""No process outlives the one that started it, not even when that one is killed with SIGKILL.

torchrun puts its workers in sessions of their own, so neither a terminal's signal nor a process group reaches them; the
kernel does (``PR_SET_PDEATHSIG``, Linux).
"""

from __future__ import annotations

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; ends it now when ``parent`` is already gone.

    Call it in the child. The signal comes when the *thread* that started the child ends, so that thread has to wait.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG)")
    if not _exists(parent):
        os.kill(os.getpid(), signal.SIGKILL)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
