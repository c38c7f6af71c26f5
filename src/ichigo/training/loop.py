"""The training loop of one rank on ``deepspeed.initialize``: start or go on, one optimizer step, save, export.

A stage that goes on takes the very steps that it would have taken: batches, replaced tokens and learning rates are
functions of the step's number, and no layer draws random numbers, so weights and optimizer state are all there is to
save.
"""

from __future__ import annotations

import io
import math
import os
import resource
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ichigo.errors import DataError, ProbeError
from ichigo.language.contract import TokenContract
from ichigo.language.layouts import IGNORE
from ichigo.language.noising import replace_sound_tokens
from ichigo.language.packing import Packed, PackedSequence
from ichigo.progress import Progress
from ichigo.training.checkpoint import JOURNAL, STATE, finish_saving, saving_folder
from ichigo.training.job import StageJob
from ichigo.training.journal import JournalWriter, Point
from ichigo.training.model import MicroBatch, StageModel, export
from ichigo.training.muon import Muon, matrices_of
from ichigo.training.order import DataOrder
from ichigo.training.schedule import learning_rate

# Read while deepspeed is imported; without it DeepSpeed searches for devices and warns when it finds none.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed

_BUCKET = 500_000_000  # elements; DeepSpeed's own default


@dataclass(frozen=True)
class StageState:
    """What a step needs beyond its number."""

    job: StageJob
    contract: TokenContract
    data: Packed
    order: DataOrder
    engine: Any  # deepspeed.DeepSpeedEngine
    device: torch.device
    rank: int


def train(job: StageJob, data: Packed) -> None:
    """Train ``job`` as one rank of the running torchrun and export the model."""
    state = start(job, data)
    first = state.rank == 0
    journal = JournalWriter(job.journal) if first else None
    progress = Progress(job.name, job.stage.steps, "steps", before=job.first_step) if first else None
    for step in range(job.first_step, job.stage.steps):
        point = train_step(state, step)
        if journal and progress:
            journal.append(point)
            progress.advance(note=f"loss {point['loss']:.3f} · {point['tokens_per_second']:.0f} tokens/s")
        if job.saves and job.saves_after(step):
            save(state, job.saves, step + 1)
    weights = whole_weights(state)
    if first:
        export(weights, job.model, job.output)
    torch.distributed.destroy_process_group()


def start(job: StageJob, data: Packed) -> StageState:
    """Join the other ranks, load the model, wrap it in a DeepSpeed engine, and load what the job resumes from."""
    device = _join_ranks()
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    torch.manual_seed(job.seed)
    contract = TokenContract.load(job.model)
    model = StageModel.load(job.model, contract, job.launch)
    config = deepspeed_config(job, sum(parameter.numel() for parameter in model.parameters()))
    with redirect_stdout(io.StringIO()):  # under bf16 DeepSpeed prints its memory use; its warnings go elsewhere
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer_for(job, model), config=config)
    if job.resume:
        engine.load_checkpoint(str(job.resume.folder), tag=job.resume.tag)
    order = DataOrder(len(data), job.seed, world, job.stage.micro_batch, job.stage.accumulation)
    return StageState(job, contract, data, order, engine, device, rank)


def save(state: StageState, place: Path, done: int) -> None:
    """Save the state after ``done`` steps into a new folder of ``place``; every rank has to call it.

    The folder has its final name only when every rank has written its part: DeepSpeed ends with a barrier.
    """
    folder = saving_folder(place, done, state.job.attempt)
    state.engine.save_checkpoint(str(folder), tag=STATE, save_latest=False)
    if state.rank == 0:
        shutil.copyfile(state.job.journal, folder / JOURNAL)
        finish_saving(folder)


def optimizer_for(job: StageJob, model: StageModel) -> torch.optim.Optimizer:
    """The optimizer that the stage names; fused, because five separate passes took 4 ms of a step of 58 ms."""
    options: dict[str, Any] = {
        "lr": job.stage.learning_rate,
        "betas": job.stage.betas,
        "eps": job.stage.epsilon,
        "weight_decay": job.stage.weight_decay,
        "fused": True,
    }
    if job.stage.optimizer == "muon":
        return Muon(*matrices_of(model), **options)
    return torch.optim.AdamW(model.parameters(), **options)


def deepspeed_config(job: StageJob, parameters: int) -> dict[str, Any]:
    """DeepSpeed's configuration for a model of so many ``parameters``.

    Under bf16, ZeRO keeps fp32 master weights and sums gradients in fp32. The bucket for gradients is allocated anew
    at every step: at DeepSpeed's size for a small model, that took 5 ms of a step of 58 ms.
    """
    half = job.launch.precision == "bf16"
    return {
        "train_micro_batch_size_per_gpu": job.stage.micro_batch,
        "gradient_accumulation_steps": job.stage.accumulation,
        "zero_optimization": {"stage": job.launch.zero, "reduce_bucket_size": min(parameters, _BUCKET)},
        "zero_allow_untested_optimizer": True,  # torch's AdamW
        "bf16": {"enabled": half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "gradient_clipping": job.stage.gradient_clip or 0.0,
        "checkpoint": {"load_universal": job.resume is not None and job.resume.universal},
    }


def train_step(state: StageState, step: int) -> Point:
    """One optimizer step; the point of the journal is the same on every rank but for its times.

    The loss is the sum over labelled tokens divided by their count over all ranks and micro-batches. DeepSpeed averages
    gradients over the ranks, hence the factor of the world size; its division by the accumulation is switched off.
    ``ProbeError`` when the loss or the gradient is not finite.
    """
    began = time.monotonic()
    rate = learning_rate(state.job.stage, step)
    for group in state.engine.optimizer.param_groups:
        group["lr"] = rate
    tokens, labelled = _counts(state, step)
    loss = torch.zeros((), device=state.device)
    for sequences in state.order.micro_batches(step, state.rank):
        summed = state.engine(MicroBatch.join(_sequences(state, step, sequences), state.device))
        state.engine.backward(summed * (state.order.world / labelled), scale_wrt_gas=False)
        loss += summed.detach() / labelled
        norm = _update(state)
    torch.distributed.all_reduce(loss)
    point = {"step": step, "loss": loss.item(), "learning_rate": rate, "grad_norm": norm}
    _require_finite(point, state.job.name)
    seconds = time.monotonic() - began
    return point | {
        "labelled_tokens": labelled,
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "seconds": seconds,
        "peak_memory": _peak_memory(state.device),
        "time": time.time_ns() // 1_000_000,
    }


def _peak_memory(device: torch.device) -> int:
    """Bytes that tensors have taken at most on this GPU, or that this process has had resident on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def whole_weights(state: StageState) -> dict[str, Tensor]:
    """All weights under Llama's names on rank 0's host, nothing on the others; every rank has to call it."""
    weights = {}
    for name, parameter in state.engine.module.llama.named_parameters():
        with deepspeed.zero.GatheredParameters([parameter], enabled=state.job.launch.zero == 3):
            if state.rank == 0:
                weights[name] = parameter.detach().cpu().clone()
    return weights


def _join_ranks() -> torch.device:
    # DeepSpeed 0.19.8 decorates an optimizer that no stage uses with torch.compile: 1.6 s of inductor's imports.
    if hasattr(torch.compiler, "set_default_backend"):  # older ones have none
        torch.compiler.set_default_backend("eager")
    # It builds its shared memory op with g++ at the start of every CPU run, and a lock that a killed build left
    # behind hangs all later runs; without the op, collectives are plain gloo.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    cuda = torch.cuda.is_available()
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    deepspeed.init_distributed(dist_backend="nccl" if cuda else "gloo", verbose=False)
    return device


def _sequences(state: StageState, step: int, indices: Iterable[int]) -> Iterator[PackedSequence]:
    """Sequences as ``step`` reads them: what is replaced depends on the seed, the step and the sequence's index."""
    share = state.job.stage.replacement
    for index in indices:
        sequence = state.data.sequence(index)
        if share:
            key = (state.job.seed, step, index)
            sequence = sequence._replace(input_ids=replace_sound_tokens(sequence.input_ids, state.contract, share, key))
        yield sequence


def _counts(state: StageState, step: int) -> tuple[int, int]:
    """Tokens and labelled tokens of the whole step; every rank counts all of it, which saves a collective."""
    labels = [state.data.sequence(index)[1] for index in state.order.whole_step(step)]
    labelled = sum(int((sequence != IGNORE).sum()) for sequence in labels)
    if not labelled:
        raise DataError(f"{state.job.name}, step {step}: no token of {len(labels)} sequences carries loss")
    return sum(len(sequence) for sequence in labels), labelled


def _update(state: StageState) -> float:
    """Tell DeepSpeed that a micro-batch is done; at the last one it updates. Returns the gradient's norm."""
    engine = state.engine
    own_norm = math.nan
    if state.job.launch.zero == 0:  # without ZeRO, DeepSpeed keeps no norm
        own_norm = float(torch.nn.utils.get_total_norm([p.grad for p in engine.module.parameters()]))
    engine.step()
    norm = engine.get_global_grad_norm()
    return own_norm if norm is None else float(norm)


def _require_finite(point: Point, stage: str) -> None:
    if not (math.isfinite(point["loss"]) and math.isfinite(point["grad_norm"])):
        raise ProbeError(
            f"stage {stage} stopped at step {point['step']}: loss {point['loss']}, gradient norm {point['grad_norm']}"
            f" at learning rate {point['learning_rate']:g}; lower the learning rate or lengthen the warm-up"
        )
