"""Forward from a row and from a speaker, through artifacts of the real kinds in a store of the fake kind."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ichigo.cli.trace import as_data, lines
from ichigo.corpus.provenance import write_provenance
from ichigo.corpus.shards import read_shard, write_shards
from ichigo.corpus.texts import TextRow, write_texts
from ichigo.corpus.tokens import write_tokens
from ichigo.corpus.tracing import Trace, trace
from ichigo.registry.lookup import Registered
from ichigo.store import Artifact, Identity, MemoryObjects, Store
from tests.unit.test_corpus_tokenising import row
from tests.unit.test_step_samples import token_row

ROWS = [
    replace(row(number), speaker="anna" if number < 6 else "ben", audio=random.Random(number).randbytes(100_000))
    for number in range(12)
]
TRAINED, JUDGED, UNUSED = ROWS[1], ROWS[0], ROWS[2]  # every fifth is of split test


def write_items(folder: Path, ids: Sequence[str]) -> None:
    """The items of an evaluation, as far as a trace reads them."""
    pq.write_table(pa.table({"id": ids}), folder / "items.parquet")


class House:
    """corpus -> tokenizer, base; tokens -> mix -> pretrain -> instruct -> evaluation; and a model of another mix."""

    def __init__(self, scratch: Path) -> None:
        self.store, self.made = Store(MemoryObjects()), dict[str, Artifact]()
        self.scratch = scratch
        texts = [TextRow("7e" * 8, "written", "answer", "train"), TextRow("7f" * 8, "asked", "answer", "test")]
        self.make("corpus", {}, lambda folder: (write_shards(ROWS, folder, 2), write_texts(texts, folder)))
        corpus = read_shard(scratch / "corpus")
        tokens = [replace(token_row(0, one.text), id=one.id, speaker=one.speaker, split=one.split) for one in corpus]
        self.make("tokens", {"corpus": "corpus"}, lambda folder: write_tokens(tokens, folder))
        self.make("tokenizer", {"corpus": "corpus"}, lambda folder: (folder / "m").touch())
        self.make("base", {"corpus": "corpus"}, lambda folder: (folder / "m").touch())
        self.make("expanded", {"base": "base", "tokenizer": "tokenizer"}, lambda folder: (folder / "m").touch())
        drawn = [("sound", [TRAINED.id]), ("sound", [TRAINED.id]), ("speech", ["another", TRAINED.id])]
        self.make("mix", {"tokens-0": "tokens", "corpus": "corpus"}, lambda folder: self.provenance(folder, drawn))
        self.make("other-mix", {"tokens-0": "tokens"}, lambda folder: self.provenance(folder, [("sound", [UNUSED.id])]))
        self.make("model-pretrain", {"model": "expanded", "data": "mix"}, lambda folder: (folder / "m").touch())
        self.make("model-instruct", {"model": "model-pretrain", "data": "mix"}, lambda folder: (folder / "m").touch())
        asked = [JUDGED.id, JUDGED.id, "another"]
        inputs = {"model": "model-instruct", "tokens-0": "tokens"}
        self.make("evaluation", inputs, lambda folder: write_items(folder, asked))
        packed = {"model": "model-instruct", "tokenizer": "tokenizer"}
        self.make("package", packed, lambda folder: (folder / "m").touch())

    def make(self, name: str, parents: Mapping[str, str], fill: Callable[[Path], object]) -> None:
        kind = name.removeprefix("other-")
        references = {called: self.made[parent].reference for called, parent in parents.items()}
        with self.store.write(Identity(kind, {"name": name}, {}, ""), parents=references) as draft:
            fill(draft.folder)
        self.made[name] = draft.committed
        self.made[name].fetch(self.scratch / name)

    @staticmethod
    def provenance(folder: Path, samples: list[tuple[str, list[str]]]) -> None:
        write_provenance(samples, folder, "pretrain")
        write_provenance([], folder, "instruct")

    def uri(self, name: str) -> str:
        return self.made[name].reference.uri

    def trace(self, wanted: str) -> tuple[Trace, dict[str, list[str]]]:
        """What is found, and what of it is said of each artifact by its name here."""
        found = trace(wanted, self.store.every())
        names = {artifact.reference.uri: name for name, artifact in self.made.items()}
        return found, {names[use.uri]: [*use.how, *(f"{k}={v}" for k, v in use.counts.items())] for use in found.uses}


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


def test_a_training_row_leads_to_the_models_that_learned_from_it_and_to_no_evaluation(house: House) -> None:
    found, uses = house.trace(TRAINED.id)
    assert found.rows == {TRAINED.id: "train"}
    assert uses["corpus"] == uses["tokens"] == ["holds", "train=1"]
    assert uses["mix"] == ["made samples of them", "pretrain sound=2", "pretrain speech=1"]
    assert uses["tokenizer"] == ["was fitted to 1 of them"]
    assert "learned from them in pretrain: sound 2, speech 1" in uses["model-pretrain"]
    assert uses["model-instruct"] == ["stands on one that did (model)"]
    assert "other-mix" not in uses
    assert "base" not in uses
    assert found.judged == {}


def test_a_test_row_leads_to_the_evaluations_that_asked_it_and_into_no_model(house: House) -> None:
    found, uses = house.trace(JUDGED.id)
    assert set(uses) == {"corpus", "tokens", "evaluation"}
    assert found.trained == {}
    assert found.judged == {house.uri("model-instruct"): 2, house.uri("package"): 2}


def test_a_written_row_leads_to_the_base_that_read_it_and_what_stands_on_it(house: House) -> None:
    found, uses = house.trace("7e" * 8)
    assert uses["base"] == ["read 1 of them"]
    assert uses["expanded"] == ["stands on one that did (base)"]
    standing = ("base", "expanded", "model-pretrain", "model-instruct", "package")
    assert set(found.trained) == {house.uri(name) for name in standing}
    assert house.trace("7f" * 8)[0].trained == {}  # of split test


def test_a_speaker_is_all_of_their_rows(house: House) -> None:
    found, uses = house.trace("anna")
    assert found.rows == {one.id: one.split for one in ROWS[:6]}
    assert uses["corpus"] == ["holds", "test=2", "train=4"] or uses["corpus"] == ["holds", "train=4", "test=2"]
    assert "other-mix" in uses
    assert found.judged
    assert house.uri("model-pretrain") in found.trained
    assert house.trace("nobody")[0].rows == {}


def test_what_is_registered_is_named_with_what_it_was_used_for(house: House) -> None:
    model = Registered("tiny", "3", house.uri("package"), "", aliases=("champion",))
    other = Registered("tiny", "4", "s3://elsewhere/store/model/1/2", "")
    found, _ = house.trace("anna")
    said = lines("anna", found, [model, other], house.store.objects.uri)
    assert said[0] == "anna: 6 rows (2 test, 4 train)"
    assert said[-1] == "registered: tiny version 3 @champion: trained on them and judged by them"
    data = json.loads(json.dumps(as_data("anna", found, [model, other])))
    assert [(one["version"], one["judged"]) for one in data["versions"]] == [("3", 2)]
    assert data["rows"] == found.rows


def test_the_recordings_are_not_read(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = list[int]()
    whole = house.store.objects.get_range

    def counted(key: str, start: int, size: int) -> bytes:
        sizes.append(size)
        return whole(key, start, size)

    monkeypatch.setattr(house.store.objects, "get_range", counted)
    held = sum(file.size for file in house.made["corpus"].files if file.path.startswith("shard-"))
    trace("anna", [house.made["corpus"]])
    assert 0 < sum(sizes) < held / 4
