"""``ichigo run RECIPE``: the whole pipeline on this machine."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from ichigo.cli import recipes

HELP = "run a recipe's pipeline on this machine, starting the embedded platform if no other is configured"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments."""
    recipes.arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Check everything that can be checked first, then run, show the summary and what to try next."""
    from ichigo.cli.screen import next_steps, screen
    from ichigo.engines import local, platform
    from ichigo.engines.pipeline import compiled_pipeline
    from ichigo.engines.plan import planned_steps

    recipe, home = recipes.load(args), platform.default_home(os.environ).resolve()
    local.check_places(recipe)
    with screen(f"ichigo run {recipe.name}", planned_steps(compiled_pipeline())) as seen:
        seen.show("step", "platform | starting or finding MLflow and S3")
        endpoints = platform.resolve(home, os.environ)
        platform.check_reachable(endpoints)
        seen.show("step", f"platform | {endpoints}")
        summary = local.run(recipe, endpoints, home, seen.show)
    print(f"summary  {home / 'runs' / 'latest' / 'summary.json'}\n")
    print(next_steps(recipe, args.recipe, summary, _program()))
    return 0


def _program() -> str:
    """How to call this program again: by its path if it is not on PATH."""
    called = Path(sys.argv[0])
    return str(called) if called.name == "ichigo" and not shutil.which("ichigo") else "ichigo"
