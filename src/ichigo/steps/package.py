"""``package``: model, speech tokenizer and the code that answers, in one folder that MLflow and Hugging Face load."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from ichigo.registry.package import (
    CODE_MODULE,
    SPEECH_FILES,
    SPEECH_TOKENIZER,
    environment,
    write_package,
)
from ichigo.steps.context import open_step
from ichigo.store import Draft


def main(run: str, *, model: str, tokenizer: str, package: str) -> None:
    """Commit the package and write its reference to ``package``.

    Weights are copied inside the store: they pass through no step, and lie in the package once.
    """
    with open_step("package", run) as step:
        inputs, needs = {"model": step.open(model), "tokenizer": step.open(tokenizer)}, environment()

        def build(draft: Draft) -> None:
            draft.take(inputs["model"])
            draft.take(inputs["tokenizer"], SPEECH_FILES, below=SPEECH_TOKENIZER)
            write_package(draft.folder, needs)
            draft.facts.update(requirements=len(needs.constraints))

        artifact = step.artifact(
            "package",
            settings={"environment": asdict(needs)},
            inputs=inputs,
            build=build,
            modules=(__name__, CODE_MODULE),
        )
        artifact.reference.save(Path(package))
