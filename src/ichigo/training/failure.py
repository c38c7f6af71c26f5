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
from typing import Any

from ichigo import errors
from ichigo.errors import IchigoError, InfrastructureError, StepError

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
            "exit_code": errors.exit_code_of(error),
            "traceback": traceback.format_exc(),
            "time": time.time_ns(),
        }
        (folder / f"failure-{rank}.json").write_text(json.dumps(words), encoding="utf-8")
        raise


def clear(folder: Path) -> None:
    """Forget the failures of an earlier try."""
    for path in folder.glob("failure-*.json"):
        path.unlink()


def read(folder: Path, stage: str, last_lines: Sequence[str], torchrun_log: str, launcher: int = 1) -> IchigoError:
    """The error of the rank that failed first; ``launcher`` is torchrun's exit status, negative for a signal.

    An error of Ichigo's own is the cause wherever one was recorded, and keeps its type: a rank whose peer has gone may
    still abort while it ends. Next comes a worker that was killed: it wrote nothing, and the others only noticed; the
    message has its signal and the workers' last lines. Anything else becomes a ``StepError`` with the traceback, or an
    ``InfrastructureError`` where memory or disk ran out.
    """
    found = [(json.loads(path.read_bytes()), path.stem.removeprefix("failure-")) for path in folder.glob("failure-*")]
    found.sort(key=lambda failure: failure[0]["time"])
    if own := [error for words, _ in found if (error := _own(words))]:
        return own[0]
    deaths = [(rank, int(code)) for rank, code in _DEATH.findall(torchrun_log)]
    killed = [death for death in deaths if death[1] < 0 and death[1] != -signal.SIGTERM]  # SIGTERM: torchrun's own
    if launcher < 0 or killed or not found:
        dead = ("torchrun", launcher) if launcher < 0 else (f"rank {killed[0][0]}", killed[0][1]) if killed else None
        words = _last_words(*dead) if dead else "the workers ended without a word"
        kind = InfrastructureError if dead and dead[1] == -signal.SIGKILL else StepError
        return kind("\n".join([f"stage {stage}: {words}", *(last_lines or torchrun_log.splitlines()[-20:])]))
    first, rank = found[0]
    return errors.error_for(first["exit_code"])(f"stage {stage}: rank {rank} failed\n{first['traceback'].rstrip()}")


def _own(words: dict[str, Any]) -> IchigoError | None:
    kind = getattr(errors, words["error"], None)
    if isinstance(kind, type) and issubclass(kind, IchigoError) and kind is not errors.RecipeError:
        return kind(words["message"])
    return None


def _last_words(who: str, code: int) -> str:
    hint = "; when nobody did that, the machine ran out of memory" if code == -signal.SIGKILL else ""
    return f"{who} was killed by {signal.Signals(-code).name}{hint}"
