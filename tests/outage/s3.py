"""What a whole run waits for while S3 is gone, and what it costs to save: ``python -m tests.outage --what s3``.

A small ``smoke`` runs twice from nothing on servers of its own: once undisturbed, and once with the S3 server killed
while the first stage trains and started again so many seconds later. A run that ends retryable (status 3) is run again,
as a person would. The second run has to have the artifacts, rows, evaluation and curves of the first, digest for digest
and point for point. Printed are also the longest time between two steps of the stage, the steps of the pipeline that
took longer, and by how much a checkpoint lengthens the step after which it is saved.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from ichigo import recipe as recipes
from ichigo.engines.platform import Endpoints, status, up
from ichigo.steps.records import Records
from ichigo.tracking.runs import client
from tests.chaos.__main__ import SETTINGS, House
from tests.chaos.looks import STAGES
from tests.chaos.monkey import PATIENCE, Try, says

STAGE = "pretrain"
EVERY = recipes.load("smoke", SETTINGS).launch.checkpoints.every  # steps between two checkpoints
TRAINING = says(rf"\b{STAGE} \d+/60")
WAITS = re.compile(r"does not answer|Asking again|stay in .* for now")
RETRYABLE = 3
LONGER = 5.0  # seconds by which a step of the pipeline has to take longer to be shown

Times = dict[int, int]
"""When each optimizer step ended, in milliseconds since the epoch."""


@dataclass(frozen=True)
class Outage:
    """When S3 was gone, in milliseconds since the epoch, and what the tries said that met it."""

    began: int
    ended: int
    statuses: tuple[int, ...]
    words: tuple[str, ...]


def disturb(house: House, home: Path, seconds: float) -> Outage:
    """Run ``house`` to its end, with the S3 server of ``home`` gone for ``seconds`` from the first steps on."""
    run = house.start()
    while not TRAINING(run):
        if run.ended(0.05):
            raise AssertionError(f"it ended before it trained:\n{_tail(run)}")
    (server,) = [one.pid for one in status(home).servers if one.name == "s3"]
    began = time.time_ns() // 1_000_000
    psutil.Process(server).kill()
    time.sleep(seconds)
    up(home)
    ended = time.time_ns() // 1_000_000
    tries = [run, *_until_done(house, run)]
    words = tuple(line.strip() for one in tries for line in one.lines if WAITS.search(line))
    return Outage(began, ended, tuple(one.process.returncode for one in tries), words)


def _until_done(house: House, run: Try) -> Iterator[Try]:
    """The tries after ``run`` that it takes; a status that is not retryable is an error."""
    while True:
        if not run.ended(PATIENCE) or run.process.returncode not in {0, RETRYABLE}:
            raise AssertionError(f"it hangs, or ended with {run.process.returncode}:\n{_tail(run)}")
        if run.process.returncode == 0:
            return
        yield (run := house.start())


def _tail(run: Try) -> str:
    return "".join(run.lines[-40:])


def step_times(house: House, stage: str) -> Times:
    """When the optimizer steps of ``stage`` ended, by the points in MLflow."""
    records = [Records(house.store, key).step(stage) for key in house.keys]
    runs = {record.mlflow_run for record in records if record and record.mlflow_run}
    points = [point for run in runs for point in client().get_metric_history(run, "loss")]
    return {point.step: point.timestamp for point in sorted(points, key=lambda point: point.timestamp)}


def save_seconds(times: Mapping[int, int], every: int) -> float:
    """By how much a save lengthens the time to the end of the next step: the typical such time against the others."""
    gaps = {step: (times[later] - times[step]) / 1000 for step, later in pairwise(sorted(times))}
    saved = [gap for step, gap in gaps.items() if (step + 1) % every == 0]
    return median(saved) - median(gap for step, gap in gaps.items() if (step + 1) % every)


def longest_gap(times: Mapping[int, int], began: int, ended: int) -> float:
    """Seconds between the ends of two steps at most, of which one lies between two moments in milliseconds."""
    gaps = [later - one for one, later in pairwise(sorted(times.values())) if later >= began and one <= ended]
    return max(gaps, default=0) / 1000


def longer(mine: Mapping[str, Any], whole: Mapping[str, Any]) -> list[str]:
    """The steps of the pipeline that took longer than undisturbed, by their summaries."""
    before = {step["name"]: step["seconds"] for step in whole["steps"]}
    more = {step["name"]: step["seconds"] - before.get(step["name"], 0.0) for step in mine["steps"]}
    return [f"{name} took {seconds:.0f} s longer" for name, seconds in more.items() if seconds > LONGER]


def measure(home: Path, seconds: float, folder: Path) -> int:
    """Measure with the servers of ``home``, and print; the exit status."""
    platform = up(home)
    os.environ.update(platform.environment())
    whole = _house(folder, platform, "undisturbed", None)
    run = whole.start()
    if not run.ended(PATIENCE) or run.process.returncode:
        raise AssertionError(f"the undisturbed run did not succeed:\n{_tail(run)}")
    house = _house(folder, platform, "disturbed", whole)
    outage = disturb(house, home, seconds)
    problems = house.differences()
    print(f"S3 gone for {(outage.ended - outage.began) / 1000:.1f} s while {STAGE} trained")
    print(f"exit status of each try: {', '.join(map(str, outage.statuses))} (3 asks for another)")
    gap = longest_gap(step_times(house, STAGE), outage.began, outage.ended)
    print(f"longest {gap:.2f} s between two steps meanwhile; undisturbed {_undisturbed_gap(whole):.2f} s")
    print("\n".join(longer(house.summary, whole.summary)) or "no step of the pipeline took longer")
    print("\n".join(dict.fromkeys(outage.words)) or "nobody said that it waits")
    for stage in STAGES:
        cost = save_seconds(step_times(whole, stage), EVERY)
        print(f"{stage}: a checkpoint costs {cost:.3f} s, {cost / EVERY:.4f} s a step at one each {EVERY}")
    digests = len(house.artifacts)
    print("\n".join(problems) or f"nothing lost: {digests} artifacts, rows, curves and evaluation as undisturbed")
    return 1 if problems else 0


def _undisturbed_gap(house: House) -> float:
    times = step_times(house, STAGE)
    return longest_gap(times, min(times.values()), max(times.values()))


def _house(folder: Path, platform: Endpoints, name: str, whole: House | None) -> House:
    (folder / name).mkdir()
    return House(folder / name, replace(platform, store=f"{platform.store}-{name}"), f"outage-{name}", whole)
