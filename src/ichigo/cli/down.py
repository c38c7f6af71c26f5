"""``ichigo down``: stop the embedded servers; their data stays."""

from __future__ import annotations

import argparse
import os

HELP = "stop the embedded platform; its data stays"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(args: argparse.Namespace) -> int:
    """Stop both servers."""
    from ichigo.engines import platform

    home = platform.default_home(os.environ).resolve()
    platform.down(home)
    print("stopped; data kept in", home / "platform")
    return 0
