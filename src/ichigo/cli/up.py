"""``ichigo up``: start the embedded MLflow and S3 servers."""

from __future__ import annotations

import argparse
import os

HELP = "start the embedded platform (MLflow and S3 on 127.0.0.1); does nothing when it runs"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(args: argparse.Namespace) -> int:
    """Start what is missing and print the addresses."""
    from ichigo.cli.status import show
    from ichigo.engines import platform

    home = platform.default_home(os.environ).resolve()
    platform.up(home)
    return show(home)
