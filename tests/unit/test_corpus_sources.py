"""Every kind of source gives the rows that lie in it, wherever it lies, without being read whole."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ichigo.corpus.files import S3Files
from ichigo.corpus.lines import Settings
from ichigo.corpus.rows import Row
from ichigo.corpus.sources import Reading, Tally, check_counts, guess, open_source, open_sources, sources_digest
from ichigo.errors import DataError, IntegrityError
from ichigo.recipe.schema import Columns, Data, Instructions, Recordings, TokenStrings
from ichigo.speech.audio import read_audio
from ichigo.store.objects import MemoryObjects
from tests.unit.corpus_support import Read, chat, json_file, parquet_file, sound, tar_file, tokens

STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
TOLD = {"answer": "Paris", "speaker": "ann", "split": "validation", "language": "fr", "license": "CC0"}


def make(kind: str, folder: Path) -> Settings:
    """Two rows in a source of each kind: one that says everything, one that says only what is said."""
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]]
    if kind == "folder":
        for name in ("a.wav", "sub/b.wav"):
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(sound(len(name)))
        rows = [{"file_name": "a.wav", "text": "Where?", **TOLD}, {"file_name": "sub/b.wav", "text": "hi"}]
        json_file(folder / "metadata.jsonl", rows)
    elif kind == "bytes":
        rows = [{"audio": sound(5), "text": "Where?", **TOLD}, {"audio": sound(9), "text": "hi"}]
        parquet_file(folder / "deep" / "rows.parquet", rows)
    elif kind == "struct":
        (folder / "b.wav").write_bytes(sound(9))
        audio = [{"bytes": sound(5), "path": "a.wav"}, {"bytes": None, "path": "b.wav"}]
        rows = [{"audio": audio[0], "text": "Where?", **TOLD}, {"audio": audio[1], "text": "hi", **dict.fromkeys(TOLD)}]
        schema = pa.schema([("audio", STRUCT), ("text", pa.string()), *((name, pa.string()) for name in TOLD)])
        parquet_file(folder / "rows.parquet", rows, schema)
    else:
        told = json.dumps({"text": "Where?", **TOLD}).encode()
        long = "deep/" * 30 + "b"  # longer than the 100 bytes of a plain tar header
        members = [
            ("a.wav", sound(5)),
            ("a.json", told),
            ("a.jpg", b"?"),
            (f"{long}.WAV", sound(9)),
            (f"{long}.txt", b"hi"),
        ]
        suffix, mode = (".tar.gz", "w:gz") if kind == "tar.gz" else (".tar", "w")
        tar_file(folder / f"rows{suffix}", list(members), mode)
    kinds = {"folder": "folder", "bytes": "parquet", "struct": "parquet"}
    return Recordings(kind=kinds.get(kind, "webdataset"), path=str(folder))  # type: ignore[arg-type]


def uploaded(folder: Path) -> MemoryObjects:
    """A bucket that holds ``folder`` below ``data``."""
    objects = MemoryObjects("s3://bucket")
    for path in folder.rglob("*"):
        if path.is_file():
            objects.put(f"data/{path.relative_to(folder).as_posix()}", path.read_bytes())
    return objects


KINDS = ("folder", "bytes", "struct", "tar", "tar.gz")


@pytest.mark.parametrize("where", ["here", "s3"])
@pytest.mark.parametrize("kind", KINDS)
def test_rows_carry_what_the_source_says_here_and_in_s3(tmp_path: Path, kind: str, where: str) -> None:
    settings = make(kind, tmp_path / "source")
    objects = uploaded(tmp_path / "source")
    if where == "s3":
        settings = settings.model_copy(update={"path": "s3://bucket/data"})
    read = Read([settings], opener=lambda uri: objects)
    full, bare = read.rows
    assert not read.rejected
    assert (full.text, full.answer, full.speaker, full.split) == ("Where?", "Paris", "ann", "test")
    assert (full.language, full.license, full.origin) == ("fr", "CC0", settings.kind)
    assert (bare.text, bare.answer, bare.speaker, bare.split) == ("hi", None, "", "train")
    assert (bare.language, bare.license) == ("und", "unknown")
    for row, seed in ((full, 5), (bare, 9)):
        assert row.seconds == pytest.approx(0.1)
        np.testing.assert_allclose(read_audio(row.audio), read_audio(sound(seed)), atol=1 / 32768)


def test_the_same_recording_has_the_same_id_in_every_kind_of_source(tmp_path: Path) -> None:
    ids = [[row.id for row in Read([make(kind, tmp_path / kind)]).rows] for kind in KINDS]
    assert ids == [ids[0]] * len(KINDS)
    read = Read([make(kind, tmp_path / kind) for kind in KINDS])
    assert read.reasons == {"duplicate_row": 2 * (len(KINDS) - 1)}
    assert "line 1 of metadata.jsonl (data.sources.0)" in read.rejected[0].detail


def test_what_a_source_says_holds_where_its_rows_say_nothing(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"sound": sound(1), "said": "a", "who": 7},
        {"sound": sound(2), "said": "b", "who": None},
    ]
    path = parquet_file(tmp_path / "x.parquet", rows)
    columns = Columns(audio="sound", text="said", speaker="who")
    given: dict[str, Any] = {"speaker": "unnamed", "language": "en", "license": "CC-BY-4.0", "split": "test"}
    read = Read([Recordings(kind="parquet", path=str(path), columns=columns, **given)])
    assert [(row.speaker, row.language, row.license, row.split) for row in read.rows] == [
        ("7", "en", "CC-BY-4.0", "test"),
        ("unnamed", "en", "CC-BY-4.0", "test"),
    ]


def test_a_pattern_names_files_here_and_in_s3(tmp_path: Path) -> None:
    for seed in range(4):
        parquet_file(tmp_path / f"part-{seed}" / "x.parquet", [{"audio": sound(seed), "text": f"said {seed}"}])
    here = Recordings(kind="parquet", path=str(tmp_path / "part-[12]" / "*.parquet"))
    assert [row.text for row in Read([here]).rows] == ["said 1", "said 2"]
    objects = uploaded(tmp_path)
    there = Recordings(kind="parquet", path="s3://bucket/data/part-[12]/*.parquet")
    assert [row.text for row in Read([there], opener=lambda uri: objects).rows] == ["said 1", "said 2"]
    one = Recordings(kind="parquet", path="s3://bucket/data/part-3/x.parquet")
    assert [row.text for row in Read([one], opener=lambda uri: objects).rows] == ["said 3"]


class MeteredRanges(MemoryObjects):
    """A bucket that notes the size of every range that is asked for."""

    def __init__(self, data: dict[str, bytes]) -> None:
        super().__init__("s3://bucket")
        self.fetched: list[int] = []
        for key, value in data.items():
            self.put(key, value)

    def get_range(self, key: str, start: int, size: int) -> bytes:
        self.fetched.append(size)
        return super().get_range(key, start, size)


def test_listing_a_table_in_s3_reads_its_footer_alone_and_a_group_its_own_bytes(tmp_path: Path) -> None:
    seconds = 20.0
    rows = [{"audio": sound(seed, seconds, 48_000), "text": f"said {seed}"} for seed in range(32)]
    path = parquet_file(tmp_path / "x.parquet", rows, row_group_size=4, compression="none", use_dictionary=False)
    size = path.stat().st_size
    objects = MeteredRanges({"data/x.parquet": path.read_bytes()})
    settings = Recordings(kind="parquet", path="s3://bucket/data/x.parquet")
    source = open_source(settings, Data(), "data.sources.0", opener=lambda uri: objects)
    units = source.units()
    assert [(unit.first, unit.lines, unit.part) for unit in units] == [(4 * part, 4, part) for part in range(8)]
    assert sum(objects.fetched) < size / 4
    objects.fetched.clear()
    lines = list(source.read(units[5]))
    assert [(line.number, line.rows[0].text) for line in lines] == [(20 + n, f"said {19 + n}") for n in range(1, 5)]
    assert sum(objects.fetched) < size / 2


def test_a_file_in_s3_reads_like_one_here() -> None:
    data = np.random.default_rng(0).bytes(10_000_000)
    objects = MeteredRanges({"data/x.bin": data})
    with S3Files("s3://bucket/data/x.bin", lambda uri: objects).open("x.bin") as handle:
        assert handle.read(10) == data[:10]
        assert handle.seek(-10, io.SEEK_END) == len(data) - 10
        assert handle.read() == data[-10:]
        assert handle.seek(5_000_000) == 5_000_000
        assert handle.read(4_999_999) == data[5_000_000:-1]
        assert handle.read() == data[-1:]
        assert handle.read() == b""


def test_token_strings_become_codes_and_their_conversations_dialogues(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"text": tokens(0, 512), "speaker": "x"},
        {"text": "<|sound_start|><|duration_03|><|sound_0007|><|sound_0008|><|sound_end|>"},
        {"conversations": chat(tokens(1), "it is noon")},
        {"conversations": chat("Transcribe the following audio clip:" + tokens(2), "turn it off")},
        {
            "messages": [
                {"from": "human", "value": "<|reserved_special_token_69|>" + tokens(3)},
                {"from": "gpt", "value": "hi"},
            ]
        },
        {"messages": chat(tokens(4), "one", tokens(5), "two")},
        {"messages": [{"role": "system", "content": ""}, *chat("who", "me", "and why", "so")]},
    ]
    given: dict[str, Any] = {"tokenizer": "published", "language": "en", "license": "MIT"}
    for path in (json_file(tmp_path / "x.jsonl", lines), parquet_file(tmp_path / "x.parquet", lines[:4])):
        read = Read([TokenStrings(kind="tokens", path=str(path), **given)])
        assert not read.rejected
        rows = read.rows[:4]
        assert [row.codes for row in rows] == [(0, 512), (7, 7, 7, 8), (1,), (2,)]
        assert [(row.text, row.answer) for row in rows] == [
            ("", None),
            ("", None),
            ("", "it is noon"),
            ("turn it off", None),
        ]
        assert {(row.tokenizer, row.language, row.license, row.audio) for row in rows} == {
            ("published", "en", "MIT", b"")
        }
        assert [row.seconds for row in rows] == [0.08, 0.16, 0.04, 0.04]
    read = Read([TokenStrings(kind="tokens", path=str(tmp_path / "x.jsonl"), **given)])
    old, first, second = read.rows[4:]
    assert (old.codes, old.text, old.answer) == ((3,), "hi", None)
    assert first.dialogue == second.dialogue != ""
    assert [(row.turn, row.codes, row.answer) for row in (first, second)] == [(0, (4,), "one"), (1, (5,), "two")]
    assert [(text.text, text.answer, text.turn) for text in read.texts] == [("who", "me", 0), ("and why", "so", 1)]
    assert {text.dialogue for text in read.texts} == {read.texts[0].dialogue} != {""}
    assert len({row.id for row in read.rows}) == len(read.rows) == 7
    tally = read.tallies["data.sources.0"]
    assert (tally.lines, tally.kept, tally.rows, tally.texts) == (7, 7, 7, 2)


def people(folder: Path, speakers: dict[str, int], seed: int, split: str | None = None) -> Recordings:
    rows = [
        {"audio": sound(seed + 100 * place + take), "text": "x", "speaker": name}
        for place, (name, takes) in enumerate(speakers.items())
        for take in range(takes)
    ]
    path = parquet_file(folder / f"{seed}.parquet", rows)
    return Recordings(kind="parquet", path=str(path), split=split)  # type: ignore[arg-type]


def sides(rows: list[Row]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for row in rows:
        found.setdefault(row.speaker, set()).add(row.split)
    return found


def test_a_speaker_of_two_sources_is_on_one_side_in_both(tmp_path: Path) -> None:
    two = [people(tmp_path, dict.fromkeys("abcdefgh", 2), 1000), people(tmp_path, dict.fromkeys("ghijkl", 2), 5000)]
    found = sides(Read(two, held_out_speakers=0.5).rows)
    assert Counter(map(len, found.values())) == {1: 12}
    assert Counter(side for own in found.values() for side in own) == {"train": 6, "test": 6}


def test_a_source_with_a_split_leaves_the_others_to_be_split(tmp_path: Path) -> None:
    told = people(tmp_path, {"a": 2, "b": 2}, 1000, split="test")
    read = Read([told, people(tmp_path, dict.fromkeys("cdef", 2), 5000)], held_out_speakers=0.25)
    found = sides(read.rows)
    assert (found["a"], found["b"]) == ({"test"}, {"test"})
    assert Counter(side for name in "cdef" for side in found[name]) == {"train": 3, "test": 1}


def test_conversations_are_held_out_whole(tmp_path: Path) -> None:
    lines = [{"messages": chat(tokens(n), "a", tokens(n, n), "b")} for n in range(40)]
    path = json_file(tmp_path / "x.jsonl", lines)
    rows = Read([TokenStrings(kind="tokens", path=str(path), tokenizer="published")], held_out_speakers=0.25).rows
    by_dialogue: dict[str, set[str]] = {}
    for row in rows:
        by_dialogue.setdefault(row.dialogue, set()).add(row.split)
    assert Counter(tuple(split) for split in by_dialogue.values()) == {("train",): 30, ("test",): 10}


@pytest.mark.parametrize("kind", KINDS)
def test_a_digest_follows_the_content_and_not_the_place(tmp_path: Path, kind: str) -> None:
    def digest(folder: Path) -> str:
        return sources_digest([open_source(make(kind, folder), Data(), "data.sources.0")])

    before = digest(tmp_path / "here")
    if kind != "tar.gz":  # gzip notes the time
        assert digest(tmp_path / "there") == before
    changed = next(path for path in sorted((tmp_path / "here").rglob("*")) if path.is_file() and path.name != "b.wav")
    settings = Recordings(kind=make(kind, tmp_path / "here").kind, path=str(tmp_path / "here"))  # type: ignore[arg-type]
    changed.write_bytes(changed.read_bytes() + b"\n")
    assert sources_digest([open_source(settings, Data(), "data.sources.0")]) != before


def test_an_object_that_is_written_again_changes_the_digest(tmp_path: Path) -> None:
    make("bytes", tmp_path)
    objects = uploaded(tmp_path)
    settings = Recordings(kind="parquet", path="s3://bucket/data")

    def digest() -> str:
        return sources_digest([open_source(settings, Data(), "", opener=lambda uri: objects)])

    before = digest()
    assert digest() == before
    objects.modified["data/deep/rows.parquet"] += 1
    assert digest() != before


def test_what_a_place_holds_is_guessed_from_names_and_columns(tmp_path: Path) -> None:
    for kind in KINDS:
        settings = make(kind, tmp_path / kind)
        assert guess(settings.path) == settings
    chats = json_file(tmp_path / "c" / "x.jsonl", [{"conversations": chat(tokens(1), "x")}])
    assert isinstance(guess(str(chats)), TokenStrings)
    asked = json_file(tmp_path / "i" / "x.jsonl", [{"instruction": "why", "output": "so"}])
    assert isinstance(guess(str(asked.parent)), Instructions)
    (tmp_path / "n").mkdir()
    with pytest.raises(DataError, match=r"none of metadata\.jsonl"):
        guess(str(tmp_path / "n"))


@pytest.mark.parametrize(
    ("path", "complaint"),
    [
        ("nowhere", "no such file or folder"),
        ("empty", r"no \*\.parquet file"),
        ("s3://bucket/nowhere", "nothing lies there"),
    ],
)
def test_a_place_with_nothing_in_it_is_an_error_that_names_the_field(tmp_path: Path, path: str, complaint: str) -> None:
    (tmp_path / "empty").mkdir()
    place = path if path.startswith("s3://") else str(tmp_path / path)
    with pytest.raises(DataError, match=complaint):
        Read([Recordings(kind="parquet", path=place)], opener=lambda uri: MemoryObjects(uri))


def test_all_sources_of_a_recipe_are_opened_by_their_names(tmp_path: Path) -> None:
    make("folder", tmp_path / "a")
    data = Data(folder=str(tmp_path / "a"), sources=(make("bytes", tmp_path / "b"),))
    opened = open_sources(data, seed=0)
    assert [source.label for source in opened] == ["data.folder", "data.sources.0"]
    reading = Reading(opened, data, 0, lambda entry: None)
    assert sum(line.size for line in reading.lines()) == pytest.approx(reading.size, rel=0.01)


def test_counts_that_do_not_add_up_are_told() -> None:
    tally = Tally(lines=5, kept=3, rows=4)
    tally.reasons["missing"] = 2
    check_counts([tally, tally], rows=8, quarantined=4)
    for rows, quarantined in ((7, 4), (8, 3), (8, 5)):
        with pytest.raises(IntegrityError, match="10 lines were read, 6 gave rows"):
            check_counts([tally, tally], rows=rows, quarantined=quarantined)
