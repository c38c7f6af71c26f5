"""Good runs and their probes: ``python -m tests.probe_seeds --recipe tiny --seeds 1,2,3,4,5 --out FOLDER``.

Every seed is a whole run (a quarter of an hour of ``tiny`` on two cores), corpus and tokenizer included. The table says
what each probe found after each stage, the bound beside it, and how many runs a probe stopped: of good ones, none
should be. ``--set`` reduces or changes the recipe as ``ichigo run`` does. Ends with 1 if a run was stopped or failed.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from ichigo.cli.bench import seeds
from ichigo.engines.platform import down
from ichigo.recipe.schema import STAGE_ORDER
from tests.probe_runs import Outcome, row, run, write


def main() -> int:
    """Run the seeds one after the other and write the table after each."""
    parser = argparse.ArgumentParser(prog="python -m tests.probe_seeds", description=__doc__)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--seeds", type=seeds, default=(1, 2, 3, 4, 5), metavar="N,N")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--home", type=Path, default=Path(".ichigo"), help="where the runs and their servers live")
    parser.add_argument("--out", type=Path, default=Path("tests/reports/probes"))
    args = parser.parse_args()
    outcomes: list[Outcome] = []
    try:
        for seed in args.seeds:
            overrides = [*args.overrides, f"seed={seed}"]
            outcomes.append(run(f"seed {seed}", args.recipe, overrides, args.home.resolve()))
            command = shlex.join(["python", "-m", "tests.probe_seeds", *sys.argv[1:]])
            write(args.out, f"Probes of good runs: {args.recipe}", command, table(outcomes), outcomes)
    finally:
        down(args.home.resolve())
    print((args.out / "table.md").read_text())
    return int(any(one.stopped.startswith("probe") or one.status for one in outcomes))


def table(outcomes: Sequence[Outcome]) -> list[str]:
    """Stopped runs, then a row for each bound of each stage and a column for each run."""
    stopped = [one for one in outcomes if one.stopped.startswith("probe")]
    failed = [one for one in outcomes if one.status and one not in stopped]
    head = [
        f"**False stops: {len(stopped)} in {len(outcomes)} runs.**"
        + "".join(f" {one.name} failed otherwise: {one.reason}" for one in failed),
        *(f"- {one.name} was stopped by {one.stopped}: {one.reason}" for one in stopped),
    ]
    names = [one.name for one in outcomes]
    lines = [row("after", "probe", "bound", *names), row("---", "---", "---:", *["---:" for _ in names])]
    for stage in STAGE_ORDER:
        bounds = {name: bound for one in outcomes for name, bound in one.bounds.get(stage, {}).items()}
        for name, bound in bounds.items():
            cells = [_cell(one.probes.get(stage, {}).get(name)) for one in outcomes]
            lines.append(row(stage, name, f"{bound:g}", *cells))
        lines.append(row(stage, "seconds", "", *[_cell(one.seconds.get(stage)) for one in outcomes]))
    return [*head, "", *lines]


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    raise SystemExit(main())
