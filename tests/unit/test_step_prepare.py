"""``prepare``: what lies in the corpus is what was read, counted exactly, and the same sources give the same bytes."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ichigo.corpus import shards
from ichigo.corpus.shards import iter_rows, read_quarantine, read_shard
from ichigo.corpus.sources import open_sources
from ichigo.corpus.texts import read_texts
from ichigo.errors import DataError, IntegrityError
from ichigo.hashing import sha256_file
from ichigo.recipe.schema import Data, Instructions, Recordings, Sentence, Source, TokenStrings, Voices
from ichigo.steps.context import Step
from ichigo.steps.prepare import build
from ichigo.store import Draft
from tests.unit.corpus_support import chat, json_file, parquet_file, sample, sound, tar_file, tokens


def sources(folder: Path) -> tuple[Source, ...]:
    """Twelve rows that can be used and seven lines that cannot, in a source of every kind."""
    rows = [{"audio": sound(n), "text": f"said {n}", "speaker": "abcd"[n % 4]} for n in range(6)]
    parquet_file(folder / "rows.parquet", [*rows, {"audio": b"?", "text": "x"}, {"audio": sound(0), "text": "said 0"}])
    tar_file(folder / "rows.tar", [*sample("a", 20), ("b.json", b"{}"), *sample("c", 21)])
    strings = [tokens(1, 2), tokens(513), *(chat(tokens(n), f"answer {n}") for n in (3, 4))]
    lines = [{"messages" if isinstance(string, list) else "text": string} for string in strings]
    json_file(folder / "tokens.jsonl", [*lines, b"{", {"messages": chat("who is it", "me")}])
    asked = ["what is the capital of france", "what is the capital of france?", "is www.x.com good"]
    json_file(folder / "asked.jsonl", [{"question": text, "output": "yes"} for text in asked])
    return (
        Recordings(kind="parquet", path=str(folder / "rows.parquet"), license="CC0"),
        Recordings(kind="webdataset", path=str(folder / "rows.tar"), split="train"),
        TokenStrings(kind="tokens", path=str(folder / "tokens.jsonl"), tokenizer="published", split="train"),
        Instructions(kind="instructions", path=str(folder / "asked.jsonl")),
    )


def prepared(folder: Path, data: Data) -> list[str]:
    """Build a corpus in ``folder`` as the step does; returns what it says."""
    folder.mkdir(parents=True)
    said: list[str] = []
    step = SimpleNamespace(recipe=SimpleNamespace(data=data, seed=3), say=said.append)
    draft = Draft(folder)
    build(cast(Step, step), data, open_sources(data, 3), draft)
    report: dict[str, Any] = json.loads((folder / "survey.json").read_text())
    assert draft.facts["set_aside"] == sum(report["set_aside"].values())
    return said


def test_every_line_is_a_row_or_in_quarantine(tmp_path: Path) -> None:
    said = prepared(tmp_path / "corpus", Data(sources=sources(tmp_path), held_out_speakers=0.25))
    rows, rejected = read_shard(tmp_path / "corpus"), read_quarantine(tmp_path / "corpus")
    assert Counter(row.origin for row in rows) == {"parquet": 6, "webdataset": 2, "tokens": 3}
    assert Counter(entry.reason for entry in rejected) == {
        "unreadable": 1,
        "duplicate_row": 1,
        "no_audio": 1,
        "code_out_of_range": 1,
        "invalid_json": 1,
        "near_duplicate": 1,
        "url": 1,
    }
    report = json.loads((tmp_path / "corpus" / "survey.json").read_text())
    assert report["lines"] == 8 + 3 + 6 + 3 == 11 + 2 + len(rejected)
    assert {entry.source for entry in rejected} == {f"data.sources.{number}" for number in range(4)}
    assert {row.license for row in rows if row.origin == "parquet"} == {"CC0"}
    assert {(row.tokenizer, row.audio) for row in rows if row.codes} == {("published", b"")}
    assert any("1 near_duplicate" in line for line in said)


def test_texts_hold_what_is_written_once_and_nothing_that_is_held_out(tmp_path: Path) -> None:
    sentences = (Sentence(text="turn it on", answer="it is on"),)
    prepared(tmp_path / "corpus", Data(sources=sources(tmp_path), held_out_speakers=0.25, sentences=sentences))
    test = {row.text for row in iter_rows(tmp_path / "corpus", ["text", "split"]) if row.split == "test"}
    written = [text.text for text in read_texts(tmp_path / "corpus")]
    assert test
    assert Counter(written).most_common(1)[0][1] == 1
    assert {"turn it on", "who is it", "what is the capital of france", "said 20"} <= set(written)
    assert not test & set(written)
    assert "" not in written


def test_a_spoken_question_that_is_held_out_is_no_training_text(tmp_path: Path) -> None:
    asked = [f"what is the name of the town number {word}" for word in ("one", "two", "six", "ten")]
    path = json_file(tmp_path / "asked.jsonl", [{"question": text, "output": "yes"} for text in asked])
    voices = ("en-us+f2", "en-gb+m3", "en-us+m1")
    source = Instructions(kind="instructions", path=str(path), near_duplicates=1.0, voices=voices)
    prepared(tmp_path / "corpus", Data(sources=(source,), held_out_speakers=0.4))
    test = {row.text for row in iter_rows(tmp_path / "corpus", ["text", "split"]) if row.split == "test"}
    assert 0 < len(test) < 4
    assert {text.text for text in read_texts(tmp_path / "corpus") if text.split == "test"} == test


def test_the_same_sources_give_the_same_bytes_wherever_they_lie(tmp_path: Path) -> None:
    digests = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        prepared(tmp_path / place / "corpus", Data(sources=sources(tmp_path / place), held_out_speakers=0.25))
        files = sorted((tmp_path / place / "corpus").iterdir())
        digests.append({path.name: sha256_file(path) for path in files})
    assert digests[0] == digests[1]
    names = [
        "quarantine.parquet",
        "shard-00000.parquet",
        "shard-00001.parquet",
        "summary.json",
        "survey.json",
        "texts.parquet",
    ]
    assert list(digests[0]) == names


def test_the_recipe_s_own_sentences_are_counted_beside_the_sources(tmp_path: Path) -> None:
    voices = Voices(train=("en-us+f2",), held_out=("en-us+m1",))
    data = Data(
        sources=sources(tmp_path)[:1], sentences=(Sentence(text="turn it on"),), voices=voices, held_out_speakers=0
    )
    prepared(tmp_path / "corpus", data)
    assert Counter(row.origin for row in read_shard(tmp_path / "corpus")) == {"parquet": 6, "spoken": 2}


def test_a_row_that_is_lost_on_its_way_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = shards.write_shards

    def lossy(rows: Any, *arguments: Any) -> shards.CorpusSummary:
        return real((row for place, row in enumerate(rows) if place != 1), *arguments)

    monkeypatch.setattr(shards, "write_shards", lossy)
    with pytest.raises(IntegrityError, match="11 rows were made and 10 written"):
        prepared(tmp_path / "corpus", Data(sources=sources(tmp_path), held_out_speakers=0.25))


def test_a_source_without_any_usable_line_stops_the_step(tmp_path: Path) -> None:
    parquet_file(tmp_path / "x.parquet", [{"audio": b"junk", "text": "x"}])
    with pytest.raises(DataError, match=r"data\.sources\.0 .*none of 1 lines is usable \(unreadable x 1\)"):
        prepared(tmp_path / "corpus", Data(sources=(Recordings(kind="parquet", path=str(tmp_path / "x.parquet")),)))


def test_an_overlap_with_what_is_asked_is_said(tmp_path: Path) -> None:
    rows = [{"audio": sound(n), "text": "the same", "split": "test" if n else "train"} for n in range(3)]
    path = parquet_file(tmp_path / "x.parquet", rows)
    said = prepared(tmp_path / "corpus", Data(sources=(Recordings(kind="parquet", path=str(path)),), shards=1))
    assert any("1 a text" in line for line in said)
