"""A training inside a step: its checkpoints are looked after and recorded in MLflow, its curves shipped there.

One whose process was killed goes on from the newest checkpoint that is whole and recorded.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ichigo.steps.context import Step
from ichigo.steps.curves import Shipper
from ichigo.store.artifacts import CHECKPOINTS
from ichigo.training.checkpoint import Checkpoint
from ichigo.training.job import StageJob, StageResult
from ichigo.training.keeper import Keeper
from ichigo.training.launch import run_stage
from ichigo.training.resume import resume_from
from ichigo.training.shelf import LINEAGE, Shelf, place_of

_CHECKPOINT = "ichigo.checkpoint."  # tag: and the checkpoint's name; the value is the digest of its manifest


def carry_out(step: Step, lineage: str, job: StageJob, scratch: Path) -> StageResult:
    """Train ``job``, which is of this ``lineage``, from its start or from where an earlier try was killed.

    ``job.journal`` and ``job.saves`` are set here; ``scratch`` keeps what only the running training needs. Raises what
    :func:`~ichigo.training.launch.run_stage` raises.
    """
    with place_of(lineage) as place:
        shelf = Shelf(place, step.store.objects, lineage)
        newest = _newest(step, shelf, job.launch.checkpoints.resume)
        resume = resume_from(newest, job.launch, scratch) if newest else None
        job = replace(job, journal=place / "journal.jsonl", saves=place, resume=resume)
        keeper = Keeper(shelf, job, lambda name, digest: _record(step, name, digest), step.say, newest)
        shipper = Shipper(step)
        try:
            return run_stage(job, scratch / "work", shipper.add, keeper)
        finally:
            shipper.ship()


def kept_for_good(step: Step, lineage: str) -> dict[str, str]:
    """The fact of a finished model by which its remaining checkpoints are known as wanted, if its recipe keeps any."""
    return {CHECKPOINTS: lineage} if step.recipe.launch.checkpoints.keep_every else {}


def retire(step: Step, lineage: str) -> None:
    """Remove what served to go on, be it that an earlier run was killed before it could: the model is committed."""
    with place_of(lineage) as place:
        Shelf(place, step.store.objects, lineage).retire(step.recipe.launch.checkpoints.keep_every)
        shutil.rmtree(place, ignore_errors=True)


def _newest(step: Step, shelf: Shelf, resume: bool) -> Checkpoint | None:
    """The checkpoint to go on from; from now on this step's MLflow run is one in which checkpoints are looked for."""
    runs = step.tree.tags_where(LINEAGE, shelf.lineage)
    step.tree.set_tags(step.mlflow_run, {LINEAGE: shelf.lineage})
    if not resume:
        shelf.begin_anew()
    recorded = {
        tag.removeprefix(_CHECKPOINT): digest
        for tags in runs
        for tag, digest in tags.items()
        if tag.startswith(_CHECKPOINT)
    }
    newest = shelf.newest(recorded, step.say)
    if newest:
        step.say(f"goes on after step {newest.manifest.step}, from the checkpoint {newest.name}")
    return newest


def _record(step: Step, name: str, digest: str) -> None:
    step.tree.set_tags(step.mlflow_run, {f"{_CHECKPOINT}{name}": digest})
