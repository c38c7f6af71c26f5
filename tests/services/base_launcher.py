"""One try of the text base in a process that can be killed: ``python -m tests.services.base_launcher FOLDER``.

The base is written to ``FOLDER/base``; checkpoints in ``FOLDER/place`` and what is printed are as
:mod:`tests.services.stage_launcher` says.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from ichigo.recipe.schema import Checkpoints
from ichigo.training.base import train_base
from tests.services.stage_launcher import carry_out
from tests.services.test_training_base import SETTINGS, TEXTS, conversations


def main(folder: Path) -> None:
    """Train, from the start or from a checkpoint."""
    with tempfile.TemporaryDirectory() as scratch:
        train_base(
            conversations(),
            TEXTS,
            SETTINGS,
            3,
            folder / "base",
            Path(scratch),
            lambda job: carry_out(job, folder / "place"),
            Checkpoints(),
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
