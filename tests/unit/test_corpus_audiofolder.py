"""Recordings in the AudioFolder shape: every line is kept or set aside with its reason, and nobody is on both sides."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from ichigo.corpus.audiofolder import AudioFolder
from ichigo.corpus.rows import Rejected, Row
from ichigo.corpus.sources import Reading, open_sources, sources_digest
from ichigo.errors import DataError
from ichigo.recipe.schema import Data
from ichigo.speech.audio import read_audio


def record(path: Path, seed: int, seconds: float = 0.1) -> None:
    """Different noise for every seed, 8 kHz."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, round(8000 * seconds))
    soundfile.write(path, noise, 8000)


def describe(folder: Path, lines: list[dict[str, Any] | str]) -> Path:
    """Write ``metadata.jsonl``; a string is a line as it stands."""
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "metadata.jsonl").write_text(text + "\n")
    return folder


def people(folder: Path, speakers: dict[str, int], **fields: str) -> Path:
    """A folder with so many recordings of each speaker."""
    lines: list[dict[str, Any] | str] = []
    for speaker, count in speakers.items():
        for take in range(count):
            name = f"{speaker}{take}.wav"
            record(folder / name, seed=len(lines))
            lines.append(
                {"file_name": name, "text": f"take {take}", **({"speaker": speaker} if speaker else {}), **fields}
            )
    return describe(folder, lines)


def read_folder(folder: Path, settings: Data, seed: int) -> tuple[list[Row], list[Rejected]]:
    """The rows of a folder with their final splits, and the lines that were set aside."""
    data = settings.model_copy(update={"folder": str(folder)})
    rejected: list[Rejected] = []
    reading = Reading(open_sources(data, seed), data, seed, rejected.append)
    rows = [row for line in reading.lines() for row in line.rows]
    held_out = reading.held_out()
    return [replace(row, split="test") if row.id in held_out else row for row in rows], rejected


def source_digest(folder: Path) -> str:
    return sources_digest(open_sources(Data(folder=str(folder)), seed=0))


def speakers_of(folder: Path) -> list[str]:
    (source,) = open_sources(Data(folder=str(folder)), seed=0)
    assert isinstance(source, AudioFolder)
    return source.speakers()


def splits(rows: list[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = defaultdict(set)
    for row in rows:
        found[row.speaker].add(row.split)
    return dict(found)


def set_aside(folder: Path, line: dict[str, Any] | str, **settings: Any) -> tuple[str, str]:
    """Reason and detail of ``line``, which follows one good line."""
    record(folder / "good.wav", seed=99)
    describe(folder, [{"file_name": "good.wav", "text": "good"}, line])
    rows, rejected = read_folder(folder, Data(**settings), seed=0)
    assert [row.text for row in rows] == ["good"]
    assert [entry.line for entry in rejected] == [2]
    return rejected[0].reason, rejected[0].detail


def test_a_row_carries_what_its_line_says(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", seed=0)
    record(tmp_path / "b.wav", seed=1)
    told = {"answer": "Paris", "speaker": "ann", "split": "validation", "language": "en", "license": "CC0"}
    describe(tmp_path, [{"file_name": "a.wav", "text": " Where? ", **told}, "", {"file_name": "b.wav", "text": "hi"}])
    (full, bare), rejected = read_folder(tmp_path, Data(), seed=0)
    assert not rejected
    assert (full.text, full.answer, full.speaker, full.split) == ("Where?", "Paris", "ann", "test")
    assert (full.language, full.license, full.origin, full.phones) == ("en", "CC0", "folder", ())
    assert full.seconds == pytest.approx(0.1)
    np.testing.assert_allclose(read_audio(full.audio), read_audio(tmp_path / "a.wav"), atol=1 / 32768)
    assert (bare.answer, bare.speaker, bare.split, bare.language, bare.license) == (None, "", "train", "und", "unknown")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{not json", "invalid_json"),
        ('["a list"]', "invalid_json"),
        ('{"file_name": "b.wav", "text": "\\ud800"}', "invalid_json"),
        ("[" * 100_000, "invalid_json"),
        ({"text": "no file"}, "no_file_name"),
        ({"file_name": 7, "text": "no file"}, "no_file_name"),
        ({"file_name": "b.wav"}, "no_text"),
        ({"file_name": "b.wav", "text": "  "}, "no_text"),
        ({"file_name": "b.wav", "text": 7}, "no_text"),
        ({"file_name": "b.wav", "text": "x", "speaker": [12]}, "bad_field"),
        ({"file_name": "b.wav", "text": "x", "license": 4.0}, "bad_field"),
        ({"file_name": "b.wav", "text": "x", "split": "dev"}, "unknown_split"),
        ({"file_name": "absent.wav", "text": "x"}, "missing"),
        ({"file_name": ".", "text": "x"}, "missing"),
        ({"file_name": "n" * 300, "text": "x"}, "unreadable"),
        ({"file_name": "nul\0.wav", "text": "x"}, "unreadable"),
        ({"file_name": "junk.wav", "text": "x"}, "unreadable"),
        ({"file_name": "nan.wav", "text": "x"}, "not_finite"),
        ({"file_name": "empty.wav", "text": "x"}, "empty"),
        ({"file_name": "short.wav", "text": "x"}, "too_short"),
        ({"file_name": "long.wav", "text": "x"}, "too_long"),
        ({"file_name": "cut.wav", "text": "x"}, "truncated"),
        ({"file_name": "./good.wav", "text": "again"}, "duplicate_file"),
        ({"file_name": "copy.wav", "text": "good"}, "duplicate_row"),
        ({"file_name": "../outside.wav", "text": "x"}, "outside_folder"),
        ({"file_name": "sub/../../outside.wav", "text": "x"}, "outside_folder"),
        ({"file_name": "/etc/hostname", "text": "x"}, "outside_folder"),
        ({"file_name": "link.wav", "text": "x"}, "outside_folder"),
        ({"file_name": "linked/outside.wav", "text": "x"}, "outside_folder"),
        ({"file_name": "loop.wav", "text": "x"}, "unreadable"),
    ],
)
def test_a_bad_line_is_set_aside_with_its_reason(tmp_path: Path, line: dict[str, Any] | str, reason: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    record(tmp_path / "outside.wav", seed=5)
    for name, seed, seconds in (("b.wav", 1, 0.1), ("copy.wav", 99, 0.1), ("short.wav", 2, 0.03), ("long.wav", 3, 2.0)):
        record(folder / name, seed, seconds)
    (folder / "junk.wav").write_bytes(b"junk" * 50)
    (folder / "empty.wav").touch()
    (folder / "cut.wav").write_bytes((folder / "long.wav").read_bytes()[:9000])
    soundfile.write(folder / "nan.wav", np.full(1000, np.nan), 8000, subtype="FLOAT")
    (folder / "link.wav").symlink_to(tmp_path / "outside.wav")
    (folder / "linked").symlink_to(tmp_path)
    (folder / "loop.wav").symlink_to(folder / "loop.wav")
    found, detail = set_aside(folder, line, max_seconds=1.0)
    assert found == reason
    assert detail


def test_a_link_inside_the_folder_is_followed(tmp_path: Path) -> None:
    record(tmp_path / "take.wav", seed=0)
    (tmp_path / "link.wav").symlink_to("take.wav")
    rows, rejected = read_folder(describe(tmp_path, [{"file_name": "link.wav", "text": "x"}]), Data(), seed=0)
    assert (len(rows), rejected) == (1, [])


def test_a_named_pipe_does_not_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    assert set_aside(tmp_path, {"file_name": "pipe.wav", "text": "x"})[0] == "missing"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "no metadata.jsonl"), ("\n\n", "no lines"), ('{"file_name": "a.wav", "text": "x"}\n{', "none of 2 lines")],
)
def test_a_source_without_any_row_is_an_error(tmp_path: Path, content: str | None, complaint: str) -> None:
    if content is not None:
        (tmp_path / "metadata.jsonl").write_text(content)
    with pytest.raises(DataError, match=complaint) as caught:
        read_folder(tmp_path, Data(), seed=0)
    assert str(tmp_path) in str(caught.value)


def test_a_source_that_is_no_folder_is_an_error(tmp_path: Path) -> None:
    record(tmp_path / "a.wav", seed=0)
    with pytest.raises(DataError, match=r"data\.folder .*a\.wav: not a folder"):
        read_folder(tmp_path / "a.wav", Data(), seed=0)
    with pytest.raises(DataError, match=r"data\.folder: .*absent: no such file or folder"):
        read_folder(tmp_path / "absent", Data(), seed=0)


def test_speakers_are_held_out_whole_by_seed_and_not_by_order(tmp_path: Path) -> None:
    folder = people(tmp_path, dict.fromkeys("abcdefgh", 3))
    rows, _ = read_folder(folder, Data(held_out_speakers=0.25), seed=1)
    sides = splits(rows)
    assert Counter(map(len, sides.values())) == {1: 8}
    assert sum(side == {"test"} for side in sides.values()) == 2
    lines = (folder / "metadata.jsonl").read_text().splitlines()
    describe(folder, list(reversed(lines)))
    assert splits(read_folder(folder, Data(held_out_speakers=0.25), seed=1)[0]) == sides
    chosen = {str(splits(read_folder(folder, Data(), seed=seed)[0])) for seed in range(6)}
    assert len(chosen) > 1


@pytest.mark.parametrize(("share", "test"), [(0.0, 0), (0.01, 1), (0.5, 2), (0.99, 3), (1.0, 4)])
def test_a_share_between_none_and_all_leaves_a_speaker_on_each_side(tmp_path: Path, share: float, test: int) -> None:
    rows, _ = read_folder(people(tmp_path, dict.fromkeys("abcd", 2)), Data(held_out_speakers=share), seed=0)
    assert sum(side == {"test"} for side in splits(rows).values()) == test


@pytest.mark.parametrize("speaker", ["", "only"])
def test_rows_that_no_speaker_tells_apart_are_held_out_one_by_one(tmp_path: Path, speaker: str) -> None:
    rows, _ = read_folder(people(tmp_path, {speaker: 20}), Data(held_out_speakers=0.25), seed=0)
    assert Counter(row.split for row in rows) == {"train": 15, "test": 5}
    assert [row.split for row in rows] != sorted(row.split for row in rows)


def test_the_authors_split_holds_and_lines_without_one_are_for_training(tmp_path: Path) -> None:
    folder = people(tmp_path, {"a": 2, "b": 2, "c": 2})
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines[0]["split"], lines[1]["split"], lines[2]["split"] = "test", "validation", "train"
    rows, _ = read_folder(describe(folder, lines), Data(), seed=0)
    assert [row.split for row in rows] == ["test", "test", "train", "train", "train", "train"]


def test_an_id_follows_the_content_and_not_the_name(tmp_path: Path) -> None:
    folder = people(tmp_path, {"a": 2})
    before = read_folder(folder, Data(), seed=0)[0]
    (folder / "a0.wav").rename(folder / "renamed.wav")
    text = (folder / "metadata.jsonl").read_text().replace("a0.wav", "renamed.wav").replace("take 1", "other words")
    (folder / "metadata.jsonl").write_text(text)
    after = read_folder(folder, Data(), seed=0)[0]
    assert after[0].id == before[0].id
    assert after[1].id != before[1].id


def test_the_digest_follows_content_wherever_the_folder_lies(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    people(here, {"a": 3})
    with (here / "metadata.jsonl").open("a") as metadata:
        metadata.write('{"file_name": "later.wav", "text": "x"}\n{"file_name": "../x", "text": "x"}\nnot json\n')
    shutil.copytree(here, there)
    digest = source_digest(here)
    assert source_digest(there) == digest
    (there / "unnamed.wav").write_bytes(b"no line names it")
    assert source_digest(there) == digest
    record(there / "a1.wav", seed=77)
    changed = source_digest(there)
    assert changed != digest
    record(there / "later.wav", seed=78)
    assert source_digest(there) != changed


def test_two_thousand_real_digits_keep_their_speakers_apart(recordings: Path) -> None:
    rows, rejected = read_folder(recordings / "fsdd", Data(held_out_speakers=0.25), seed=0)
    assert (len(rows), rejected) == (2000, [])
    assert len({row.id for row in rows}) == 2000
    assert sorted(map(len, splits(rows).values())) == [1, 1, 1, 1]
    assert Counter(row.split for row in rows) == {"train": 1500, "test": 500}
    assert Counter(row.text for row in rows) == dict.fromkeys(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), 200
    )


def test_speakers_are_left_out_by_name_whatever_their_lines_say(tmp_path: Path) -> None:
    folder = people(tmp_path, dict.fromkeys("abc", 2))
    named = Data(leave_out=("c", "a"), held_out_speakers=1.0)
    assert splits(read_folder(folder, named, seed=0)[0]) == {"a": {"test"}, "b": {"train"}, "c": {"test"}}
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    lines[0]["split"], lines[2]["split"] = "train", "test"  # one of a's, one of b's
    rows, _ = read_folder(describe(folder, lines), named, seed=0)
    assert [row.split for row in rows] == ["test", "test", "test", "train", "test", "test"]


@pytest.mark.parametrize(("speaker", "known"), [("ann", "are ann, ben"), ("", "are none, no line has a speaker")])
def test_leaving_out_a_stranger_names_those_who_are_there(tmp_path: Path, speaker: str, known: str) -> None:
    folder = people(tmp_path, {speaker: 2, "ben" if speaker else "": 2})
    with pytest.raises(DataError, match=f"data.leave_out: nobody is called Ann, zoe; the speakers {known}$"):
        read_folder(folder, Data(leave_out=("Ann", "zoe")), seed=0)


def test_the_speakers_of_a_folder_are_told_without_opening_its_sound(tmp_path: Path) -> None:
    lines = [{"file_name": "absent.wav", "text": "x", "speaker": name} for name in ("zoe", "ann", "zoe", " ", 7, None)]
    assert speakers_of(describe(tmp_path, [*lines, "not json"])) == ["7", "ann", "zoe"]
