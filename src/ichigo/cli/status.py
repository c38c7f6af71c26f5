"""``ichigo status``: addresses and health of the embedded servers."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.engines.platform import ServerStatus

HELP = "show the embedded servers: address, health, memory, data; exit status 3 when one does not answer"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Whether to show the login."""
    parser.add_argument(
        "--show-login", action="store_true", help="also show MLflow's user and password; to a terminal only"
    )


def main(args: argparse.Namespace) -> int:
    """Print a line per server, and the login if it is asked for."""
    from ichigo.engines import platform

    home = platform.default_home(os.environ).resolve()
    if args.show_login:
        _require_terminal(home)
    status = show(home)
    if args.show_login:
        login = platform.login(home).login
        print(f"{'login':<8} {login['MLFLOW_TRACKING_USERNAME']}  {login['MLFLOW_TRACKING_PASSWORD']}")
    return status


def _require_terminal(home: Path) -> None:
    if not sys.stdout.isatty():
        raise UserError(
            "--show-login: standard output is no terminal, and a file, pipe or log would keep the password for others; "
            f"call it in a terminal. Programs find it in {home / 'platform' / 'state.json'} (mode 0600)"
        )


def show(home: Path) -> int:
    """Print the servers of one home, and what was closed of runs that nobody runs; 0 when all answer, 3 otherwise."""
    from ichigo.engines import platform

    status = platform.status(home)
    for server in status.servers:
        print(_line(server))
    print(f"{'home':<8} {status.home}")
    if status.running:
        for closed in platform.reap(platform.login(home)):
            print(f"{'mlflow':<8} {closed}")
    return 0 if status.running else 3


def _line(server: ServerStatus) -> str:
    if not server.running:
        return f"{server.name:<8} stopped; {_mebibytes(server.data)} of data; start with `ichigo up`"
    health = "answers" if server.answers else f"does not answer, see {server.log}"
    facts = f"process {server.pid}, up {server.uptime or 0:.0f} s, {_mebibytes(server.rss or 0)} of memory"
    return f"{server.name:<8} {server.address}  {health}; {facts}, {_mebibytes(server.data)} of data"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:.0f} MiB"
