"""``ichigo status``: addresses and health of the embedded servers."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ichigo.engines.platform import ServerStatus

HELP = "show the embedded servers: address, health, memory, data; exit status 3 when one does not answer"


def arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def main(args: argparse.Namespace) -> int:
    """Print a line per server."""
    from ichigo.engines import platform

    return show(platform.default_home(os.environ).resolve())


def show(home: Path) -> int:
    """Print the servers of one home; 0 when all answer, 3 otherwise."""
    from ichigo.engines import platform

    status = platform.status(home)
    for server in status.servers:
        print(_line(server))
    print(f"{'home':<8} {status.home}")
    return 0 if status.running else 3


def _line(server: ServerStatus) -> str:
    if not server.running:
        return f"{server.name:<8} stopped; {_mebibytes(server.data)} of data; start with `ichigo up`"
    health = "answers" if server.answers else f"does not answer, see {server.log}"
    facts = f"process {server.pid}, up {server.uptime or 0:.0f} s, {_mebibytes(server.rss or 0)} of memory"
    return f"{server.name:<8} {server.address}  {health}; {facts}, {_mebibytes(server.data)} of data"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
