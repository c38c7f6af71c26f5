"""Texts of a corpus: every source once, nothing from the test side, and back as they were written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ichigo.corpus.rows import Row
from ichigo.corpus.texts import TEXTS_FILE, TextRow, read_texts, texts_of, write_texts
from ichigo.corpus.world import World
from ichigo.errors import DataError
from ichigo.hashing import sha256_file
from ichigo.recipe.schema import Sentence
from ichigo.recipe.schema import World as Settings

SENTENCES = (Sentence(text="who is there", answer="me"), Sentence(text="the soup is ready"))
ROW = Row("1", "who is there", "me", "", "train", "en", "CC0", 1.0, b"", "folder")
ROWS = [
    TextRow("b", "my name is anna", "ok your name is anna", "train", "memory", "", "d1", 0),
    TextRow("a", "what is my name", "your name is anna", "train", "memory", "", "d1", 1),
    TextRow("c", "the soup is ready", None, "train"),
    TextRow("e", "say öl", "öl", "test", "repeat", "text_held_out"),
]


def test_every_training_text_stands_once_and_no_test_text_at_all() -> None:
    rows = [ROW, replace(ROW, answer="you"), replace(ROW, text="hidden", split="test"), replace(ROW, text="heard")]
    found = [(row.text, row.answer) for row in texts_of(SENTENCES, rows, None)]
    assert found == [("who is there", "me"), ("the soup is ready", None), ("who is there", "you"), ("heard", "me")]


def test_a_world_adds_its_texts(tmp_path: Path) -> None:
    world = World(Settings(utterances=100, items=10), seed=0)
    rows = texts_of(SENTENCES, [], world)
    assert {row.suite for row in rows if row.split == "test"} == {"text_held_out", "text_facts"}
    assert sum(row.split == "train" for row in rows) == 2 + world.written
    write_texts(rows, tmp_path)
    assert set(read_texts(tmp_path)) == set(rows)


def test_rows_come_back_with_dialogues_together_and_bytes_do_not_depend_on_order(tmp_path: Path) -> None:
    one, two = write_texts(ROWS, tmp_path / "one"), write_texts(ROWS[::-1], tmp_path / "two")
    assert sha256_file(one) == sha256_file(two)
    found = read_texts(one)
    assert read_texts(tmp_path / "two") == found
    assert sorted(found, key=ROWS.index) == ROWS
    assert found.index(ROWS[1]) == found.index(ROWS[0]) + 1


def test_one_id_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="2 texts have the id c"):
        write_texts([*ROWS, replace(ROWS[2], text="other")], tmp_path)
    assert not (tmp_path / TEXTS_FILE).exists()


@pytest.mark.parametrize("content", [None, b"PAR1 but not really PAR1"])
def test_what_are_no_texts_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content:
        (tmp_path / TEXTS_FILE).write_bytes(content)
    with pytest.raises(DataError, match="no texts of a corpus"):
        read_texts(tmp_path)
