"""``ichigo look`` at a registered model of a world: what it draws, what it refuses, and what it compares with."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ichigo import recipe as recipes
from ichigo.cli.main import main
from ichigo.corpus.spoken import speak_reserved, world_variants
from ichigo.corpus.tokens import token_row, write_tokens
from ichigo.corpus.world import World
from ichigo.engines.platform import Endpoints
from ichigo.evaluation.look import MEASURES
from ichigo.registry.models import RUN_KEY, register
from ichigo.store import Store
from ichigo.tracking.runs import RunTree
from tests.services.world_model import RECIPE, WorldModel, finish_run
from tests.unit.model_folder import commit

EXACT, WER, REFUSED = MEASURES[0], MEASURES[3], MEASURES[4]
EVALUATION = {EXACT: 0.9, f"{EXACT}.low": 0.8, f"{EXACT}.high": 0.95, REFUSED: 0.0, f"{REFUSED}.low": 0.0} | {
    f"{REFUSED}.high": 0.01, "spoken.facts.exact_match": 0.5
}  # fmt: skip
assert RECIPE.data.world is not None
WORLD = World(RECIPE.data.world, RECIPE.seed)

Look = Callable[..., tuple[int, str, str]]

pytestmark = pytest.mark.usefixtures("platform_environment")


@pytest.fixture(scope="module")
def made(world_model: WorldModel, platform: Endpoints) -> WorldModel:
    """The model whose run has ended."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in platform.environment().items():
            patch.setenv(name, value)
        finish_run(Store.at(platform.store), world_model.run, EVALUATION)
    return world_model


@pytest.fixture
def look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Look:
    """Run ``ichigo look`` with 12 questions by 2 voices in an empty home; returns exit status, output and errors."""
    monkeypatch.setenv("ICHIGO_HOME", str(tmp_path / "home"))

    def run(model: str, *arguments: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["look", "--seed", "7", "--questions", "12", "--voices", "2", "--model", model, *arguments])
        return status, *capsys.readouterr()

    return run


def registered(made: WorldModel) -> str:
    name = f"tiny-{secrets.token_hex(4)}"
    run = RunTree.begin("ichigo/look", name, {}, {}).parent
    tags = {RUN_KEY: made.run}
    register(name, made.model.reference.uri, made.model.digest, mlflow_run=run, tags=tags, alias=None)
    return name


def test_a_registered_model_is_looked_at_beside_its_evaluation(look: Look, made: WorldModel) -> None:
    name = registered(made)
    status, out, err = look(name, "--json")
    assert status == 0, err
    report: dict[str, Any] = json.loads(out)
    assert (report["model"], report["run_key"], report["digest"]) == (f"{name} version 1", made.run, made.model.digest)
    assert set(report["voices"]) < set(world_variants(11, 5, RECIPE.seed)[2])
    assert (len(report["voices"]), report["questions"]) == (2, 12)
    lines = {line["metric"]: line for line in report["measures"]}
    assert lines.keys() == set(MEASURES)
    assert lines[EXACT]["look"]["value"] == 0, "random weights know nothing"
    assert (lines[EXACT]["evaluation"]["value"], lines[EXACT]["agreement"]) == (0.9, "apart")
    assert (lines[REFUSED]["look"]["value"], lines[REFUSED]["agreement"]) == (0.0, "within")
    assert (lines[WER]["evaluation"], lines[WER]["agreement"]) == ({}, "")
    assert lines[WER]["look"]["value"] > 0.9
    assert look(name, "--json")[1] == out, "a seed is a look"


def test_a_person_sees_a_table(look: Look, made: WorldModel) -> None:
    status, out, err = look(registered(made), "--voices", "1")
    assert status == 0, err
    assert "questions  12 new ones, drawn by seed 7" in out
    assert "voices     1 new ones: " in out
    assert [line.split()[-1] for line in out.splitlines() if "spoken answers" in line] == ["apart"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"text": "what is it", "answer": "it is this"}, "has the voices"),
        ({"speaker": "en+f1", "text": "do it", "split": "train"}, "1 of the questions or their answers"),
    ],
    ids=["voice", "question in another phrasing"],
)
def test_a_model_whose_data_has_one_of_them_is_refused(
    look: Look, made: WorldModel, platform: Endpoints, tmp_path: Path, change: dict[str, Any], complaint: str
) -> None:
    """Its recipe promises that they are reserved; the data decides."""
    drawn = next(speak_reserved(WORLD, questions=12, voices=2, seed=7, processes=1))
    write_tokens([token_row(replace(drawn, **change), np.zeros(9, np.int16))], tmp_path / "tokens")
    (tmp_path / "model").mkdir()
    made.model.fetch(tmp_path / "model")
    store = Store.at(platform.store)
    tokens = commit(store, "tokens", tmp_path / "tokens", {}, secrets.token_hex(4))
    parents = {"model": made.model, "tokens": tokens}
    leaked = commit(store, "model-enhance", tmp_path / "model", parents, secrets.token_hex(4))
    status, out, err = look(registered(replace(made, model=leaked)))
    assert (status, out) == (2, "")
    assert complaint in err


def test_a_model_without_a_past_is_refused(look: Look, made: WorldModel, tmp_path: Path) -> None:
    status, _, err = look(made.model.reference.uri)
    assert status == 2
    assert "no finished run ''" in err, "its manifest names none"
    (tmp_path / "config.json").write_text("{}")
    status, _, err = look(str(tmp_path))
    assert status == 2
    assert "does not say what it was trained on" in err


def test_a_recipe_without_a_world_has_nothing_to_draw(look: Look, made: WorldModel, platform: Endpoints) -> None:
    other = WorldModel(made.model, f"smoke-{secrets.token_hex(4)}")
    finish_run(Store.at(platform.store), other.run, {}, recipes.load("smoke", []))
    status, _, err = look(registered(other))
    assert status == 2
    assert "recipe smoke has no data.world" in err
