"""The recipes that ship agree with the paper and with themselves."""

from __future__ import annotations

import re

import pytest

from ichigo.recipe import Recipe, load, shipped

BIG = ("llama-3.1-8b", "llama-3.2-1b-one-gpu")


def global_batch(recipe: Recipe) -> list[int]:
    world = recipe.launch.nodes * recipe.launch.processes
    return [world * stage.micro_batch * stage.accumulation for stage in recipe.stages]


def test_every_shipped_recipe_loads_under_its_own_name_with_a_description() -> None:
    listed = shipped()
    assert {"smoke", *BIG} <= {name for name, _ in listed}
    for name, description in listed:
        recipe = load(name)
        assert (recipe.name, recipe.description) == (name, description)
        assert "\n" not in description


@pytest.mark.parametrize("name", BIG)
def test_one_epoch_in_the_papers_steps_and_global_batches(name: str) -> None:
    """Table 1 of arXiv 2410.15316; a global batch counts whole sequences, which holds only without packing."""
    recipe = load(name)
    assert global_batch(recipe) == [480, 256, 256]
    assert [stage.steps for stage in recipe.stages] == [8064, 7400, 644]
    assert [stage.learning_rate for stage in recipe.stages] == [2e-4, 7e-5, 1.5e-5]
    assert [stage.warmup_steps for stage in recipe.stages] == [50, 73, 8]
    for stage, batch in zip(recipe.stages, global_batch(recipe), strict=True):
        assert not stage.packing
        assert stage.examples == stage.steps * batch


def test_the_one_gpu_recipe_differs_from_the_papers_only_where_it_says() -> None:
    paper, one_gpu = (load(name) for name in BIG)
    for theirs, ours in zip(paper.stages, one_gpu.stages, strict=True):
        layout = {"micro_batch": ours.micro_batch, "accumulation": ours.accumulation}
        assert theirs.model_copy(update=layout) == ours
    assert (one_gpu.data, one_gpu.tokenizer, one_gpu.expand) == (paper.data, paper.tokenizer, paper.expand)
    assert one_gpu.launch.nodes * one_gpu.launch.processes == 1


def test_smoke_asks_for_every_kind_of_sample() -> None:
    kinds = {kind for stage in load("smoke").stages for kind, share in stage.mix.items() if share > 0}
    assert kinds == {"sound", "speech", "transcription", "text", "multi_turn", "noise"}


def test_smoke_speaks_only_words_that_a_voice_reads_as_written() -> None:
    """Digits, capitals and abbreviations would be spoken otherwise than they are transcribed."""
    sentences = load("smoke").data.sentences
    texts = [text for sentence in sentences for text in (sentence.text, sentence.answer) if text]
    assert 60 < len(texts) < 100
    assert [text for text in texts if not re.fullmatch(r"[a-z]+( [a-z]+)*", text)] == []
