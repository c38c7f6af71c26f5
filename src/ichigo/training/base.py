"""The text model under everything, trained from random weights on written conversations.

It is a stage like the others, of one process, under a contract without sound tokens. Measured on the generated world
with 0.9 M weights, 1,000 steps of 768 tokens, one run each: right answers to 600 held-out questions and to 142 facts.

=====================  ========  =====
Muon, loss on answers  99.5 %    100 %
Muon, loss on all      95.5 %    91.5 %
AdamW, on answers      95.0 %    77.5 %
the same, 1,500 steps  96.8 %    100 %   (the CPU time of 1,000 with Muon)
=====================  ========  =====
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from ichigo.language.base import init_base, text_contract
from ichigo.language.contract import CONTRACT_FILE
from ichigo.language.layouts import Layouts, Sample, Turn, lay_out
from ichigo.language.packing import pack
from ichigo.recipe.schema import Checkpoints, Launch, Stage, TrainBase
from ichigo.training.job import StageJob, StageResult

Conversation = Sequence[tuple[str, str]]
"""Questions and answers, in order."""

NONE = Checkpoints(every=0)


def train_base(
    conversations: Sequence[Conversation],
    texts: Sequence[str],
    settings: TrainBase,
    seed: int,
    output: Path,
    workdir: Path,
    run: Callable[[StageJob], StageResult],
    checkpoints: Checkpoints = NONE,
) -> StageResult:
    """Write a base model that answers ``conversations`` into ``output``; same arguments, same bytes.

    The tokenizer learns from the conversations and from ``texts``, which the model does not see. ``workdir`` keeps the
    initial model and the packed conversations. ``run`` carries the stage out, as
    :func:`~ichigo.training.launch.run_stage` does; where it looks after checkpoints, they are as ``checkpoints`` says,
    and three of them at least. Raises what ``run`` and :func:`~ichigo.language.layouts.lay_out` raise.
    """
    spelled = [text for conversation in conversations for turn in conversation for text in turn]
    start, data = workdir / "start", workdir / "data"
    init_base([*texts, *spelled], settings, seed, start)
    _pack(conversations, settings.batch_tokens, start, data)
    job = StageJob(
        model=start,
        data=data,
        output=output,
        journal=workdir / "journal.jsonl",
        stage=_stage(settings, len(conversations)),
        launch=Launch(processes=1, zero=0, checkpoints=_often(checkpoints, settings.steps)),
        seed=seed,
        title="base",
        threads=1,  # the tokenizer is fitted at the same time
    )
    result = run(job)
    (output / CONTRACT_FILE).unlink()  # the contract with a speech tokenizer is still to be made
    return result


def _often(checkpoints: Checkpoints, steps: int) -> Checkpoints:
    """A base takes about a minute; four parts of it lose little to a kill, and a save costs 20 ms of 60 s."""
    return checkpoints.model_copy(update={"every": min(checkpoints.every, -(-steps // 4))})


def _pack(conversations: Sequence[Conversation], sequence_length: int, base: Path, folder: Path) -> None:
    contract = text_contract(base)
    contract.save(base)
    samples = [Sample("text", tuple(Turn(*turn) for turn in conversation)) for conversation in conversations]
    laid_out = lay_out(samples, Layouts.open(base, contract), sequence_length, "answers")
    pack(laid_out.examples, sequence_length, True).save(folder, contract)


def _stage(settings: TrainBase, examples: int) -> Stage:
    """The settings as a stage: every step reads one packed sequence of ``batch_tokens``."""
    return Stage(
        name="pretrain",
        mix={"text": 1.0},
        examples=examples,
        steps=settings.steps,
        sequence_length=settings.batch_tokens,
        optimizer="muon",
        learning_rate=settings.learning_rate,
        warmup_steps=settings.warmup_steps,
        schedule="linear",
        gradient_clip=1.0,
    )
