"""Stages whose processes are killed, run again: real torchrun, DeepSpeed, checkpoints on disk, and SIGKILL.

Every try is a process of its own (:mod:`tests.services.stage_launcher`), so that what survives is on disk.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from ichigo.recipe.schema import Checkpoints, Launch
from ichigo.training import Point, StageJob
from tests.services.stage_world import STAGE, World, make_world

EVERY = 6
LONG = STAGE.model_copy(update={"steps": 60, "micro_batch": 1, "accumulation": 1})
NUMBERS = ("step", "loss", "grad_norm", "learning_rate", "tokens", "labelled_tokens")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("resume"))


@dataclass
class Try:
    """One try under way, and the lines that it has said."""

    process: subprocess.Popen[str]
    err: Path
    lines: list[str]

    @classmethod
    def start(cls, job: StageJob, place: Path) -> Try:
        asked = place.with_suffix(".json")
        job.write(asked)
        command = [sys.executable, "-m", "tests.services.stage_launcher", str(asked), str(place)]
        with place.with_suffix(".err").open("w") as err:
            process = subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=err)
        return cls(process, place.with_suffix(".err"), [])

    def until(self, beginning: str) -> None:
        """Read up to a line that begins so."""
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line)
            if line.startswith(beginning):
                return
        raise AssertionError(f"it ended before it said {beginning!r}: {self.lines} {self.rest()[1]}")

    def rest(self) -> tuple[int, str]:
        """Exit status and standard error of the ended try."""
        assert self.process.stdout
        self.lines += self.process.stdout.readlines()
        return self.process.wait(), self.err.read_text()

    @property
    def points(self) -> list[Point]:
        return [json.loads(line.removeprefix("point ")) for line in self.lines if line.startswith("point ")]

    @property
    def family(self) -> list[psutil.Process]:
        """torchrun and its ranks."""
        return [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]

    def rank(self, number: int) -> psutil.Process:
        ranks = [one for one in self.family if "-u" in (words := words_of(one)) and "ichigo.training.worker" in words]
        return next(one for one in ranks if one.environ().get("RANK") == str(number))

    def torchrun(self) -> psutil.Process:
        return next(one for one in self.family if "torch.distributed.run" in words_of(one))


def numbers(points: list[Point]) -> list[tuple[float, ...]]:
    """What has to be equal bit for bit; times are not."""
    return [tuple(point[name] for name in NUMBERS) for point in points]


def words_of(process: psutil.Process) -> list[str]:
    """Its command line; none of a child that has just ended."""
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:  # a zombie is one, too
        return []


def job_of(world: World, name: str, launch: Launch) -> StageJob:
    job = world.job(name, LONG, launch.model_copy(update={"checkpoints": Checkpoints(every=EVERY)}))
    return replace(job, threads=1)


def kill_rank_0(running: Try, _: Path) -> None:
    running.rank(0).kill()


def kill_the_launcher(running: Try, _: Path) -> None:
    running.process.kill()


def kill_torchrun(running: Try, _: Path) -> None:
    running.torchrun().kill()


def kill_rank_1_inside_a_save(running: Try, place: Path) -> None:
    """Stop the rank when a save is seen; only if the save is still unfinished then, the rank is inside it."""
    rank = running.rank(1)
    while True:
        if any(folder.name.startswith("saving-") for folder in place.iterdir()):
            rank.suspend()
            if any(folder.name.startswith("saving-") for folder in place.iterdir()):
                rank.kill()
                return
            rank.resume()


@pytest.mark.timeout(1800)  # four starts of torch and DeepSpeed
@pytest.mark.parametrize(
    ("zero", "kill", "status"),
    [
        (0, kill_rank_0, 6),
        (1, kill_the_launcher, -signal.SIGKILL),
        (2, kill_torchrun, 6),
        (3, kill_rank_1_inside_a_save, 6),
    ],
    ids=["zero0-rank0", "zero1-launcher", "zero2-torchrun", "zero3-rank1-in-save"],
)
def test_a_killed_stage_goes_on_and_comes_out_bit_for_bit(
    world: World, tmp_path: Path, zero: int, kill: Callable[[Try, Path], None], status: int
) -> None:
    launch = Launch.model_validate({"processes": 2, "zero": zero})
    whole = Try.start(job_of(world, f"whole{zero}", launch), tmp_path / "undisturbed")
    assert whole.rest()[0] == 0

    place, job = tmp_path / "place", job_of(world, f"killed{zero}", launch)
    killed = Try.start(job, place)
    killed.until("recorded ")
    family = killed.family
    kill(killed, place)
    assert killed.rest()[0] == status
    assert len(family) == 4  # launcher, torchrun, two ranks
    assert psutil.wait_procs(family, timeout=20)[1] == []
    assert len(killed.points) < LONG.steps
    shutil.copytree(place, tmp_path / "other")
    shutil.copy(tmp_path / "place-recorded.json", tmp_path / "other-recorded.json")

    again = Try.start(replace(job, attempt="bbbbbbbb"), place)
    assert again.rest()[0] == 0
    first = int(next(line for line in again.lines if line.startswith("resumed")).split()[1])
    assert first >= EVERY
    assert numbers(again.points) == numbers(whole.points)
    assert not [line for line in again.lines if "did not come out" in line]
    model = "model.safetensors"
    assert (job.output / model).read_bytes() == (job.output.parents[1] / f"whole{zero}/model" / model).read_bytes()
    require_other_processes(world, launch, tmp_path / "other", whole.points)


def require_other_processes(world: World, launch: Launch, place: Path, whole: list[Point]) -> None:
    """One process goes on where two were killed, with the same sequences per step; under ZeRO 3 it is refused."""
    one = job_of(world, f"one{launch.zero}", launch.model_copy(update={"processes": 1}))
    one = replace(one, stage=LONG.model_copy(update={"accumulation": 2}), attempt="cccccccc")
    alone = Try.start(one, place)
    status, err = alone.rest()
    if launch.zero == 3:
        assert status == 2
        assert "saved by 2 processes under ZeRO 3 and cannot be converted for 1 under ZeRO 3" in err
    else:
        assert status == 0, err
        assert any(line.startswith("resumed") for line in alone.lines)
        assert [point["loss"] for point in alone.points] == pytest.approx([p["loss"] for p in whole], rel=1e-4)


def test_a_stage_that_hangs_tells_where_every_rank_stands_and_can_be_run_again(world: World, tmp_path: Path) -> None:
    launch = Launch(processes=2, zero=1, hang_seconds=10)
    job = job_of(world, "hanging", launch)
    running = Try.start(replace(job, stage=LONG.model_copy(update={"steps": 100_000})), tmp_path / "place")
    running.until("recorded ")
    family, stopped = running.family, running.rank(1)
    stopped.suspend()
    status, err = running.rest()
    assert status == 6
    assert "stage instruct hangs: " in err
    asked = err.partition("rank 0:")[2]
    assert "loop.py" in asked.partition("rank 1:")[0], "in a step, or in a save that waits for the other"
    assert f"no answer from process {stopped.pid}: stopped by a signal" in asked.partition("rank 1:")[2]
    assert psutil.wait_procs(family, timeout=20)[1] == []
