"""One rank of a stage: ``torchrun ... -m ichigo.training.worker job.json``.

Checks everything that is cheap to check before it imports torch, so wrong data fails in a second.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from pathlib import Path

from ichigo.errors import IchigoError
from ichigo.language.contract import TokenContract
from ichigo.language.packing import Packed
from ichigo.training import failure, stacks
from ichigo.training.job import StageJob
from ichigo.training.launch import LAUNCHER
from ichigo.training.orphans import die_with

_ENVIRONMENT = {
    "HF_HUB_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}


def main() -> None:
    """Carry out the job file named on the command line."""
    os.dup2(1, 2)  # standard error belongs to torchrun, whose summary would bury the worker's words
    die_with(int(os.environ.get(LAUNCHER, os.getppid())))
    job_file, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    stacks.offer(job_file.parent, rank)
    try:
        with failure.recorded(job_file.parent, rank):
            _carry_out(StageJob.read(job_file))
    except IchigoError as error:
        _leave(f"rank {rank}: {error}")  # written for a person; its traceback would only hide it
    except BaseException:
        _leave(traceback.format_exc())


def _leave(words: str) -> None:
    """End at once: with peers in the midst of a collective, gloo's threads sometimes abort an orderly exit."""
    print(words, flush=True)
    os._exit(1)


def _carry_out(job: StageJob) -> None:
    data = Packed.load(job.data, TokenContract.load(job.model))
    _prepare_imports()
    from ichigo.training.loop import train

    train(job, data)


def _prepare_imports() -> None:
    os.environ.update(_ENVIRONMENT)
    warnings.simplefilter("ignore", FutureWarning)  # DeepSpeed calls collectives by names that torch has renamed
    # DeepSpeed's autotuner imports mlflow if it can, which takes 0.9 s that no stage needs; it catches the ImportError.
    sys.modules["mlflow"] = None  # type: ignore[assignment]


if __name__ == "__main__":
    main()
