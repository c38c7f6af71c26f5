"""``ichigo rollback NAME``: the champion before this one is champion again, with an entry in the ledger."""

from __future__ import annotations

import argparse
import os

HELP = "give the alias champion back to the version that had it before; kept in the ledger"


def arguments(parser: argparse.ArgumentParser) -> None:
    """``NAME``, ``--reason`` and ``--after``."""
    from ichigo.cli.promote import after

    parser.add_argument("name", metavar="NAME", help="a registered model")
    parser.add_argument("--reason", metavar="TEXT", default="", help="kept in the ledger")
    after(parser)


def main(args: argparse.Namespace) -> int:
    """Roll back, and say what the ledger now says."""
    from ichigo.cli.naming import connect
    from ichigo.cli.promote import say
    from ichigo.engines import platform
    from ichigo.registry.promotion import move_back

    connect(platform.default_home(os.environ).resolve())
    say(move_back(args.name, reason=args.reason, after=args.after), args.name)
    return 0
