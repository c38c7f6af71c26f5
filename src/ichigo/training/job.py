"""What one stage is asked to do, and what it did: the file between the launcher and its workers.

A job is written as JSON beside the failures of its workers (``failure-<rank>.json``), so a stage can be repeated by
hand: ``torchrun --nproc-per-node 2 -m ichigo.training.worker job.json``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import TypeAdapter

from ichigo.recipe.schema import Launch, Stage


@dataclass(frozen=True)
class StageJob:
    """One stage: from the model folder and the packed data to the folder of the trained model.

    ``model`` and ``output`` are Hugging Face folders with ``contract.json``; ``data`` is a folder of
    :class:`ichigo.language.packing.Packed`; ``journal`` is the file that rank 0 writes, one JSON line per step. A
    training that is no stage of the recipe has a ``title`` of its own. Each process computes with ``threads``, by
    default with an equal share of the machine's cores.
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

    @property
    def name(self) -> str:
        """What progress and errors call it."""
        return self.title or self.stage.name

    @property
    def world(self) -> int:
        """Processes of all nodes together."""
        return self.launch.nodes * self.launch.processes

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
    """What a finished stage did: ``loss`` is the last step's, in nats per labelled token; ``seconds`` are wall time."""

    model: Path
    steps: int
    loss: float
    tokens: int
    labelled_tokens: int
    seconds: float

    @property
    def facts(self) -> dict[str, float]:
        """What an artifact remembers of it; ``tokens_per_second`` includes the start of the workers."""
        speed = round(self.tokens / self.seconds)
        return {"steps": self.steps, "loss": self.loss, "tokens": self.tokens, "tokens_per_second": speed}
