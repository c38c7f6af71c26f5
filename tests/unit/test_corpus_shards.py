"""Shards: nothing is lost or doubled on the way through Parquet, and the same rows give the same files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ichigo.corpus.rows import Rejected, Row
from ichigo.corpus.shards import Quarantine, read_quarantine, read_shard, write_shards, written
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
            codes=tuple(range(number)) if number % 5 == 0 else (),
            tokenizer="published" if number % 5 == 0 else "",
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
    corpus = rows(50)
    for name, order in (("one", corpus), ("two", corpus[::-1])):
        with Quarantine(tmp_path / name) as quarantine:
            quarantine.add(Rejected(3, "x.wav", "missing", "x.wav: no such file", "data.folder", "metadata.jsonl"))
            write_shards(order, tmp_path / name, 3, quarantine.counts)
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
    summary = write_shards(rows(8), tmp_path, 2, {"missing": 2, "invalid_json": 1})
    assert (summary.rows, summary.shards, summary.splits) == (8, 2, {"test": 2, "train": 6})
    assert (summary.origins, summary.speakers) == ({"folder": 4, "spoken": 4}, {"ann": 6, "bob": 2})
    assert (summary.languages, summary.licenses) == ({"de": 8}, {"CC0": 8})
    assert (summary.topics, summary.suites) == ({"": 3, "repeat": 5}, {"": 6, "held_out": 2})
    assert (summary.seconds, summary.train_seconds, summary.test_seconds) == (32.0, 27.0, 5.0)
    assert json.loads((tmp_path / "summary.json").read_text())["rejected"] == {"invalid_json": 1, "missing": 2}


@pytest.mark.parametrize("count", [0, 3, 1500])
def test_what_was_set_aside_is_a_table_in_the_order_of_reading(tmp_path: Path, count: int) -> None:
    entries = [
        Rejected(number, None if number % 2 else f"{number}.wav", f"reason {number % 3}", "why", "data.folder", "unit")
        for number in range(count)
    ]
    with Quarantine(tmp_path) as quarantine:
        for entry in entries:
            quarantine.add(entry)
    assert read_quarantine(tmp_path) == entries
    assert quarantine.counts.total() == count == written(tmp_path)[1]


def test_names_that_are_no_text_and_endless_details_can_be_set_aside(tmp_path: Path) -> None:
    with Quarantine(tmp_path) as quarantine:
        quarantine.add(Rejected(1, "\udcff.wav", "missing", "x" * 100_000, "data.folder", "\udcfe.tar"))
    (entry,) = read_quarantine(tmp_path)
    assert (entry.file, entry.unit, len(entry.detail)) == ("?.wav", "?.tar", 1000)


def test_rows_that_turn_out_to_be_held_out_are_written_as_test_rows(tmp_path: Path) -> None:
    corpus = rows(12)
    drawn: list[str] = []

    def one_by_one() -> Iterator[Row]:
        for row in corpus:
            drawn.append(row.id)
            yield row

    def held_out() -> set[str]:
        assert len(drawn) == 12, "asked before the last row was drawn"
        return {corpus[1].id, corpus[2].id}

    summary = write_shards(one_by_one(), tmp_path, 2, held_out=held_out)
    test = {row.id for row in read_shard(tmp_path) if row.split == "test"}
    assert test == {corpus[place].id for place in (0, 1, 2, 4, 8)}
    assert summary.splits == {"test": 5, "train": 7}


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
