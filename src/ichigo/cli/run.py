"""``ichigo run RECIPE``: the whole pipeline on this machine."""

from __future__ import annotations

import argparse
import os
import sys
import time

from ichigo.cli import recipes

HELP = "run a recipe's pipeline on this machine, starting the embedded platform if no other is configured"
_QUIET = 10.0  # seconds between progress lines where no terminal redraws them


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments."""
    recipes.arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Check everything that can be checked first, then run and print the summary."""
    from ichigo import recipe as room
    from ichigo.engines import local, platform
    from ichigo.errors import RecipeError
    from ichigo.steps.summary import render

    recipe, home = recipes.load(args), platform.default_home(os.environ).resolve()
    if missing := room.missing_places(recipe):
        raise RecipeError(f"{recipe.name} needs more before it can run here:", missing)
    screen = Screen()
    screen.show("step", "platform | starting or finding MLflow and S3")
    endpoints = platform.resolve(home, os.environ)
    platform.check_reachable(endpoints)
    screen.show("step", f"platform | MLflow {endpoints.mlflow}, S3 {endpoints.s3 or 'AWS'}, store {endpoints.store}")
    summary = local.run(recipe, endpoints, home, screen.show)
    print(f"\n{render(summary)}\nsummary  {home / 'runs' / 'latest' / 'summary.json'}")
    return 0


class Screen:
    """Prints what steps say as lines; a beat of progress replaces the last one on a terminal, and is rare elsewhere."""

    def __init__(self) -> None:
        self._start = self._beat = time.monotonic()
        self._terminal = sys.stdout.isatty()

    def show(self, kind: str, text: str) -> None:
        """One line from a step (``step``: "name | message") or of progress (``progress``)."""
        now = time.monotonic()
        if kind == "progress" and not self._due(now):
            return
        name, _, message = text.partition(" | ") if kind == "step" else ("", "", text)
        line = f"{now - self._start:6.0f} s  {name:<20} {message}"
        if self._terminal:
            end = "" if kind == "progress" else "\n"
            print(f"\r\x1b[K{line}", end=end, flush=True)
        else:
            print(line, flush=True)

    def _due(self, now: float) -> bool:
        if self._terminal or now - self._beat >= _QUIET:
            self._beat = now
            return True
        return False
