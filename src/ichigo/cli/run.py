"""``ichigo run RECIPE``: the whole pipeline on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from ichigo.cli import recipes
from ichigo.errors import UserError

STEPS = ("pretrain", "instruct", "enhance", "evaluate")
HELP = "run a recipe's pipeline on this machine, starting the embedded platform if no other is configured"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments, and where to start."""
    recipes.arguments(parser)
    first = "go on with a model of another run at this step; needs --model"
    parser.add_argument("--from", dest="first", choices=(*STEPS,), metavar="STEP", help=f"{first}: {', '.join(STEPS)}")
    model = "the model to go on with: its address in the store (s3://…), or a registered name, name@alias, name@version"
    parser.add_argument("--model", metavar="MODEL", help=model)


def main(args: argparse.Namespace) -> int:
    """Check everything that can be checked first, then run, show the summary and what to try next."""
    from ichigo.cli.screen import next_steps, screen
    from ichigo.engines import local, platform
    from ichigo.engines.pipeline import compiled_pipeline
    from ichigo.engines.plan import planned_steps

    if bool(args.first) != bool(args.model):
        raise UserError("--from and --model belong together: at which step to start, and with which model")
    recipe, home = recipes.load(args), platform.default_home(os.environ).resolve()
    local.check_places(recipe)
    os.umask(0o077)  # recordings, texts and logs of runs are for this user's eyes
    with screen(f"ichigo run {recipe.name}", planned_steps(compiled_pipeline())) as seen:
        seen.show("step", "platform | starting or finding MLflow and S3")
        endpoints = platform.resolve(home, os.environ)
        platform.check_reachable(endpoints)
        seen.show("step", f"platform | {endpoints}")
        if args.first:
            recipe = local.starting_at(recipe, args.first, args.model, endpoints)
        for closed in platform.reap(endpoints):
            seen.show("step", f"platform | {closed}")
        summary = local.run(recipe, endpoints, home, seen.show)
    latest = home / "runs" / "latest"
    print(f"summary  {latest / 'summary.json'}\nreport   {latest / 'report.html'}\n")
    print(next_steps(recipe, args.recipe, summary, _program()))
    return 0


def _program() -> str:
    """How to call this program again: by its path if it is not on PATH."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "ichigo" and not shutil.which("ichigo") else "ichigo"
