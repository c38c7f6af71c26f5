"""``ichigo evaluate``: whose rows are asked, what is asked, and what a reviewer finds, with a store in memory."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ichigo import recipe as recipes
from ichigo.cli import evaluate as verb
from ichigo.cli import naming
from ichigo.corpus.contamination import read_matches
from ichigo.corpus.texts import TextRow, write_texts
from ichigo.corpus.tokens import write_tokens
from ichigo.errors import UserError
from ichigo.evaluation.items import Report
from ichigo.evaluation.recount import recount
from ichigo.steps.evaluate import Subject, examine
from ichigo.steps.records import Records, RunRecord, save_recipe
from ichigo.store import Artifact, Identity, MemoryObjects, Store
from tests.unit.evaluation_support import make_base, make_model
from tests.unit.test_evaluation_step import spoken

HELD_OUT = [replace(spoken(at, "held_out"), text=f"question {at}", answer=f"answer {at}") for at in range(4)]
TRAINED = [replace(spoken(at, "", "train"), text=f"question {at}", suite="") for at in (2, 9)]
TRAINED[1] = replace(TRAINED[1], codes=HELD_OUT[3].codes)
WRITTEN = [
    TextRow("a" * 16, "turn on the light", "good morning", "test", "device", "text_held_out"),
    TextRow("b" * 16, "question 0", "answer 0", "train"),
]


class House:
    """A trained model with all that it was made of, and another model folder under the same contract."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(MemoryObjects())
        self.folder = folder
        base = make_base(folder / "base")
        self.model_folder = make_model(base, folder / "model")
        recipe = recipes.load("smoke").model_copy(update={"seed": 3})
        recipe = recipe.model_copy(update={"evaluation": recipe.evaluation.model_copy(update={"max_new_tokens": 4})})
        records = Records(self.store, "run-1")
        records.save_run(RunRecord("run-1", *save_recipe(self.store, recipe), "fingerprint", "7"))
        self.recipe = recipe
        corpus = self.make("corpus", {}, lambda at: write_texts(WRITTEN, at))
        self.base = self.make("base", {"corpus": corpus}, lambda at: shutil.copytree(base, at, dirs_exist_ok=True))
        tokenizer = self.make("tokenizer", {"corpus": corpus}, lambda at: (at / "tokenizer.json").write_text("{}"))
        tokens = self.make("tokens", {"corpus": corpus, "tokenizer": tokenizer}, self._tokens)
        mix = self.make("mix", {"tokens-0": tokens, "corpus": corpus, "base": self.base}, lambda at: (at / "m").touch())
        parents = {"data": mix, "base": self.base}
        self.model = self.make(
            "model-enhance", parents, lambda at: shutil.copytree(self.model_folder, at, dirs_exist_ok=True)
        )

    def _tokens(self, folder: Path) -> None:
        write_tokens([*HELD_OUT, *TRAINED], folder)
        shutil.copy(self.model_folder / "contract.json", folder)

    def make(self, kind: str, parents: Mapping[str, Artifact], fill: Any) -> Artifact:
        references = {name: one.reference for name, one in parents.items()}
        with self.store.write(Identity(kind, {}, {}, ""), parents=references, run="run-1") as draft:
            fill(draft.folder)
        return draft.committed


class Tracked:
    """Stands for MLflow's run tree: keeps what is logged."""

    begun: tuple[str, str, Mapping[str, Any], Mapping[str, str]]

    def __init__(self) -> None:
        self.parent, self.metrics, self.files, self.status = "run", dict[str, float](), list[str](), ""

    def begin_single(self, *begun: Any) -> Tracked:
        self.begun = begun
        return self

    def log_inputs(self, run: str, datasets: Sequence[Any]) -> None:
        self.inputs = [one.context for one in datasets]

    def log_metrics(self, run: str, metrics: Mapping[str, float]) -> None:
        self.metrics.update(metrics)

    def log_file(self, run: str, path: Path) -> None:
        self.files.append(path.name)

    def end(self, run: str, status: str = "FINISHED") -> None:
        self.status = status


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return House(tmp_path_factory.mktemp("house"))


@pytest.fixture
def tracked(house: House, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tracked:
    """Names that a registry would know lead to the house's model; what is logged is kept."""
    known = {"tiny@3": naming.Stored(house.model, "run-1", "tiny version 3")}
    lost = naming.Stored(house.model, "run-9", "tiny version 9")

    def stored(args: argparse.Namespace) -> naming.Stored:
        return {**known, "tiny@9": lost, "base": naming.Stored(house.base, "run-1", "a base")}[args.model]

    tree = Tracked()
    monkeypatch.setattr(naming, "stored", stored)
    monkeypatch.setattr(naming, "store_of", lambda artifact: house.store)
    monkeypatch.setattr(naming, "home_folder", lambda: tmp_path / "home")
    monkeypatch.setattr(naming, "on_disk", lambda artifact: _fetched(artifact, tmp_path / "cache"))
    monkeypatch.setattr("ichigo.tracking.runs.RunTree", tree)
    return tree


def _fetched(artifact: Artifact, cache: Path) -> Path:
    folder = cache / artifact.digest
    return folder if folder.exists() else artifact.fetch(folder)


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    return verb.main(parser.parse_args(list(words)))


def test_a_model_is_asked_the_rows_of_its_own_run_and_the_report_is_that_of_the_pipeline(
    house: House, tracked: Tracked, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("tiny@3", "--out", str(tmp_path / "one")) == 0
    report = Report.read(tmp_path / "one")
    assert (report.metrics["spoken.held_out.items"], report.seed) == (4, 3)
    assert report.systems["model"] == f"model-enhance {house.model.digest}"
    own = recount(report)
    assert own.items() <= report.metrics.items()
    assert {name.split(".")[0] for name in report.metrics.keys() - own.keys()} == {"contamination"}
    (tokenizer,) = [one for one in _ancestors(house) if one.reference.kind == "tokenizer"]
    subject = Subject(house.model, house.base, tokenizer)
    texts = [one for one in WRITTEN if one.split == "test"]
    assert examine(subject, HELD_OUT, texts, house.recipe.evaluation, 3).items == report.items
    assert run("tiny@3", "--out", str(tmp_path / "two")) == 0
    names = {"evaluation.json", "items.parquet", "contamination.parquet"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == names
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    out = capsys.readouterr().out
    assert "spoken answers: held-out questions, held-out voices" in out
    assert "note: text.held_out:" in out


def _ancestors(house: House) -> list[Artifact]:
    from ichigo.inference.chain import ancestors

    return list(ancestors(house.model, house.store))


def test_what_was_trained_on_is_told(house: House, tracked: Tracked, tmp_path: Path) -> None:
    """Question 2 was spoken in training and question 0 written; the sound of 3 was there under other words."""
    run("tiny@3", "--suite", "spoken.*", "--out", str(tmp_path))
    found = {(one.id, one.shared) for one in read_matches(tmp_path) if one.suite == "spoken.held_out"}
    assert found == {("row-0", "same_text"), ("row-2", "same_text"), ("row-2", "same_sound"), ("row-3", "same_sound")}
    metrics = Report.read(tmp_path).metrics
    assert metrics["contamination.spoken.held_out.same_text"] == 2
    assert metrics["contamination.spoken.held_out.same_sound"] == 2


def test_the_run_in_mlflow_names_the_model(house: House, tracked: Tracked, tmp_path: Path) -> None:
    run("tiny@3", "--suite", "text.*")
    experiment, key, params, tags = tracked.begun
    assert (experiment, params) == ("7", {"suites": "text.held_out, text.facts"})
    assert key.startswith(f"evaluate-{house.model.digest[:12]}-")
    assert tags["ichigo.evaluates"] == house.model.reference.uri
    assert (tags["ichigo.model"], tags["ichigo.model_digest"]) == ("tiny version 3", house.model.digest)
    assert tracked.status == "FINISHED"
    assert tracked.inputs == ["base", "tokens-0"]
    assert tracked.files == ["evaluation.json", "items.parquet", "contamination.parquet"]
    report = Report.read(tmp_path / "home" / "evaluations" / house.model.digest[:12])
    assert tracked.metrics == report.metrics


def test_a_folder_is_asked_the_rows_of_a_model_that_has_some(house: House, tracked: Tracked, tmp_path: Path) -> None:
    folder = str(house.model_folder)
    with pytest.raises(UserError, match="add --rows MODEL"):
        run(folder)
    run(folder, "--rows", "tiny@3", "--out", str(tmp_path / "one"))
    run("tiny@3", "--out", str(tmp_path / "two"))
    one, two = Report.read(tmp_path / "one"), Report.read(tmp_path / "two")
    assert (one.items, one.metrics) == (two.items, two.metrics)
    assert one.systems["model"] == "folder model"


def test_what_cannot_be_evaluated_is_said(house: House, tracked: Tracked) -> None:
    with pytest.raises(UserError, match="tiny version 9: the store has no run 'run-9'"):
        run("tiny@9")
    with pytest.raises(UserError, match="descends from no base and no tokenizer and no tokens:"):
        run("base")
    with pytest.raises(UserError, match=r"no suite is called recal\.\*; .* recall\.seen"):
        run("tiny@3", "--suite", "recal.*")
    assert not hasattr(tracked, "begun"), "nothing is logged"
