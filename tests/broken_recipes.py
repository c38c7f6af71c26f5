"""Recipes that are broken on purpose, each in the way of one failure of the trainings behind arXiv 2410.15316:
``python -m tests.broken_recipes --out FOLDER``.

They are a small ``tiny`` with one thing wrong; each has to be stopped by a probe, or refused by the gate, with the
diagnosis that names its fault, while the same recipe with nothing wrong goes through. What they share (corpus,
tokenizer, base, and stages before the fault) is made once. Ends with 1 unless all come out as they should.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ichigo.engines.platform import down
from ichigo.evaluation import diagnosis
from tests.probe_runs import Outcome, row, run, write

SMALL = (
    *("data.world.utterances=4000", "data.world.items=120", "tokenizer.steps=800", "base.steps=500"),
    *("stages.pretrain.examples=2000", "stages.pretrain.steps=60"),
    *("stages.instruct.examples=24000", "stages.instruct.steps=900"),
    *("stages.enhance.examples=6000", "stages.enhance.steps=250"),
    *("evaluation.items=60", "registry.rules=[{metric: loss.held_out, at_most: 1e9}]"),
)
"""``tiny`` in a few minutes: it answers some questions, hears, and keeps its text."""


@dataclass(frozen=True)
class Broken:
    """What is wrong with a recipe, as overrides, and what should be said of it ("": nothing is wrong)."""

    name: str
    overrides: tuple[str, ...]
    expected: str

    def right(self, outcome: Outcome) -> bool:
        """Whether the run ended as it should."""
        if not self.expected:
            return not outcome.stopped and outcome.status == 0
        return bool(outcome.stopped) and outcome.diagnosis.startswith(self.expected)


BROKEN = (
    Broken("nothing wrong", (), ""),
    Broken("shuffled sound tokens", ("ablations.shuffle_sound=true",), diagnosis.DEAF),
    Broken(
        "no text replay",
        (
            "stages.instruct.mix={speech: 0.71, transcription: 0.18, mixed: 0.08, speak: 0.03}",
            "stages.enhance.mix={speech: 0.47, transcription: 0.11, multi_turn: 0.24, noise: 0.10, mixed: 0.05, "
            "speak: 0.03}",
        ),
        diagnosis.FORGETS,
    ),
    Broken(
        "too many refusals",
        ("stages.enhance.mix={noise: 0.85, text: 0.15}",),  # of a good model, 50 such steps made it refuse 64 of 64
        diagnosis.REFUSES,
    ),
)


def main() -> int:
    """Run them one after the other and write the table after each."""
    parser = argparse.ArgumentParser(prog="python -m tests.broken_recipes", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".ichigo"), help="where the runs and their servers live")
    parser.add_argument("--out", type=Path, default=Path("tests/reports/broken"))
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="of these recipes alone")
    args = parser.parse_args()
    chosen = [one for one in BROKEN if not args.only or one.name in args.only]
    outcomes: list[Outcome] = []
    try:
        for broken in chosen:
            outcomes.append(run(broken.name, "tiny", [*SMALL, *broken.overrides], args.home.resolve()))
            command = shlex.join(["python", "-m", "tests.broken_recipes", *sys.argv[1:]])
            write(args.out, "Recipes broken on purpose", command, table(chosen, outcomes), outcomes)
    finally:
        down(args.home.resolve())
    print((args.out / "table.md").read_text())
    return int(not all(broken.right(outcome) for broken, outcome in zip(chosen, outcomes, strict=True)))


def table(chosen: Sequence[Broken], outcomes: Sequence[Outcome]) -> list[str]:
    """A row for each recipe: what should be said of it and what was."""
    lines = [
        row("recipe", "should be called", "stopped by", "was called", "numbers", "run, s", ""),
        row("---", "---", "---", "---", "---", "---:", "---"),
    ]
    for broken, outcome in zip(chosen, outcomes, strict=False):
        stage = outcome.stopped.removeprefix("probe-") or "enhance"
        found = outcome.probes.get(stage, {})
        numbers = ", ".join(f"{name} {found[name]:.3g}" for name in outcome.bounds.get(stage, {}))
        verdict = "right" if broken.right(outcome) else "WRONG"
        lines.append(
            row(
                *(broken.name, broken.expected or "-", outcome.stopped or "-", outcome.diagnosis or "-"),
                *(f"{stage}: {numbers}", f"{outcome.run_seconds:.0f}", verdict),
            )
        )
    settings = "\n".join(f"- {broken.name}: `{' '.join(broken.overrides)}`" for broken in chosen if broken.overrides)
    return [*lines, "", "What is wrong with each, beside `tiny` made small by `SMALL` in the program:", "", settings]


if __name__ == "__main__":
    raise SystemExit(main())
