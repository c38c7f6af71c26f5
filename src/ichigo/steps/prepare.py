"""``prepare``: recordings, the recipe's own sentences and its world become one checked, split corpus.

Sound lies in shards, what is written in ``texts.parquet`` beside them.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo import recipe as recipes
from ichigo.recipe.schema import Data
from ichigo.steps.context import Step, open_step
from ichigo.steps.places import local_copy
from ichigo.store import Draft

if TYPE_CHECKING:
    from ichigo.corpus.rows import Row
    from ichigo.corpus.world import World


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
    from ichigo.corpus.texts import texts_of, write_texts
    from ichigo.corpus.world import World

    seed = step.recipe.seed
    found, rejected = read_folder(folder, data, seed) if folder else ([], [])
    world = World(data.world, seed) if data.world else None
    summary = write_shards(_rows(data, found, world, seed), draft.folder, data.shards, rejected)
    texts = texts_of(data.sentences, found, world)
    write_texts(texts, draft.folder)
    draft.facts.update(rows=summary.rows, texts=len(texts), set_aside=len(rejected), seconds=round(summary.seconds, 1))
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.rejected.items())
    step.say(
        f"{summary.rows} rows ({splits}), {summary.seconds / 60:.1f} minutes, {len(texts)} texts; "
        f"set aside: {reasons or 'none'}"
    )


def _rows(data: Data, found: list[Row], world: World | None, seed: int) -> Iterator[Row]:
    """The rows of every source, as they come."""
    from ichigo.corpus.noise import noise_rows
    from ichigo.corpus.spoken import speak_sentences, speak_world

    cores = len(os.sched_getaffinity(0))
    yield from found
    if data.voices and data.sentences:
        yield from speak_sentences(data.sentences, data.voices, seed, cores)
    if world:
        yield from speak_world(world, cores)
        yield from noise_rows(world.settings, seed)
