"""``expand``: give the base model rows for the sound tokens."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.steps.context import open_step
from ichigo.store import Draft


def main(run: str, *, base: str, contract: str, model: str) -> None:
    """Commit the expanded model and write its reference to ``model``."""
    with open_step("expand", run) as step:
        inputs = {"base": step.open(base), "contract": step.open(contract)}

        def build(draft: Draft) -> None:
            from ichigo.language.contract import TokenContract
            from ichigo.language.expand import expand

            with tempfile.TemporaryDirectory() as scratch:
                folder = Path(scratch)
                ids = TokenContract.load(inputs["contract"].fetch(folder / "contract"))
                source = inputs["base"].fetch(folder / "base")
                expand(source, ids, step.recipe.expand, step.recipe.seed, draft.folder)
            draft.facts.update(vocabulary=ids.vocabulary)

        artifact = step.artifact(
            "expanded",
            settings={"expand": recipes.identity(step.recipe.expand), "seed": step.recipe.seed},
            inputs=inputs,
            build=build,
            modules=(__name__,),
        )
        artifact.reference.save(Path(model))
