"""Which rows a stage's data was made from: ``rows/<stage>.parquet`` of a mix, beside the packed data and not in it.

One line per row and kind of sample, with how many samples; in the order of the rows' ids. Noise that was made, and not
recorded, has no row. A stage does not read this file, so it is no part of its input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

FOLDER = "rows"
_SCHEMA = pa.schema([("id", pa.string()), ("kind", pa.string()), ("samples", pa.int32())])


def provenance_file(stage: str) -> str:
    """The path of a stage's file in a mix."""
    return f"{FOLDER}/{stage}.parquet"


def write_provenance(samples: Iterable[tuple[str, Sequence[str]]], folder: Path, stage: str) -> Path:
    """Write the file of ``stage`` below ``folder``; ``samples`` are (kind, ids of its rows), in any order."""
    counts = Counter((row, kind) for kind, rows in samples for row in set(rows))
    lines = [{"id": row, "kind": kind, "samples": count} for (row, kind), count in sorted(counts.items())]
    path = folder / provenance_file(stage)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(lines, schema=_SCHEMA), path, compression="zstd")
    return path
