"""The journal of a stage: one JSON line per optimizer step, written by rank 0 and followed by the launcher.

A point has ``step`` (from 0), ``loss`` (nats per labelled token, before the update), ``learning_rate``, ``grad_norm``
(before clipping), ``labelled_tokens`` and ``tokens`` (of all ranks), ``tokens_per_second``, ``seconds`` (of this step),
``peak_memory`` (bytes of rank 0's GPU so far, or of its process on a CPU) and ``time`` (milliseconds since the epoch,
as MLflow counts).
"""

from __future__ import annotations

import json
from pathlib import Path

Point = dict[str, float]


class JournalWriter:
    """Appends points; every line is flushed so that a follower and a crash both see whole lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8")

    def append(self, point: Point) -> None:
        """Write one line."""
        self._file.write(json.dumps(point, sort_keys=True) + "\n")
        self._file.flush()


class JournalReader:
    """Follows a journal that may not exist yet."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def new_points(self) -> list[Point]:
        """Points whose line was completed since the last call."""
        if not self._path.exists():
            return []
        with self._path.open("rb") as file:
            file.seek(self._position)
            fresh = file.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._position += len(whole)
        return [json.loads(line) for line in whole.splitlines()]
