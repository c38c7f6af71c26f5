"""``base``: the text model under everything: initialised or trained, small, or taken from a Hugging Face folder."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo import recipe as recipes
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import FolderBase, InitBase, TrainBase
from ichigo.steps.context import Step, open_step
from ichigo.steps.curves import CURVES
from ichigo.steps.places import local_copy, place_digest
from ichigo.steps.trainings import carry_out, kept_for_good, retire
from ichigo.store import Artifact, Draft, code_digest

if TYPE_CHECKING:
    from ichigo.corpus.texts import TextRow
    from ichigo.training.base import Conversation

_MODULES = (__name__, "ichigo.training.worker")  # of a base that is trained
_TEXTS = "texts.parquet"  # the file of a corpus that holds its written rows, if it has any


def main(run: str, *, corpus: str, model: str) -> None:
    """Commit the base model and write its reference to ``model``."""
    with open_step("base", run) as step:
        settings, rows = step.recipe.base, step.open(corpus)
        if isinstance(settings, TrainBase):
            artifact = _trained(step, settings, rows)
        elif isinstance(settings, InitBase):
            artifact = _initialised(step, settings, rows)
        else:
            artifact = _given(step, settings)
        artifact.reference.save(Path(model))


def _trained(step: Step, settings: TrainBase, corpus: Artifact) -> Artifact:
    if not any(file.path == _TEXTS for file in corpus.files):
        raise DataError("base.kind is train, but the corpus has no written rows; take kind init or folder")
    step.draws(CURVES)
    world, digest = step.recipe.data.world is not None, corpus.subset_digest(_TEXTS)
    identity = {"base": recipes.identity(settings), "world": world, "seed": step.recipe.seed}
    lineage = sha256_json({"settings": identity, "corpus": digest, "code": code_digest(*_MODULES)})[:32]

    def build(draft: Draft) -> None:
        from ichigo.corpus.texts import read_texts
        from ichigo.training.base import train_base

        step.log_params(recipes.identity(settings))
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            conversations = conversations_of(read_texts(corpus.fetch(folder / "corpus", _TEXTS)))
            result = train_base(
                conversations,
                _refusals(step),
                settings,
                step.recipe.seed,
                draft.folder,
                folder,
                lambda job: carry_out(step, lineage, job, folder),
                step.recipe.launch.checkpoints,
            )
        draft.facts.update(result.facts, conversations=len(conversations), **kept_for_good(step, lineage))

    artifact = step.artifact(
        "base",
        settings=identity,
        inputs={"corpus": corpus},
        digests={"corpus": digest},
        build=build,
        modules=_MODULES,
    )
    retire(step, lineage)
    return artifact


def conversations_of(rows: Iterable[TextRow]) -> list[Conversation]:
    """The training conversations among ``rows``, in the order of their first rows; a row without a dialogue is one."""
    found: dict[str, dict[int, tuple[str, str]]] = {}
    for row in rows:
        if row.split == "train" and row.answer:
            found.setdefault(row.dialogue or row.id, {})[row.turn] = (row.text, row.answer)
    return [[turns[turn] for turn in sorted(turns)] for turns in found.values()]


def _refusals(step: Step) -> tuple[str, ...]:
    """What later stages answer to noise: no row of the text model says it, but its tokenizer has to spell it."""
    from ichigo.corpus.world import REFUSAL
    from ichigo.language.mixing import NOISE_ANSWERS

    return (REFUSAL,) if step.recipe.data.world else NOISE_ANSWERS


def _initialised(step: Step, settings: InitBase, corpus: Artifact) -> Artifact:
    def build(draft: Draft) -> None:
        from ichigo.corpus.shards import read_shard
        from ichigo.language.base import init_base

        with tempfile.TemporaryDirectory() as folder:
            rows = [row for row in read_shard(corpus.fetch(Path(folder), "shard-")) if row.split == "train"]
        spelled = [text for row in rows for text in (row.text, row.answer) if text]
        init_base([*_refusals(step), *spelled], settings, step.recipe.seed, draft.folder)

    return step.artifact(
        "base",
        settings={"base": recipes.identity(settings), "seed": step.recipe.seed},
        inputs={"corpus": corpus},
        build=build,
        modules=(__name__,),
    )


def _given(step: Step, settings: FolderBase) -> Artifact:
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
