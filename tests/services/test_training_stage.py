"""Whole stages by real torchrun and DeepSpeed on the CPU: numbers against plain PyTorch, failures, and no orphans."""

from __future__ import annotations

import math
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

from ichigo.errors import Cancelled, ContractError, ProbeError, StepError
from ichigo.language.checkpoint import load_model
from ichigo.language.layouts import IGNORE, Layouts, Sample, Turn
from ichigo.language.packing import Packed, pack
from ichigo.recipe.schema import Launch
from ichigo.training import Point, StageJob, StageResult
from ichigo.training.journal import JournalReader
from ichigo.training.order import DataOrder
from ichigo.training.schedule import learning_rate
from tests.services.stage_world import STAGE, STEPS, World, counting_examples, make_world


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    return make_world(tmp_path_factory.mktemp("stage"))


@pytest.fixture(scope="module")
def finished(world: World) -> tuple[StageJob, StageResult, list[Point]]:
    points: list[Point] = []
    job = world.job("finished")
    return job, world.run(job, points.append), points


def plain_stage(world: World, job: StageJob) -> tuple[list[float], list[float], dict[str, torch.Tensor]]:
    """Losses, gradient norms and final weights of the same stage in plain PyTorch, example by example."""
    model: Any = load_model(job.model, world.contract, torch.float32).train()
    optimizer = torch.optim.AdamW(model.parameters(), eps=STAGE.epsilon, weight_decay=STAGE.weight_decay)
    data = world.data
    order = DataOrder(len(data), job.seed, job.world, STAGE.micro_batch, STAGE.accumulation)
    losses, norms = [], []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = learning_rate(STAGE, step)
        loss = plain_loss(model, data, order.whole_step(step))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)))
        optimizer.step()
        losses.append(loss.item())
    return losses, norms, dict(model.named_parameters())


def plain_loss(model: Any, data: Packed, sequences: list[int]) -> torch.Tensor:
    """Mean over all labelled tokens of ``sequences``; every example goes through the model alone."""
    summed, labelled = [], 0
    for sequence in map(data.sequence, sequences):
        for first, last in pairwise(sequence.cu_seqlens):
            ids = torch.from_numpy(sequence.input_ids[first:last].astype(np.int64))
            labels = torch.from_numpy(sequence.labels[first:last].astype(np.int64))
            logits = model(input_ids=ids[None]).logits[0]
            summed.append(cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=IGNORE))
            labelled += int((labels != IGNORE).sum())
    return torch.stack(summed).sum() / labelled


def require_equal_to_plain(world: World, job: StageJob, points: list[Point]) -> None:
    losses, norms, weights = plain_stage(world, job)
    assert [point["loss"] for point in points] == pytest.approx(losses, rel=1e-5)
    assert [point["grad_norm"] for point in points] == pytest.approx(norms, rel=1e-4)
    written = load_file(job.output / "model.safetensors")
    assert written.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(written[name], weight.detach(), rtol=1e-4, atol=2e-5, msg=name)


def test_a_stage_learns_and_its_journal_is_complete(
    world: World, finished: tuple[StageJob, StageResult, list[Point]]
) -> None:
    job, result, points = finished
    assert [point["step"] for point in points] == list(range(STEPS))
    assert points == JournalReader(job.journal).new_points()
    assert points[-1]["loss"] < points[0]["loss"] - 0.5
    assert [point["learning_rate"] for point in points] == [learning_rate(STAGE, step) for step in range(STEPS)]
    order = DataOrder(len(world.data), job.seed, 2, STAGE.micro_batch, STAGE.accumulation)
    labels = [world.data.sequence(index)[1] for step in range(STEPS) for index in order.whole_step(step)]
    assert result.tokens == sum(len(sequence) for sequence in labels)
    assert result.labelled_tokens == sum(int((sequence != IGNORE).sum()) for sequence in labels)
    assert (result.model, result.steps, result.loss) == (job.output, STEPS, points[-1]["loss"])


def test_the_trained_folder_opens_under_its_contract_with_its_tokenizer(
    world: World, finished: tuple[StageJob, StageResult, list[Point]]
) -> None:
    job, _, points = finished
    model: Any = load_model(job.output, world.contract)
    with torch.no_grad():
        loss = plain_loss(model, world.data, list(range(len(world.data))))
    assert loss.item() < points[0]["loss"] - 0.5
    kept = {"tokenizer.json", "tokenizer_config.json", "generation_config.json", "contract.json"}
    assert all((job.output / name).read_bytes() == (job.model / name).read_bytes() for name in kept)


def test_two_processes_with_accumulation_take_the_steps_of_plain_pytorch(
    world: World, finished: tuple[StageJob, StageResult, list[Point]]
) -> None:
    require_equal_to_plain(world, finished[0], finished[2])


@pytest.mark.parametrize(
    "launch",
    [
        Launch(processes=1, zero=0),
        Launch(processes=2, zero=2),
        Launch(processes=2, zero=3, activation_checkpointing=True),
    ],
    ids=["one-zero0", "two-zero2", "two-zero3-recompute"],
)
def test_every_zero_stage_takes_the_steps_of_plain_pytorch(world: World, launch: Launch) -> None:
    points: list[Point] = []
    job = world.job(f"zero{launch.zero}-{launch.processes}", launch=launch)
    world.run(job, points.append)
    require_equal_to_plain(world, job, points)


def test_the_same_job_gives_the_same_bytes(world: World, finished: tuple[StageJob, StageResult, list[Point]]) -> None:
    first, again = finished[0].output, world.run(world.job("again")).model
    written = sorted(path.name for path in first.iterdir())
    assert written == sorted(path.name for path in again.iterdir())
    assert all((first / name).read_bytes() == (again / name).read_bytes() for name in written)


@pytest.fixture(scope="module")
def questions(world: World) -> Path:
    """Spoken questions with written answers, which alone carry loss."""
    layouts = Layouts.open(world.folder / "base", world.contract)
    random = np.random.default_rng(1)
    asked = [random.integers(0, 513, length).astype(np.int16) for length in random.integers(6, 30, 40)]
    samples = [Sample("speech", (Turn(codes, "the quick fox"),)) for codes in asked]
    pack([layouts.example(sample, "answers") for sample in samples], 96, True).save(
        world.folder / "questions", world.contract
    )
    return world.folder / "questions"


def test_what_is_replaced_depends_on_the_step_and_not_on_who_reads_it(world: World, questions: Path) -> None:
    def losses(name: str, processes: int, accumulation: int, share: float) -> list[float]:
        stage = STAGE.model_copy(update={"steps": 4, "accumulation": accumulation, "replacement": share})
        job = world.job(f"replaced-{name}", stage, Launch(processes=processes))
        points: list[Point] = []
        world.run(replace(job, data=questions), points.append)
        return [point["loss"] for point in points]

    two, one, none = losses("two", 2, 1, 0.9), losses("one", 1, 2, 0.9), losses("none", 1, 2, 0.0)
    assert two == pytest.approx(one, rel=1e-5)
    assert none != pytest.approx(one, rel=1e-4)


def test_data_of_another_contract_stops_the_stage_before_its_first_step(world: World) -> None:
    other = replace(world.contract, speech_tokenizer="whispervq:other")
    pack(counting_examples(other), STAGE.sequence_length, True).save(world.folder / "other", other)
    job = replace(world.job("contract"), data=world.folder / "other")
    with pytest.raises(ContractError, match="speech_tokenizer: expected whispervq:abc, found whispervq:other"):
        world.run(job)
    assert not job.journal.exists()


def test_a_failing_worker_is_reported_with_its_traceback(world: World) -> None:
    job = world.job("failing", STAGE.model_copy(update={"steps": 2}))
    job.output.parent.mkdir()
    job.output.write_text("a file where the export needs a folder")
    with pytest.raises(StepError) as caught:
        world.run(job)
    message = str(caught.value)
    assert message.startswith("stage instruct: rank 0 failed\nTraceback")
    assert message.splitlines()[-1].startswith("FileExistsError")
    assert "ChildFailedError" not in message


def test_a_loss_that_is_not_finite_stops_the_stage_at_its_step(world: World) -> None:
    job = world.job("diverging", STAGE.model_copy(update={"learning_rate": 1e30, "warmup_steps": 0}))
    points: list[Point] = []
    with pytest.raises(
        ProbeError, match=r"stage instruct stopped at step 1: .* (nan|inf) at learning rate 9\.\d+e\+29"
    ):
        world.run(job, points.append)
    assert len(points) == 1
    assert math.isfinite(points[0]["loss"])
    assert not job.output.exists()


def processes_of_the_stage() -> list[psutil.Process]:
    """torchrun and its ranks."""
    return [child for child in psutil.Process().children(recursive=True) if "ichigo.training.worker" in command(child)]


def command(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it ended while we looked
        return []


def test_a_killed_worker_is_named(world: World) -> None:
    killed: list[psutil.Process] = []

    def kill_rank_1(_: Point) -> None:
        if not killed:
            killed.extend(process for process in processes_of_the_stage() if process.environ().get("RANK") == "1")
            killed[0].kill()

    job = world.job("killed", STAGE.model_copy(update={"steps": 10_000}))
    with pytest.raises(StepError, match="stage instruct: rank 1 was killed by SIGKILL"):
        world.run(job, kill_rank_1)


def test_a_cancelled_stage_leaves_no_process(world: World) -> None:
    started: list[psutil.Process] = []

    def cancel(_: Point) -> None:
        started.extend(processes_of_the_stage())
        raise Cancelled("by hand")

    with pytest.raises(Cancelled):
        world.run(world.job("cancelled", STAGE.model_copy(update={"steps": 10_000})), cancel)
    assert len(started) == 3  # torchrun and two ranks
    assert not psutil.wait_procs(started, timeout=20)[1]


LAUNCHER = """
import sys
from pathlib import Path
from ichigo.training import StageJob, run_stage
run_stage(StageJob.read(Path(sys.argv[1])), Path(sys.argv[2]), lambda point: print("point", point["step"], flush=True))
"""


def test_a_launcher_killed_with_sigkill_takes_every_process_with_it(world: World, tmp_path: Path) -> None:
    job = world.job("orphans", STAGE.model_copy(update={"steps": 100_000}))
    job.write(tmp_path / "asked.json")
    command = [sys.executable, "-c", LAUNCHER, str(tmp_path / "asked.json"), str(tmp_path / "work")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as launcher:
        assert launcher.stdout is not None
        next(line for line in launcher.stdout if line.startswith("point"))
        children = psutil.Process(launcher.pid).children(recursive=True)
        for child in children:
            child.suspend()  # as good as hung: it notices neither a broken pipe nor a lost connection
        launcher.kill()
        _, alive = psutil.wait_procs(children, timeout=20)
        for process in alive:
            process.kill()
    assert len(children) == 3  # torchrun and two ranks
    assert alive == []
