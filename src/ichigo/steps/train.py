"""``train``: one stage with DeepSpeed under torchrun, from the named output of the one before.

This process imports no torch: it fetches inputs, starts the workers, and ships their curves to MLflow in batches.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import cast

from ichigo import recipe as recipes
from ichigo.recipe.schema import StageName
from ichigo.steps.context import Step, open_step
from ichigo.steps.curves import Shipper
from ichigo.store import Artifact, Draft
from ichigo.training.job import StageJob
from ichigo.training.launch import run_stage


def main(run: str, stage: str, *, start: str, data: str, model: str) -> None:
    """Train ``stage`` from the model at ``start``; writes the trained model's reference to ``model``."""
    name = cast(StageName, stage)
    with open_step(name, run) as step:
        trained(step, name, step.open(start), step.open(data)).reference.save(Path(model))


def trained(step: Step, name: StageName, start: Artifact, data: Artifact) -> Artifact:
    """The model after stage ``name``: made from ``start``, or ``start`` itself if the recipe skips the stage."""
    stage = step.recipe.stage(name)
    if not stage.enabled:
        step.record.status, step.record.reason = "skipped", "skipped by the recipe (enabled: false)"
        step.record.artifact = {"kind": start.reference.kind, "uri": start.reference.uri, "digest": start.digest}
        return start
    return step.artifact(
        f"model-{name}",
        settings={
            "stage": recipes.identity(stage),
            "launch": recipes.identity(step.recipe.launch),
            "seed": step.recipe.seed,
        },
        inputs={"model": start, "data": data},
        digests={"data": data.subset_digest(f"{name}/")},
        build=lambda draft: _build(step, name, start, data, draft),
        modules=(__name__, "ichigo.training.worker"),
    )


def _build(step: Step, name: StageName, start: Artifact, data: Artifact, draft: Draft) -> None:
    stage, launch = step.recipe.stage(name), step.recipe.launch
    step.log_params({**recipes.identity(stage), **recipes.identity(launch)})
    shipper = Shipper(step)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        job = StageJob(
            model=start.fetch(folder / "model"),
            data=data.fetch(folder / "data", f"{name}/") / name,
            output=draft.folder,
            journal=folder / "journal.jsonl",
            stage=stage,
            launch=launch,
            seed=step.recipe.seed,
        )
        try:
            result = run_stage(job, folder / "work", shipper.add)
        finally:
            shipper.ship()
    draft.facts.update(result.facts)
