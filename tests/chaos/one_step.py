"""A run of one training step in a process that can be killed.

``python -m tests.chaos.one_step RUN RECIPE DIGEST FOLDER``; ``FOLDER`` holds the references of the model to start from
and of the data, and the trained model's goes there too.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ichigo.steps import begin, train


def main(run: str, recipe_uri: str, recipe_digest: str, folder: Path) -> None:
    """Begin the run and train its first stage."""
    begin.main(run, recipe_uri, recipe_digest)
    train.main(
        run,
        "pretrain",
        start=str(folder / "start.json"),
        data=str(folder / "data.json"),
        model=str(folder / "model.json"),
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4]))
