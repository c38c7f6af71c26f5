"""A stage without torch: schedule, data order, job, journal, command line and the error that a failed rank leaves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from ichigo.errors import ContractError, ProbeError, StepError, UserError
from ichigo.recipe.schema import Launch, Stage
from ichigo.training import StageJob, failure, run_stage
from ichigo.training.journal import JournalReader, JournalWriter
from ichigo.training.launch import torchrun_command
from ichigo.training.order import DataOrder
from ichigo.training.schedule import learning_rate


def stage(**changes: object) -> Stage:
    fields = {"name": "pretrain", "mix": {"text": 1.0}, "examples": 8, "steps": 12, "sequence_length": 64}
    return Stage.model_validate(fields | {"learning_rate": 1e-3, "warmup_steps": 4} | changes)


def job(folder: Path, **launch: object) -> StageJob:
    return StageJob(
        model=folder / "model",
        data=folder / "data",
        output=folder / "out",
        journal=folder / "journal.jsonl",
        stage=stage(betas=(0.9, 0.95)),
        launch=Launch.model_validate(launch),
        seed=3,
    )


def test_the_warm_up_is_linear_reaches_the_peak_and_wastes_no_step() -> None:
    rates = [learning_rate(stage(), step) for step in range(5)]
    assert rates == pytest.approx([0.25e-3, 0.5e-3, 0.75e-3, 1e-3, 1e-3])


@pytest.mark.parametrize(
    ("schedule", "halfway", "last"),
    [("cosine", 0.5e-3, 0.0381e-3), ("linear", 0.5e-3, 0.125e-3), ("constant", 1e-3, 1e-3)],
)
def test_the_schedule_falls_from_the_peak_to_its_end(schedule: str, halfway: float, last: float) -> None:
    rates = [learning_rate(stage(schedule=schedule), step) for step in (4, 8, 11)]
    assert rates == pytest.approx([1e-3, halfway, last], rel=2e-3)


def test_a_schedule_that_is_all_warm_up_ends_at_its_peak() -> None:
    assert learning_rate(stage(steps=4), 3) == 1e-3


def test_every_epoch_is_a_partition_over_ranks_steps_and_micro_batches() -> None:
    order = DataOrder(sequences=24, seed=1, world=2, micro_batch=3, accumulation=2)
    epochs = []
    for epoch in range(3):  # 24 sequences are two steps of 2 x 2 x 3
        steps = range(2 * epoch, 2 * epoch + 2)
        read = [order.micro_batches(step, rank) for step in steps for rank in range(2)]
        epochs.append([index for parts in read for part in parts for index in part])
        assert sorted(epochs[-1]) == list(range(24))
    assert epochs[0] != epochs[1] != epochs[2]


def test_sequences_that_do_not_divide_into_steps_are_all_read_equally_often() -> None:
    order = DataOrder(sequences=7, seed=1, world=2, micro_batch=1, accumulation=2)
    read = Counter(index for step in range(7) for index in order.whole_step(step))  # 28 = 4 epochs of 7
    assert read == dict.fromkeys(range(7), 4)


def test_the_order_depends_on_the_seed_and_on_nothing_that_happened_before() -> None:
    order = DataOrder(sequences=50, seed=1, world=2, micro_batch=2, accumulation=2)
    later = order.micro_batches(9, 1)
    assert [order.micro_batches(step, 1) for step in range(10)][9] == later
    assert replace(order, seed=2).micro_batches(9, 1) != later


def test_a_step_holds_the_same_sequences_however_it_is_divided() -> None:
    two = DataOrder(sequences=50, seed=1, world=2, micro_batch=2, accumulation=1)
    one = DataOrder(sequences=50, seed=1, world=1, micro_batch=2, accumulation=2)
    for step in range(20):
        both = [index for rank in range(2) for index in two.micro_batches(step, rank)[0]]
        assert both == [index for part in one.micro_batches(step, 0) for index in part] == two.whole_step(step)


def test_a_job_survives_its_file(tmp_path: Path) -> None:
    written = job(tmp_path, processes=4, zero=3, precision="bf16")
    written.write(tmp_path / "job.json")
    assert StageJob.read(tmp_path / "job.json") == written


def test_more_nodes_than_this_machine_are_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"launch\.nodes is 2"):
        run_stage(job(tmp_path, nodes=2), tmp_path / "work", print)
    assert not (tmp_path / "work").exists()


def test_a_journal_is_followed_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    reader = JournalReader(path)
    assert reader.new_points() == []  # the file does not exist yet
    writer = JournalWriter(path)
    writer.append({"step": 0, "loss": 2.5})
    writer.append({"step": 1, "loss": 2.25})
    assert [point["loss"] for point in reader.new_points()] == [2.5, 2.25]
    with path.open("a") as file:
        file.write('{"step": 2,')
    assert reader.new_points() == []
    with path.open("a") as file:
        file.write(' "loss": 2.0}\n')
    assert reader.new_points() == [{"step": 2, "loss": 2.0}]


def test_torchrun_stays_on_the_loopback_interface_and_takes_any_free_port() -> None:
    command = torchrun_command(3, Path("job.json"))
    assert command[:3] == [sys.executable, "-m", "torch.distributed.run"]
    assert {"--nproc-per-node=3", "--rdzv-endpoint=127.0.0.1:0", "--local-addr=127.0.0.1"} < set(command)
    assert command[-3:] == ["-m", "ichigo.training.worker", "job.json"]


def fail(folder: Path, rank: int, error: Exception) -> None:
    with failure.recorded(folder, rank):
        raise error


def test_the_rank_that_failed_first_is_the_one_that_is_reported(tmp_path: Path) -> None:
    for rank, error in [(1, ZeroDivisionError("the cause")), (0, ConnectionError("closed by peer"))]:
        with pytest.raises(type(error)):
            fail(tmp_path, rank, error)
    reported = failure.read(tmp_path, "instruct", ["noise"], "ChildFailedError")
    assert type(reported) is StepError
    assert "stage instruct: rank 1 failed\nTraceback" in str(reported)
    assert str(reported).endswith("ZeroDivisionError: the cause")


def test_an_error_of_ichigo_keeps_its_type_and_words(tmp_path: Path) -> None:
    with pytest.raises(ContractError):
        fail(tmp_path, 0, ContractError("vocabulary: expected 5, found 6"))
    reported = failure.read(tmp_path, "instruct", [], "")
    assert type(reported) is ContractError
    assert str(reported) == "vocabulary: expected 5, found 6"


def test_failures_of_an_earlier_try_are_forgotten(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="old"):
        fail(tmp_path, 0, ValueError("old"))
    failure.clear(tmp_path)
    reported = str(failure.read(tmp_path, "enhance", ["last line"], ""))
    assert reported == "stage enhance: the workers ended without a word\nlast line"


def test_a_killed_rank_is_reported_before_those_that_lost_their_connection_to_it(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        fail(tmp_path, 0, ConnectionError("closed by peer"))
    summary = (
        "[0]:\n  rank      : 0 (local_rank: 0)\n  exitcode  : -15 (pid: 6)\n"
        "[1]:\n  rank      : 1 (local_rank: 1)\n  exitcode  : -11 (pid: 7)\n"
    )
    reported = str(failure.read(tmp_path, "enhance", ["last line"], summary))
    assert reported == "stage enhance: rank 1 was killed by SIGSEGV\nlast line"


def test_a_rank_that_aborts_while_it_ends_does_not_hide_the_cause(tmp_path: Path) -> None:
    """gloo's threads do that when the peer of a rank that stops has gone."""
    with pytest.raises(ProbeError):
        fail(tmp_path, 1, ProbeError("stage enhance stopped at step 1"))
    summary = "[0]:\n  rank      : 0 (local_rank: 0)\n  exitcode  : -6 (pid: 6)\n"
    reported = failure.read(tmp_path, "enhance", ["last line"], summary)
    assert (type(reported), str(reported)) == (ProbeError, "stage enhance stopped at step 1")


def test_the_launcher_needs_no_torch() -> None:
    code = "import sys, json, ichigo.training; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "deepspeed", "transformers"} & set(json.loads(done.stdout))
