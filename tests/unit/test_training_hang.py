"""A stage that makes no step any more: when it counts as hanging, and what is told of its ranks."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from ichigo.errors import InfrastructureError, StepError, error_for, exit_code_of
from ichigo.recipe.schema import Launch, Stage
from ichigo.training import StageJob, failure, launch, stacks
from ichigo.training.job import Resume
from ichigo.training.launch import Patience

RANK = """
import sys, threading
from pathlib import Path
from ichigo.training import stacks
def waits_for_somebody():
    print("ready", flush=True)
    threading.Event().wait()
stacks.offer(Path(sys.argv[1]), int(sys.argv[2]))
waits_for_somebody()
"""


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that wait for ever, as ranks in a collective do."""
    with ExitStack() as stack:
        found = []
        for rank in range(2):
            command = [sys.executable, "-c", RANK, str(tmp_path), str(rank)]
            found.append(stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True)))
            stack.callback(found[-1].kill)
        for process in found:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
        yield found


def test_every_rank_tells_where_it_stands_and_lives_on(ranks: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    told = stacks.ask(tmp_path)
    first, second = told.split("rank 1:")
    assert first.startswith("rank 0:\n")
    assert all("in waits_for_somebody" in part for part in (first, second))
    assert [process.poll() for process in ranks] == [None, None]


def test_a_rank_that_cannot_answer_is_named_with_its_state(ranks: list[subprocess.Popen[str]], tmp_path: Path) -> None:
    ranks[1].send_signal(signal.SIGSTOP)
    ranks[0].kill()
    ranks[0].wait()
    told = stacks.ask(tmp_path)
    assert f"no answer from process {ranks[1].pid}: stopped by a signal" in told
    assert f"no answer from process {ranks[0].pid}: gone" in told


class Clock:
    """Time that passes when told to."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(launch, "time", made)
    return made


def job(folder: Path) -> StageJob:
    stage = Stage(name="instruct", mix={"text": 1.0}, examples=8, steps=100, sequence_length=64, learning_rate=1e-3)
    return StageJob(folder, folder, folder, folder, stage, Launch(hang_seconds=60), seed=1)


def test_a_stage_hangs_when_no_step_ended_in_time(clock: Clock, tmp_path: Path) -> None:
    patience = Patience(job(tmp_path))
    for steps in (1, 2, 3):
        clock.now += 59
        patience.check(steps, tmp_path)
    clock.now += 61
    with pytest.raises(InfrastructureError) as caught:
        patience.check(3, tmp_path)
    assert str(caught.value).startswith("stage instruct hangs: 3 of 100 steps, and none ended within 60 s")
    assert caught.value.exit_code == 6


def test_the_first_step_may_take_longer_also_after_a_resume(clock: Clock, tmp_path: Path) -> None:
    resumed = replace(job(tmp_path), resume=Resume(tmp_path, "state", 40, tmp_path))
    for one, before in ((job(tmp_path), 0), (resumed, 40)):
        patience = Patience(one)
        clock.now += 899
        patience.check(before, tmp_path)
        clock.now += 2
        with pytest.raises(InfrastructureError, match="within 900 s"):
            patience.check(before, tmp_path)


class TestFaults:
    """Whose fault it is, told by the exit code."""

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (OSError(28, "No space left on device"), 6),
            (MemoryError(), 6),
            (FileNotFoundError(2, "x"), 5),
            (KeyError(), 5),
        ],
    )
    def test_what_ran_out_is_told_from_what_is_broken(self, error: Exception, code: int, tmp_path: Path) -> None:
        assert exit_code_of(error) == code
        with pytest.raises(type(error)), failure.recorded(tmp_path, 0):
            raise error
        reported = failure.read(tmp_path, "instruct", [], "")
        assert reported.exit_code == code
        assert isinstance(reported, StepError)

    def test_a_killed_process_is_the_machines_fault_and_a_crash_the_steps(self, tmp_path: Path) -> None:
        def rank(signal_: int) -> str:
            return f"[0]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : -{signal_} (pid: 7)\n"

        assert failure.read(tmp_path, "instruct", [], rank(9)).exit_code == 6
        assert failure.read(tmp_path, "instruct", [], rank(11)).exit_code == 5
        torchrun = failure.read(tmp_path, "instruct", ["last"], "", launcher=-9)
        assert torchrun.exit_code == 6
        assert str(torchrun).startswith("stage instruct: torchrun was killed by SIGKILL")

    def test_a_code_becomes_an_error_of_the_same_fault(self) -> None:
        assert [error_for(code).exit_code for code in (2, 3, 4, 5, 6, 130)] == [2, 3, 4, 5, 6, 130]
        assert error_for(0) is StepError
