"""``train``: one stage with DeepSpeed under torchrun, from the named output of the one before.

This process imports no torch: it fetches inputs, starts the workers, ships their curves to MLflow in batches, and looks
after their checkpoints. A stage whose process was killed goes on from the newest one that is whole and recorded.
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from ichigo import recipe as recipes
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Recipe, StageName
from ichigo.steps.context import Step, open_step
from ichigo.steps.curves import CURVES, Shipper
from ichigo.store import Artifact, Draft, code_digest
from ichigo.training.checkpoint import Checkpoint
from ichigo.training.job import StageJob
from ichigo.training.journal import Point
from ichigo.training.keeper import Keeper
from ichigo.training.launch import run_stage
from ichigo.training.resume import resume_from
from ichigo.training.shelf import Shelf, place_of

_MODULES = (__name__, "ichigo.training.worker")
_LINEAGE = "ichigo.lineage"  # tag of a stage's MLflow run; checkpoints are recorded in the runs that have the same
_CHECKPOINT = "ichigo.checkpoint."  # tag: and the checkpoint's name; the value is the digest of its manifest


def main(run: str, stage: str, *, start: str, data: str, model: str) -> None:
    """Train ``stage`` from the model at ``start``; writes the trained model's reference to ``model``."""
    name = cast(StageName, stage)
    with open_step(name, run) as step:
        trained(step, name, step.open(start), step.open(data)).reference.save(Path(model))


def trained(step: Step, name: StageName, start: Artifact, data: Artifact) -> Artifact:
    """The model after stage ``name``: made from ``start``, or ``start`` itself if the recipe skips the stage."""
    stage, begin = step.recipe.stage(name), step.recipe.start
    if not stage.enabled:
        return step.skip("skipped by the recipe (enabled: false)", start)
    if begin and begin.skips(name):
        return step.skip(f"skipped: the run starts at {begin.step}", start)
    step.draws(CURVES)  # also when finished work of an earlier run is taken up, and nothing is drawn
    read = data.subset_digest(f"{name}/")
    lineage = lineage_of(step.recipe, name, {"model": start.digest, "data": read})
    artifact = step.artifact(
        f"model-{name}",
        settings={
            "stage": recipes.identity(stage),
            "launch": recipes.identity(step.recipe.launch),
            "seed": step.recipe.seed,
        },
        inputs={"model": start, "data": data},
        digests={"data": read},
        build=lambda draft: _build(step, name, start, data, lineage, draft),
        modules=_MODULES,
    )
    _retire(step, lineage)
    return artifact


def lineage_of(recipe: Recipe, name: StageName, inputs: dict[str, str]) -> str:
    """The digest of all that decides the numbers of a stage: checkpoints of one lineage can take each other's place.

    How a step's sequences are shared out among processes changes no more than the order of sums, so only their product
    counts here.
    """
    stage, launch = recipes.identity(recipe.stage(name)), recipe.launch
    shared = stage.pop("micro_batch") * stage.pop("accumulation") * launch.nodes * launch.processes
    settings: dict[str, Any] = {"stage": stage, "sequences": shared, "precision": launch.precision, "seed": recipe.seed}
    return sha256_json({"settings": settings, "inputs": inputs, "code": code_digest(*_MODULES)})[:32]


def _build(step: Step, name: StageName, start: Artifact, data: Artifact, lineage: str, draft: Draft) -> None:
    stage, launch = step.recipe.stage(name), step.recipe.launch
    step.log_params({**recipes.identity(stage), **recipes.identity(launch)})
    with tempfile.TemporaryDirectory() as scratch, place_of(lineage) as place:
        folder, shelf = Path(scratch), Shelf(place, step.store.objects, lineage)
        newest = _newest(step, shelf)
        job = StageJob(
            model=start.fetch(folder / "model"),
            data=data.fetch(folder / "data", f"{name}/") / name,
            output=draft.folder,
            journal=place / "journal.jsonl",
            stage=stage,
            launch=launch,
            seed=step.recipe.seed,
            saves=place,
            resume=resume_from(newest, launch, folder) if newest else None,
        )
        keeper = Keeper(shelf, job, lambda name, digest: _record(step, name, digest), step.say, newest)
        shipper = Shipper(step)
        losses: list[float] = []

        def follow(point: Point) -> None:
            shipper.add(point)
            losses.append(point["loss"])

        try:
            result = run_stage(job, folder / "work", follow, keeper)
        finally:
            shipper.ship()
    draft.facts.update(result.facts, **began_and_ended(losses))


def began_and_ended(losses: Sequence[float]) -> dict[str, float]:
    """The mean loss of the first and of the last tenth of the steps."""
    tenth = max(1, len(losses) // 10)
    return {"loss_began": math.fsum(losses[:tenth]) / tenth, "loss_ended": math.fsum(losses[-tenth:]) / tenth}


def _newest(step: Step, shelf: Shelf) -> Checkpoint | None:
    """The checkpoint to go on from; from now on this step's MLflow run is one in which checkpoints are looked for."""
    runs = step.tree.tags_where(_LINEAGE, shelf.lineage)
    step.tree.set_tags(step.mlflow_run, {_LINEAGE: shelf.lineage})
    if not step.recipe.launch.checkpoints.resume:
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


def _retire(step: Step, lineage: str) -> None:
    """Remove what served to go on, be it that an earlier run was killed before it could: the model is committed."""
    with place_of(lineage) as place:
        Shelf(place, step.store.objects, lineage).retire(step.recipe.launch.checkpoints.keep_every)
        shutil.rmtree(place, ignore_errors=True)
