"""``train``: one stage with DeepSpeed under torchrun, from the named output of the one before.

This process imports no torch: it fetches inputs, starts the workers, and ships their curves to MLflow in batches.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import cast

from ichigo import recipe as recipes
from ichigo.recipe.schema import StageName
from ichigo.steps.context import Step, open_step
from ichigo.store import Artifact, Draft
from ichigo.tracking.runs import Point
from ichigo.training import journal
from ichigo.training.job import StageJob
from ichigo.training.launch import run_stage

_SHIP_SECONDS = 5.0
_CURVES = ("loss", "learning_rate", "grad_norm", "tokens_per_second")


def main(run: str, stage: str, *, start: str, data: str, model: str) -> None:
    """Train ``stage`` from the model at ``start``; writes the trained model's reference to ``model``."""
    name = cast(StageName, stage)
    with open_step(name, run) as step:
        inputs = {"model": step.open(start), "data": step.open(data)}
        artifact = step.artifact(
            f"model-{name}",
            settings={
                "stage": recipes.identity(step.recipe.stage(name)),
                "launch": recipes.identity(step.recipe.launch),
                "seed": step.recipe.seed,
            },
            inputs=inputs,
            digests={"data": inputs["data"].subset_digest(f"{name}/")},
            build=lambda draft: _build(step, name, inputs["model"], inputs["data"], draft),
            modules=(__name__, "ichigo.training.worker"),
        )
        artifact.reference.save(Path(model))


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
    speed = round(result.tokens / result.seconds)
    draft.facts.update(steps=result.steps, loss=result.loss, tokens=result.tokens, tokens_per_second=speed)


class Shipper:
    """Collects the journal's points and sends them to MLflow every few seconds."""

    def __init__(self, step: Step) -> None:
        self._step, self._last = step, time.monotonic()
        self._points: list[Point] = []

    def add(self, point: journal.Point) -> None:
        """Take one line of the journal."""
        step, moment = int(point["step"]), int(point["time"])
        self._points += [Point(name, point[name], step, moment) for name in _CURVES]
        if time.monotonic() - self._last > _SHIP_SECONDS:
            self.ship()

    def ship(self) -> None:
        """Send what has been collected."""
        points, self._points, self._last = self._points, [], time.monotonic()
        if points:
            self._step.log_points(points)
