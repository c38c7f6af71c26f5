"""A small model and data for whole stages: what the tests of training on real processes share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ichigo.language.base import init_base
from ichigo.language.contract import TokenContract, contract_for
from ichigo.language.expand import expand
from ichigo.language.layouts import IGNORE, Example
from ichigo.language.packing import Packed, pack
from ichigo.recipe.schema import Expand, InitBase, Launch, Stage
from ichigo.training import Point, StageJob, StageResult, run_stage

STEPS = 8
TWO = Launch(processes=2, zero=1)
STAGE = Stage(
    name="instruct",
    mix={"text": 1.0},
    examples=60,
    steps=STEPS,
    sequence_length=96,
    micro_batch=2,
    accumulation=2,
    learning_rate=1e-2,
    warmup_steps=2,
    weight_decay=0.01,
    epsilon=1e-5,  # above the noise of fp32 gradients, so that Adam does not turn noise into whole updates
    gradient_clip=1.0,
)


@dataclass(frozen=True)
class World:
    """A small expanded model and packed data of one contract."""

    folder: Path
    contract: TokenContract

    @property
    def data(self) -> Packed:
        return Packed.load(self.folder / "data", self.contract)

    def job(self, name: str, stage: Stage = STAGE, launch: Launch = TWO) -> StageJob:
        return StageJob(
            model=self.folder / "model",
            data=self.folder / "data",
            output=self.folder / name / "model",
            journal=self.folder / name / "journal.jsonl",
            stage=stage,
            launch=launch,
            seed=5,
        )

    def run(self, job: StageJob, on_point: Callable[[Point], None] = lambda _: None) -> StageResult:
        return run_stage(job, job.journal.parent / "work", on_point)


def counting_examples(contract: TokenContract) -> list[Example]:
    """Runs of consecutive sound ids of unequal length, a third of each without loss: learnable within a few steps."""
    random = np.random.default_rng(0)
    made = []
    for length in random.integers(6, 60, 60):
        ids = contract.sound_ids((random.integers(100) + np.arange(length)) % 100)
        made.append(Example(ids, np.where(np.arange(length) < length // 3 + 1, IGNORE, ids).astype(np.int32)))
    return made


def make_world(folder: Path) -> World:
    """Write the model and the data below ``folder``."""
    settings = InitBase(kind="init", width=32, layers=2, heads=4, kv_heads=2, feed_forward=64, vocabulary=320)
    init_base(["the quick brown fox jumps over the lazy dog"], settings, 7, folder / "base")
    contract = contract_for(folder / "base", "whispervq:abc")
    expand(folder / "base", contract, Expand(), 3, folder / "model")
    pack(counting_examples(contract), STAGE.sequence_length, True).save(folder / "data", contract)
    return World(folder, contract)
