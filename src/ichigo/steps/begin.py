"""``begin``: check the platform, open the MLflow parent run, and write the run record that every other step reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from ichigo import __version__
from ichigo import recipe as recipes
from ichigo.errors import exit_code_of
from ichigo.recipe.schema import Recipe
from ichigo.steps.context import LINE
from ichigo.steps.curves import ship_left
from ichigo.steps.records import Records, RunRecord, StepRecord, read_recipe
from ichigo.tracking.runs import RunTree


def main(run: str, recipe_uri: str, recipe_digest: str) -> None:
    """Open the run whose record goes to ``run``, with the recipe at ``recipe_uri``.

    An error goes into a step record, so that the run can say why it never began.
    """
    records, started = Records.at(run), time.time()
    try:
        _open(records, recipe_uri, recipe_digest, started)
    except Exception as error:
        reason = str(error) or type(error).__name__
        times = started, started, started, time.time()
        records.save_step(StepRecord("begin", "failed", reason, exit_code_of(error), *times))
        raise


def _open(records: Records, recipe_uri: str, recipe_digest: str, started: float) -> None:
    recipe, run_key = read_recipe(records.store, recipe_uri, recipe_digest), records.run_key
    fingerprint = recipes.fingerprint(recipe)
    tags = {"ichigo.recipe": recipe.name, "ichigo.fingerprint": fingerprint, "ichigo.version": __version__}
    tree = RunTree.begin(f"ichigo/{recipe.name}", run_key, {}, tags)
    # At once, because whoever closes this run finds its MLflow run only here.
    records.save_run(RunRecord(run_key, recipe_uri, recipe_digest, fingerprint, tree.experiment, tree.parent, started))
    tree.log_params(tree.parent, dict(parameters(recipe)))
    tree.log_text(tree.parent, recipe.model_dump_json(indent=2), "recipe.json")
    ship_left(lambda message: print(f"{LINE} begin | {message}", flush=True))
    print(f"{LINE} begin | run {run_key}, recipe {recipe.name} ({fingerprint[:12]})", flush=True)


def parameters(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """The recipe as flat MLflow parameters (``stages.instruct.steps``); the sentences count as one number."""
    tree = recipes.identity(recipe)
    tree["stages"] = {stage["name"]: stage for stage in tree["stages"]}
    tree["data"]["sentences"] = len(tree["data"]["sentences"])
    tree["data"]["sources"] = dict(enumerate(tree["data"]["sources"]))
    yield from _flatten(tree, "")


def _flatten(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value
