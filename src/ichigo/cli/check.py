"""``ichigo check RECIPE``: validate a recipe and say what it is, before any work."""

from __future__ import annotations

import argparse

from ichigo.cli import recipes

HELP = "validate a recipe: every problem at once, then its fingerprint"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments."""
    recipes.arguments(parser)


def main(args: argparse.Namespace) -> int:
    """Print the fingerprint, the stages, and what still has to be given before a run."""
    from ichigo import recipe as room

    recipe = recipes.load(args)
    print(f"{recipe.name}: valid, fingerprint {room.fingerprint(recipe)}")
    for stage in recipe.stages:
        mix = ", ".join(f"{kind} {share:.0%}" for kind, share in stage.mix.items())
        print(f"  {stage.name:<9} {stage.steps} steps at {stage.learning_rate:g}, {stage.examples} examples: {mix}")
    for line in room.missing_places(recipe):
        print(f"  before a run: {line}")
    return 0
