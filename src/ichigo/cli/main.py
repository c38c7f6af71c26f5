"""``ichigo VERB …``: finds the verb, runs it, and turns errors into a message and an exit status."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from ichigo import __version__
from ichigo.errors import IchigoError

VERBS = (
    *("run", "check", "data", "ask", "speak", "look", "evaluate", "bench", "benchmark", "retention", "latency"),
    *("compare", "report", "models", "promote", "rollback", "verify", "trace", "gc", "up", "status", "down"),
)
_EPILOG = """\
exit status: 0 done (also when the gate refused the model), 2 wrong input, 3 a service does not answer,
4 stored bytes are not the committed ones, 5 a step failed, 6 the machine failed a step (a process killed or hanging, a
full disk), 130 cancelled; after 3 and 6 run again: it goes on from what is committed and the newest checkpoint"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="ichigo",
        description="Train speech-language models: recordings in, a registered model out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"ichigo {__version__}")
    verbs = top.add_subparsers(title="verbs", metavar="VERB", required=True)
    for name in VERBS:
        module = importlib.import_module(f"ichigo.cli.{name}")
        verb = verbs.add_parser(name, help=module.HELP, description=module.HELP)
        module.arguments(verb)
        verb.set_defaults(main=module.main)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit status."""
    args = parser().parse_args(argv)
    try:
        status: int = args.main(args)
    except IchigoError as error:
        print(f"ichigo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("ichigo: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever read our output has gone, as in `ichigo … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
