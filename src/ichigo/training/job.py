"""What one stage is asked to do, and what it did: the file between the launcher and its workers.

A job is written as JSON beside the failures of its workers (``failure-<rank>.json``), so a stage can be repeated by
hand: ``torchrun --nproc-per-node 2 -m ichigo.training.worker job.json``.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter

from ichigo.recipe.schema import Launch, Stage


@dataclass(frozen=True)
class Resume:
    """Where a stage goes on: after ``step`` optimizer steps, from what DeepSpeed can load as ``folder``/``tag``.

    ``journal`` has the points of these steps. ``universal`` when it was converted for other processes; ``exact`` when
    there are as many processes as saved it, so that every number comes out as it would have.
    """

    folder: Path
    tag: str
    step: int
    journal: Path
    universal: bool = False
    exact: bool = True


@dataclass(frozen=True)
class StageJob:
    """One stage: from the model folder and the packed data to the folder of the trained model.

    ``model`` and ``output`` are Hugging Face folders with ``contract.json``; ``data`` is a folder of
    :class:`ichigo.language.packing.Packed`; ``journal`` is the file that rank 0 writes, one JSON line per step. A
    training that is no stage of the recipe has a ``title`` of its own. Each process computes with ``threads``, by
    default with an equal share of the machine's cores. The ranks save checkpoints below ``saves``, or none without it
    (:mod:`ichigo.training.checkpoint`), whose names end with this ``attempt``.
    """

    model: Path
    data: Path
    output: Path
    journal: Path
    stage: Stage
    launch: Launch
    seed: int
    title: str = ""
    threads: int | None = None
    saves: Path | None = None
    resume: Resume | None = None
    attempt: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def name(self) -> str:
        """What progress and errors call it."""
        return self.title or self.stage.name

    @property
    def world(self) -> int:
        """Processes of all nodes together."""
        return self.launch.nodes * self.launch.processes

    @property
    def first_step(self) -> int:
        """The optimizer step (from 0) with which the workers begin."""
        return self.resume.step if self.resume else 0

    def saves_after(self, step: int) -> bool:
        """Whether a checkpoint follows optimizer step ``step``; after the last one, the model itself is what stays."""
        every, done = self.launch.checkpoints.every, step + 1
        return self.saves is not None and every > 0 and done % every == 0 and done < self.stage.steps

    def write(self, path: Path) -> None:
        """Write the job as JSON."""
        path.write_bytes(_JOB.dump_json(self, indent=1))

    @classmethod
    def read(cls, path: Path) -> StageJob:
        """Read what :meth:`write` wrote; ``pydantic.ValidationError`` when it is something else."""
        return _JOB.validate_json(path.read_bytes())


_JOB = TypeAdapter(StageJob)


@dataclass(frozen=True)
class StageResult:
    """What a finished stage did: ``loss`` is the last step's, in nats per labelled token; ``seconds`` are wall time.

    ``resumed`` is the number of steps that an earlier try had done; ``tokens`` are those of all steps, and
    ``tokens_per_second`` those of this try in its ``seconds``, the start of the workers included. ``loss_began`` and
    ``loss_ended`` are means over the first and the last tenth of the steps.
    """

    model: Path
    steps: int
    loss: float
    tokens: int
    labelled_tokens: int
    seconds: float
    tokens_per_second: float
    loss_began: float
    loss_ended: float
    resumed: int = 0

    @property
    def facts(self) -> dict[str, float]:
        """What an artifact remembers of it."""
        speed = round(self.tokens_per_second)
        facts = {"steps": self.steps, "loss": self.loss, "tokens": self.tokens, "tokens_per_second": speed}
        facts |= {"loss_began": self.loss_began, "loss_ended": self.loss_ended}
        return facts | ({"resumed": self.resumed} if self.resumed else {})
