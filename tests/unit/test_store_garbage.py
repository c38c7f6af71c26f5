"""What may go and what must stay; the store's clock is set by hand."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

import pytest

from ichigo.errors import IntegrityError
from ichigo.store import Artifact, Identity, MemoryObjects, Store
from ichigo.store.artifacts import CHECKPOINTS
from ichigo.store.garbage import Garbage, find, sweep
from ichigo.store.objects import Upload
from tests.store_contract import Killed, Watched, commit

NOW = 10_000.0
LINEAGE = "ab" * 16


class House:
    """A store in which everything was written an hour before :data:`NOW`, unless said otherwise."""

    def __init__(self) -> None:
        self.objects = MemoryObjects()
        self.store = Store(self.objects)

    def make(self, kind: str, parents: Mapping[str, Artifact] | None = None, content: bytes = b"1") -> Artifact:
        identity, given = Identity(kind, {}, {name: one.digest for name, one in (parents or {}).items()}, ""), parents
        references = {name: one.reference for name, one in (given or {}).items()}
        with self.store.write(identity, parents=references) as draft:
            (draft.folder / "file").write_bytes(content)
        return draft.committed

    def find(self, *roots: Artifact, before: float = NOW - 60, training: Collection[str] = ()) -> list[Garbage]:
        for key in self.objects.data:
            self.objects.modified[key] = NOW - 3600
        return find(self.store, [one.reference.uri for one in roots], before, training)

    def places(self, *roots: Artifact, training: Collection[str] = ()) -> list[str]:
        return [one.place for one in self.find(*roots, training=training)]

    def save(self, *steps: int) -> None:
        """Checkpoints of :data:`LINEAGE`; the pointer names the last one."""
        names = [f"{step:08d}-0000000a" for step in steps]
        for name in names:
            self.objects.put(f"checkpoints/{LINEAGE}/{name}/state/zero.pt", b"1234")
        self.objects.put(f"checkpoints/{LINEAGE}/LATEST.json", json.dumps({names[-1]: "digest"}).encode())

    def place(self, artifact: Artifact) -> str:
        return artifact.reference.uri.removeprefix(f"{self.objects.uri}/") + "/"


@pytest.fixture
def house() -> House:
    return House()


def test_what_a_pointer_names_stays_with_all_that_it_descends_from(house: House) -> None:
    """Also a parent that another attempt has replaced since."""
    corpus = house.make("corpus")
    tokens = house.make("tokens", {"corpus": corpus})
    house.make("model", {"data": tokens})
    replaced = house.make("corpus", content=b"2")
    assert replaced.reference.uri != corpus.reference.uri
    assert house.find() == []


def test_a_replaced_attempt_that_nobody_needs_is_found_and_goes_manifest_first(house: House) -> None:
    old, new = house.make("model"), house.make("model", content=b"2")
    (found,) = house.find()
    assert (found.place, found.why) == (house.place(old), "replaced by a later attempt")
    assert found.size == sum(len(data) for key, data in house.objects.data.items() if key.startswith(found.place))
    assert found.keys[0] == f"{house.place(old)}manifest.json"
    sweep(house.store, found)
    assert house.find() == []
    assert house.store.open(new.reference) == new
    with pytest.raises(IntegrityError, match=r"has no manifest\.json"):
        house.store.open_uri(old.reference.uri)


def test_the_chain_of_a_root_stays_though_every_attempt_in_it_was_replaced(house: House) -> None:
    """A registered model points at an attempt, not at a pointer."""
    corpus = house.make("corpus")
    model = house.make("model", {"corpus": corpus})
    house.make("corpus", content=b"2")
    house.make("model", {"corpus": corpus}, content=b"2")
    for key in [key for key in house.objects.data if key.endswith("COMMITTED.json")]:
        house.objects.delete(key)
    left = house.places(model)
    assert house.place(model) not in left
    assert house.place(corpus) not in left
    assert len(left) == 2
    assert set(house.places()) == {*left, house.place(model), house.place(corpus)}


def test_an_upload_that_died_is_found_at_whatever_write_it_died(house: House) -> None:
    for last in (2, 3, 4, 5):

        def die(number: int, last: int = last) -> None:
            if number >= last:
                raise Killed

        with pytest.raises(Killed):
            commit(Watched(house.objects, die), identity=Identity("model", {"dies at": last}, {}, ""))
    assert sorted(one.why for one in house.find()) == [
        *["an upload that was never finished"] * 3,
        "never committed: it has no pointer",
    ]


def test_what_is_young_stays_whoever_refers_to_it(house: House) -> None:
    """Its writer may be about to write the pointer, or a second file."""
    house.make("model")
    house.make("model", content=b"2")
    assert house.find(before=NOW - 3601) == []
    (found,) = house.find()
    house.objects.modified[found.keys[-1]] = NOW
    assert find(house.store, [], NOW - 60) == []


def test_unfinished_uploads_in_parts_are_found_and_aborted(house: House) -> None:
    old, young = Upload("model/x/y/big", "1", NOW - 3600, 8 << 20), Upload("model/x/y/big", "2", NOW, 8 << 20)
    house.objects.unfinished = [old, young]
    (found,) = house.find()
    assert (found.upload, found.size) == (old, 8 << 20)
    sweep(house.store, found)
    assert house.objects.unfinished == [young]


def test_records_recipes_and_hints_are_no_garbage(house: House) -> None:
    house.make("model")
    for key in ("runs/k/run.json", "runs/k/steps/mix.json", "recipes/abc.json", "anything/else"):
        house.objects.put(key, b"{}")
    assert house.find() == []


def test_while_a_training_runs_its_checkpoints_stay_that_the_pointer_names(house: House) -> None:
    house.save(10, 20)
    assert house.places(training=[LINEAGE]) == [f"checkpoints/{LINEAGE}/00000010-0000000a/"]


def test_old_checkpoints_of_a_training_that_nobody_went_on_with_go_as_a_whole_and_the_pointer_first(
    house: House,
) -> None:
    house.save(10, 20)
    (found,) = house.find()
    assert (found.place, len(found.keys)) == (f"checkpoints/{LINEAGE}/", 3)
    assert found.keys[0] == f"checkpoints/{LINEAGE}/LATEST.json"
    sweep(house.store, found)
    assert house.objects.data == {}


def test_young_checkpoints_stay_for_the_run_that_may_go_on(house: House) -> None:
    house.save(10, 20)
    house.find()
    house.objects.modified[f"checkpoints/{LINEAGE}/00000020-0000000a/state/zero.pt"] = NOW
    assert [one.place for one in find(house.store, [], NOW - 60)] == [f"checkpoints/{LINEAGE}/00000010-0000000a/"]


def test_checkpoints_that_a_recipe_keeps_for_good_stay_as_long_as_the_model_that_came_of_them(house: House) -> None:
    """Also where only the registry, as a root, still refers to that model."""
    house.save(10, 20)
    with house.store.write(Identity("model", {}, {}, ""), parents={}) as draft:
        (draft.folder / "file").write_bytes(b"1")
        draft.facts[CHECKPOINTS] = LINEAGE
    kept = draft.committed
    assert house.places() == [f"checkpoints/{LINEAGE}/00000010-0000000a/"]
    house.make("model", content=b"2")
    assert house.places(kept) == [f"checkpoints/{LINEAGE}/00000010-0000000a/"]
    assert house.places() == [f"checkpoints/{LINEAGE}/", house.place(kept)]


def test_cached_tokens_stay_as_long_as_their_tokenizer(house: House) -> None:
    identity = "12" * 32
    with house.store.write(Identity("tokenizer", {}, {}, ""), parents={}) as draft:
        (draft.folder / "tokenizer.json").write_text(json.dumps({"identity": identity}))
    for tokenizer in (identity[:32], "34" * 16):
        house.objects.put(f"cache/tokens/{tokenizer}/code/corpus/shard-00000/00000-abc.parquet", b"1")
    assert house.places() == ["cache/tokens/" + "34" * 16 + "/"]


def test_nothing_is_found_where_a_live_manifest_cannot_be_read(house: House) -> None:
    """What it stands on may be anything."""
    model = house.make("model")
    house.make("model", content=b"2")
    house.objects.put(f"{house.place(model)}manifest.json", b"{")
    with pytest.raises(IntegrityError, match="nothing is deleted"):
        house.find(model)
