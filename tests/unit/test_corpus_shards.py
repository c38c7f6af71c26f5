"""Shards: nothing is lost or doubled on the way through Parquet, and the same rows give the same files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from ichigo.corpus.rows import Rejected, Row
from ichigo.corpus.shards import read_shard, write_shards
from ichigo.errors import DataError
from ichigo.hashing import sha256_bytes, sha256_file
from ichigo.speech.synthesis import Phone, Word


def rows(count: int) -> list[Row]:
    """Every field takes more than one value; every fourth row is for the test."""
    return [
        Row(
            id=sha256_bytes(str(number).encode())[:16],
            text=f"frage {number} äöü",
            answer=f"answer {number}" if number % 2 else None,
            speaker="ann" if number % 4 else "bob",
            split="train" if number % 4 else "test",
            language="de",
            license="CC0",
            seconds=0.5 + number,
            audio=bytes([number % 256]) * 100,
            origin="spoken" if number % 2 else "folder",
            phones=(Phone(0.0, 0.25, "a"), Phone(0.25, 0.5 + number, "_")) if number % 2 else (),
            words=tuple(Word(place, place + 0.5, f"w{place}") for place in range(number % 3)),
            topic="repeat" if number % 3 else "",
            suite="" if number % 4 else "held_out",
            turn=number % 2,
        )
        for number in range(count)
    ]


def by_id(found: list[Row]) -> list[Row]:
    return sorted(found, key=lambda row: row.id)


@pytest.mark.parametrize("shards", [1, 3, 10])
def test_every_row_comes_back_once_from_balanced_shards(tmp_path: Path, shards: int) -> None:
    corpus = rows(10)
    write_shards(corpus, tmp_path, shards)
    assert by_id(read_shard(tmp_path)) == by_id(corpus)
    sizes = [len(read_shard(tmp_path / f"shard-{number:05d}.parquet")) for number in range(shards)]
    assert sum(sizes) == 10
    assert max(sizes) - min(sizes) <= 1
    assert min(sizes) > 0


def test_the_same_rows_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    corpus, rejected = rows(50), [Rejected(3, "x.wav", "missing", "x.wav: no such file")]
    write_shards(corpus, tmp_path / "one", 3, rejected)
    write_shards(corpus[::-1], tmp_path / "two", 3, rejected)
    one, two = ({p.name: sha256_file(p) for p in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert len(one) == 5


def test_a_shorter_corpus_leaves_no_old_shard_behind(tmp_path: Path) -> None:
    write_shards(rows(20), tmp_path, 5)
    write_shards(rows(8), tmp_path, 2)
    assert by_id(read_shard(tmp_path)) == by_id(rows(8))


def test_chosen_columns_are_read_and_the_others_are_blank(tmp_path: Path) -> None:
    write_shards(rows(8), tmp_path, 1)
    for row, full in zip(read_shard(tmp_path, ["id", "text"]), read_shard(tmp_path), strict=True):
        assert (row.id, row.text) == (full.id, full.text)
        assert (row.audio, row.phones, row.words, row.answer, row.speaker, row.turn) == (b"", (), (), None, "", 0)


def test_the_summary_counts_what_was_kept_and_what_was_not(tmp_path: Path) -> None:
    rejected = [
        Rejected(1, None, "invalid_json", "?"),
        Rejected(9, "a", "missing", "?"),
        Rejected(12, "b", "missing", "?"),
    ]
    summary = write_shards(rows(8), tmp_path, 2, rejected)
    assert (summary.rows, summary.shards, summary.splits) == (8, 2, {"test": 2, "train": 6})
    assert (summary.origins, summary.speakers) == ({"folder": 4, "spoken": 4}, {"ann": 6, "bob": 2})
    assert (summary.topics, summary.suites) == ({"": 3, "repeat": 5}, {"": 6, "held_out": 2})
    assert (summary.seconds, summary.train_seconds, summary.test_seconds) == (32.0, 27.0, 5.0)
    assert summary.rejected == {"invalid_json": 1, "missing": 2}
    assert json.loads((tmp_path / "summary.json").read_text())["rejected"] == {"invalid_json": 1, "missing": 2}
    kept = [json.loads(line) for line in (tmp_path / "rejected.jsonl").read_text().splitlines()]
    assert [Rejected(**line) for line in kept] == rejected


@pytest.mark.parametrize(
    ("corpus", "shards", "complaint"),
    [
        ([], 1, "none in split test and train"),
        ([row for row in rows(8) if row.split == "train"], 1, "none in split test"),
        ([row for row in rows(8) if row.split == "test"], 1, "none in split train"),
        (rows(5), 6, "data.shards is 6, but the corpus has 5 rows"),
        ([*rows(5), replace(rows(1)[0], speaker="other")], 1, "2 rows have the id"),
    ],
    ids=["no rows", "no test", "no train", "too many shards", "same id"],
)
def test_a_corpus_that_cannot_be_used_is_refused(
    tmp_path: Path, corpus: list[Row], shards: int, complaint: str
) -> None:
    with pytest.raises(DataError, match=complaint):
        write_shards(corpus, tmp_path / "out", shards)
    assert not (tmp_path / "out").exists()


def test_what_is_no_shard_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no shard-\*"):
        read_shard(tmp_path)
    (tmp_path / "shard-00000.parquet").write_bytes(b"PAR1 but not really PAR1")
    with pytest.raises(DataError, match="not a corpus shard"):
        read_shard(tmp_path)
    write_shards(rows(5), tmp_path, 1)
    with pytest.raises(DataError, match="no column colour; known are id, text"):
        read_shard(tmp_path, ["id", "colour"])
