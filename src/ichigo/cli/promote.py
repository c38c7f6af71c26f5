"""``ichigo promote NAME@VERSION``: candidate -> staging -> champion, a step at a time, with an entry in the ledger."""

from __future__ import annotations

import argparse
import os
from typing import TYPE_CHECKING

from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.registry.ledger import Entry
    from ichigo.registry.lookup import Registered

HELP = "promote a registered version to staging or champion; who, when, why and on what numbers is kept in the ledger"


def arguments(parser: argparse.ArgumentParser) -> None:
    """``NAME@VERSION``, where to, and what is kept."""
    parser.add_argument("model", metavar="NAME@VERSION", help="a registered version: name@version or name@alias")
    parser.add_argument("--to", choices=("staging", "champion"), help="default: one step on from where it is")
    force = "overrule the gate, or skip a step; needs a reason"
    parser.add_argument("--force", action="store_true", help=force)
    parser.add_argument("--reason", metavar="TEXT", default="", help="kept in the ledger")
    after(parser)


def after(parser: argparse.ArgumentParser) -> None:
    """``--after``."""
    what = "only if the ledger still has N entries, as `ichigo models NAME` showed them when you decided"
    parser.add_argument("--after", metavar="N", type=int, help=what)


def main(args: argparse.Namespace) -> int:
    """Promote, and say what the ledger now says."""
    from ichigo.cli.naming import connect
    from ichigo.engines import platform
    from ichigo.registry.models import opinion_of
    from ichigo.registry.promotion import move

    connect(platform.default_home(os.environ).resolve())
    found = _version(args.model)
    opinion = opinion_of(found.name, found.version)
    about = {"force": args.force, "reason": args.reason, "after": args.after}
    say(move(found.name, found.version, args.to, opinion, **about), found.name)
    return 0


def say(entry: Entry, name: str) -> None:
    """Tell what was done and on what numbers."""
    from ichigo.cli.models import table

    print("\n".join([f"{name}: entry {entry}", *table(entry.numbers)]))


def _version(spec: str) -> Registered:
    from ichigo.registry.lookup import find

    if "@" not in spec:
        raise UserError(f"name a version to promote: {spec}@VERSION; `ichigo models {spec}` lists them")
    return find(spec)
