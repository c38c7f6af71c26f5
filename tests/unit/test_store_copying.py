"""A chain in another store: what travels, what does not, and that the copy is vouched for without the original."""

from __future__ import annotations

import math
from collections.abc import Collection

import pytest

from ichigo.cli.verify import tree
from ichigo.errors import IntegrityError, UserError
from ichigo.inference.chain import ancestors
from ichigo.store import MemoryObjects, Store
from ichigo.store.copying import copy
from ichigo.store.garbage import find
from ichigo.store.verification import Finding, Wanted, verify
from tests.unit.test_store_verification import Chain


class Moved:
    """The chain of :class:`Chain`, copied; the model travels with its bytes, and whatever else is named."""

    def __init__(self, chain: Chain, *with_bytes: str) -> None:
        self.chain, self.target = chain, Store(MemoryObjects("s3://other/prod"))
        self.uris = self.again("model", *with_bytes)

    def again(self, *with_bytes: str) -> list[str]:
        chosen: Collection[str] = {self.chain.made[kind].reference.uri for kind in with_bytes}
        return copy(self.chain.made.values(), self.chain.store, self.target, chosen)

    def verify(self) -> dict[str, Finding]:
        model = self.chain.made["model"].reference
        found = verify(self.target, [Wanted(self.uris[-1], model.manifest, model.digest)])
        return {finding.uri.split("/")[4]: finding for finding in found}


@pytest.fixture
def moved() -> Moved:
    return Moved(Chain())


def test_the_model_comes_with_its_bytes_and_its_past_as_manifests(moved: Moved) -> None:
    found = moved.verify()
    assert {kind: one.status for kind, one in found.items()} == {
        "model": "ok",
        "corpus": "away",
        "mix": "away",
        "tokens": "away",
    }
    held = [key for key, _ in moved.target.objects.list("corpus/")]
    assert [key.rpartition("/")[2] for key in held] == ["manifest.json", "COMMITTED.json"]
    copied, original = moved.target.open_uri(moved.uris[-1]), moved.chain.made["model"]
    assert (copied.digest, copied.reference.manifest) == (original.digest, original.reference.manifest)


def test_the_copy_is_checked_without_the_original(moved: Moved) -> None:
    before = moved.verify()
    moved.chain.objects.data.clear()
    assert moved.verify() == before
    model = moved.target.open_uri(moved.uris[-1])
    assert sorted(one.reference.kind for one in ancestors(model, moved.target)) == ["corpus", "mix", "tokens"]


def test_whoever_reads_the_tree_is_told_where_the_bytes_are(moved: Moved) -> None:
    lines = tree(list(moved.verify().values()), [moved.uris[-1]], moved.target.objects.uri)
    corpus = moved.chain.made["corpus"].reference.uri
    assert any(line.strip() == f"its manifest; the bytes lie at {corpus}" for line in lines)
    assert lines[-1].startswith("everything is as committed: 4 artifacts, 2 files")


def test_an_exchanged_manifest_in_the_copy_is_found(moved: Moved) -> None:
    key = next(key for key, _ in moved.target.objects.list("mix/") if key.endswith("manifest.json"))
    body = moved.target.objects.get(key)
    moved.target.objects.put(key, body.replace(b'"recipe":""', b'"recipe":"x"'))
    assert moved.verify()["mix"].status == "damaged"


def test_damaged_bytes_are_not_copied(moved: Moved) -> None:
    chain = Chain()
    chain.objects.put(chain.key("model", "data.bin"), b"something else")
    with pytest.raises(IntegrityError, match="the stored bytes changed"):
        Moved(chain)


def test_what_was_left_behind_can_follow_and_what_is_there_is_not_sent_again(moved: Moved) -> None:
    sent: list[str] = []
    put = moved.target.objects.put_file

    def counted(key: str, path: object) -> None:
        sent.append(key.rpartition("/")[2])
        put(key, path)  # type: ignore[arg-type]

    moved.target.objects.put_file = counted  # type: ignore[method-assign]
    damaged = next(key for key, _ in moved.target.objects.list("model/") if key.endswith("data.bin"))
    moved.target.objects.put(damaged, b"x" * len(moved.target.objects.get(damaged)))
    moved.again("model", "corpus")
    assert sorted(sent) == ["data.bin", "data.bin", "more"]  # the damaged one, and the corpus
    assert {kind: one.status for kind, one in moved.verify().items()}["corpus"] == "ok"
    moved.again("model")  # a later copy without it takes nothing away
    assert moved.verify()["corpus"].status == "ok"


def test_a_run_in_the_other_store_does_not_take_a_manifest_for_an_artifact(moved: Moved) -> None:
    assert moved.target.find(moved.chain.made["corpus"].identity) is None
    assert moved.target.find(moved.chain.made["model"].identity) is not None


def test_garbage_collection_keeps_the_past_of_a_copy(moved: Moved) -> None:
    """Its manifests name each other by addresses of the old store; pointers may have moved on since."""
    for key, _ in list(moved.target.objects.list("")):
        if key.endswith("COMMITTED.json"):
            moved.target.objects.delete(key)
    assert find(moved.target, [moved.uris[-1]], math.inf) == []
    assert len(find(moved.target, [], math.inf)) == 4


def test_a_pointer_to_another_attempt_stays(moved: Moved) -> None:
    with moved.target.write(moved.chain.made["mix"].identity, parents={}) as draft:
        (draft.folder / "data.bin").write_bytes(b"made here")
    moved.again("model")
    own = moved.target.find(moved.chain.made["mix"].identity)
    assert own is not None
    assert own.reference.uri == draft.committed.reference.uri


def test_a_store_is_not_copied_into_itself() -> None:
    chain = Chain()
    with pytest.raises(UserError, match="is the store that the model lies in"):
        copy([chain.made["model"]], chain.store, chain.store, ())
