"""``ichigo report [RUN]``: the report of a run that has ended, made again."""

from __future__ import annotations

import argparse
from pathlib import Path

from ichigo.cli import compare
from ichigo.errors import UserError

HELP = "make the report of a run again, if wanted with the sound of people's recordings"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The run, what to take up, and where the page goes."""
    parser.add_argument("run", metavar="RUN", nargs="?", default="latest", help=f"{compare.NAMED_BY}; default latest")
    sound = "take up the sound of people's recordings too, not that of synthetic voices alone"
    parser.add_argument("--recordings", action="store_true", help=sound)
    parser.add_argument("--out", metavar="FILE", type=Path, default=Path("report.html"), help="default report.html")


def main(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    from ichigo.report.gather import Known
    from ichigo.steps import reporting
    from ichigo.steps.records import read_recipe
    from ichigo.tracking.runs import RunTree

    records = compare.records_of(args.run, compare.connected())
    run, summary = records.run(), records.summary()
    if run is None or summary is None:
        raise UserError(f"{args.run}: run {records.run_key} has not ended; its report is made when it has")
    recipe = read_recipe(records.store, run.recipe_uri, run.recipe_digest)
    tree = RunTree(run.experiment, run.mlflow_run) if run.mlflow_run else None
    curves = reporting.stage_curves(records, summary, tree) if tree else {}
    ledger = reporting.promotions(recipe.registry.model_name)
    earlier = reporting.earlier(records, summary)
    known = Known(curves=curves, earlier=earlier, ledger=ledger, recordings=args.recordings)
    args.out.write_text(reporting.made(records, recipe, summary, known), encoding="utf-8")
    print(args.out)
    return 0
