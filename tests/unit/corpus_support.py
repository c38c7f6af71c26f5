"""Sources as people have them, made of real bytes: recordings in every container, tars, tables, token strings."""

from __future__ import annotations

import io
import json
import tarfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

from ichigo.corpus.files import Opener
from ichigo.corpus.lines import Line, Settings
from ichigo.corpus.rows import Rejected, Row
from ichigo.corpus.sources import Reading, Tally, open_source
from ichigo.corpus.texts import TextRow
from ichigo.recipe.schema import Data
from ichigo.store.objects import open_objects

Tar = list[tuple[str, bytes] | tarfile.TarInfo]


def sound(
    seed: int, seconds: float = 0.1, rate: int = 8000, container: str = "WAV", subtype: str | None = None
) -> bytes:
    """Noise that differs with ``seed``, as a file's bytes."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(rate * seconds))
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def tokens(*codes: int) -> str:
    """Codes as Ichigo publishes them."""
    return "<|sound_start|>" + "".join(f"<|sound_{code:04d}|>" for code in codes) + "<|sound_end|>"


def chat(*said: str) -> list[dict[str, str]]:
    """User and assistant in turn."""
    return [{"role": "assistant" if place % 2 else "user", "content": text} for place, text in enumerate(said)]


def json_file(path: Path, lines: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """JSON lines; bytes are a line as it stands."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(
        b"".join((line if isinstance(line, bytes) else json.dumps(line).encode()) + b"\n" for line in lines)
    )
    return path


def parquet_file(
    path: Path, rows: Sequence[Mapping[str, Any]], schema: pa.Schema | None = None, **options: Any
) -> Path:
    """One table; a row without a key of another has a null there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = dict.fromkeys(name for row in rows for name in row)
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(names), **row} for row in rows], schema=schema), path, **options
    )
    return path


def tar_file(path: Path, members: Tar, mode: str = "w", form: int = tarfile.PAX_FORMAT) -> Path:
    """A tar of files and of entries as they stand."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode, format=form) as tar:  # type: ignore[call-overload]
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                entry = tarfile.TarInfo(member[0])
                entry.size = len(member[1])
                tar.addfile(entry, io.BytesIO(member[1]))
    return path


def sample(key: str, seed: int, **told: Any) -> Tar:
    """A recording and what is said in it."""
    return [(f"{key}.wav", sound(seed)), (f"{key}.json", json.dumps({"text": f"said {seed}", **told}).encode())]


class Read:
    """Everything that came of one pass over some sources."""

    def __init__(self, sources: Sequence[Settings], opener: Opener = open_objects, **settings: Any) -> None:
        data = Data(**{"held_out_speakers": 0.0, **settings})
        self.rejected: list[Rejected] = []
        opened = [open_source(one, data, f"data.sources.{at}", opener=opener) for at, one in enumerate(sources)]
        reading = Reading(opened, data, 0, self.rejected.append)
        self.lines: list[Line] = list(reading.lines())
        held_out = reading.held_out()
        self.rows: list[Row] = [
            replace(row, split="test") if row.id in held_out else row for line in self.lines for row in line.rows
        ]
        self.texts: list[TextRow] = [text for line in self.lines for text in line.texts]
        self.tallies: dict[str, Tally] = reading.tallies

    @property
    def reasons(self) -> dict[str, int]:
        """How many lines were set aside, by reason."""
        return dict(Counter(entry.reason for entry in self.rejected))
