"""``train``: one stage with DeepSpeed under torchrun, from the named output of the one before.

This process imports no torch: it fetches inputs, starts the workers, ships their curves to MLflow in batches, and looks
after their checkpoints (:mod:`~ichigo.steps.trainings`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any, cast

from ichigo import recipe as recipes
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Recipe, StageName
from ichigo.steps.context import Step, open_step
from ichigo.steps.curves import CURVES
from ichigo.steps.trainings import carry_out, kept_for_good, retire
from ichigo.store import Artifact, Draft, code_digest
from ichigo.training.job import StageJob

_MODULES = (__name__, "ichigo.training.worker")


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
    retire(step, lineage)
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
        draft.facts.update(carry_out(step, lineage, job, folder).facts)
    draft.facts.update(kept_for_good(step, lineage))
