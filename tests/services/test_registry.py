"""The registry on a real MLflow server: one version per model, and the alias only where it was asked for."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

import pytest

from ichigo.recipe.schema import Rule
from ichigo.registry.gate import Evidence
from ichigo.registry.models import EVIDENCE, RUN_KEY, VERDICT, Record, Version, incumbent, record_of, register
from ichigo.tracking.runs import RunTree

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGESTS = {name: name * 64 for name in "ab"}


pytestmark = pytest.mark.usefixtures("platform_environment")


@pytest.fixture
def name() -> str:
    """A model that the registry does not hold yet."""
    return f"tiny-{secrets.token_hex(4)}"


def run_with(metrics: dict[str, float]) -> str:
    tree = RunTree.begin("ichigo/registry", f"run-{secrets.token_hex(4)}", {}, {})
    tree.log_metrics(tree.parent, metrics)
    return tree.parent


def uri_of(model: str, attempt: str = "1") -> str:
    return f"s3://ichigo/store/model-enhance/{model}/{attempt}"


def put(name: str, model: str, *, alias: str | None = None, run: str | None = None, attempt: str = "1") -> Version:
    """Register ``model`` (a or b) under ``name``."""
    return register(
        name,
        uri_of(model, attempt),
        DIGESTS[model],
        mlflow_run=run or run_with({}),
        tags={"ichigo.recipe": "tiny"},
        alias=alias,
    )


def test_a_version_points_straight_at_the_committed_bytes(mlflow: MlflowClient, name: str) -> None:
    """No registry copy, no ``runs:/`` address: a server can load it with S3 alone."""
    run = run_with({})
    made = put(name, "a", run=run)
    found = mlflow.get_model_version(name, made.version)
    assert made == Version(name, "1", uri_of("a"), created=True)
    assert (found.source, found.run_id, found.status) == (uri_of("a"), run, "READY")
    assert mlflow.get_model_version_download_uri(name, made.version) == uri_of("a")
    assert found.tags == {"ichigo.digest": DIGESTS["a"], "ichigo.recipe": "tiny"}


def test_the_same_model_again_is_the_same_version(mlflow: MlflowClient, name: str) -> None:
    """Whoever made it, and wherever another attempt wrote the same bytes."""
    first = put(name, "a")
    again = put(name, "a", attempt="2")
    assert again == Version(name, first.version, uri_of("a"), created=False)
    assert len(mlflow.search_model_versions(f"name = '{name}'")) == 1


def test_another_model_is_the_next_version_and_the_first_stays(mlflow: MlflowClient, name: str) -> None:
    versions = [put(name, model) for model in ("a", "b", "a")]
    assert [(version.version, version.created) for version in versions] == [("1", True), ("2", True), ("1", False)]
    assert mlflow.get_model_version(name, "1").source == uri_of("a")


def test_the_same_bytes_under_another_name_are_another_model(name: str) -> None:
    assert put(name, "a").created
    assert put(f"{name}-2", "a") == Version(f"{name}-2", "1", uri_of("a"), created=True)


def test_the_alias_moves_only_when_asked(mlflow: MlflowClient, name: str) -> None:
    def holder() -> str:
        return str(mlflow.get_model_version_by_alias(name, "champion").version)

    put(name, "a")
    assert mlflow.get_registered_model(name).aliases == {}
    put(name, "a", alias="champion")
    assert holder() == "1"
    put(name, "b")
    assert holder() == "1"
    put(name, "b", alias="champion")
    assert holder() == "2"
    put(name, "a", alias="champion")  # a model that was there before may come back
    assert holder() == "1"


def test_an_incumbent_is_the_holder_of_the_alias_with_its_runs_metrics(name: str) -> None:
    assert incumbent(name) is None  # no such model
    put(name, "a", run=run_with({"transcription.wer": 0.5}))
    assert incumbent(name) is None  # a model that nobody promoted
    put(name, "a", alias="champion")
    assert incumbent(name) == Evidence({"transcription.wer": 0.5})
    put(name, "b", alias="candidate", run=run_with({"transcription.wer": 0.25, "loss.held_out": 1.5}))
    assert incumbent(name) == Evidence({"transcription.wer": 0.5})
    assert incumbent(name, "candidate") == Evidence({"transcription.wer": 0.25, "loss.held_out": 1.5})


def test_an_incumbent_registered_by_hand_has_no_metrics(mlflow: MlflowClient, name: str) -> None:
    mlflow.create_registered_model(name)
    mlflow.create_model_version(name, uri_of("a"))
    mlflow.set_registered_model_alias(name, "champion", "1")
    assert incumbent(name) == Evidence({})


def test_the_same_model_judged_again_has_its_new_evidence(mlflow: MlflowClient, name: str) -> None:
    """Asked other items since; whoever promotes it goes by what was found last."""
    for right, verdict in ((0.5, "hold"), (0.6, "promote")):
        record = Record(Evidence({"m": right}, {"": f"items {right}"}), (Rule(metric="m", at_least=0.1),))
        tags = {EVIDENCE: record.tag(), VERDICT: verdict, RUN_KEY: f"run-{verdict}"}
        register(name, uri_of("a"), DIGESTS["a"], mlflow_run=None, tags=tags, alias=None, description=f"# {verdict}")
    found = mlflow.get_model_version(name, "1")
    assert record_of(found) == record
    assert (found.tags[VERDICT], found.tags[RUN_KEY], found.description) == ("promote", "run-hold", "# promote")
