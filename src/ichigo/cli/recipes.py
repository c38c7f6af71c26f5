"""The arguments that name a recipe, shared by the verbs that take one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ichigo.recipe.schema import Recipe


def arguments(parser: argparse.ArgumentParser) -> None:
    """``RECIPE``, ``--set`` and ``--data``."""
    parser.add_argument("recipe", metavar="RECIPE", help="a shipped recipe (smoke, …) or a YAML file")
    override = "override one field, for instance stages.instruct.steps=50; may be repeated"
    parser.add_argument("--set", dest="overrides", metavar="A.B=C", action="append", default=[], help=override)
    parser.add_argument("--data", metavar="FOLDER", help="recordings with metadata.jsonl; sets data.folder")


def load(args: argparse.Namespace) -> Recipe:
    """The recipe that the arguments name; :class:`~ichigo.errors.RecipeError` with every problem at once."""
    from ichigo import recipe

    folder = [f"data.folder={Path(args.data).resolve()}"] if args.data else []
    return recipe.load(args.recipe, [*args.overrides, *folder])
