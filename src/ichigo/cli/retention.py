"""``ichigo retention TASK… --model MODEL --base FOLDER``: what training took of the base's text abilities, by lm-eval.

Both models answer the same requests through the same engine. ``TASK`` is a name that lm-eval knows, whose data it
fetches from the Hub, or a YAML file with its data beside it; without any the paper's three are taken.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import redirect_stdout
from pathlib import Path

from ichigo.cli import naming
from ichigo.cli.ask import positive

HELP = "compare a trained model with its base on text tasks of lm-eval: points lost, and the paper's degradation"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The tasks, both models, and how to ask."""
    parser.add_argument(
        "tasks", metavar="TASK", nargs="*", help="of lm-eval, or a YAML file; default the paper's three"
    )
    naming.arguments(parser)
    parser.add_argument("--base", metavar="FOLDER", type=Path, required=True, help="the text model it was trained from")
    parser.add_argument("--examples", metavar="N", type=int, help="that precede a question; default each task's own")
    parser.add_argument("--items", metavar="N", type=positive, help="the first N of each task; default all")
    parser.add_argument("--batch", metavar="N", type=positive, default=16, help="requests at once; default 16")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="draws intervals; default 0")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Measure the base, then the model, and compare."""
    from ichigo.errors import ModelError
    from ichigo.evaluation import retention
    from ichigo.evaluation.asking import open_text_engine
    from ichigo.inference.engine import Engine

    model = naming.locate(args, sound=False)
    tasks = args.tasks or list(retention.PAPER_TASKS)
    with redirect_stdout(sys.stderr):  # progress
        trained = Engine.open(model.folder)
        base = open_text_engine(args.base, trained.contract)
        if base.dtype != trained.dtype:
            raise ModelError(
                f"{args.base} is in {base.dtype}, {model.name} in {trained.dtype}; save both in one precision"
            )
        asked = {"examples": args.examples, "items": args.items, "batch": args.batch}
        before = retention.measure(base, tasks, **asked)
        after = retention.measure(trained, tasks, **asked)
    metrics = retention.compare(before, after, args.seed)
    if args.json:
        print(json.dumps({"model": model.name, "base": str(args.base), "metrics": metrics}, indent=2, sort_keys=True))
    else:
        print(retention.plain(metrics))
    return 0
