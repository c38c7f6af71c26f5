"""Good runs and their probes: ``python -m tests.probe_seeds --recipe tiny --seeds 1,2,3,4,5 --out FOLDER``.

Every seed is a whole run (a quarter of an hour of ``tiny`` on two cores), corpus and tokenizer included. The table says
what each probe found after each stage, the bound beside it, and how many runs a probe stopped: of good ones, none
should be. ``--set`` reduces or changes the recipe as ``ichigo run`` does. Ends with 1 if a run was stopped or failed.

``--finished`` runs nothing: it tables the runs of the recipe that are in ``--home`` already, those of ``ichigo bench``
for instance.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ichigo import recipe as recipes
from ichigo.cli.bench import seeds
from ichigo.engines.platform import down
from ichigo.recipe.schema import STAGE_ORDER
from tests.probe_runs import Outcome, outcome, row, run, write


def main() -> int:
    """Run the seeds one after the other and write the table after each."""
    parser = argparse.ArgumentParser(prog="python -m tests.probe_seeds", description=__doc__)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--seeds", type=seeds, default=(1, 2, 3, 4, 5), metavar="N,N")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="A.B=C")
    parser.add_argument("--home", type=Path, default=Path(".ichigo"), help="where the runs and their servers live")
    parser.add_argument("--out", type=Path, default=Path("tests/reports/probes"))
    parser.add_argument("--finished", action="store_true", help="table the runs in --home instead of running any")
    args = parser.parse_args()
    outcomes: list[Outcome] = []
    for one in finished(args) if args.finished else each_seed(args):
        outcomes.append(one)
        command = shlex.join(["python", "-m", "tests.probe_seeds", *sys.argv[1:]])
        write(args.out, f"Probes of good runs: {args.recipe}", command, table(outcomes), outcomes)
    if not outcomes:
        raise SystemExit(f"{args.home}: no run of {args.recipe} that was looked at")
    print((args.out / "table.md").read_text())
    return int(any(one.stopped.startswith("probe") or one.status for one in outcomes))


def each_seed(args: argparse.Namespace) -> Iterator[Outcome]:
    """A run of each seed; the servers of ``--home`` are down afterwards."""
    home = args.home.resolve()
    try:
        for seed in args.seeds:
            yield run(f"seed {seed}", args.recipe, [*args.overrides, f"seed={seed}"], home)
    finally:
        down(home)


def finished(args: argparse.Namespace) -> Iterator[Outcome]:
    """The runs of the recipe below ``--home``, oldest first."""
    recipe = recipes.load(args.recipe, args.overrides)
    found = [json.loads(path.read_text()) for path in args.home.glob(f"runs/{args.recipe}-*/summary.json")]
    for summary in sorted(found, key=lambda one: float(one["started"])):
        if any(step["name"].startswith("probe-") for step in summary["steps"]):
            yield outcome(summary["run_key"], summary["exit_code"], summary, recipe)


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
