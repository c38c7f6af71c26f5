"""Runs that nobody runs, on a real MLflow server: closed after a real kill -9, and no run of anybody alive."""

from __future__ import annotations

import json
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from ichigo.engines.platform import Endpoints, reap
from ichigo.errors import PlatformError
from ichigo.tracking.owners import OWNER, OWNER_VARIABLE, REASON, Owner
from ichigo.tracking.runs import RunTree

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

pytestmark = pytest.mark.usefixtures("platform_environment")

OPENS = f"""
import json, os, sys
from ichigo.tracking.owners import Owner
from ichigo.tracking.runs import RunTree
os.environ["{OWNER_VARIABLE}"] = str(Owner.this())  # as the engine does
tree = RunTree.begin("ichigo/reaper", sys.argv[1], {{}}, {{}})
steps = [tree.open_step(name, sys.argv[1]) for name in ("pretrain", "mix")]
print(json.dumps([tree.parent, *steps]), flush=True)
input()
"""


@pytest.fixture
def run_key() -> str:
    return f"smoke-{secrets.token_hex(4)}"


@pytest.fixture
def owner(run_key: str) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A process with a run of its own and two steps, and the ids of the three."""
    command = [sys.executable, "-c", OPENS, run_key]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
        process.kill()


def test_the_runs_of_a_killed_process_are_closed_with_the_reason_and_no_others(
    platform: Endpoints, mlflow: MlflowClient, run_key: str, owner: tuple[subprocess.Popen[str], list[str]]
) -> None:
    process, runs = owner
    me = Owner.this()
    assert me is not None
    mine = RunTree.begin("ichigo/reaper", f"{run_key}-mine", {}, {OWNER: str(me)})
    theirs = {OWNER: str(replace(me, host="elsewhere", pid=2**30))}
    alive = [
        RunTree.begin("ichigo/reaper", f"{run_key}-elsewhere", {}, theirs).parent,
        RunTree.begin("ichigo/reaper", f"{run_key}-nobody", {}, {}).parent,
        mine.parent,
        mine.open_step("expand", f"{run_key}-mine"),
    ]
    ended = mine.open_step("contract", f"{run_key}-mine")
    mine.end(ended)
    assert reap(platform) == []

    process.send_signal(signal.SIGKILL)
    process.wait()
    closed = reap(platform)
    assert sorted(one.run_id for one in closed) == sorted(runs)
    assert {one.name for one in closed} == {run_key, "pretrain", "mix"}
    for run in map(mlflow.get_run, runs):
        assert run.info.status == "KILLED"
        assert run.info.end_time >= run.info.start_time
        assert f"process {process.pid} on {me.host}" in run.data.tags[REASON]
    assert [mlflow.get_run(run).info.status for run in alive] == ["RUNNING"] * 4
    assert mlflow.get_run(ended).info.status == "FINISHED"
    assert reap(platform) == []


def test_a_step_that_was_killed_is_closed_while_its_run_goes_on(
    platform: Endpoints, mlflow: MlflowClient, run_key: str, owner: tuple[subprocess.Popen[str], list[str]]
) -> None:
    """And an attempt that takes the step up again is alive once more."""
    process, (parent, step, other) = owner
    me = Owner.this()
    assert me is not None
    mlflow.set_tag(parent, OWNER, str(me))
    process.kill()
    process.wait()
    tree = RunTree(mlflow.get_run(parent).info.experiment_id, parent)
    tree.reopen_step(step)
    assert [one.run_id for one in reap(platform)] == [other]
    assert [mlflow.get_run(run).info.status for run in (parent, step)] == ["RUNNING", "RUNNING"]
    assert tree.close("FAILED", run_key) == 1


def test_more_runs_than_a_page_holds_are_all_closed(
    platform: Endpoints, mlflow: MlflowClient, run_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ichigo.engines.platform.reaper._PAGE", 2)
    me = Owner.this()
    assert me is not None
    gone = {OWNER: str(replace(me, pid=2**30))}
    runs = [RunTree.begin("ichigo/reaper", f"{run_key}-{n}", {}, gone).parent for n in range(5)]
    assert sorted(one.run_id for one in reap(platform)) == sorted(runs)


def test_a_server_that_does_not_answer_is_named(platform: Endpoints) -> None:
    with pytest.raises(PlatformError, match=r"MLflow at http://127\.0\.0\.1:9 does not answer"):
        reap(replace(platform, mlflow="http://127.0.0.1:9"))
