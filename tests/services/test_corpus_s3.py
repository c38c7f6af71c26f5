"""Sources on a real S3 server give what the same sources give here, in ranges, and follow what is written there."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from ichigo.corpus.lines import Settings
from ichigo.corpus.sources import open_source, sources_digest
from ichigo.engines.platform import Endpoints
from ichigo.errors import DataError, PlatformError
from ichigo.recipe.schema import Data, Recordings, TokenStrings
from ichigo.store import open_objects
from tests.unit.corpus_support import Read, chat, json_file, parquet_file, sample, sound, tar_file, tokens


@pytest.fixture
def bucket(platform: Endpoints, platform_environment: None) -> str:
    """A prefix that nobody else uses."""
    return f"{platform.store}/sources-{secrets.token_hex(4)}"


def upload(folder: Path, place: str) -> None:
    objects = open_objects(place)
    for path in folder.rglob("*"):
        if path.is_file():
            objects.put_file(path.relative_to(folder).as_posix(), path)


def sources(folder: Path) -> list[Settings]:
    """A source of every kind, one row group of which is larger than a request."""
    for number in range(3):
        (folder / "audio" / "clips").mkdir(parents=True, exist_ok=True)
        (folder / "audio" / "clips" / f"{number}.wav").write_bytes(sound(number))
    lines = [{"file_name": f"clips/{number}.wav", "text": f"said {number}"} for number in range(4)]
    json_file(folder / "audio" / "metadata.jsonl", lines)
    long = [{"audio": sound(10 + n, 20.0, 48_000), "text": f"long {n}"} for n in range(6)]
    parquet_file(folder / "tables" / "a.parquet", long, row_group_size=4)
    tar_file(folder / "tars" / "a.tar", [*sample("x", 30), *sample("y", 31)])
    tar_file(folder / "tars" / "b.tar.gz", sample("z", 32), "w:gz")
    json_file(folder / "strings.jsonl", [{"text": tokens(1, 2)}, {"messages": chat("who is it", "me")}, {"text": "?"}])
    return [
        Recordings(kind="folder", path=str(folder / "audio")),
        Recordings(kind="parquet", path=str(folder / "tables" / "*.parquet")),
        Recordings(kind="webdataset", path=str(folder / "tars")),
        TokenStrings(kind="tokens", path=str(folder / "strings.jsonl"), tokenizer="published"),
    ]


def test_every_kind_of_source_reads_the_same_from_s3(tmp_path: Path, bucket: str) -> None:
    here = sources(tmp_path)
    upload(tmp_path, bucket)
    there = [one.model_copy(update={"path": one.path.replace(str(tmp_path), bucket)}) for one in here]
    local, remote = Read(here), Read(there)
    assert remote.rows == local.rows
    assert remote.texts == local.texts
    assert [(entry.line, entry.reason) for entry in remote.rejected] == [(4, "missing"), (3, "no_sound_start")]
    assert len(remote.rows) == 3 + 6 + 3 + 1


def test_the_digest_changes_when_something_is_written_again(tmp_path: Path, bucket: str) -> None:
    (_, tables, *_) = sources(tmp_path)
    upload(tmp_path, bucket)
    settings = tables.model_copy(update={"path": f"{bucket}/tables"})

    def digest() -> str:
        return sources_digest([open_source(settings, Data(), "data.sources.0")])

    before = digest()
    assert digest() == before
    parquet_file(tmp_path / "tables" / "a.parquet", [{"audio": sound(1), "text": "other"}])
    upload(tmp_path, bucket)
    assert digest() != before


def test_a_place_that_is_not_there_and_a_server_that_refuses_are_told_apart(
    bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Recordings(kind="parquet", path=f"{bucket}/nowhere")
    with pytest.raises(DataError, match="nothing lies there"):
        Read([settings])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PlatformError, match="refuses the credentials"):
        Read([settings])
