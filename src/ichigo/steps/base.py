"""``base``: the text model under everything, made small from nothing or taken from a Hugging Face folder."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.recipe.schema import FolderBase, InitBase
from ichigo.steps.context import Step, open_step
from ichigo.steps.places import local_copy, place_digest
from ichigo.store import Artifact, Draft


def main(run: str, *, corpus: str, model: str) -> None:
    """Commit the base model and write its reference to ``model``."""
    with open_step("base", run) as step:
        settings = step.recipe.base
        make = _initialised if isinstance(settings, InitBase) else _given
        make(step, settings, step.open(corpus)).reference.save(Path(model))


def _initialised(step: Step, settings: InitBase | FolderBase, corpus: Artifact) -> Artifact:
    assert isinstance(settings, InitBase)

    def build(draft: Draft) -> None:
        from ichigo.corpus.shards import read_shard
        from ichigo.language.base import init_base
        from ichigo.language.layouts import TRANSCRIPTION_PROMPTS
        from ichigo.language.mixing import NOISE_ANSWERS

        with tempfile.TemporaryDirectory() as folder:
            rows = [row for row in read_shard(corpus.fetch(Path(folder), "shard-")) if row.split == "train"]
        texts = [
            *TRANSCRIPTION_PROMPTS,
            *NOISE_ANSWERS,
            *(text for row in rows for text in (row.text, row.answer) if text),
        ]
        init_base(texts, settings, step.recipe.seed, draft.folder)

    return step.artifact(
        "base",
        settings={"base": recipes.identity(settings), "seed": step.recipe.seed},
        inputs={"corpus": corpus},
        build=build,
        modules=(__name__,),
    )


def _given(step: Step, settings: InitBase | FolderBase, corpus: Artifact) -> Artifact:
    assert isinstance(settings, FolderBase)
    with tempfile.TemporaryDirectory() as scratch:
        folder = local_copy(settings.model or "", Path(scratch))

        def build(draft: Draft) -> None:
            from ichigo.language.base import check_folder

            check_folder(folder)
            shutil.copytree(folder, draft.folder, dirs_exist_ok=True)

        return step.artifact(
            "base",
            settings={"base": recipes.identity(settings)},
            inputs={},
            digests={"folder": place_digest(folder)},
            build=build,
            modules=(__name__,),
        )
