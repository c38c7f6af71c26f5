"""A registered version in a second bucket and on a second MLflow: what arrives, and that it is checked on the way."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest

from ichigo.cli.main import main
from ichigo.engines.platform import Endpoints
from ichigo.inference.chain import tokenizer_of
from ichigo.recipe.schema import Rule
from ichigo.registry.gate import Evidence
from ichigo.registry.ledger import entries
from ichigo.registry.models import Record, record_of, register
from ichigo.registry.tags import CARD, COPIED_FROM, EVIDENCE, MANIFEST, VERDICT
from ichigo.registry.transfer import servers
from ichigo.store import Artifact, Identity, Store
from ichigo.tracking.runs import client
from tests.store_contract import key_of

METRIC = "spoken.exact_match"


@dataclass
class House:
    """A registered model with its past, a second bucket and a second MLflow database."""

    store: Store
    name: str
    bucket: str
    tracking: str
    made: dict[str, Artifact]

    def make(self, kind: str, files: dict[str, bytes], *parents: str) -> Artifact:
        references = {parent: self.made[parent].reference for parent in parents}
        with self.store.write(Identity(kind, {"of": self.name}, {}, ""), parents=references) as draft:
            for name, data in files.items():
                (draft.folder / name).write_bytes(data)
        self.made[kind] = draft.committed
        return draft.committed

    def build(self) -> None:
        self.make("corpus", {"shard-00000.parquet": b"somebody's voice"})
        self.make("tokenizer", {"tokenizer.json": json.dumps({"identity": self.name}).encode()}, "corpus")
        contract = {"contract.json": json.dumps({"speech_tokenizer": self.name}).encode()}
        model = self.make("model-enhance", {"weights": secrets.token_bytes(100_000), **contract}, "tokenizer")
        judged = self.make("evaluation", {"evaluation.json": b"{}"}, "model-enhance", "tokenizer")
        card = self.make("card", {"README.md": b"# card"}, "model-enhance", "evaluation")
        where = {"uri": judged.reference.uri, "digest": judged.digest, "manifest": judged.reference.manifest}
        record = Record(Evidence({METRIC: 0.6}, {"": "i"}), (Rule(metric=METRIC, at_least=0.5),), where)
        tags = {
            MANIFEST: model.reference.manifest,
            VERDICT: "promote",
            EVIDENCE: record.tag(),
            CARD: card.reference.uri,
        }
        about = {"mlflow_run": None, "tags": tags, "alias": "candidate", "description": "# card"}
        register(self.name, model.reference.uri, model.digest, **about)  # type: ignore[arg-type]

    def promote(self, *words: str) -> int:
        return main(["promote", f"{self.name}@1", "--to-store", f"s3://{self.bucket}/prod", *words])

    def there(self, kind: str, name: str) -> str:
        return key_of(self.store.objects, self.made[kind].reference, name)


@pytest.fixture
def house(platform: Endpoints, platform_environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    own = f"{platform.store}/transfer-{secrets.token_hex(4)}"
    monkeypatch.setenv("ICHIGO_STORE", own)
    bucket = f"prod-{secrets.token_hex(4)}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    house = House(Store.at(own), f"moved-{secrets.token_hex(4)}", bucket, f"sqlite:///{tmp_path}/prod.db", {})
    house.build()
    return house


def test_bytes_travel_to_another_bucket_and_server_and_the_past_as_manifests(
    house: House, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert house.promote("--to-tracking", house.tracking, "--reason", "for the fair") == 0
    said = capsys.readouterr().out
    assert "copied and read back: 4 artifacts, 5 files, 0.1 MiB; every digest as registered" in said
    assert "their past came as 1 manifests" in said
    model, target = house.made["model-enhance"], Store.at(f"s3://{house.bucket}/prod")
    with servers(house.tracking):
        found = client().get_model_version_by_alias(house.name, "candidate")
        ledger = entries(house.name)
        record = record_of(found)
    assert found.source == f"s3://{house.bucket}/prod/{key_of(house.store.objects, model.reference, '')}".rstrip("/")
    assert found.tags["ichigo.digest"] == model.digest
    assert found.tags[COPIED_FROM] == f"{house.name} version 1, {model.reference.uri}"
    assert found.description == "# card"
    assert [(entry.target, entry.reason) for entry in ledger] == [("candidate", "for the fair")]
    copied = target.open_uri(found.source)
    assert copied.reference.manifest == model.reference.manifest
    assert tokenizer_of(copied, target).digest == house.made["tokenizer"].digest
    assert target.open_uri(record.evaluation["uri"]).read_json("evaluation.json") == {}
    assert target.open_uri(found.tags[CARD]).digest == house.made["card"].digest
    assert [key.rpartition("/")[2] for key, _ in target.objects.list("corpus/")] == ["manifest.json", "COMMITTED.json"]
    for name in [name for name, _ in house.store.objects.list("")]:
        house.store.objects.delete(name)
    monkeypatch.setenv("ICHIGO_STORE", target.objects.uri)
    assert main(["verify", found.source]) == 0
    assert "the bytes lie at s3://" in capsys.readouterr().out


def test_a_copy_in_the_same_registry_has_a_name_of_its_own(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.promote() == 2
    assert "name another server with --to-tracking, or the copy with --to-name" in capsys.readouterr().err
    for _ in range(2):  # again: nothing is registered twice
        assert house.promote("--to-name", f"{house.name}.prod") == 0
    found = client().search_model_versions(f"name = '{house.name}.prod'")
    assert [str(version.source).startswith(f"s3://{house.bucket}/") for version in found] == [True]
    assert len(entries(f"{house.name}.prod")) == 1


def test_what_is_not_as_registered_is_neither_committed_nor_registered_there(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    house.store.objects.put(house.there("model-enhance", "weights"), secrets.token_bytes(100_000))
    assert house.promote("--to-name", f"{house.name}.prod") == 4
    assert "weights: SHA-256 is" in capsys.readouterr().err
    assert client().search_model_versions(f"name = '{house.name}.prod'") == []
    left = [key.rpartition("/")[2] for key, _ in Store.at(f"s3://{house.bucket}/prod").objects.list("model-enhance/")]
    assert set(left) <= {"contract.json"}  # files without a manifest are nothing that anybody opens


def test_a_ledger_elsewhere_is_not_written_from_here(house: House, capsys: pytest.CaptureFixture[str]) -> None:
    assert house.promote("--to", "champion", "--to-name", "x") == 2
    assert "copy first and promote there" in capsys.readouterr().err
