"""A worker's last words: written by the worker that failed, read by the launcher as the error to raise."""

from __future__ import annotations

import json
import re
import signal
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ichigo import errors
from ichigo.errors import IchigoError, StepError

_DEATH = re.compile(r"rank +: (\d+) \(local_rank: \d+\)\n +exitcode +: (-?\d+)")  # torchrun's summary, torch 2.13


@contextmanager
def recorded(folder: Path, rank: int) -> Iterator[None]:
    """Write an exception of the body to ``failure-<rank>.json`` before it goes on."""
    try:
        yield
    except Exception as error:
        words = {
            "error": type(error).__name__,
            "message": str(error),
            "traceback": traceback.format_exc(),
            "time": time.time_ns(),
        }
        (folder / f"failure-{rank}.json").write_text(json.dumps(words), encoding="utf-8")
        raise


def clear(folder: Path) -> None:
    """Forget the failures of an earlier try."""
    for path in folder.glob("failure-*.json"):
        path.unlink()


def read(folder: Path, stage: str, last_lines: Sequence[str], torchrun_log: str) -> IchigoError:
    """The error of the rank that failed first.

    An error of Ichigo's own keeps its type; anything else becomes a ``StepError`` with the traceback. A worker that was
    killed wrote nothing and the others only noticed: then the message has its signal and the workers' last lines.
    """
    deaths = [(rank, int(code)) for rank, code in _DEATH.findall(torchrun_log)]
    killed = [death for death in deaths if death[1] < 0 and death[1] != -signal.SIGTERM]  # SIGTERM: torchrun's own
    found = [(json.loads(path.read_bytes()), path.stem.removeprefix("failure-")) for path in folder.glob("failure-*")]
    if killed or not found:
        words = _last_words(*killed[0]) if killed else "the workers ended without a word"
        return StepError("\n".join([f"stage {stage}: {words}", *(last_lines or torchrun_log.splitlines()[-20:])]))
    first, rank = min(found, key=lambda failure: failure[0]["time"])
    own = getattr(errors, first["error"], None)
    if isinstance(own, type) and issubclass(own, IchigoError) and own is not errors.RecipeError:
        return own(first["message"])
    return StepError(f"stage {stage}: rank {rank} failed\n{first['traceback'].rstrip()}")


def _last_words(rank: str, code: int) -> str:
    hint = "; when nobody did that, the machine ran out of memory" if code == -signal.SIGKILL else ""
    return f"rank {rank} was killed by {signal.Signals(-code).name}{hint}"
