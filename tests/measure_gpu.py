"""Whether a stage of ``smoke`` trains on a GPU as it does on a CPU: ``make gpu``, or ``python -m tests.measure_gpu``.

bf16 on NCCL, one process on each GPU, two at most. With ``--device cpu`` the same checks run in fp32, by two processes
on gloo, so that the script itself is known to work before a GPU is at hand. For ZeRO 1, 2 and 3 each:

- the stage's loss falls, and is at first that of ZeRO 1;
- the stage is killed (SIGKILL of rank 0, after a checkpoint) and run again. On a CPU every point and the model are the
  undisturbed ones bit for bit. torch's attention kernel adds parts of its gradient in any order, so on a GPU the same
  run is also repeated undisturbed, and the killed one may be no further off than four times what that one is;
- tokens a second, and peak memory beside what the recipe llama-3.2-1b-one-gpu plans with (:func:`planned_memory`).

Then the gradients of packed examples, and of the same examples alone, are held against fp32; and on a GPU a model of
1 G weights trains for a few steps, whose tokens a second stand beside the 40 % of the GPU's peak that this recipe
counts on. The exit status is 1 when a check fails and 2 without a CUDA device. Speed and memory are printed and not
judged.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

import numpy as np
import psutil

from ichigo import recipe as recipes
from ichigo.language.base import init_base
from ichigo.language.contract import TokenContract, contract_for
from ichigo.language.expand import expand
from ichigo.language.layouts import IGNORE, Example
from ichigo.language.packing import Packed, pack
from ichigo.recipe.schema import Checkpoints, Expand, InitBase, Launch, Stage
from ichigo.training import Point, StageJob
from tests.services.test_training_resume import Try, kill_rank_0, numbers

if TYPE_CHECKING:
    import torch

STEPS = 400  # of each try: enough that a GPU, too, is still at work when it is killed after the first hundred
FIRST = 10  # steps in which two ZeRO stages have to agree; rounding drives them apart later
NOISE = 4.0  # times that a resumed run may be further off than an undisturbed repetition
ACROSS = {"fp32": 1e-4, "bf16": 2e-2}  # by how much they may be off
ROUNDING = 1e-4  # of a gradient's norm: fp32 sums in another order
PEAK = {"H100": 989e12, "H200": 989e12}  # dense bf16 operations a second, by NVIDIA's data sheets
SHARE = 0.4  # of it, by the recipe llama-3.2-1b-one-gpu
LARGE = InitBase(kind="init", width=2048, layers=16, heads=32, kv_heads=8, feed_forward=8192, vocabulary=320)


@dataclass(frozen=True)
class Machine:
    """Where the stages run."""

    device: Literal["cuda", "cpu"]
    name: str
    processes: int

    @property
    def precision(self) -> Literal["fp32", "bf16"]:
        """Of the weights that compute."""
        return "bf16" if self.device == "cuda" else "fp32"


@dataclass(frozen=True)
class World:
    """A model and packed data of one contract, below ``folder``."""

    folder: Path
    base: InitBase
    parameters: int
    vocabulary: int

    def job(self, name: str, stage: Stage, launch: Launch) -> StageJob:
        """A stage in this world."""
        own = self.folder / name
        return StageJob(
            self.folder / "model", self.folder / "data", own / "model", own / "journal.jsonl", stage, launch, seed=5
        )


def make_world(folder: Path, base: InitBase, stage: Stage) -> World:
    """A base of random weights, 513 sound tokens more, and sequences of them that count, packed for the stage."""
    init_base(["the quick brown fox jumps over the lazy dog"], base, 7, folder / "base")
    contract = contract_for(folder / "base", "whispervq:gpu")
    expand(folder / "base", contract, Expand(), 3, folder / "model")
    pack(list(_counting(contract)), stage.sequence_length, True).save(folder / "data", contract)
    size = (folder / "model" / "model.safetensors").stat().st_size
    return World(folder, base, size // 4, contract.vocabulary)


def _counting(contract: TokenContract) -> list[Example]:
    random = np.random.default_rng(0)
    made = []
    for length in random.integers(6, 200, 600):
        ids = contract.sound_ids((random.integers(512) + np.arange(length)) % 512)
        made.append(Example(ids, np.where(np.arange(length) < length // 3 + 1, IGNORE, ids).astype(np.int32)))
    return made


def planned_memory(world: World, stage: Stage, launch: Launch) -> int:
    """Bytes of one process, as the recipe llama-3.2-1b-one-gpu counts them.

    Weights in 16 bit with gradients and, in fp32, weights and two Adam states: 16 bytes a weight, of which ZeRO 1
    shares 12 among the processes, ZeRO 2 14 and ZeRO 3 all (Rajbhandari et al., 2020, arXiv 1910.02054, figure 1). 34
    bytes a token, layer and width of activations. Three times the fp32 logits of a micro-batch, or of 256 rows where
    the loss is computed in chunks.
    """
    from ichigo.training.head import CHUNK, KEPT

    shared = {1: 12, 2: 14, 3: 16}[launch.zero]
    states = world.parameters * (16 - shared + shared / launch.processes)
    tokens = stage.micro_batch * stage.sequence_length
    rows = tokens if tokens * world.vocabulary <= KEPT else CHUNK
    return int(states + 34 * tokens * world.base.layers * world.base.width + 3 * 4 * rows * world.vocabulary)


@dataclass(frozen=True)
class Row:
    """What one ZeRO stage did; how far it is ``off`` is said by :func:`off`, of ZeRO 1 for the first steps."""

    zero: int
    first: float
    last: float
    off_zero_1: float
    off_repeated: float
    off_resumed: float
    same_bits: bool
    tokens_per_second: float
    memory: int
    planned: int

    def faults(self, precision: str) -> list[str]:
        """What is not as it must be."""
        found = []
        if not self.last < self.first:
            found.append(f"the loss does not fall: {self.first:.3f}, then {self.last:.3f}")
        if self.off_zero_1 > ACROSS[precision]:
            found.append(f"its first losses are off by {self.off_zero_1:.2g} from those of ZeRO 1")
        if self.off_resumed > NOISE * self.off_repeated or not (self.same_bits or self.off_repeated):
            found.append(
                f"killed and resumed, it is off by {self.off_resumed:.2g}; repeated, by {self.off_repeated:.2g}"
            )
        return [f"ZeRO {self.zero}: {fault}" for fault in found]


def off(points: Sequence[Point], others: Sequence[Point]) -> float:
    """The largest difference between two losses of a step, in parts of the first loss; infinite if a step lacks."""
    if len(points) != len(others):
        return float("inf")
    differences = (abs(one["loss"] - other["loss"]) for one, other in zip(points, others, strict=True))
    return max(differences) / points[0]["loss"]


def speed(points: Sequence[Point]) -> float:
    """Tokens a second of the typical step; the first of a process warms up."""
    return median(point["tokens_per_second"] for point in points[1:])


def run(job: StageJob) -> list[Point]:
    """The points of a stage that nobody disturbs; ``RuntimeError`` with its words if it fails."""
    job.journal.parent.mkdir(parents=True, exist_ok=True)
    one = Try.start(job, job.journal.parent / "place")
    status, words = one.rest()
    if status:
        raise RuntimeError(f"the stage ended with status {status}: {words}")
    return one.points


def run_killed(job: StageJob) -> list[Point]:
    """The points of a stage whose rank 0 was killed after its first checkpoint, and that was run again."""
    job.journal.parent.mkdir(parents=True, exist_ok=True)
    place = job.journal.parent / "place"
    killed = Try.start(job, place)
    killed.until("recorded ")
    with suppress(StopIteration, psutil.NoSuchProcess):  # it has ended, as is said below
        kill_rank_0(killed, place)
    if killed.rest()[0] == 0:
        raise RuntimeError("the stage ended before it could be killed; give more --steps")
    again = Try.start(replace(job, attempt="bbbbbbbb"), place)
    status, words = again.rest()
    if status or not any(line.startswith("resumed") for line in again.lines):
        raise RuntimeError(f"the stage did not go on (status {status}): {words}")
    return again.points


def measure_zero(
    world: World, stage: Stage, launch: Launch, machine: Machine, of_zero_1: Sequence[Point]
) -> tuple[Row, list[Point]]:
    """Train, kill and go on, and on a GPU train once more; with the points of the undisturbed try."""
    jobs = {name: world.job(f"{name}{launch.zero}", stage, launch) for name in ("whole", "repeated", "killed")}
    whole, resumed = run(jobs["whole"]), run_killed(jobs["killed"])
    repeated = run(jobs["repeated"]) if machine.device == "cuda" else whole
    models = [(jobs[name].output / "model.safetensors").read_bytes() for name in ("whole", "killed")]
    row = Row(
        zero=launch.zero,
        first=whole[0]["loss"],
        last=whole[-1]["loss"],
        off_zero_1=off(whole[:FIRST], (of_zero_1 or whole)[:FIRST]),
        off_repeated=off(whole, repeated),
        off_resumed=off(whole, resumed),
        same_bits=numbers(whole) == numbers(resumed) and models[0] == models[1],
        tokens_per_second=speed(whole),
        memory=int(max(point["peak_memory"] for point in whole)),
        planned=planned_memory(world, stage, launch),
    )
    return row, whole


def packing(world: Path, device: Literal["cuda", "cpu"]) -> dict[str, float]:
    """How far the gradients are off from those in fp32 of the examples alone: packed, and alone, in the device's
    precision; and whether torch's kernel attended (1) or the loop over segments."""
    import torch

    from ichigo.training.attention import kernel

    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    contract = TokenContract.load(world / "model")
    data = Packed.load(world / "data", contract)
    exact = _gradient(world, data, contract, torch.device(device), torch.float32, together=False)
    found = {"kernel": float(kernel(device, dtype) is not None)}
    for name, together in (("packed", True), ("alone", False)):
        gradient = _gradient(world, data, contract, torch.device(device), dtype, together=together)
        found[name] = float((gradient - exact).norm() / exact.norm())
    return found


def _gradient(
    world: Path, data: Packed, contract: TokenContract, device: torch.device, dtype: torch.dtype, *, together: bool
) -> torch.Tensor:
    """The gradient of the loss on the first sequence, as one vector in fp32; ``together`` as the stages compute it."""
    import torch

    from ichigo.language.checkpoint import load_model
    from ichigo.training import attention
    from ichigo.training.model import MicroBatch, StageModel

    llama = load_model(world / "model", contract, dtype).to(device)  # type: ignore[arg-type]
    parameters = list(llama.parameters())
    if together:
        llama.set_attn_implementation(attention.NAME)
        StageModel(llama)(MicroBatch.join([data.sequence(0)], device)).backward()
    else:
        ids, labels, borders, _ = (torch.from_numpy(np.asarray(part)).long().to(device) for part in data.sequence(0))
        for first, last in pairwise(borders.tolist()):
            logits = llama(input_ids=ids[None, first:last]).logits[0, :-1].float()
            targets = labels[first + 1 : last]
            loss = torch.nn.functional.cross_entropy(logits, targets, reduction="sum", ignore_index=IGNORE)
            torch.autograd.backward(loss)
    return torch.cat([parameter.grad.flatten().float() for parameter in parameters if parameter.grad is not None])


def packing_faults(found: dict[str, float]) -> list[str]:
    """Packed examples may be twice as far off as the precision makes examples alone."""
    if found["packed"] <= max(2 * found["alone"], ROUNDING):
        return []
    return [f"gradients of packed examples are off by {found['packed']:.2g}, alone by {found['alone']:.2g}"]


def table(rows: Sequence[Row], machine: Machine, torch_version: str, kernel: bool) -> str:
    """The rows for a person, and later for a reader of the repository."""
    attended = "torch's kernel" if kernel else "the loop over segments"
    lines = [
        f"torch {torch_version} on {machine.name}, {machine.precision}, {machine.processes} process(es), "
        f"attention by {attended}",
        "",
        "| ZeRO | loss, first and last step | off from ZeRO 1 | repeated, off by | killed and resumed, off by "
        "| tokens/s | peak MiB | planned MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        repeated = f"{row.off_repeated:.2g}" if machine.device == "cuda" else "not run"
        resumed = "0, all bits equal" if row.same_bits else f"{row.off_resumed:.2g}"
        planned = f"{row.planned / 2**20:.0f}" if machine.device == "cuda" else "of GPUs alone"
        lines.append(
            f"| {row.zero} | {row.first:.4f}, {row.last:.4f} | {row.off_zero_1:.2g} | {repeated} | {resumed} "
            f"| {row.tokens_per_second:.0f} | {row.memory / 2**20:.0f} | {planned} |"
        )
    return "\n".join(lines)


def large(machine: Machine, folder: Path) -> str:
    """One line about a few steps of a model of 1 G weights, under the batch of its recipe's first stage."""
    recipe = recipes.load("llama-3.2-1b-one-gpu")
    short = {"steps": 6, "accumulation": 2, "warmup_steps": 1, "packing": True}
    stage = recipe.stage("pretrain").model_copy(update=short)
    launch = recipe.launch.model_copy(update={"checkpoints": Checkpoints(every=0)})
    world = make_world(folder, LARGE, stage)
    points = run(world.job("large", stage, launch))
    peak = next((peak for name, peak in PEAK.items() if name in machine.name), None)
    planned = f"{SHARE * peak / (6 * world.parameters):.0f}" if peak else f"unknown for {machine.name}"
    memory = max(point["peak_memory"] for point in points) / 2**20
    return (
        f"{world.parameters / 1e9:.2f} G weights: {speed(points):.0f} tokens/s, planned {planned}; "
        f"peak {memory:.0f} MiB, planned {planned_memory(world, stage, launch) / 2**20:.0f} MiB"
    )


def smoke(steps: int) -> tuple[InitBase, Stage]:
    """The base of ``smoke`` and its second stage, cut to ``steps``."""
    recipe = recipes.load("smoke")
    assert isinstance(recipe.base, InitBase)
    return recipe.base, recipe.stage("instruct").model_copy(update={"steps": steps})


def measure(machine: Machine, steps: int, folder: Path) -> tuple[str, list[str]]:
    """The report and what is wrong."""
    import torch

    base, stage = smoke(steps)
    world = make_world(folder / "smoke", base, stage)
    saves = Checkpoints(every=max(steps // 4, 1))
    made = {"processes": machine.processes, "precision": machine.precision, "checkpoints": saves}
    launches = [Launch.model_validate({**made, "zero": zero}) for zero in (1, 2, 3)]
    rows: list[Row] = []
    of_zero_1: list[Point] = []
    for launch in launches:
        row, whole = measure_zero(world, stage, launch, machine, of_zero_1)
        rows.append(row)
        of_zero_1 = of_zero_1 or whole
    command = [sys.executable, "-m", __spec__.name, "--packing", str(world.folder), "--device", machine.device]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()[-1])
    faults = [fault for row in rows for fault in row.faults(machine.precision)] + packing_faults(found)
    report = [table(rows, machine, torch.__version__, bool(found["kernel"])), ""]
    report.append(
        f"gradients of packed examples off by {found['packed']:.2g}, of examples alone by {found['alone']:.2g}"
    )
    if machine.device == "cuda":
        shutil.rmtree(world.folder)
        report.append(large(machine, folder / "large"))
    return "\n".join([*report, "", *(faults or ["every check holds"])]) + "\n", faults


def find_machine(device: str) -> Machine | None:
    """What ``device`` names here; None for a GPU where there is none."""
    import torch

    if device == "cpu":
        return Machine("cpu", f"{os.cpu_count()} CPU cores", 2)
    if not torch.cuda.is_available():
        return None
    return Machine("cuda", torch.cuda.get_device_name(0), min(torch.cuda.device_count(), 2))


def main(given: Sequence[str] | None = None) -> int:
    """Measure, print, and write the report if asked; or do the part of a child."""
    parser = argparse.ArgumentParser(description="the stages of smoke on a GPU")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--steps", type=int, default=STEPS, help="optimizer steps of each try")
    parser.add_argument("--out", type=Path, help="also write the report here")
    parser.add_argument("--packing", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(given)
    if arguments.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks, and for the workers
    if arguments.packing:
        print(json.dumps(packing(arguments.packing, arguments.device)))
        return 0
    machine = find_machine(arguments.device)
    if machine is None:
        print("no CUDA device on this machine, nothing was measured; --device cpu does the same checks in fp32 on gloo")
        return 2
    with tempfile.TemporaryDirectory(prefix="ichigo-gpu-") as scratch:
        report, faults = measure(machine, arguments.steps, Path(scratch))
    print(report, end="")
    if arguments.out:
        arguments.out.write_text(report)
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
