"""How long a training stalls while MLflow is gone: ``python -m tests.outage``.

A real stage (torchrun, DeepSpeed, a small model on the CPU) trains while its curves go to a real MLflow server, which
is killed after the first steps and started again so many seconds later. Printed is the longest time between the ends of
two steps, by the journal of rank 0, before the outage, during it and after it; the numbers before and after tell what
the machine does on its own, and the longest ``add`` what the launcher waits for. The exit status is 1 when a point was
lost or doubled, or differs from the journal.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil

from ichigo import recipe as recipes
from ichigo.engines.platform import status, up
from ichigo.language.base import init_base
from ichigo.language.contract import contract_for
from ichigo.language.expand import expand
from ichigo.language.layouts import IGNORE, Example
from ichigo.language.packing import pack
from ichigo.recipe.schema import Expand, InitBase, Launch, Stage
from ichigo.steps.context import Step
from ichigo.steps.curves import CURVES, Shipper
from ichigo.steps.records import Records, RunRecord
from ichigo.store import Store
from ichigo.tracking.runs import RunTree, client
from ichigo.training import Point, StageJob, run_stage

FIRST = 40  # steps before MLflow is killed
AFTER = 10.0  # seconds of training after it is back
MANY = 1_000_000


@dataclass(frozen=True)
class Outage:
    """When MLflow was gone, in milliseconds since the epoch as the journal counts."""

    began: int
    ended: int

    def share(self, points: Sequence[Point]) -> dict[str, list[Point]]:
        """The points before, during and after; neighbours share the point between them."""
        times = [int(point["time"]) for point in points]
        first = next(n for n, moment in enumerate(times) if moment >= self.began)
        last = next(n for n, moment in enumerate(times) if moment >= self.ended)
        return {
            "before": list(points[:first]),
            "during": list(points[first - 1 : last + 1]),
            "after": list(points[last:]),
        }


class Enough(Exception):
    """The stage has trained long enough."""


class Server:
    """Kills MLflow at a step, and starts it again in a thread, because the training must not wait for that."""

    def __init__(self, home: Path, seconds: float) -> None:
        self._home, self._seconds = home, seconds
        self.began = self.ended = 0
        self._thread = threading.Thread(target=self._bring_back)

    def watch(self, point: Point) -> None:
        """Called with every point; raises :class:`Enough` in the end."""
        if int(point["step"]) == FIRST:
            (pid,) = [server.pid for server in status(self._home).servers if server.name == "mlflow"]
            self.began = time.time_ns() // 1_000_000
            psutil.Process(pid).kill()
            self._thread.start()
        if self.ended and point["time"] > self.ended + AFTER * 1000:
            raise Enough

    def _bring_back(self) -> None:
        time.sleep(self._seconds)
        up(self._home)
        self.ended = time.time_ns() // 1_000_000


def stage_job(folder: Path) -> StageJob:
    """A stage that goes on for ever, with steps of some ten milliseconds."""
    settings = InitBase(kind="init", width=32, layers=2, heads=4, kv_heads=2, feed_forward=64, vocabulary=320)
    init_base(["the quick brown fox jumps over the lazy dog"], settings, 7, folder / "base")
    contract = contract_for(folder / "base", "whispervq:outage")
    expand(folder / "base", contract, Expand(), 3, folder / "model")
    random = np.random.default_rng(0)
    rows = [contract.sound_ids((random.integers(100) + np.arange(48)) % 100) for _ in range(60)]
    first = np.arange(48) == 0
    examples = [Example(ids, np.where(first, IGNORE, ids).astype(np.int32)) for ids in rows]
    pack(examples, 96, True).save(folder / "data", contract)
    stage = Stage(
        name="instruct", mix={"text": 1.0}, examples=60, steps=MANY, sequence_length=96, micro_batch=2,
        learning_rate=1e-3, warmup_steps=2,
    )  # fmt: skip
    return StageJob(
        model=folder / "model",
        data=folder / "data",
        output=folder / "output",
        journal=folder / "journal.jsonl",
        stage=stage,
        launch=Launch(),
        seed=5,
        threads=1,
    )


@dataclass(frozen=True)
class Trained:
    """A training through an outage: its journal, the longest ``add`` (seconds), and its MLflow run."""

    points: list[Point]
    outage: Outage
    longest_add: float
    mlflow_run: str


def train(home: Path, seconds: float, folder: Path) -> Trained:
    """Train until some seconds after the outage."""
    endpoints = up(home)
    os.environ.update(endpoints.environment(), ICHIGO_HOME=str(home))
    records = Records(Store.at(endpoints.store), f"outage-{time.time_ns()}")
    tree = RunTree.begin("ichigo/outage", records.run_key, {}, {})
    run = RunRecord(records.run_key, "", "", "", tree.experiment, tree.parent)
    step, server, points = Step("instruct", records, run, recipes.load("smoke")), Server(home, seconds), []
    shipper, adds = Shipper(step), []

    def on_point(point: Point) -> None:
        points.append(point)
        began = time.perf_counter()
        shipper.add(point)
        adds.append(time.perf_counter() - began)
        server.watch(point)

    with suppress(Enough):
        run_stage(stage_job(folder), folder / "work", on_point)
    shipper.ship()
    tree.close("FINISHED", records.run_key)
    return Trained(points, Outage(server.began, server.ended), max(adds), step.mlflow_run)


def longest(points: Sequence[Point]) -> float:
    """Seconds between the ends of two steps, at most; the journal's clock ticks in milliseconds."""
    return max(later["time"] - earlier["time"] for earlier, later in pairwise(points)) / 1000


def faults(points: Sequence[Point], run_id: str) -> list[str]:
    """What MLflow holds otherwise than the journal."""
    found = []
    for name in CURVES:
        held = sorted((one.step, one.value, one.timestamp) for one in client().get_metric_history(run_id, name))
        wanted = [(int(point["step"]), point[name], int(point["time"])) for point in points]
        lost, more = len(set(wanted) - set(held)), len(held) - len(set(held) & set(wanted))
        if lost or more:
            found.append(f"{name}: {lost} points lost, {more} doubled or other")
    return found


def measure(home: Path, seconds: float, folder: Path) -> int:
    """Measure with the servers of ``home``, and print; the exit status."""
    trained = train(home, seconds, folder)
    problems = faults(trained.points, trained.mlflow_run)
    outage, points = trained.outage, trained.points
    print(f"MLflow gone for {(outage.ended - outage.began) / 1000:.1f} s, {len(points)} steps in all")
    for when, share in outage.share(points).items():
        print(f"{when:<7} {len(share):>6} steps, longest {longest(share):.3f} s between two")
    print(f"longest add {trained.longest_add * 1000:.1f} ms")
    print("\n".join(problems) or f"MLflow holds every point of {len(CURVES)} curves once, as journalled")
    return 1 if problems else 0
