"""``prepare``: recordings, token strings, instructions, the recipe's own sentences and its world become one checked,
split corpus.

Sound lies in shards, what is written in ``texts.parquet`` beside them, and every line that was set aside in
``quarantine.parquet``. What is written is held against what was read before it is committed.
"""

from __future__ import annotations

import json
import os
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo import recipe as recipes
from ichigo.recipe.schema import Data
from ichigo.steps.context import Step, open_step
from ichigo.store import Draft

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from ichigo.corpus.lines import Line, Source
    from ichigo.corpus.rows import Row
    from ichigo.corpus.shards import CorpusSummary
    from ichigo.corpus.survey import Report
    from ichigo.corpus.texts import TextRow
    from ichigo.corpus.world import World

SURVEY = "survey.json"
OWN = ("spoken", "world")  # origins of rows that no source gave


def main(run: str, *, corpus: str) -> list[str]:
    """Commit the corpus, write its reference to ``corpus``, and return the names of its shards."""
    with open_step("prepare", run) as step:
        data = step.recipe.data
        sources = _sources(data, step.recipe.seed)
        artifact = step.artifact(
            "corpus",
            settings={"data": recipes.identity(data), "seed": step.recipe.seed},
            inputs={},
            digests=_digests(sources),
            build=lambda draft: build(step, data, sources, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(corpus))
        return [file.path for file in artifact.files if file.path.startswith("shard-")]


def _sources(data: Data, seed: int) -> Sequence[Source]:
    from ichigo.corpus.sources import open_sources

    return open_sources(data, seed)


def _digests(sources: Sequence[Source]) -> dict[str, str]:
    from ichigo.corpus.sources import sources_digest

    return {"sources": sources_digest(sources)} if sources else {}


def build(step: Step, data: Data, sources: Sequence[Source], draft: Draft) -> None:
    """Fill ``draft`` with the corpus of ``data`` and ``sources``."""
    from ichigo.corpus.texts import write_texts
    from ichigo.corpus.world import World

    seed = step.recipe.seed
    world = World(data.world, seed) if data.world else None
    summary, report, given = _rows(draft.folder, data, seed, sources, world)
    texts = _texts(draft.folder, data, world, given)
    write_texts(texts, draft.folder)
    (draft.folder / SURVEY).write_text(json.dumps(report.plain(), indent=2, sort_keys=True) + "\n", encoding="utf-8")
    set_aside = sum(summary.rejected.values())
    draft.facts.update(rows=summary.rows, texts=len(texts), set_aside=set_aside, seconds=round(summary.seconds, 1))
    _say(step, summary, len(texts), report)


def _rows(
    folder: Path, data: Data, seed: int, sources: Sequence[Source], world: World | None
) -> tuple[CorpusSummary, Report, list[TextRow]]:
    """Write shards and quarantine; what they hold, and the texts that came with them.

    What is remembered of every row while it is read, about a kilobyte, is gone when this returns.
    """
    from ichigo.corpus.shards import Quarantine, write_shards, written
    from ichigo.corpus.sources import Reading, check_counts, reported
    from ichigo.corpus.survey import Survey, items_of

    survey, gathered = Survey(), Gathered()
    with Quarantine(folder) as quarantine:
        reading = Reading(sources, data, seed, quarantine.add)
        rows = chain(gathered.rows(survey.watched(reported(reading))), _own_rows(data, world, seed))
        summary = write_shards(rows, folder, data.shards, quarantine.counts, reading.held_out)
    held, set_aside = written(folder)
    own = sum(count for origin, count in summary.origins.items() if origin in OWN)
    check_counts(reading.tallies.values(), held - own, set_aside)
    held_out = reading.held_out()
    report = survey.report(reading.tallies, held_out, items_of(world))
    return summary, report, gathered.texts(held_out)


def _say(step: Step, summary: CorpusSummary, texts: int, report: Report) -> None:
    splits = ", ".join(f"{count} {split}" for split, count in summary.splits.items())
    reasons = ", ".join(f"{count} {reason}" for reason, count in summary.rejected.items())
    step.say(
        f"{summary.rows} rows ({splits}), {summary.seconds / 60:.1f} minutes, {texts} texts; "
        f"set aside: {reasons or 'none'}"
    )
    shared = {"a text": report.overlap.same_text, "a near text": report.overlap.near_text}
    shared["a sound"] = report.overlap.same_sound
    if found := ", ".join(f"{count} {what}" for what, count in shared.items() if count):
        step.say(f"training rows that share something with evaluation items: {found}; see {SURVEY}")


class Gathered:
    """The texts of lines, until it is known which of the rows that say them are held out."""

    def __init__(self) -> None:
        self._texts: list[tuple[TextRow, str]] = []  # with the row that says it, or ""

    def rows(self, lines: Iterable[Line]) -> Iterator[Row]:
        """The rows of ``lines``, whose texts are kept here."""
        for line in lines:
            said = [row.id for row in line.rows] or [""] * len(line.texts)
            self._texts += zip(line.texts, said, strict=False)
            yield from line.rows

    def texts(self, held_out: Collection[str]) -> list[TextRow]:
        """All texts; what a held-out row says is no training text."""
        return [replace(text, split="test") if row in held_out else text for text, row in self._texts]


def _texts(folder: Path, data: Data, world: World | None, given: Sequence[TextRow]) -> list[TextRow]:
    """What is written in the corpus whose shards lie in ``folder``; each text once."""
    from ichigo.corpus.shards import iter_rows
    from ichigo.corpus.texts import texts_of

    columns = ("text", "answer", "split", "origin", "language", "license")
    rows = (row for row in iter_rows(folder, columns) if row.origin not in (*OWN, "instructions"))
    known = {text.id: text for text in [*texts_of(data.sentences, rows, world), *given]}
    return list(known.values())


def _own_rows(data: Data, world: World | None, seed: int) -> Iterator[Row]:
    """What the recipe says by itself, as it comes."""
    from ichigo.corpus.noise import noise_rows
    from ichigo.corpus.spoken import speak_sentences, speak_world

    cores = len(os.sched_getaffinity(0))
    if data.voices and data.sentences:
        yield from speak_sentences(data.sentences, data.voices, seed, cores)
    if world:
        yield from speak_world(world, cores)
        yield from noise_rows(world.settings, seed)
