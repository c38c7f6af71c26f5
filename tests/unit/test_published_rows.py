"""Token strings on their way to training: sound without known words is heard, never transcribed, and is no noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ichigo.corpus.tokens import TokenRow, token_row
from ichigo.errors import DataError
from ichigo.language.mixing import Pool, draw
from ichigo.recipe.schema import SampleType, Stage, TokenStrings
from ichigo.steps.mix import pool_of
from tests.unit.corpus_support import Read, chat, json_file, tokens

LINES: list[dict[str, Any]] = [
    {"text": tokens(1, 1)},
    {"conversations": chat(tokens(2, 2), "an answer")},
    {"conversations": chat("Convert the spoken words to text:" + tokens(3, 3), "some words")},
    {"conversations": chat(tokens(4, 4), "one", tokens(5, 5), "two")},
]


def rows(folder: Path) -> list[TokenRow]:
    import numpy as np

    path = json_file(folder / "x.jsonl", LINES)
    read = Read([TokenStrings(kind="tokens", path=str(path), tokenizer="published")])
    return [token_row(row, np.asarray(row.codes, np.int16)) for row in read.rows]


def heard(pool: Pool, kind: SampleType) -> set[int]:
    """The codes that ``kind`` draws from ``pool``."""
    stage = Stage(name="instruct", mix={kind: 1.0}, examples=40, steps=1, sequence_length=64, learning_rate=1e-3)
    turns = [turn for sample in draw(stage, pool, 0).samples for turn in sample.turns]
    parts = [part for turn in turns for part in (*turn.question, turn.assistant)]
    return {int(part[0]) for part in parts if not isinstance(part, str)}


def test_each_kind_draws_the_rows_that_can_feed_it(tmp_path: Path) -> None:
    pool = pool_of(rows(tmp_path), [])
    assert pool.noise == ()
    assert heard(pool, "sound") == {1, 2, 3, 4, 5}
    assert heard(pool, "speech") == {2, 4}
    assert heard(pool, "transcription") == {3}
    assert heard(pool, "speak") == {3}
    assert heard(pool, "multi_turn") == {4, 5}


def test_a_kind_that_needs_words_is_refused_where_nobody_knows_any(tmp_path: Path) -> None:
    wordless = [row for row in rows(tmp_path) if not row.text]
    with pytest.raises(DataError, match=r"mix\.transcription .*whose words are known"):
        heard(pool_of(wordless, []), "transcription")
