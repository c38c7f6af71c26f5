"""``prepare``: recordings and the recipe's own sentences become one checked, split corpus in shards."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.recipe.schema import Data
from ichigo.steps.context import Step, open_step
from ichigo.steps.places import local_copy
from ichigo.store import Draft


def main(run: str, *, corpus: str) -> list[str]:
    """Commit the corpus, write its reference to ``corpus``, and return the names of its shards."""
    with open_step("prepare", run) as step, tempfile.TemporaryDirectory() as scratch:
        data = step.recipe.data
        folder = local_copy(data.folder, Path(scratch)) if data.folder else None
        artifact = step.artifact(
            "corpus",
            settings={"data": recipes.identity(data), "seed": step.recipe.seed},
            inputs={},
            digests=_source(folder),
            build=lambda draft: _build(step, data, folder, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(corpus))
        return [file.path for file in artifact.files if file.path.startswith("shard-")]


def _source(folder: Path | None) -> dict[str, str]:
    from ichigo.corpus.audiofolder import source_digest

    return {"recordings": source_digest(folder)} if folder else {}


def _build(step: Step, data: Data, folder: Path | None, draft: Draft) -> None:
    from ichigo.corpus.audiofolder import read_folder
    from ichigo.corpus.shards import write_shards
    from ichigo.corpus.spoken import speak_sentences

    seed, cores = step.recipe.seed, len(os.sched_getaffinity(0))
    rows, rejected = read_folder(folder, data, seed) if folder else ([], [])
    if data.voices and data.sentences:
        rows = [*rows, *speak_sentences(data.sentences, data.voices, seed, cores)]
    summary = write_shards(rows, draft.folder, data.shards, rejected)
    draft.facts.update(rows=summary.rows, set_aside=len(rejected), seconds=round(summary.seconds, 1))
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.rejected.items())
    step.say(f"{summary.rows} rows ({splits}), {summary.seconds / 60:.1f} minutes; set aside: {reasons or 'none'}")
