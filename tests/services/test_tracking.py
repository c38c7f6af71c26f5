"""The run tree on a real MLflow server: what a person will find there after a run, whatever became of it."""

from __future__ import annotations

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ichigo.errors import PlatformError, UserError
from ichigo.tracking.runs import DatasetInput, Point, RunTree, client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient


pytestmark = pytest.mark.usefixtures("platform_environment")


@pytest.fixture
def run_key() -> str:
    return f"tiny-{secrets.token_hex(4)}"


@pytest.fixture
def tree(run_key: str) -> RunTree:
    return RunTree.begin("ichigo/tracking", run_key, {}, {})


def status(mlflow: MlflowClient, run_id: str) -> str:
    found: str = mlflow.get_run(run_id).info.status
    return found


def test_a_run_is_a_parent_with_a_nested_run_for_each_step(mlflow: MlflowClient, tree: RunTree, run_key: str) -> None:
    steps = {name: tree.open_step(name, run_key) for name in ("mix", "pretrain")}
    parent = mlflow.get_run(tree.parent)
    nested = mlflow.search_runs([tree.experiment], f"tags.`mlflow.parentRunId` = '{tree.parent}'")
    assert parent.info.run_name == run_key
    assert {run.info.run_name: run.info.run_id for run in nested} == steps
    assert {run.data.tags["ichigo.run_key"] for run in [parent, *nested]} == {run_key}
    assert {run.data.tags["ichigo.step"] for run in nested} == set(steps)


def test_runs_that_begin_at_once_share_their_experiment(run_key: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        trees = list(pool.map(lambda n: RunTree.begin(f"ichigo/{run_key}", f"{run_key}-{n}", {}, {}), range(8)))
    assert len({tree.experiment for tree in trees}) == 1


def test_steps_that_read_one_artifact_at_once_all_have_it(mlflow: MlflowClient, tree: RunTree, run_key: str) -> None:
    digests = [hashlib.sha256(f"{run_key}-{n}".encode()).hexdigest() for n in range(10)]
    runs = [tree.open_step(f"tokenize-{n}", run_key) for n in range(8)]
    for digest in digests:
        corpus = DatasetInput("corpus", digest, "s3://ichigo/store/corpus/x", digest[:6])
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(tree.log_inputs, runs, [[corpus]] * 8))
    for run in map(mlflow.get_run, runs):
        assert run.inputs is not None
        assert {entry.dataset.digest for entry in run.inputs.dataset_inputs} == {digest[:36] for digest in digests}


def test_runs_of_one_recipe_share_an_experiment(mlflow: MlflowClient, tree: RunTree, run_key: str) -> None:
    again = RunTree.begin("ichigo/tracking", f"{run_key}-2", {}, {"ichigo.recipe": "tiny"})
    assert again.experiment == tree.experiment
    assert again.parent != tree.parent
    assert mlflow.get_experiment(tree.experiment).name == "ichigo/tracking"
    assert mlflow.get_run(again.parent).data.tags["ichigo.recipe"] == "tiny"


def test_a_deleted_experiment_is_named_with_the_way_to_bring_it_back(mlflow: MlflowClient, run_key: str) -> None:
    experiment = RunTree.begin(f"ichigo/{run_key}", run_key, {}, {}).experiment
    mlflow.delete_experiment(experiment)
    with pytest.raises(UserError, match=f"'ichigo/{run_key}' was deleted.*restore --experiment-id {experiment}"):
        RunTree.begin(f"ichigo/{run_key}", run_key, {}, {})


def test_all_parameters_arrive_and_a_long_value_is_cut(mlflow: MlflowClient, run_key: str) -> None:
    """MLflow takes 100 parameters a request and 6000 characters a value."""
    params: dict[str, Any] = {f"stages.instruct.p{number}": number / 8 for number in range(230)}
    params |= {"long": "x" * 7000, "exact": "y" * 6000, "nothing": None, "tuple": (1, 2), "text": "über"}
    tree = RunTree.begin("ichigo/tracking", run_key, params, {})
    found = mlflow.get_run(tree.parent).data.params
    assert found == {name: str(value)[:6000] for name, value in params.items()}
    assert len(found["long"]) == 6000


def test_a_curve_of_2500_points_is_all_there_with_its_steps_and_times(
    mlflow: MlflowClient, tree: RunTree, run_key: str
) -> None:
    """More than two of MLflow's batches of 1000, two curves in turn, not in the order of their steps."""
    run_id = tree.open_step("pretrain", run_key)
    begin = 1_760_000_000_000
    points = [
        Point(("loss", "grad_norm")[number % 2], number / 4, 2500 - number, begin + 7 * number)
        for number in range(2500)
    ]
    tree.log_points(run_id, points)
    for name in ("loss", "grad_norm"):
        history = mlflow.get_metric_history(run_id, name)
        found = sorted((metric.step, metric.value, metric.timestamp) for metric in history)
        assert found == sorted((point.step, point.value, point.time) for point in points if point.name == name)


def test_points_that_are_sent_again_and_at_once_stay_one_each(
    mlflow: MlflowClient, tree: RunTree, run_key: str
) -> None:
    """As when the answer to a batch is lost and the client sends it again, even while the first is under way."""
    run_id = tree.open_step("pretrain", run_key)
    points = [Point("loss", 1 / (n + 3), n, 1_760_000_000_000 + n) for n in range(1500)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(tree.log_points, [run_id] * 4, [points, points, points[:700], points[300:]]))
    history = mlflow.get_metric_history(run_id, "loss")
    assert sorted((metric.step, metric.value) for metric in history) == [(point.step, point.value) for point in points]
    assert tree.points(run_id, ["loss", "absent"]) == {point.step: {"loss": point.value} for point in points}


def test_parameters_and_inputs_that_are_sent_again_stay_one_each(
    mlflow: MlflowClient, tree: RunTree, run_key: str
) -> None:
    run_id = tree.open_step("pretrain", run_key)
    inputs = [DatasetInput("mix", hashlib.sha256(run_key.encode()).hexdigest(), "s3://ichigo/store/mix/x", "data")]
    for _ in range(2):
        tree.log_params(run_id, {"steps": 8})
        tree.log_inputs(run_id, inputs)
    run = mlflow.get_run(run_id)
    assert run.data.params == {"steps": "8"}
    assert run.inputs is not None
    assert len(run.inputs.dataset_inputs) == 1


def test_no_points_and_no_parameters_are_no_error(mlflow: MlflowClient, tree: RunTree) -> None:
    tree.log_points(tree.parent, [])
    tree.log_params(tree.parent, {})
    tree.log_metrics(tree.parent, {"wall_seconds": 12.5})
    assert mlflow.get_run(tree.parent).data.metrics == {"wall_seconds": 12.5}


def test_every_run_on_the_same_data_is_found_by_its_digest(mlflow: MlflowClient, tree: RunTree, run_key: str) -> None:
    digests = {name: hashlib.sha256(f"{run_key} {name}".encode()).hexdigest() for name in ("mine", "other")}

    def trained_on(name: str) -> str:
        run_id = tree.open_step("pretrain", run_key)
        uri = f"s3://ichigo/store/mix/{name}"
        tree.log_inputs(run_id, [DatasetInput("mix", digests[name], uri, "data")])
        return run_id

    first, second, other = trained_on("mine"), trained_on("mine"), trained_on("other")
    found = mlflow.search_runs([tree.experiment], f"dataset.digest = '{digests['mine'][:36]}'")
    assert {run.info.run_id for run in found} == {first, second}
    inputs = mlflow.get_run(other).inputs
    assert inputs is not None
    (entry,) = inputs.dataset_inputs
    assert (entry.dataset.name, entry.tags[0].value) == ("mix", "data")
    assert "s3://ichigo/store/mix/other" in entry.dataset.source


def test_texts_and_tags_are_kept(mlflow: MlflowClient, tree: RunTree) -> None:
    tree.log_text(tree.parent, '{"status": "ü"}', "summary.json")
    tree.set_tags(tree.parent, {"ichigo.verdict": "hold", "ichigo.status": "succeeded"})
    assert [found.path for found in mlflow.list_artifacts(tree.parent)] == ["summary.json"]
    assert mlflow.get_run(tree.parent).data.tags["ichigo.verdict"] == "hold"


def test_a_run_alone_stands_in_the_experiment_with_its_files(
    mlflow: MlflowClient, tree: RunTree, run_key: str, tmp_path: Path
) -> None:
    (tmp_path / "items.parquet").write_bytes(b"rows")
    alone = RunTree.begin_single(tree.experiment, f"{run_key}-alone", {"suites": "mixed"}, {"ichigo.model": "tiny"})
    alone.log_file(alone.parent, tmp_path / "items.parquet")
    alone.end(alone.parent)
    run = mlflow.get_run(alone.parent)
    assert (run.info.experiment_id, run.info.run_name, run.info.status) == (
        tree.experiment,
        f"{run_key}-alone",
        "FINISHED",
    )
    assert (run.data.tags["ichigo.model"], run.data.params) == ("tiny", {"suites": "mixed"})
    assert [file.path for file in mlflow.list_artifacts(alone.parent)] == ["items.parquet"]
    assert status(mlflow, tree.parent) == "RUNNING", "no other run is touched"


@pytest.mark.parametrize(("ended", "left"), [("FINISHED", "FAILED"), ("FAILED", "FAILED"), ("KILLED", "KILLED")])
def test_closing_ends_what_is_open_and_nothing_else(
    mlflow: MlflowClient, tree: RunTree, run_key: str, ended: str, left: str
) -> None:
    """A step that was killed cannot end its run: without this it would be shown as running for ever."""
    neighbour = RunTree.begin("ichigo/tracking", f"{run_key}-neighbour", {}, {})
    theirs = neighbour.open_step("mix", f"{run_key}-neighbour")
    done, open_ = tree.open_step("mix", run_key), tree.open_step("pretrain", run_key)
    tree.end(done)
    assert tree.close(ended, run_key) == 1
    assert [status(mlflow, run) for run in (tree.parent, done, open_)] == [ended, "FINISHED", left]
    assert [status(mlflow, run) for run in (neighbour.parent, theirs)] == ["RUNNING", "RUNNING"]
    assert tree.close(ended, run_key) == 0


def test_without_a_configured_server_the_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself would write into a folder ``mlruns`` beside the reader."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    with pytest.raises(PlatformError, match="MLFLOW_TRACKING_URI is not set"):
        client()
