"""Artifacts on the fake store, and their digests and fingerprints, which need no store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ichigo.errors import UserError
from ichigo.store import Identity, MemoryObjects, Objects, Reference, Store
from ichigo.store.objects import split_uri
from tests.store_contract import FILES, IDENTITY, ObjectsContract, StoreContract, commit, next_millisecond


@pytest.fixture
def objects() -> Objects:
    return MemoryObjects()


class TestMemoryObjects(ObjectsContract):
    """The fake keeps the same promises as the server."""


class TestArtifacts(StoreContract):
    """On the fake."""


def test_the_digest_says_what_an_artifact_is_and_not_how_it_came_to_be(objects: Objects) -> None:
    first = commit(objects, facts={"seconds": 1.5}, run="monday")
    other = replace(IDENTITY, settings={"steps": 11}, code="code-2")
    second = commit(MemoryObjects("s3://elsewhere/x"), identity=other, facts={"seconds": 9.0}, run="friday")
    assert first.reference.uri != second.reference.uri
    assert first.digest == second.digest


@pytest.mark.parametrize(
    "files",
    [
        FILES | {"model.bin": FILES["model.bin"][:-1] + b"\0"},
        {("renamed" if name == "model.bin" else name): data for name, data in FILES.items()},
        FILES | {"one more": b""},
        {name: FILES[name] for name in FILES if name != "nested/empty"},
    ],
    ids=["changed byte", "renamed", "added", "removed"],
)
def test_the_digest_changes_with_any_file(objects: Objects, files: dict[str, bytes]) -> None:
    assert commit(objects).digest != commit(objects, files).digest


def test_a_subset_digest_changes_only_with_the_files_below_the_prefix(objects: Objects) -> None:
    files = {"pretrain/data": b"1", "instruct/data": b"2", "instruct/index": b"3"}
    before = commit(objects, files)
    after = commit(objects, files | {"pretrain/data": b"changed", "enhance/data": b"new"})
    moved = commit(objects, {"instruct/data": b"3", "instruct/index": b"2"})
    assert before.subset_digest("instruct/") == after.subset_digest("instruct/")
    assert before.subset_digest("pretrain/") != after.subset_digest("pretrain/")
    assert before.subset_digest("instruct/") != moved.subset_digest("instruct/")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "corpus"},
        {"settings": {"steps": 10.5}},
        {"settings": {"steps": 10, "more": None}},
        {"inputs": {"corpus": "decaf"}},
        {"inputs": {"tokens": "c0ffee"}},
        {"code": "code-2"},
    ],
    ids=str,
)
def test_the_fingerprint_changes_with_everything_an_artifact_is_made_from(change: dict[str, Any]) -> None:
    assert replace(IDENTITY, **change).fingerprint != IDENTITY.fingerprint


def test_the_fingerprint_ignores_the_order_of_settings_and_inputs() -> None:
    """Or a dictionary built in another order would train a model again."""
    one = Identity("mix", {"a": {"x": 1, "y": 2}, "b": 3}, {"base": "1", "tokens": "2"}, "")
    two = Identity("mix", {"b": 3, "a": {"y": 2, "x": 1}}, {"tokens": "2", "base": "1"}, "")
    assert one.fingerprint == two.fingerprint


def test_recent_stops_at_twenty_identities(objects: Objects) -> None:
    """Every step that finds nothing to reuse reads them one by one."""
    for number in range(22):
        commit(objects, {"file": b"1"}, Identity("model", {"number": number}, {}, ""))
        next_millisecond()
    assert [identity.settings["number"] for identity in Store(objects).recent("model")] == list(range(21, 1, -1))


def test_a_reference_is_a_small_file_with_the_same_bytes_every_time(objects: Objects, tmp_path: Path) -> None:
    reference = commit(objects).reference
    for name in ("one", "two"):
        reference.save(tmp_path / name)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").stat().st_size < 500
    assert Reference.load(tmp_path / "one") == reference


@pytest.mark.parametrize("uri", ["", "s3://", "s3:///prefix", "/local/path", "gs://bucket/prefix", "bucket/prefix"])
def test_an_address_that_is_not_s3_is_refused(uri: str) -> None:
    with pytest.raises(UserError, match="s3://bucket/prefix"):
        split_uri(uri)


def test_an_address_is_split_into_bucket_and_prefix() -> None:
    assert split_uri("s3://bucket/some/prefix/") == ("bucket", "some/prefix")
    assert split_uri("s3://bucket") == ("bucket", "")
