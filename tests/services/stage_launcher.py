"""One try of a stage in a process that can be killed: ``python -m tests.services.stage_launcher asked.json PLACE``.

It does what the step ``train`` does around ``run_stage``, with a file in MLflow's place and no store but this disk. It
prints ``resumed STEP`` or ``anew``, a line for every checkpoint that is recorded, and every point; it ends with the
exit code of its error.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ichigo.errors import IchigoError
from ichigo.store import MemoryObjects
from ichigo.training import Point, StageJob, StageResult, run_stage
from ichigo.training.checkpoint import write_whole
from ichigo.training.keeper import Keeper
from ichigo.training.resume import resume_from
from ichigo.training.shelf import Shelf

RECORDS = "recorded.json"


def carry_out(job: StageJob, place: Path) -> StageResult:
    """Run ``job`` with its checkpoints in ``place``, and what is recorded of them beside it."""
    place.mkdir(exist_ok=True)
    records = place.parent / f"{place.name}-{RECORDS}"
    recorded: dict[str, str] = json.loads(records.read_bytes()) if records.exists() else {}

    def record(name: str, digest: str) -> None:
        recorded[name] = digest
        write_whole(records, json.dumps(recorded).encode())
        print(f"recorded {name}", flush=True)

    shelf = Shelf(place, MemoryObjects(), "lineage")
    with tempfile.TemporaryDirectory() as scratch:
        newest = shelf.newest(recorded, print)
        resume = resume_from(newest, job.launch, Path(scratch)) if newest else None
        print(f"resumed {resume.step}" if resume else "anew", flush=True)
        job = replace(job, saves=place, journal=place / "journal.jsonl", resume=resume)
        return run_stage(job, Path(scratch) / "work", show, Keeper(shelf, job, record, print, newest))


def show(point: Point) -> None:
    """Print one point of the journal."""
    print(f"point {json.dumps(point)}", flush=True)


if __name__ == "__main__":
    try:
        carry_out(StageJob.read(Path(sys.argv[1])), Path(sys.argv[2]))
    except IchigoError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
