"""What steps hand to the language room: training rows alone, each where it belongs, and the tokenizer's codebook."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from ichigo.corpus.provenance import write_provenance
from ichigo.corpus.texts import TextRow
from ichigo.corpus.tokens import TokenRow
from ichigo.language.mixing import draw
from ichigo.recipe.schema import SampleType, Stage
from ichigo.speech.vq import WhisperVQ
from ichigo.steps.expand import read_codebook
from ichigo.steps.mix import pool_of
from tests.unit.test_whisper_vq import random_model, random_whisper

KINDS: tuple[SampleType, ...] = ("speech", "transcription", "text", "sound", "multi_turn", "noise", "mixed", "speak")


def token_row(number: int, text: str) -> TokenRow:
    """Every one of its codes is ``number``."""
    return TokenRow(
        id=f"row-{number}", codes=np.full(12, number, np.int16), text=text, answer=f"answer {number}", speaker="v",
        split="train", language="en", license="", seconds=0.5, origin="world", word_ends=(5, 12),
    )  # fmt: skip


ROWS = [
    token_row(0, "said 0"),
    replace(token_row(1, "said 1"), dialogue="d"),
    replace(token_row(2, "said 2"), dialogue="d", turn=1),
    token_row(3, ""),
]
TEXTS = [TextRow("t-0", "asked 0", "reply 0", "train"), TextRow("t-1", "asked 1", None, "train")]
HELD_OUT = [
    *(replace(token_row(number, f"secret {number}"), split="test", suite="held_out") for number in (10, 11)),
    replace(token_row(12, ""), split="test", suite="noise_new"),
    *(replace(token_row(20 + turn, "secret"), split="test", dialogue="d", turn=turn) for turn in (2, 3)),
]
HELD_OUT_TEXTS = [TextRow("t-9", "secret text", "secret", "test", suite="text_held_out")]


def test_every_kind_is_drawn_and_no_held_out_row_comes_through() -> None:
    stage = Stage(
        name="enhance", mix=dict.fromkeys(KINDS, 0.125), examples=400, steps=1, sequence_length=64, learning_rate=1e-3
    )
    samples = draw(stage, pool_of([*HELD_OUT, *ROWS], [*HELD_OUT_TEXTS, *TEXTS]), 0).samples
    assert {sample.kind for sample in samples} == set(KINDS)
    parts = [part for sample in samples for turn in sample.turns for part in (*turn.question, turn.assistant)]
    assert not [part for part in parts if isinstance(part, str) and "secret" in part]
    heard = [set(part.tolist()) for part in parts if not isinstance(part, str)]
    assert {code for codes in heard if len(codes) == 1 for code in codes} == {0, 1, 2, 3}  # the others are random


def test_a_row_without_words_is_noise_and_a_text_without_an_answer_is_none() -> None:
    pool = pool_of(ROWS, TEXTS)
    assert [row.id for row in pool.noise] == ["row-3"]
    assert [row.id for row in pool.spoken] == ["row-0", "row-1", "row-2"]
    assert [(row.dialogue, row.turn, row.word_ends) for row in pool.spoken[1:]] == [
        ("d", 0, (5, 12)),
        ("d", 1, (5, 12)),
    ]
    assert [row.id for row in pool.texts] == ["t-0"]


def test_the_codebook_of_a_saved_tokenizer_is_that_which_it_encodes_with(tmp_path: Path) -> None:
    import torch

    whisper = random_whisper()
    torch.save(whisper, tmp_path / "whisper.pt")
    torch.save(random_model(whisper), tmp_path / "vq.model")
    tokenizer = WhisperVQ.load(tmp_path / "vq.model", tmp_path / "whisper.pt", "exact")
    tokenizer.save(tmp_path / "saved")

    vectors = read_codebook(tmp_path / "saved")

    assert vectors.dtype == np.float32
    assert len(vectors) == tokenizer.codes
    np.testing.assert_array_equal(vectors, tokenizer.bottleneck.codebook.numpy())


def test_every_sample_names_the_rows_that_it_was_made_from(tmp_path: Path) -> None:
    """Each row has a number that is all of its codes, and in its answer: so a sample shows where it came from."""
    stage = Stage(
        name="enhance", mix=dict.fromkeys(KINDS, 0.125), examples=160, steps=1, sequence_length=64, learning_rate=1e-3
    )
    samples = draw(stage, pool_of(ROWS, TEXTS), 0).samples
    for sample in samples:
        parts = [part for turn in sample.turns for part in (*turn.question, turn.assistant)]
        shown = {f"row-{part[0]}" for part in parts if not isinstance(part, str) and len(set(part.tolist())) == 1}
        assert set(sample.rows) == ({"t-0"} if sample.kind == "text" else shown)
    write_provenance([(sample.kind, sample.rows) for sample in samples], tmp_path, "enhance")
    write_provenance([(sample.kind, sample.rows) for sample in samples[::-1]], tmp_path, "again")
    first, again = ((tmp_path / "rows" / f"{name}.parquet").read_bytes() for name in ("enhance", "again"))
    assert first == again
    table = pq.read_table(tmp_path / "rows" / "enhance.parquet").to_pylist()
    assert {"id": "t-0", "kind": "text", "samples": 20} in table
    assert sum(line["samples"] for line in table if line["kind"] == "transcription") == 20
    assert [(line["id"], line["kind"]) for line in table] == sorted((line["id"], line["kind"]) for line in table)
