"""Every kind of broken recording and row that we know, in every kind of source: set aside with its reason, while the
good rows around it are kept and every line is counted."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from ichigo.corpus.lines import MAX_LINE, MAX_TEXT
from ichigo.recipe.schema import Columns, Recordings, TokenStrings
from tests.unit.corpus_support import Read, Tar, chat, json_file, parquet_file, sample, sound, tar_file, tokens

RATE = 8000


def encoded(samples: Any, rate: int = RATE, container: str = "WAV", subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def patched(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


def flac_claiming(samples: int) -> bytes:
    """A FLAC file of 100 ms whose header counts ``samples``, a 36-bit number from the middle of byte 21 on."""
    flac = bytearray(sound(1, container="FLAC"))
    flac[21] = (flac[21] & 0xF0) | samples >> 32
    flac[22:26] = (samples & 0xFFFFFFFF).to_bytes(4, "big")
    return bytes(flac)


def with_nan(value: float) -> bytes:
    return encoded(np.array([0.1, value, 0.1] * 300, np.float32), subtype="FLOAT")


WAV = sound(1)
AUDIO: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "empty"),
    "no samples": (encoded(np.zeros(0)), "empty"),
    "text": (b"this is no sound at all" * 20, "unreadable"),
    "zeros": (bytes(5000), "unreadable"),
    "a page of HTML": (b"<!DOCTYPE html><html><body>403 Forbidden</body></html>", "unreadable"),
    "a Git LFS pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n",
        "unreadable",
    ),
    "a WAV header alone": (WAV[:44], "truncated"),
    "half a WAV header": (WAV[:20], "unreadable"),
    "a cut off WAV": (sound(1, 1.0)[:9000], "truncated"),
    "a WAV by one byte": (WAV[:-1], "truncated"),
    "a cut off FLAC": (sound(1, 1.0, container="FLAC")[:5000], "truncated unreadable"),
    "a cut off Ogg": (sound(1, 1.0, container="OGG")[:5000], "truncated"),
    "a cut off MP3": (sound(1, 0.9, 16000, container="MP3")[:2000], "truncated"),
    "a FLAC with damaged frames": (patched(sound(1, 1.0, container="FLAC"), 4000, bytes(400)), "truncated unreadable"),
    "NaN": (with_nan(np.nan), "not_finite"),
    "infinity": (with_nan(np.inf), "not_finite"),
    "integers in a float file": (encoded(np.full(900, 12345.0, np.float32), subtype="FLOAT"), "out_of_range"),
    "a rate of 100 Hz": (encoded(np.zeros(900), 100), "unsupported"),
    "a rate of 0 Hz": (patched(WAV, 24, struct.pack("<I", 0)), "unreadable unsupported"),
    "a rate of 4 GHz": (patched(WAV, 24, struct.pack("<I", 0xFFFFFFFF)), "unreadable unsupported"),
    "no channels": (patched(WAV, 22, struct.pack("<H", 0)), "unreadable"),
    "65535 channels": (patched(WAV, 22, struct.pack("<H", 65535)), "unreadable unsupported"),
    "9 channels": (encoded(np.zeros((900, 9))), "unsupported"),
    "an unknown codec in a WAV": (patched(WAV, 20, struct.pack("<H", 0x1234)), "unreadable"),
    "another container": (encoded(np.zeros(900), container="AIFF"), "unsupported"),
    "20 ms": (sound(1, 0.02), "too_short"),
    "2 s where 1 s is allowed": (sound(1, 2.0), "too_long"),
    "a FLAC that claims 68 GB": (flac_claiming((1 << 36) - 1), "too_long"),
    "a FLAC that does not say its length": (flac_claiming(0), "unsupported"),
    "a FLAC that claims twice its length": (flac_claiming(1600), "truncated unreadable"),
    "an hour of silence in 60 kB": (encoded(np.zeros(3600 * RATE, np.int16), container="FLAC"), "too_long"),
}
"""Bytes of a recording, and the reason or reasons (libsndfile's versions differ) for which they are set aside."""

FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"text": None}, "no_text"),
    "a blank text": ({"text": " \t\n"}, "no_text"),
    "an endless text": ({"text": "a" * (MAX_TEXT + 1)}, "text_too_long"),
    "a NUL in the text": ({"text": "one\0two"}, "control_characters"),
    "an escape sequence in the answer": ({"answer": "\x1b[31mred"}, "control_characters"),
    "an unknown split": ({"split": "dev"}, "unknown_split"),
}
"""What a row says, in a source of strings."""

Container = Literal["folder", "parquet", "webdataset"]
CONTAINERS: tuple[Container, ...] = ("folder", "parquet", "webdataset")


def source(kind: Container, folder: Path, broken: bytes, told: dict[str, Any]) -> Recordings:
    """A source of three rows; the one in the middle has these bytes and says ``told``."""
    rows = [
        {"text": "first", "answer": None, "split": None},
        {"text": "middle", "answer": None, "split": None, **told},
        {"text": "last", "answer": None, "split": None},
    ]
    audio = [sound(10), broken, sound(12)]
    if kind == "folder":
        for number, data in enumerate(audio):
            (folder / f"{number}.wav").write_bytes(data)
        json_file(folder / "metadata.jsonl", [{"file_name": f"{n}.wav", **row} for n, row in enumerate(rows)])
    elif kind == "parquet":
        texts = [(name, pa.string()) for name in ("text", "answer", "split")]
        table = [{"audio": data, **row} for data, row in zip(audio, rows, strict=True)]
        parquet_file(folder / "rows.parquet", table, pa.schema([("audio", pa.binary()), *texts]))
    else:
        members = [
            [(f"{n}.wav", data), (f"{n}.json", json.dumps(row).encode())]
            for n, (data, row) in enumerate(zip(audio, rows, strict=True))
        ]
        tar_file(folder / "rows.tar", [member for own in members for member in own])
    return Recordings(kind=kind, path=str(folder))


def check_middle_is_set_aside(read: Read, reasons: str) -> None:
    assert [row.text for row in read.rows] == ["first", "last"]
    (rejected,) = read.rejected
    assert rejected.reason in reasons.split()
    assert (rejected.line, rejected.source) == (2, "data.sources.0")
    assert rejected.detail
    assert len(rejected.detail) < 500
    (tally,) = read.tallies.values()
    assert (tally.lines, tally.kept, tally.set_aside, tally.rows) == (3, 2, 1, 2)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", AUDIO)
def test_a_broken_recording_is_set_aside(tmp_path: Path, kind: Container, name: str) -> None:
    data, reasons = AUDIO[name]
    check_middle_is_set_aside(Read([source(kind, tmp_path, data, {})], max_seconds=1.0), reasons)


@pytest.mark.parametrize("kind", CONTAINERS)
@pytest.mark.parametrize("name", FIELDS)
def test_a_broken_row_is_set_aside(tmp_path: Path, kind: Container, name: str) -> None:
    told, reason = FIELDS[name]
    check_middle_is_set_aside(Read([source(kind, tmp_path, sound(11), told)]), reason)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{not json", "invalid_json"),
        (b"[]", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"file_name": "1.wav", "text": "\\ud800"}', "invalid_json"),
        (b'{"file_name": "1.wav", "text": "x", "speaker": ' + b"9" * 5000 + b"}", "invalid_json"),
        (b'{"file_name": "1.wav", "text": "\xff\xfe"}', "invalid_utf8"),
        (b"\xff\xfe{\0}\0", "invalid_utf8"),
        (b'{"text": "' + b"x" * MAX_LINE + b'"}', "too_large"),
        (b'{"file_name": "0.wav", "text": "again"}', "duplicate_file"),
        (b'{"file_name": "copy.wav", "text": "first"}', "duplicate_row"),
        (b'{"file_name": "../outside.wav", "text": "x"}', "outside_folder"),
        (b'{"file_name": "/etc/hostname", "text": "x"}', "outside_folder"),
        (b'{"file_name": "C:\\\\x.wav", "text": "x"}', "outside_folder"),
        (b'{"file_name": "s3://other/x.wav", "text": "x"}', "outside_folder"),
        (b'{"file_name": "link.wav", "text": "x"}', "outside_folder"),
        (b'{"file_name": "/dev/zero", "text": "x"}', "outside_folder"),
        (b'{"file_name": "zero.wav", "text": "x"}', "outside_folder"),  # a link to /dev/zero
        (b'{"file_name": "absent.wav", "text": "x"}', "missing"),
        (b'{"file_name": "a\\u0000b.wav", "text": "x"}', "unreadable"),
        (b'{"file_name": ["1.wav"], "text": "x"}', "no_file_name"),
        (b'{"file_name": "1.wav", "text": "x", "license": NaN}', "bad_field"),
    ],
    ids=lambda value: value[:40].decode("latin1") if isinstance(value, bytes) else value,
)
def test_a_broken_line_of_an_audio_folder_is_set_aside(tmp_path: Path, line: bytes, reason: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, seed in (("0.wav", 10), ("1.wav", 11), ("2.wav", 12), ("copy.wav", 10)):
        (folder / name).write_bytes(sound(seed))
    (tmp_path / "outside.wav").write_bytes(sound(3))
    (folder / "link.wav").symlink_to(tmp_path / "outside.wav")
    (folder / "zero.wav").symlink_to("/dev/zero")
    good = [{"file_name": "0.wav", "text": "first"}, {"file_name": "2.wav", "text": "last"}]
    json_file(folder / "metadata.jsonl", [good[0], line, good[1]])
    check_middle_is_set_aside(Read([Recordings(kind="folder", path=str(folder))]), reason)


def entry(name: str, kind: bytes, target: str = "", size: int = 0) -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname, found.size = kind, target, size
    return found


TOLD = json.dumps({"text": "middle"}).encode()
MEMBERS: dict[str, tuple[Tar, str]] = {
    "a name with ..": ([("../m.wav", sound(11)), ("../m.json", TOLD)], "outside_folder"),
    ".. in the middle": ([("a/../../m.wav", sound(11)), ("a/../../m.json", TOLD)], "outside_folder"),
    "an absolute name": ([("/etc/m.wav", sound(11)), ("/etc/m.json", TOLD)], "outside_folder"),
    "a symbolic link": ([entry("m.wav", tarfile.SYMTYPE, "/etc/hostname"), ("m.json", TOLD)], "not_a_file"),
    "a hard link": ([entry("m.wav", tarfile.LNKTYPE, "0.wav"), ("m.json", TOLD)], "not_a_file"),
    "a character device": ([entry("m.wav", tarfile.CHRTYPE), ("m.json", TOLD)], "not_a_file"),
    "a block device": ([entry("m.wav", tarfile.BLKTYPE), ("m.json", TOLD)], "not_a_file"),
    "a named pipe": ([entry("m.wav", tarfile.FIFOTYPE), ("m.json", TOLD)], "not_a_file"),
    "no recording": ([("m.json", TOLD)], "no_audio"),
    "two recordings": ([("m.wav", sound(11)), ("m.flac", sound(11)), ("m.json", TOLD)], "no_audio"),
    "a recording twice": ([("m.wav", sound(11)), ("m.wav", sound(11)), ("m.json", TOLD)], "duplicate_file"),
    "nothing said": ([("m.wav", sound(11))], "no_text"),
    "broken JSON": ([("m.wav", sound(11)), ("m.json", b"{")], "invalid_json"),
    "JSON that is no object": ([("m.wav", sound(11)), ("m.json", b"[1]")], "invalid_json"),
    "text that is not UTF-8": ([("m.wav", sound(11)), ("m.txt", b"\xff\xfe")], "invalid_utf8"),
    "17 MB of JSON": ([("m.wav", sound(11)), ("m.json", b" " * (MAX_LINE + 1))], "too_large"),
}


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT], ids=["pax", "gnu"])
@pytest.mark.parametrize("name", MEMBERS)
def test_a_broken_sample_of_a_tar_is_set_aside(tmp_path: Path, name: str, form: int) -> None:
    members, reason = MEMBERS[name]
    path = tar_file(
        tmp_path / "x.tar", [*sample("0", 10, text="first"), *members, *sample("2", 12, text="last")], "w", form
    )
    check_middle_is_set_aside(Read([Recordings(kind="webdataset", path=str(path))]), reason)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2 + 300]


def with_header(member: bytes) -> Callable[[bytes], bytes]:
    """A tar whose second half is replaced by these blocks."""
    return lambda data: data[: 2 * 512 + 2048 + 512] + member


def pax_header(size: int, content: bytes = b"") -> bytes:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, size
    return header.tobuf(tarfile.GNU_FORMAT) + content


def sized(size: int) -> bytes:
    header = tarfile.TarInfo("m.wav")
    header.size = size
    return header.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        lambda data: patched(data, 2 * 512 + 2048 + 512, b"\x55" * 512),
        with_header(b"\x99" * 512),
        with_header(pax_header(1 << 40)),
        with_header(pax_header(512, b"x" * 512)),
        with_header(sized(1 << 40)),
        with_header(sized(-5)),
        with_header(entry("m.wav", tarfile.GNUTYPE_SPARSE, size=1 << 40).tobuf(tarfile.GNU_FORMAT)),
    ],
    ids=["cut off", "overwritten", "no header", "huge pax", "bad pax", "huge member", "negative size", "sparse"],
)
def test_a_damaged_tar_gives_what_lies_before_the_damage_and_one_line_for_the_rest(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tar_file(tmp_path / "x.tar", [*sample("0", 10), *sample("1", 11), *sample("2", 12)])
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    good = tar_file(tmp_path / "y.tar", sample("9", 19))
    read = Read([Recordings(kind="webdataset", path=str(tmp_path))])
    assert read.rows[-1].text == "said 19", "the next tar is read"
    assert 1 <= len(read.rows) <= 3
    (rejected,) = read.rejected
    assert (rejected.reason, rejected.unit) == ("damaged_tar", "x.tar")
    assert rejected.line == len(read.rows)
    assert good.exists()


@pytest.mark.parametrize(
    "damage", [lambda data: data[: len(data) // 2], lambda data: b"no gzip", lambda data: patched(data, 99, b"x" * 50)]
)
def test_a_damaged_gzip_is_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    path = tar_file(tmp_path / "x.tar.gz", [*sample("0", 10), *sample("1", 11)], "w:gz")
    path.write_bytes(damage(path.read_bytes()))
    tar_file(tmp_path / "y.tar", sample("9", 19))
    read = Read([Recordings(kind="webdataset", path=str(tmp_path))])
    assert read.reasons == {"damaged_tar": 1}
    assert read.rows[-1].text == "said 19"


def test_a_bomb_of_zeros_in_a_gzip_is_not_unpacked_into_memory(tmp_path: Path) -> None:
    """2 GiB that a header promises as one recording: more than is ever read of one."""
    import tracemalloc

    header = sized(2 << 30)
    with gzip.open(tmp_path / "x.tar.gz", "wb", compresslevel=1) as bomb:
        bomb.write(header)
        for _ in range(64):  # a tenth of what it promises is enough to be noticed
            bomb.write(bytes(1 << 20))
    tar_file(tmp_path / "y.tar", sample("9", 19))
    tracemalloc.start()
    read = Read([Recordings(kind="webdataset", path=str(tmp_path))])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.reasons == {"damaged_tar": 1}
    assert peak < 32 << 20


AUDIO_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
HUGGING_FACE = pa.schema([("audio", AUDIO_STRUCT), ("text", pa.string())])


@pytest.mark.parametrize(
    ("audio", "reason"),
    [
        (None, "no_audio"),
        ({"bytes": None, "path": None}, "no_audio"),
        ({"bytes": None, "path": ""}, "no_audio"),
        ({"bytes": None, "path": "absent.wav"}, "missing"),
        ({"bytes": None, "path": "../outside.wav"}, "outside_folder"),
        ({"bytes": None, "path": "/etc/hostname"}, "outside_folder"),
        ({"bytes": None, "path": "link.wav"}, "outside_folder"),
        ({"bytes": None, "path": "https://example.org/a.wav"}, "outside_folder"),
        ({"bytes": b"", "path": "a.wav"}, "empty"),
    ],
)
def test_a_broken_cell_of_a_hugging_face_table_is_set_aside(tmp_path: Path, audio: Any, reason: str) -> None:
    folder = tmp_path / "folder"
    (tmp_path / "outside.wav").write_bytes(sound(3))
    rows = [
        {"audio": {"bytes": sound(10), "path": "a.wav"}, "text": "first"},
        {"audio": audio, "text": "middle"},
        {"audio": {"bytes": sound(12), "path": "c.wav"}, "text": "last"},
    ]
    parquet_file(folder / "rows.parquet", rows, HUGGING_FACE)
    (folder / "link.wav").symlink_to(tmp_path / "outside.wav")
    check_middle_is_set_aside(Read([Recordings(kind="parquet", path=str(folder))]), reason)


def test_text_that_is_not_utf8_in_a_table_is_set_aside(tmp_path: Path) -> None:
    raw = pa.array([b"first", b"\xff\xfe", b"last"], pa.binary())
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    table = pa.table({"audio": pa.array([sound(10), sound(11), sound(12)], pa.binary()), "text": text})
    pq.write_table(table, tmp_path / "rows.parquet")
    check_middle_is_set_aside(Read([Recordings(kind="parquet", path=str(tmp_path))]), "invalid_utf8")


@pytest.mark.parametrize(
    "content",
    [b"", b"PAR1", b"PAR1" + bytes(40) + b"PAR1", b"PAR1" + b"\xff" * 100 + struct.pack("<I", 80) + b"PAR1", b"{}\n"],
    ids=["empty", "magic", "zeros", "bad footer", "json"],
)
def test_a_file_that_is_no_parquet_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    parquet_file(tmp_path / "b.parquet", [{"audio": sound(1), "text": "good"}])
    read = Read([Recordings(kind="parquet", path=str(tmp_path))])
    assert [row.text for row in read.rows] == ["good"]
    assert [(entry.reason, entry.line, entry.unit) for entry in read.rejected] == [("unreadable", 0, "a.parquet")]


@pytest.mark.parametrize("column", [{"sound": b"x"}, {"audio": "a.wav"}, {"audio": 7}, {"audio": {"path": "x"}}])
def test_a_table_without_a_column_of_sound_is_set_aside_row_by_row(tmp_path: Path, column: dict[str, Any]) -> None:
    parquet_file(tmp_path / "a.parquet", [{**column, "text": "x"}] * 3)
    parquet_file(tmp_path / "b.parquet", [{"audio": sound(1), "text": "good"}])
    read = Read([Recordings(kind="parquet", path=str(tmp_path))])
    assert (len(read.rows), read.reasons) == (1, {"no_column": 3})


def test_damaged_pages_cost_the_rows_of_their_group_and_no_others(tmp_path: Path) -> None:
    rows = [{"audio": sound(seed), "text": f"said {seed}"} for seed in range(12)]
    path = parquet_file(
        tmp_path / "rows.parquet",
        rows,
        row_group_size=4,
        write_page_checksum=True,
        compression="none",
        use_dictionary=False,
    )
    data = bytearray(path.read_bytes())
    middle = pq.read_metadata(path).row_group(1).column(0)
    at = middle.data_page_offset + middle.total_compressed_size // 2
    data[at : at + 50] = b"\x5a" * 50
    path.write_bytes(data)
    read = Read([Recordings(kind="parquet", path=str(path))])
    assert [row.text for row in read.rows] == [f"said {seed}" for seed in (0, 1, 2, 3, 8, 9, 10, 11)]
    assert [(entry.reason, entry.line) for entry in read.rejected] == [("unreadable", line) for line in (5, 6, 7, 8)]
    assert read.tallies["data.sources.0"].lines == 12


START, END = "<|sound_start|>", "<|sound_end|>"
STRINGS: dict[str, tuple[Any, str]] = {
    "no start mark": ("<|sound_0001|>" + END, "no_sound_start"),
    "no end mark": (START + "<|sound_0001|>", "no_sound_end"),
    "no marks": ("<|sound_0001|>", "no_sound_start"),
    "nothing between": (START + END, "no_sound"),
    "code 513": (tokens(1, 513), "code_out_of_range"),
    "code 9999": (tokens(9999), "code_out_of_range"),
    "three digits": (START + "<|sound_001|>" + END, "bad_token"),
    "digits of another script": (START + "<|sound_\u0660\u0660\u0660\u0661|>" + END, "bad_token"),
    "half a token": (START + "<|sound_0001" + END, "bad_token"),
    "another token": (START + "<|eot_id|>" + END, "bad_token"),
    "a space between": (START + "<|sound_0001|> <|sound_0002|>" + END, "stray_text"),
    "two sounds": (tokens(1) + tokens(2), "stray_text"),
    "a duration at the end": (START + "<|sound_0001|><|duration_03|>" + END, "bad_duration"),
    "two durations": (START + "<|duration_02|><|duration_03|><|sound_0001|>" + END, "bad_duration"),
    "a duration of one": (START + "<|duration_01|><|sound_0001|>" + END, "bad_duration"),
    "31 s": (tokens(*range(512), *range(264)), "too_long"),
    "no text": ("", "no_text"),
    "a number": (7, "no_text"),
}
CHATS: dict[str, tuple[Any, str]] = {
    "no list": ("hello", "bad_conversation"),
    "an empty list": ([], "bad_conversation"),
    "a string for a message": (["hi"], "bad_conversation"),
    "an unknown role": ([{"role": "tool", "content": "x"}, {"role": "assistant", "content": "y"}], "unknown_role"),
    "no content": ([{"role": "user"}, {"role": "assistant", "content": "y"}], "bad_conversation"),
    "the user twice": ([{"role": "user", "content": "x"}, {"role": "user", "content": "y"}], "bad_conversation"),
    "the last word is the user's": (chat(tokens(1), "yes", tokens(2)), "bad_conversation"),
    "an empty answer": (chat(tokens(1), " "), "no_text"),
    "a system message": ([{"role": "system", "content": "be kind"}, *chat("hi", "ho")], "system_message"),
    "sound and text by turns": (chat(tokens(1), "yes", "and you", "no"), "mixed_turns"),
    "sound in an answer": (chat("say it", tokens(1)), "sound_in_answer"),
    "words before the sound": (chat("tell me about " + tokens(1), "yes"), "text_beside_sound"),
    "words behind the sound": (chat(tokens(1) + " please", "yes"), "no_sound_end"),
    "a broken sound": (chat(tokens(600), "yes"), "code_out_of_range"),
    "a control character": (chat("hi\x07", "ho"), "control_characters"),
}
BROKEN_STRINGS = [
    *(("text", *case) for case in STRINGS.values()),
    *(("conversations", *case) for case in CHATS.values()),
]


@pytest.mark.parametrize(
    ("column", "value", "reason"), BROKEN_STRINGS, ids=[*STRINGS, *(f"chat: {name}" for name in CHATS)]
)
def test_a_broken_token_string_is_set_aside(tmp_path: Path, column: str, value: Any, reason: str) -> None:
    lines = [{"text": tokens(1, 2)}, {column: value}, {"text": tokens(3, 4)}]
    path = json_file(tmp_path / "rows.jsonl", lines)
    read = Read([TokenStrings(kind="tokens", path=str(path), tokenizer="published")])
    assert [row.codes for row in read.rows] == [(1, 2), (3, 4)]
    assert [(entry.line, entry.reason) for entry in read.rejected] == [(2, reason)]


def test_there_are_more_than_forty_kinds() -> None:
    """Each reason of the tables above, by the cases that lead to it."""
    assert len(AUDIO) + len(FIELDS) + len(MEMBERS) + len(BROKEN_STRINGS) > 40


def test_one_of_everything_at_once_adds_up(tmp_path: Path) -> None:
    kinds = [Recordings(kind=kind, path=str(tmp_path / kind)) for kind in CONTAINERS]
    for kind in CONTAINERS:
        (tmp_path / kind).mkdir()
    cases = list(AUDIO.values())
    folder, table, tar = [tmp_path / kind for kind in CONTAINERS]
    for number, (data, _) in enumerate(cases):
        (folder / f"{number}.wav").write_bytes(data)
    (folder / "good.wav").write_bytes(sound(50))
    names = [*(f"{number}.wav" for number in range(len(cases))), "good.wav"]
    json_file(folder / "metadata.jsonl", [{"file_name": name, "text": name} for name in names])
    parquet_file(
        table / "a.parquet", [{"sound": data, "said": "x"} for data, _ in [*cases, (sound(51), "")]], row_group_size=7
    )
    members = [[(f"{n}.wav", data), (f"{n}.txt", b"x")] for n, (data, _) in enumerate([*cases, (sound(52), "")])]
    tar_file(tar / "a.tar", [member for own in members for member in own])
    kinds[1] = kinds[1].model_copy(update={"columns": Columns(audio="sound", text="said")})
    read = Read(kinds, max_seconds=1.0)
    assert len(read.rows) == 3
    for tally in read.tallies.values():
        assert (tally.lines, tally.kept, tally.set_aside) == (len(cases) + 1, 1, len(cases))
