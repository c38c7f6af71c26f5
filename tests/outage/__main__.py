"""``python -m tests.outage [--what mlflow|s3] [--seconds 60] [--home FOLDER]``: a service gone in the middle of work.

``mlflow`` (:mod:`tests.outage.mlflow`) tells how long a training stalls, ``s3`` (:mod:`tests.outage.s3`) what of a
whole run waits and whether anything is lost. The exit status is 1 if something was.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from ichigo.engines.platform import down
from tests.outage import mlflow, s3


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m tests.outage", description="a service gone in the middle of work")
    parser.add_argument("--what", choices=["mlflow", "s3"], default="mlflow")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="from kill to start; the start itself takes some more"
    )
    parser.add_argument("--home", type=Path, help="state home of the servers; default: a temporary one")
    arguments = parser.parse_args()
    measure = mlflow.measure if arguments.what == "mlflow" else s3.measure
    with tempfile.TemporaryDirectory(prefix="ichigo-outage-", ignore_cleanup_errors=True) as scratch:
        home = (arguments.home or Path(scratch) / "home").resolve()
        try:
            return measure(home, arguments.seconds, Path(scratch))
        finally:
            down(home)


if __name__ == "__main__":
    sys.exit(main())
