"""``evaluate``: ask the trained model what it never met in training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.steps.context import Step, open_step
from ichigo.steps.mix import token_rows
from ichigo.store import Artifact, Draft


def main(run: str, *, model: str, tokens: list[str], evaluation: str) -> None:
    """Commit the evaluation report and write its reference to ``evaluation``."""
    with open_step("evaluate", run) as step:
        trained, shards = step.open(model), [step.open(path) for path in tokens]
        artifact = step.artifact(
            "evaluation",
            settings={"evaluation": recipes.identity(step.recipe.evaluation), "seed": step.recipe.seed},
            inputs={"model": trained, **{f"tokens-{number}": shard for number, shard in enumerate(shards)}},
            build=lambda draft: _build(step, trained, shards, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(evaluation))


def _build(step: Step, model: Artifact, shards: Sequence[Artifact], draft: Draft) -> None:
    from ichigo.evaluation.suites import EvalRow, evaluate
    from ichigo.inference.engine import Engine

    with tempfile.TemporaryDirectory() as folder:
        engine = Engine.open(model.fetch(Path(folder)))
    rows = [row for row in token_rows(shards, engine.contract) if row.split == "test"]
    asked = [EvalRow(row.id, row.codes, row.text, row.answer, row.speaker) for row in rows]
    report = evaluate(engine, asked, step.recipe.evaluation, step.recipe.seed)
    report.write(draft.folder)
    draft.facts["metrics"] = report.metrics
    step.log_metrics(report.metrics)
