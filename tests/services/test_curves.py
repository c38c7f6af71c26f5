"""Curves on a real MLflow server that dies: every point is there once, with its value, whoever dies."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from ichigo import recipe as recipes
from ichigo.engines.platform import Endpoints, down, status, up
from ichigo.errors import IntegrityError, PlatformError
from ichigo.steps import curves
from ichigo.steps.context import Step
from ichigo.steps.curves import CURVES, Shipper, ship_left
from ichigo.steps.records import Records, RunRecord, save_recipe
from ichigo.store import Store
from ichigo.tracking.runs import RunTree, client

BEGAN = 1_760_000_000_000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home whose MLflow tests kill."""
    path = tmp_path_factory.mktemp("outage")
    yield path
    down(path)


@pytest.fixture
def endpoints(home: Path, monkeypatch: pytest.MonkeyPatch) -> Endpoints:
    """The platform of :func:`home`, running, in the environment of this process; curves are sent without a pause."""
    found = up(home)
    for name, value in found.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ICHIGO_HOME", str(home))
    monkeypatch.setattr(curves, "_SHIP_SECONDS", 0.01)
    return found


@pytest.fixture
def run(endpoints: Endpoints) -> str:
    """The address of the record of a run that has begun."""
    records = Records(Store.at(endpoints.store), f"smoke-{secrets.token_hex(4)}")
    uri, digest = save_recipe(records.store, recipes.load("smoke"))
    tree = RunTree.begin("ichigo/curves", records.run_key, {}, {})
    records.save_run(RunRecord(records.run_key, uri, digest, "", tree.experiment, tree.parent))
    return records.uri


def step_of(run: str) -> Step:
    records = Records.at(run)
    record = records.run()
    assert record is not None
    return Step("pretrain", records, record, recipes.load("smoke"))


def kill_mlflow(home: Path) -> None:
    (pid,) = [server.pid for server in status(home).servers if server.name == "mlflow"]
    process = psutil.Process(pid)
    process.kill()
    process.wait()


def point(step: int, **changes: float) -> dict[str, float]:
    """A point whose numbers are no short decimals."""
    made = {"step": step, "time": BEGAN + 7 * step, "loss": 5 / (step + 3), "learning_rate": 1e-3 / (step + 7)}
    return made | {"grad_norm": (step + 1) / 7, "tokens_per_second": 1e5 / (step + 11)} | changes


def require_whole(run_id: str, steps: int) -> None:
    """MLflow holds a point for every step of every curve, once, to the last bit."""
    for name in CURVES:
        held = client().get_metric_history(run_id, name)
        assert [metric.step for metric in sorted(held, key=lambda metric: metric.step)] == list(range(steps)), name
        assert {metric.step: metric.value for metric in held} == {n: point(n)[name] for n in range(steps)}, name


def test_no_point_is_lost_or_doubled_when_mlflow_is_killed_in_the_middle(home: Path, run: str) -> None:
    step = step_of(run)
    shipper = Shipper(step)
    for number in range(3000):
        shipper.add(point(number))
        if number == 700:
            kill_mlflow(home)
        if number == 2300:
            up(home)
    shipper.ship()
    require_whole(step.mlflow_run, 3000)
    assert list((home / "points").iterdir()) == []


def test_points_of_an_outage_that_does_not_end_are_sent_by_the_next_run(
    home: Path, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    step = step_of(run)
    checks: list[Callable[[], None]] = []
    step.after_commit = checks.append  # type: ignore[method-assign, assignment]
    shipper = Shipper(step, patience=0.0)
    for number in range(400):
        shipper.add(point(number))
        if number == 200:
            kill_mlflow(home)
    shipper.ship()
    with pytest.raises(
        PlatformError, match=r"does not answer .*The artifact is committed .* the next run .* sends them"
    ):
        checks[0]()
    said: list[str] = []
    with pytest.raises(PlatformError):
        ship_left(said.append, patience=0.0)
    up(home)
    ship_left(said.append)
    assert said == [f"sent the points of MLflow run {step.mlflow_run} that an earlier process could not"]
    require_whole(step.mlflow_run, 400)
    ship_left(said.append)
    assert len(said) == 1


KILLED = """
import os, sys, tests.services.test_curves as this
from ichigo.steps import curves
step = this.step_of(sys.argv[1])
curves._SHIP_SECONDS = float(sys.argv[2])
shipper = curves.Shipper(step)
for number in range(600):
    shipper.add(this.point(number))
if sys.argv[2] == "0.01":
    shipper._ending.set(); shipper._thread.join()  # all of it is in MLflow
print(step.mlflow_run, flush=True)
os.kill(os.getpid(), 9)
"""


def killed(run: str, pause: float) -> str:
    """Let a process add 600 points and be killed; returns its MLflow run."""
    done = subprocess.run([sys.executable, "-c", KILLED, run, str(pause)], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return done.stdout.split()[-1]


@pytest.mark.parametrize("pause", [0.01, 3600.0], ids=["all sent", "none sent"])
def test_the_next_attempt_goes_on_in_the_same_run_and_logs_no_step_twice(run: str, pause: float) -> None:
    """It repeats from a checkpoint at step 500: other times and speeds, the same numbers."""
    before = killed(run, pause)
    step = step_of(run)
    assert step.mlflow_run == before
    assert client().get_run(before).info.status == "RUNNING"
    shipper = Shipper(step)
    for number in range(500, 900):
        later = {"time": BEGAN + 10**7 + number, "tokens_per_second": point(number)["tokens_per_second"]}
        shipper.add(point(number, **later))
    shipper.ship()
    require_whole(before, 900)


def test_an_attempt_that_comes_out_otherwise_is_stopped(run: str) -> None:
    before = killed(run, 0.01)
    shipper = Shipper(step_of(run))
    shipper.add(point(500, loss=point(500)["loss"] * (1 + 2**-52)))
    with pytest.raises(IntegrityError, match=f"step 500 has loss .* in MLflow .run {before}., but .* start a new run"):
        shipper.ship()
    require_whole(before, 600)
    (left,) = (Path(os.environ["ICHIGO_HOME"]) / "points").iterdir()
    left.unlink()


def test_a_run_that_mlflow_no_longer_has_is_named_with_its_file(home: Path, endpoints: Endpoints) -> None:
    spool = curves.Spool(home / "points" / f"{'0' * 32}.jsonl")
    spool.append(point(0))
    spool.close()
    said: list[str] = []
    ship_left(said.append)
    assert f"delete {spool.path}" in said[0]
    spool.path.unlink()
