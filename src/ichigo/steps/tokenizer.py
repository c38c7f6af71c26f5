"""``tokenizer``: fit a small WhisperVQ on the corpus, or import a published one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.recipe.schema import FitTokenizer, ImportTokenizer
from ichigo.steps.context import Step, open_step
from ichigo.steps.places import local_copy, place_digest
from ichigo.store import Artifact, Draft


def main(run: str, *, corpus: str, model: str) -> None:
    """Commit the tokenizer and write its reference to ``model``."""
    with open_step("tokenizer", run) as step:
        settings = step.recipe.tokenizer
        make = _fitted if isinstance(settings, FitTokenizer) else _imported
        make(step, settings, step.open(corpus)).reference.save(Path(model))


def _fitted(step: Step, settings: FitTokenizer | ImportTokenizer, corpus: Artifact) -> Artifact:
    assert isinstance(settings, FitTokenizer)

    def build(draft: Draft) -> None:
        from ichigo.corpus.shards import read_shard
        from ichigo.speech.audio import read_audio
        from ichigo.speech.fit import Spoken, fit

        with tempfile.TemporaryDirectory() as folder:
            rows = [row for row in read_shard(corpus.fetch(Path(folder), "shard-")) if row.split == "train"]
        utterances = (Spoken(read_audio(row.audio, row.id), row.phones, row.words, row.text) for row in rows)
        result = fit(utterances, settings, step.recipe.seed)
        result.save(draft.folder)
        draft.facts.update(result.report)

    return step.artifact(
        "tokenizer",
        settings={"tokenizer": recipes.identity(settings), "seed": step.recipe.seed},
        inputs={"corpus": corpus},
        build=build,
        modules=(__name__,),
    )


def _imported(step: Step, settings: FitTokenizer | ImportTokenizer, corpus: Artifact) -> Artifact:
    assert isinstance(settings, ImportTokenizer)
    with tempfile.TemporaryDirectory() as scratch:
        model = local_copy(settings.model or "", Path(scratch) / "model")
        whisper = local_copy(settings.whisper or "", Path(scratch) / "whisper")

        def build(draft: Draft) -> None:
            from ichigo.speech.vq import WhisperVQ

            tokenizer = WhisperVQ.load(model, whisper, settings.pad)
            tokenizer.save(draft.folder)
            draft.facts.update(codes=tokenizer.codes)

        return step.artifact(
            "tokenizer",
            settings={"tokenizer": recipes.identity(settings)},
            inputs={},
            digests={"model": place_digest(model), "whisper": place_digest(whisper)},
            build=build,
            modules=(__name__,),
        )
