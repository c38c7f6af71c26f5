"""``probe``: look at the model of a stage before the next one is spent on it, and stop a run that went wrong.

What is measured is an artifact of its own, so other bounds judge it again without measuring; the model is committed
before, so they train nothing again either.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from ichigo.errors import ProbeError
from ichigo.evaluation import diagnosis
from ichigo.evaluation.diagnosis import Check
from ichigo.recipe.schema import StageName
from ichigo.steps.context import Step, open_step
from ichigo.store import Artifact, Draft

PREFIX = "probe-"
_FILE, _TEXTS = "probes.json", "texts.parquet"


@dataclass(frozen=True)
class Looked:
    """What a stage made and what it is looked at with."""

    model: Artifact
    base: Artifact
    corpus: Artifact
    tokens: Sequence[Artifact]
    data: Artifact


def main(run: str, name: str, *, model: str, base: str, corpus: str, tokens: list[str], data: str, probed: str) -> None:
    """Judge the model of the stage that ``name`` ends with, ``probe-instruct``; its reference goes on to ``probed``.

    Raises :class:`~ichigo.errors.ProbeError` for a bound of the recipe's ``probes`` that it does not keep.
    """
    with open_step(name, run) as step:
        shards = [step.open(path) for path in tokens]
        looked = Looked(step.open(model), step.open(base), step.open(corpus), shards, step.open(data))
        probe(step, cast(StageName, name.removeprefix(PREFIX)), looked)
        looked.model.reference.save(Path(probed))


def probe(step: Step, name: StageName, looked: Looked) -> None:
    """Measure the model after stage ``name`` and hold it against the recipe's bounds."""
    stage, begin, limits = step.recipe.stage(name), step.recipe.start, step.recipe.probes
    if not stage.enabled or (begin and begin.skips(name)):
        step.skip("skipped: the stage trained nothing", looked.model)
        return
    if not limits.enabled:
        step.skip("skipped by the recipe (probes.enabled: false)", looked.model)
        return
    found, curve = measured(step, name, looked), _curve(name, looked)
    if step.record.status == "done":  # a reused measurement has its numbers in the run that made it
        step.log_metrics(curve)
    step.record.facts.update(curve)
    _judge(step, name, found | curve)


def measured(step: Step, name: StageName, looked: Looked) -> dict[str, float]:
    """What :mod:`ichigo.evaluation.probes` finds of the model, from the store if it was measured before."""
    evaluation, answers = step.recipe.evaluation, diagnosis.answers(step.recipe.stage(name))
    written = [file.path for file in looked.corpus.files if file.path == _TEXTS]
    artifact = step.artifact(
        "probes",
        settings={
            "items": step.recipe.probes.items,
            "max_new_tokens": evaluation.max_new_tokens,
            "batch": evaluation.batch,
            "answers": answers,
            "seed": step.recipe.seed,
        },
        inputs={
            "model": looked.model,
            "base": looked.base,
            **({"corpus": looked.corpus} if written else {}),
            **{f"tokens-{number}": shard for number, shard in enumerate(looked.tokens)},
        },
        digests={"corpus": looked.corpus.subset_digest(_TEXTS)} if written else {},
        build=lambda draft: _build(step, name, looked, draft),
        modules=(__name__,),
    )
    return dict(artifact.facts)


def _build(step: Step, name: StageName, looked: Looked, draft: Draft) -> None:
    from ichigo.evaluation.asking import open_text_engine
    from ichigo.evaluation.items import EvalRow, EvalText
    from ichigo.evaluation.probes import choose, measure
    from ichigo.inference.engine import Engine
    from ichigo.steps.evaluate import item, one_thread_if_small
    from ichigo.steps.mix import text_rows, token_rows

    recipe = step.recipe
    one_thread_if_small(looked.model.reference.size)
    with tempfile.TemporaryDirectory() as scratch:
        engine = Engine.open(looked.model.fetch(Path(scratch) / "model"))
        base = open_text_engine(looked.base.fetch(Path(scratch) / "base"), engine.contract)
    written = any(file.path == _TEXTS for file in looked.corpus.files)
    texts = [row for row in text_rows(looked.corpus) if row.split == "test" and row.suite] if written else []
    rows = [item(EvalRow, row) for row in token_rows(looked.tokens, engine.contract) if row.split == "test"]
    chosen = choose(rows, [item(EvalText, row) for row in texts], recipe.probes.items, recipe.seed)
    answers = diagnosis.answers(recipe.stage(name))
    found = measure(engine, base, chosen, recipe.evaluation, recipe.seed, answers)
    if wrong := diagnosis.not_finite(name, found):
        raise ProbeError(wrong)
    (draft.folder / _FILE).write_text(json.dumps(found, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    draft.facts.update({name: round(value, 6) for name, value in found.items()})


def _curve(name: StageName, looked: Looked) -> dict[str, float]:
    """What the stage's own curve says; nothing of a model whose training left no curve with it."""
    facts, entropy = looked.model.facts, looked.data.facts.get(f"{name}.label_entropy")
    if entropy is None or not {"loss_began", "loss_ended"} <= facts.keys():
        return {}
    return diagnosis.curve(facts["loss_began"], facts["loss_ended"], entropy)


def _judge(step: Step, name: StageName, found: dict[str, float]) -> None:
    checked = diagnosis.checks(found, step.recipe.probes, step.recipe.stage(name))
    for check in checked:
        step.say(check.line)
    if broken := [check for check in checked if not check.kept]:
        _stop(step, name, broken)


def _stop(step: Step, name: StageName, broken: Sequence[Check]) -> None:
    step.record.facts["diagnosis"] = diagnosis.diagnosis(broken)
    step.tree.set_tags(step.mlflow_run, {"ichigo.diagnosis": diagnosis.diagnosis(broken)})
    raise ProbeError(diagnosis.reason(name, broken))
