"""``ichigo gc``, ``verify`` and ``trace`` on real servers: what a registered model stands on stays, and is found."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from ichigo.cli.main import main
from ichigo.corpus.provenance import write_provenance
from ichigo.corpus.shards import write_shards
from ichigo.corpus.tokens import token_row, write_tokens
from ichigo.engines.platform import Endpoints
from ichigo.registry.lookup import registered
from ichigo.registry.models import MANIFEST, register
from ichigo.steps.records import Records, RunRecord, StepRecord
from ichigo.store import Artifact, Identity, Store
from ichigo.store.workplace import folder_of, workplace
from ichigo.tracking.runs import RunTree
from ichigo.training.checkpoint import finish_saving, saving_folder, seal
from ichigo.training.shelf import LINEAGE, Shelf, place_of
from tests.store_contract import key_of
from tests.unit.test_corpus_tokenising import rows

ROW = rows(12)[1]  # of split train


@dataclass
class House:
    """A store of its own on the platform, with a registered model, and what earlier attempts left beside it."""

    store: Store
    home: Path
    name: str
    made: dict[str, Artifact] = field(default_factory=dict)

    def make(self, kind: str, parents: Mapping[str, str], fill: Callable[[Path], object], code: str = "") -> Artifact:
        references = {name: self.made[parent].reference for name, parent in parents.items()}
        with self.store.write(Identity(kind, {}, {}, code), parents=references) as draft:
            fill(draft.folder)
        self.made[kind] = draft.committed
        return draft.committed

    def build(self) -> None:
        corpus = rows(12)
        self.make("corpus", {}, lambda folder: write_shards(corpus, folder, 1))
        codes = [token_row(one, np.arange(5, dtype=np.int16)) for one in corpus]
        self.make("tokens", {"corpus": "corpus"}, lambda folder: write_tokens(codes, folder))
        drawn = [("sound", [one.id]) for one in corpus if one.split == "train"]
        self.make("mix", {"tokens-0": "tokens"}, lambda folder: write_provenance(drawn, folder, "pretrain"))
        model = self.make("model-pretrain", {"data": "mix"}, lambda folder: (folder / "m").write_bytes(b"1" * 1000))
        tags = {MANIFEST: model.reference.manifest}
        register(self.name, model.reference.uri, model.digest, mlflow_run="", tags=tags, alias="champion")
        # The whole chain is replaced: no pointer names what the registered model stands on.
        for kind in ("corpus", "tokens", "mix", "model-pretrain"):
            self.store.objects.delete(self.pointer(kind))

    def pointer(self, kind: str) -> str:
        """The key of the pointer of an artifact of this kind."""
        return f"{key_of(self.store.objects, self.made[kind].reference, '').rsplit('/', 2)[0]}/COMMITTED.json"


@pytest.fixture
def house(platform: Endpoints, platform_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    own = f"{platform.store}/housekeeping-{secrets.token_hex(4)}"
    for name, value in (platform.environment() | {"ICHIGO_STORE": own, "ICHIGO_HOME": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    house = House(Store.at(own), tmp_path, f"kept-{secrets.token_hex(4)}")
    house.build()
    return house


def leave_work(name: str) -> None:
    """Finish a draft and do not commit it."""
    with suppress(RuntimeError), workplace(name, lasting=True) as place:
        place.finish({"facts": {}, "files": []})
        raise RuntimeError


def test_gc_lists_and_deletes_what_nobody_needs_and_nothing_of_a_registered_chain(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    chain = list(house.made.values())
    lost = house.make("lost", {}, lambda folder: (folder / "m").write_bytes(b"1" * 5000))
    house.make("lost", {}, lambda folder: (folder / "m").write_bytes(b"2"))
    running = house.make("running", {}, lambda folder: (folder / "m").write_bytes(b"3"))
    house.make("running", {}, lambda folder: (folder / "m").write_bytes(b"4"))
    records = Records(house.store, "a-run-that-goes-on")
    records.save_run(RunRecord("a-run-that-goes-on", "", "", ""))
    records.save_step(StepRecord("running", artifact={"kind": "running", "uri": running.reference.uri, "digest": ""}))

    leave_work("model-0")
    key = key_of(house.store.objects, lost.reference, "m")
    assert main(["gc", "--dry-run", "--older-than", "0m"]) == 0
    listed = capsys.readouterr().out
    assert key.rpartition("/")[0] in listed
    assert str(folder_of(house.home) / "model-0") in listed
    assert "in 2 places that nothing refers to" in listed
    assert main(["gc", "--older-than", "0m"]) == 0  # nobody to ask
    assert "nothing is deleted" in capsys.readouterr().out
    assert house.store.objects.get(key) == b"1" * 5000
    assert main(["gc", "--yes"]) == 0
    assert "in 0 places" in capsys.readouterr().out  # everything is young
    assert house.store.objects.get(key) == b"1" * 5000

    assert main(["gc", "--yes", "--older-than", "0m"]) == 0
    assert "deleted 2" in capsys.readouterr().out
    assert list(house.store.objects.list(key.rpartition("/")[0])) == []
    assert list(folder_of(house.home).iterdir()) == []
    for artifact in [*chain, running]:
        assert artifact.fetch(house.home / artifact.digest)
    assert main(["gc", "--dry-run", "--older-than", "0m"]) == 0
    assert "in 0 places" in capsys.readouterr().out


def test_gc_deletes_checkpoints_here_and_in_the_store_unless_their_training_runs(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = RunTree.begin("ichigo/housekeeping", secrets.token_hex(4), {}, {})
    lineages = {"running": secrets.token_hex(16), "abandoned": secrets.token_hex(16)}
    tree.set_tags(tree.parent, {LINEAGE: lineages["running"]})
    for lineage in lineages.values():
        with place_of(lineage) as place:
            save = saving_folder(place, 40, "0000000a")
            save.mkdir()
            (save / "zero.pt").write_bytes(b"1" * 1000)
            finish_saving(save)
            Shelf(place, house.store.objects, lineage).publish(seal(place / "00000040-0000000a", lineage, 1, 0), 2, 0)
    assert main(["gc", "--yes"]) == 0
    assert "in 0 places" in capsys.readouterr().out  # everything is young
    assert main(["gc", "--yes", "--older-than", "0m"]) == 0
    listed = capsys.readouterr().out
    assert "in 2 places" in listed
    assert listed.count("checkpoints of a training that nobody went on with") == 2
    tree.close("FINISHED", "")
    stay = lineages["running"]
    assert [path.name for path in (house.home / "checkpoints").iterdir()] == [stay]
    assert {key.split("/")[1] for key, _ in house.store.objects.list("checkpoints/")} == {stay}
    with place_of(stay) as place:
        shelf = Shelf(place, house.store.objects, stay)
        assert shelf.newest(shelf.published(), print) is not None


def test_verify_finds_a_flipped_bit_in_the_corpus_of_a_registered_model(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    for kind in ("corpus", "tokens", "mix", "model-pretrain"):  # give the pointers back
        one = house.made[kind].reference
        pointer = {"attempt": one.uri.rpartition("/")[2], "manifest": one.manifest}
        house.store.objects.put(house.pointer(kind), json.dumps(pointer).encode())
    assert main(["verify", f"{house.name}@champion"]) == 0
    assert "everything is as committed: 4 artifacts" in capsys.readouterr().out
    key = key_of(house.store.objects, house.made["corpus"].reference, "shard-00000.parquet")
    data = bytearray(house.store.objects.get(key))
    data[len(data) // 2] ^= 1
    house.store.objects.put(key, bytes(data))
    for what in (house.name, house.made["mix"].reference.uri):
        assert main(["verify", what]) == 4
        assert "shard-00000.parquet: SHA-256 is" in capsys.readouterr().out
    assert main(["verify", house.name, "--json"]) == 4
    found = {one["uri"]: one["status"] for one in json.loads(capsys.readouterr().out)}
    assert found[house.made["corpus"].reference.uri] == "damaged"
    assert sorted(found.values()) == ["damaged", "ok", "ok", "ok"]
    assert main(["verify", "no-such-model"]) == 2


def test_trace_names_the_registered_model_that_learned_from_a_row(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["trace", ROW.id]) == 0
    out = capsys.readouterr().out
    assert f"registered: {house.name} version 1 @champion: trained on them" in out
    assert "pretrain sound 1" in out
    assert main(["trace", ROW.speaker, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["versions"]] == [house.name]
    assert ROW.id in found["rows"]
    assert main(["trace", "nobody"]) == 2


def test_every_version_is_listed_with_its_aliases(house: House) -> None:
    own = [one for one in registered() if one.name == house.name]
    model = house.made["model-pretrain"]
    (found,) = own
    assert (found.version, found.uri, found.digest) == ("1", model.reference.uri, model.digest)
    assert (found.manifest, found.aliases) == (model.reference.manifest, ("champion",))
