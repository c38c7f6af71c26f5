"""The end of a run from its records: what a person reads and what a script finds in ``summary.json``."""

from __future__ import annotations

import json
import re
from types import SimpleNamespace
from typing import Any

import pytest

from ichigo import recipe as recipes
from ichigo.recipe.schema import Recipe
from ichigo.steps import summary as room
from ichigo.steps.records import RunRecord, StepRecord
from ichigo.steps.summary import render, summarise

BEGIN, END = 1000.0, 1100.0  # seconds of the clock
STORE = "s3://bucket/store"
RUN = RunRecord("tiny-1", f"{STORE}/recipes/1.json", "d1", "f1", experiment="7", mlflow_run="abc", started=BEGIN)
RULE = {"metric": "speech.wer", "found": 0.2, "bound": "at most 0.3", "kept": True, "incumbent": None, "worse": False}
LINE = "kept: speech.wer is 0.2, at most 0.3 asked; no incumbent"
METRICS = {"speech.wer": 0.2, "speech.wer.low": 0.1, "speech.wer.high": 0.3, "text.wer": 0.125}


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return recipes.load("smoke")


@pytest.fixture(autouse=True)
def _clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run ends at :data:`END`."""
    monkeypatch.setattr(room, "time", SimpleNamespace(time=lambda: END))


def step(name: str, alive: tuple[float, float], status: str = "done", **changes: Any) -> StepRecord:
    """A step whose process was there during ``alive``, the first second of it to start up."""
    begin, end = alive
    record = StepRecord(name, status, process_started=begin, entered=begin + 0.5, started=begin + 1, finished=end)
    for field, value in changes.items():
        setattr(record, field, value)
    return record


def chain() -> list[StepRecord]:
    """A whole run: a reused step, an evaluation, a verdict and a model."""
    return [
        step("prepare", (1002, 1003), "reused", reason="made by tiny-0", artifact={"kind": "corpus"}),
        step("pretrain", (1004, 1050), facts={"steps": 12, "loss": 2.34567, "note": "words"}),
        step("evaluate", (1051, 1060), facts={"metrics": dict(METRICS)}),
        step("gate", (1061, 1062), facts={"verdict": "promote", "rules": [RULE | {"line": LINE}]}),
        step(
            "register",
            (1063, 1064),
            facts={"name": "tiny", "version": "3", "uri": f"{STORE}/model/1", "digest": "d", "alias": "champion"},
        ),
    ]


def summarised(recipe: Recipe, steps: list[StepRecord], status: str = "succeeded", reason: str = "") -> dict[str, Any]:
    return summarise(RUN, recipe, steps, status, reason, STORE)


def test_the_keys_are_those_that_the_module_documents(recipe: Recipe) -> None:
    """Scripts of others read this file."""
    summary = summarised(recipe, chain())
    documented = re.findall(r"^(\w+)(?:\[\])?  +\S", room.__doc__ or "", re.MULTILINE)
    assert sorted(documented) == sorted(summary)
    assert {key for row in summary["steps"] for key in row} == {
        *(
            "name",
            "status",
            "reason",
            "seconds",
            "startup_seconds",
            "kfp_seconds",
            "ended_seconds",
            "peak_memory",
            "artifact",
            "facts",
        )
    }
    assert set(summary["gate"]) == {"verdict", "rules"}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_a_whole_run_is_told_with_its_numbers(recipe: Recipe) -> None:
    summary = summarised(recipe, chain())
    assert (summary["run_key"], summary["recipe"], summary["fingerprint"]) == ("tiny-1", "smoke", "f1")
    assert (summary["status"], summary["reason"], summary["store"]) == ("succeeded", "", STORE)
    assert summary["wall_seconds"] == 100.0
    assert [(row["name"], row["status"]) for row in summary["steps"]][:2] == [
        ("prepare", "reused"),
        ("pretrain", "done"),
    ]
    pretrain = summary["steps"][1]
    assert (pretrain["seconds"], pretrain["startup_seconds"]) == (45.0, 0.5)
    assert summary["evaluation"] == METRICS
    assert summary["gate"] == {"verdict": "promote", "rules": [RULE | {"line": LINE}]}
    assert summary["model"]["version"] == "3"
    assert (summary["mlflow"]["experiment"], summary["mlflow"]["mlflow_run"]) == ("7", "abc")


def test_what_the_tokenizer_s_fit_measured_stands_beside_the_evaluation(recipe: Recipe) -> None:
    fitted = step("tokenizer", (1002, 1003), "reused", facts={"bottleneck_cost": 0.06})
    assert summarised(recipe, [fitted, *chain()])["evaluation"] == {"tokenizer.bottleneck_cost": 0.06, **METRICS}


def test_numbers_told_elsewhere_are_not_repeated_in_the_steps(recipe: Recipe) -> None:
    rows = {row["name"]: row["facts"] for row in summarised(recipe, chain())["steps"]}
    assert rows["evaluate"] == {}
    assert rows["gate"] == {"verdict": "promote"}


@pytest.mark.parametrize(
    ("alive", "seconds"),
    [
        ([], 0.0),
        ([(1000, 1100)], 0.0),
        ([(1005, 1020), (1030, 1040)], 10.0),
        ([(1005, 1030), (1010, 1020), (1025, 1040), (1042, 1043)], 2.0),  # one inside another, one beyond its end
        ([(1042, 1043), (1025, 1040), (1005, 1030), (1010, 1020)], 2.0),  # in any order
        ([(1005, 1020), (1005, 1020)], 0.0),  # side by side
    ],
)
def test_kfps_own_seconds_are_gaps_between_steps_and_each_process_before_our_code(
    recipe: Recipe, alive: list[tuple[float, float]], seconds: float
) -> None:
    steps = [step(f"step-{number}", times) for number, times in enumerate(alive)]
    before_our_code = 0.5 * len(steps)
    assert summarised(recipe, steps)["kfp_seconds"] == seconds + before_our_code


def test_a_failed_run_says_where_and_claims_no_model(recipe: Recipe) -> None:
    failed = step("pretrain", (1004, 1050), "failed", reason="loss is nan\nat step 3", facts={"loss": 1.0})
    summary = summarised(recipe, [failed], "failed", "pretrain: loss is nan\nat step 3")
    assert (summary["evaluation"], summary["model"]) == ({}, None)
    assert summary["gate"] == {"verdict": None, "rules": []}
    text = render(summary)
    assert re.search(r"^pretrain +failed .* loss is nan$", text, re.MULTILINE)
    assert "reason   pretrain: loss is nan" in text
    assert "failed in 100 s" in text
    assert "verdict" not in text
    assert "version" not in text


def test_an_evaluation_that_failed_half_way_gives_no_numbers(recipe: Recipe) -> None:
    """Its facts may be those of an artifact that was never whole."""
    failed = step("evaluate", (1051, 1060), "failed", facts={"metrics": {"speech.wer": 0.0}})
    assert summarised(recipe, [failed], "failed", "x")["evaluation"] == {}


def test_the_password_of_the_tracking_server_is_not_told(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:hunter2@mlflow.example:8443/path")
    summary = summarised(recipe, chain())
    assert summary["mlflow"]["uri"] == "https://mlflow.example:8443/path"
    assert "hunter2" not in json.dumps(summary) + render(summary)
    assert "https://mlflow.example:8443/path/#/experiments/7/runs/abc" in render(summary)


def test_the_text_tells_steps_metrics_rules_verdict_and_addresses(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    text = render(summarised(recipe, chain()))
    for line in (
        r"^prepare +reused +0\.0 s +0\.5 s  made by tiny-0$",
        r"^pretrain +done +45\.0 s +0\.5 s  steps 12, loss 2\.35$",  # numbers only
        r"^ +speech +text$",
        r"^wer +0\.2 +\[0\.10, 0\.30\] +0\.125$",
        rf"^gate +{re.escape(LINE)}$",
        r"^verdict +promote$",
        r"^run +tiny-1$",
        r"succeeded in 100 s; KFP's own cost 6\.5 s, 1\.30 s a step$",
        r"^model +tiny version 3 @champion$",
        r" s3://bucket/store/model/1$",
        r"^MLflow +http://127\.0\.0\.1:5000/#/experiments/7/runs/abc$",
    ):
        assert re.search(line, text, re.MULTILINE), line


def test_a_model_without_alias_is_told_without_one(recipe: Recipe) -> None:
    steps = chain()
    steps[-1].facts["alias"] = None
    assert re.search(r"^model +tiny version 3$", render(summarised(recipe, steps)), re.MULTILINE)


def test_the_steps_fit_a_terminal_of_100_columns(recipe: Recipe) -> None:
    facts = {f"a long name of number {number}": 12345.678 for number in range(9)}
    steps = [
        step("tokenize-shard-00000", (1000, 1090), facts=facts),
        step("pretrain", (1004, 1050), "failed", reason="x" * 300),
        step("enhance", (1004, 1050), "reused", reason="made by " + "y" * 300),
    ]
    table = render(summarised(recipe, steps)).split("\n\n")[0].splitlines()
    assert len(table) == 4
    assert max(map(len, table)) <= 100
