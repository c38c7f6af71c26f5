"""The metric names that stay as they are, as a document: ``python -m ichigo.report.metrics`` writes it.

The measures come from ``evaluation/bars.yaml``, what runs log besides from the tables here, which the tests hold
against what is logged.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ichigo.evaluation import table

DOCUMENT = Path("src") / "ichigo" / "evaluation" / "METRICS.md"

OF_A_STAGE = {
    "loss": "nats per labelled token, before the update",
    "learning_rate": "of this step",
    "grad_norm": "before clipping",
    "tokens_per_second": "of all processes",
}
"""Curves of the nested run of a stage: a point per optimizer step, from 0."""

OF_THE_PARENT = {
    "curves/STAGE.loss": "the loss of a stage, at most 200 points: draws several runs in one chart of the compare view",
    "curves/STAGE.grad_norm": "the same of the gradient norm",
    "wall_seconds": "from the run's begin to its end",
}
"""What the parent run has beside the measures."""

_INTRODUCTION = """\
# Metrics

Written by `python -m ichigo.report.metrics`; a test holds it to the code. A name that stands here keeps its meaning:
the gate's rules, `ichigo compare`, the report and charts in MLflow are built on these.

`<suite>.<measure>` is a number of one suite; with `.low` and `.high` it is an end of its 95 % interval. Shares are in
[0, 1]. `<suite>.<system>.<measure>` is another system on the same items (`cascade`, `base`), `.p` the p-value of the
paired difference, `<suite>.items` how many items were asked, `<suite>.set_aside` how many could not be.
"""


def document() -> str:
    """The document, in Markdown."""
    parts = [
        _INTRODUCTION,
        "## Measures of a run, on its parent run and on the nested run `evaluate`\n",
        _table(["metric", "what", "unit"], [[f"`{one.metric}`", one.label, one.unit] for one in table.measures()]),
        "## Curves of a stage, on its nested run\n",
        _table(["metric", "what"], [[f"`{name}`", what] for name, what in OF_A_STAGE.items()]),
        "## Beside the measures, on the parent run\n",
        _table(["metric", "what"], [[f"`{name}`", what] for name, what in OF_THE_PARENT.items()]),
    ]
    return "\n".join(parts)


def _table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main(root: Path) -> None:
    """Write the document below ``root``."""
    path = root / DOCUMENT
    path.parent.mkdir(exist_ok=True)
    path.write_text(document(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path())
