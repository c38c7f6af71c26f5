"""From a model's artifact to folders on disk, on the fake store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from ichigo.errors import ContractError, IntegrityError, ModelError
from ichigo.inference.chain import local_folder, tokenizer_of
from ichigo.store import Artifact, Identity, MemoryObjects, Store


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def store(objects: MemoryObjects) -> Store:
    return Store(objects)


def commit(store: Store, kind: str, files: Mapping[str, object], parents: Mapping[str, Artifact]) -> Artifact:
    identity = Identity(kind, {"files": json.dumps(files)}, {name: one.digest for name, one in parents.items()}, "code")
    with store.write(identity, parents={name: one.reference for name, one in parents.items()}) as draft:
        for name, content in files.items():
            (draft.folder / name).write_text(json.dumps(content))
    return draft.committed


def tokenizer(store: Store, identity: str) -> Artifact:
    return commit(store, "tokenizer", {"tokenizer.json": {"identity": identity}}, {})


def model(store: Store, wanted: str, tokenizers: list[Artifact]) -> Artifact:
    """model <- mix <- tokens <- tokenizer, and model <- expanded <- base."""
    tokens = [commit(store, "tokens", {"n": n}, {"tokenizer": one}) for n, one in enumerate(tokenizers)]
    base = commit(store, "base", {"tokenizer.json": {"identity": wanted}}, {})  # a text tokenizer of the same file name
    mix = commit(store, "mix", {"x": 1}, {"base": base, **{f"tokens-{n}": one for n, one in enumerate(tokens)}})
    expanded = commit(store, "expanded", {"x": 2}, {"base": base})
    contract = {"contract.json": {"speech_tokenizer": wanted}}
    return commit(store, "model-enhance", contract, {"model": expanded, "data": mix})


def test_the_tokenizer_is_found_among_all_ancestors_by_its_identity(store: Store) -> None:
    others, wanted = tokenizer(store, "aaaa"), tokenizer(store, "bbbb")
    assert tokenizer_of(model(store, "bbbb", [others, wanted]), store).reference == wanted.reference


def test_a_tokenizer_of_another_identity_is_refused(store: Store) -> None:
    with pytest.raises(ContractError, match=r"names the speech tokenizer cccc.*identity aaaa.*identity bbbb"):
        tokenizer_of(model(store, "cccc", [tokenizer(store, "aaaa"), tokenizer(store, "bbbb")]), store)


def test_a_model_without_such_an_ancestor_says_what_to_do(store: Store) -> None:
    with pytest.raises(ModelError, match="--tokenizer"):
        tokenizer_of(model(store, "aaaa", []), store)


def test_what_is_no_model_is_named(store: Store) -> None:
    with pytest.raises(ModelError, match=r"tokenizer/.* holds no contract\.json"):
        tokenizer_of(tokenizer(store, "aaaa"), store)


def test_an_artifact_is_downloaded_once(store: Store, objects: MemoryObjects, tmp_path: Path) -> None:
    artifact = commit(store, "model", {"a.json": 1, "b.json": 2}, {})
    folder = local_folder(artifact, tmp_path / "cache")
    assert folder == tmp_path / "cache" / artifact.digest
    assert {path.name: path.read_text() for path in folder.iterdir()} == {"a.json": "1", "b.json": "2"}
    objects.data.clear()
    assert local_folder(artifact, tmp_path / "cache") == folder
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [artifact.digest]


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_copy_is_downloaded_again(store: Store, tmp_path: Path, damage: str) -> None:
    artifact = commit(store, "model", {"a.json": "long enough", "b.json": 2}, {})
    file = local_folder(artifact, tmp_path) / "a.json"
    if damage == "cut":
        file.write_text("lo")
    else:
        file.unlink()
    assert (local_folder(artifact, tmp_path) / "a.json").read_text() == '"long enough"'


def test_wrong_bytes_in_the_store_never_reach_the_cache(store: Store, objects: MemoryObjects, tmp_path: Path) -> None:
    artifact = commit(store, "model", {"a.json": 1}, {})
    key = next(key for key in objects.data if key.endswith("a.json"))
    objects.data[key] = b"7"
    with pytest.raises(IntegrityError, match="SHA-256"):
        local_folder(artifact, tmp_path)
    assert list(tmp_path.iterdir()) == []


class TestOpenByAddress:
    """``Store.open_uri``."""

    def test_it_is_the_artifact_of_the_reference(self, store: Store) -> None:
        artifact = tokenizer(store, "aaaa")
        assert store.open_uri(artifact.reference.uri) == store.open(artifact.reference)

    def test_an_attempt_that_a_later_one_replaced_still_opens(self, store: Store) -> None:
        first = tokenizer(store, "aaaa")
        second = tokenizer(store, "aaaa")
        assert first.reference.uri != second.reference.uri
        assert store.open_uri(first.reference.uri).reference == first.reference

    def test_an_exchanged_manifest_is_refused(self, store: Store, objects: MemoryObjects) -> None:
        artifact = tokenizer(store, "aaaa")
        key = next(key for key in objects.data if key.endswith("manifest.json"))
        objects.data[key] = objects.data[key].replace(b'"run":""', b'"run":"x"')
        with pytest.raises(IntegrityError, match="not the manifest"):
            store.open_uri(artifact.reference.uri)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda uri: uri.replace("tokenizer/", "tokeniser/"), "never committed"),
            (lambda uri: f"{uri}0", "never finished"),
            (lambda uri: uri.rpartition("/")[0], "no address of an artifact"),
            (lambda uri: uri.replace("s3://memory", "s3://other"), "does not lie in the store"),
        ],
        ids=["kind", "attempt", "too short", "other store"],
    )
    def test_an_address_where_nothing_lies(self, store: Store, change: Callable[[str], str], message: str) -> None:
        uri = tokenizer(store, "aaaa").reference.uri
        with pytest.raises(IntegrityError, match=message):
            store.open_uri(change(uri))
