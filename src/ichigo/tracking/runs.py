"""One MLflow run tree per pipeline run: a parent named after the run key, a nested run for each step that did work.

Only rank 0 of one process per step writes here, in batches (1000 points a request, MLflow's own limit), because one
synchronous ``log_metric`` costs about 25 ms on a sqlite server and a batch of a thousand about 0.4 s. Every run that a
process keeps open names it as its owner, from its first moment on.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from ichigo.errors import PlatformError, UserError
from ichigo.tracking.owners import OWNER, OWNER_VARIABLE, Owner
from ichigo.tracking.patience import PATIENCE, SETTINGS, Patient

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

RUN_KEY = "ichigo.run_key"
STEP = "ichigo.step"
_PARENT = "mlflow.parentRunId"
KIND = {"mlflow.experimentKind": "custom_model_development"}
"""Tag of an experiment that opens on training runs and not on chat traces."""
_MODEL_DIGEST = "ichigo.digest"
_EXTERNAL = {"mlflow.model.isExternal": "true"}  # its bytes are not in MLflow's artifact store
_ATTEMPTS = 5
_DUPLICATE = re.compile("unique|duplicate", re.IGNORECASE)  # sqlite and PostgreSQL, in the server's words
_BATCH = 1000
_DIGEST = 36  # characters; MLflow's limit for a dataset's digest
_TEXT = 6000  # characters; MLflow refuses longer parameter values


@dataclass(frozen=True)
class Point:
    """One point of a curve; ``time`` in milliseconds since the epoch."""

    name: str
    value: float
    step: int
    time: int


@dataclass(frozen=True)
class DatasetInput:
    """An artifact that a run read: its name, digest and address."""

    name: str
    digest: str
    uri: str
    context: str


@dataclass(frozen=True)
class JudgedModel:
    """A model that numbers are of: ``made_here`` says that this run made it, and did not reuse it."""

    name: str
    uri: str
    digest: str
    run_key: str
    made_here: bool


Table = tuple[Sequence[str], Sequence[Sequence[Any]]]
"""Names of columns, and rows of JSON types."""


def client(patience: float = PATIENCE) -> MlflowClient:
    """A client for the configured server, whose every call outlasts an outage of ``patience`` seconds.

    Raises:
        PlatformError: no server is configured; from every call, that it does not answer or refuses the credentials.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        raise PlatformError("MLFLOW_TRACKING_URI is not set; start with `ichigo run` or name your MLflow server")
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")  # it prints before it ends a run
    from mlflow.tracking import MlflowClient

    return cast("MlflowClient", Patient(MlflowClient(), patience))


def running(tag: str) -> Iterator[dict[str, str]]:
    """The tags of every open run that has this ``tag``, in whatever experiment."""
    mlflow = client()
    experiments = [one.experiment_id for one in pages(mlflow.search_experiments)]
    search = partial(mlflow.search_runs, experiments, "attributes.status = 'RUNNING'")
    yield from (dict(run.data.tags) for run in pages(search) if tag in run.data.tags)


def pages(search: Callable[..., Any]) -> Iterator[Any]:
    """Everything that a search of MLflow's client finds, page after page."""
    token: str | None = None
    while token is None or token:
        page = search(page_token=token)
        yield from page
        token = page.token or ""


def _create_experiment(mlflow: MlflowClient, name: str) -> str:
    """Make the experiment, or take the one that another run has just made."""
    from mlflow.exceptions import MlflowException

    try:
        made: str = mlflow.create_experiment(name, tags=KIND)
    except MlflowException as error:
        found = mlflow.get_experiment_by_name(name)
        if error.error_code != "RESOURCE_ALREADY_EXISTS" or found is None:
            raise
        return str(found.experiment_id)
    return made


def _owned() -> dict[str, str]:
    """The tag that names this process, where it can be named."""
    return {OWNER: str(owner)} if (owner := Owner.this()) else {}


def _despite_a_race(log: Callable[[], None]) -> None:
    """Repeat what another step did at the same moment.

    MLflow 3.17 looks whether a dataset is known and inserts it if not; of two steps that read the same artifact side by
    side one is refused by the database's unique key, and finds the dataset known when it asks again.
    """
    from mlflow.exceptions import MlflowException

    for attempt in range(_ATTEMPTS):
        try:
            return log()
        except MlflowException as error:
            if attempt + 1 == _ATTEMPTS or not _DUPLICATE.search(str(error)):
                raise


class RunTree:
    """The MLflow runs of one pipeline run."""

    def __init__(self, experiment: str, parent: str, client_: MlflowClient | None = None) -> None:
        self.experiment = experiment  # MLflow's experiment id
        self.parent = parent  # the parent run's id
        self._client = client_ or client()

    @classmethod
    def begin(cls, experiment: str, run_key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> RunTree:
        """Open the parent run in the experiment called ``experiment`` (made if it does not exist).

        Raises:
            UserError: the experiment was deleted; MLflow goes on holding its name.
        """
        mlflow = client()
        found = mlflow.get_experiment_by_name(experiment)
        if found and found.lifecycle_stage == "deleted":
            restore = f"mlflow experiments restore --experiment-id {found.experiment_id}"
            raise UserError(f"the MLflow experiment {experiment!r} was deleted; bring it back with `{restore}`")
        experiment_id = found.experiment_id if found else _create_experiment(mlflow, experiment)
        owner = {OWNER: os.environ[OWNER_VARIABLE]} if os.environ.get(OWNER_VARIABLE) else {}
        run = mlflow.create_run(experiment_id, run_name=run_key, tags={RUN_KEY: run_key, **owner, **tags})
        tree = cls(experiment_id, run.info.run_id, mlflow)
        tree.log_params(tree.parent, params)
        return tree

    @classmethod
    def begin_single(cls, experiment: str, run_key: str, params: Mapping[str, Any], tags: Mapping[str, str]) -> RunTree:
        """Open a run without steps in the experiment with the id ``experiment``; it is this process's."""
        mlflow = client()
        run = mlflow.create_run(experiment, run_name=run_key, tags={RUN_KEY: run_key, **_owned(), **tags})
        tree = cls(experiment, run.info.run_id, mlflow)
        tree.log_params(tree.parent, params)
        return tree

    def open_step(self, name: str, run_key: str) -> str:
        """Open a nested run for a step of this process; returns its id."""
        tags = {_PARENT: self.parent, RUN_KEY: run_key, STEP: name, **_owned()}
        run_id: str = self._client.create_run(self.experiment, run_name=name, tags=tags).info.run_id
        return run_id

    def reopen_step(self, run_id: str) -> None:
        """Go on in a nested run whose process ended before it could, so that an attempt more is no run more."""
        self.set_tags(run_id, _owned())
        self._client.update_run(run_id, status="RUNNING")

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; values longer than MLflow takes are cut, the recipe artifact holds them whole."""
        from mlflow.entities import Param

        entries = [Param(name, str(value)[:_TEXT]) for name, value in params.items()]
        for start in range(0, len(entries), 100):
            self._client.log_batch(run_id, params=entries[start : start + 100])

    def log_points(self, run_id: str, points: Iterable[Point]) -> None:
        """Log curves, in batches; the very same point (name, value, step, time) logged again stays one point."""
        from mlflow.entities import Metric

        metrics = [Metric(point.name, point.value, point.time, point.step) for point in points]
        for start in range(0, len(metrics), _BATCH):
            self._client.log_batch(run_id, metrics=metrics[start : start + _BATCH])

    def points(self, run_id: str, names: Iterable[str]) -> dict[int, dict[str, float]]:
        """What the run holds of these curves: step -> name -> value."""
        found: dict[int, dict[str, float]] = {}
        for name in names:
            for metric in self._client.get_metric_history(run_id, name):
                found.setdefault(metric.step, {})[name] = metric.value
        return found

    def log_metrics(self, run_id: str, metrics: Mapping[str, float]) -> None:
        """Log final numbers (step 0, now)."""
        now = int(time.time() * 1000)
        self.log_points(run_id, [Point(name, value, 0, now) for name, value in metrics.items()])

    def log_inputs(self, run_id: str, datasets: Iterable[DatasetInput]) -> None:
        """Record what a run read, so that a reviewer finds every run on the same data."""
        from mlflow.entities import Dataset, InputTag
        from mlflow.entities import DatasetInput as Input

        def entity(one: DatasetInput) -> Input:
            dataset = Dataset(one.name, one.digest[:_DIGEST], "s3", json.dumps({"uri": one.uri}))
            return Input(dataset, [InputTag("mlflow.data.context", one.context)])

        inputs = [entity(one) for one in datasets]
        _despite_a_race(lambda: self._client.log_inputs(run_id, datasets=inputs))

    def log_text(self, run_id: str, text: str, name: str) -> None:
        """Store a small text file among a run's artifacts."""
        self._client.log_text(run_id, text, name)

    def log_file(self, run_id: str, path: Path) -> None:
        """Store a file among a run's artifacts."""
        self._client.log_artifact(run_id, str(path))

    def log_tables(self, run_id: str, tables: Mapping[str, Table]) -> None:
        """Store tables by their file names (``….json``) as MLflow's own ``log_table`` has them: its page shows them as
        tables, and those of several runs side by side. Unlike there, a table that is logged again is replaced."""
        for name, (columns, rows) in tables.items():
            self.log_text(run_id, json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}), name)
        if tables:
            listed = [{"path": name, "type": "table"} for name in tables]
            self.set_tags(run_id, {"mlflow.loggedArtifacts": json.dumps(listed)})

    def log_judged(self, run_id: str, model: JudgedModel | None, metrics: Mapping[str, float]) -> None:
        """Log final numbers of the run, which are also those of ``model`` where MLflow lists it under Models."""
        from mlflow.entities import Metric

        if model is None or not metrics:
            return self.log_metrics(run_id, metrics)
        model_id, now = self._logged_model(run_id, model), int(time.time() * 1000)
        entries = [Metric(name, value, now, 0, model_id=model_id) for name, value in metrics.items()]
        for start in range(0, len(entries), _BATCH):
            self._client.log_batch(run_id, metrics=entries[start : start + _BATCH])
        self._link(run_id, model_id, model.made_here)

    def _link(self, run_id: str, model_id: str, made_here: bool) -> None:
        """Have the run's page name the model; MLflow 3.17 inserts the link without looking whether it is there."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput
        from mlflow.exceptions import MlflowException

        try:
            if made_here:
                self._client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
            else:
                self._client.log_inputs(run_id, models=[LoggedModelInput(model_id)])
        except MlflowException as error:
            if not _DUPLICATE.search(str(error)):
                raise

    def _logged_model(self, run_id: str, model: JudgedModel) -> str:
        """MLflow's id of the model: one for each digest in an experiment. Its bytes stay where they were committed."""
        digest = f"tags.`{_MODEL_DIGEST}` = '{model.digest}'"
        for known in self._client.search_logged_models([self.experiment], digest, max_results=1):
            return str(known.model_id)
        tags = {_MODEL_DIGEST: model.digest, "ichigo.uri": model.uri, RUN_KEY: model.run_key, **_EXTERNAL}
        made = self._client.create_logged_model(self.experiment, model.name, run_id, tags, model_type="speech-language")
        self._client.finalize_logged_model(made.model_id, "READY")
        return str(made.model_id)

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags on a run."""
        for name, value in tags.items():
            self._client.set_tag(run_id, name, value)

    def tags_where(self, name: str, value: str) -> list[dict[str, str]]:
        """The tags of every run of this experiment in which the tag ``name`` has this value."""
        found = self._client.search_runs([self.experiment], f"tags.`{name}` = '{value}'", max_results=1000)
        return [dict(run.data.tags) for run in found]

    def end(self, run_id: str, status: str = "FINISHED") -> None:
        """End a run: ``FINISHED``, ``FAILED`` or ``KILLED``."""
        self._client.set_terminated(run_id, status)

    def close(self, status: str, run_key: str) -> int:
        """End the parent and every nested run that is still open; returns how many nested ones were."""
        found = self._client.search_runs(
            [self.experiment], f"tags.`{RUN_KEY}` = '{run_key}' and attributes.status = 'RUNNING'", max_results=1000
        )
        nested = [run.info.run_id for run in found if run.info.run_id != self.parent]
        for run_id in nested:
            self.end(run_id, "KILLED" if status == "KILLED" else "FAILED")
        self.end(self.parent, status)
        return len(nested)
