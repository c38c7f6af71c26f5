"""``ichigo gc``: what nothing refers to, in the store and on this disk; deleted only when asked."""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ichigo.store import Store
    from ichigo.store.garbage import Garbage
    from ichigo.store.workplace import Kept

HELP = "list what nothing refers to (replaced artifacts, partial uploads, lost work, old checkpoints), delete if asked"
_UNITS = {"m": 60.0, "h": 3600.0, "d": 86400.0}
_GRACE = 86400.0  # seconds; the longest upload or step between two writes that anybody should have


def arguments(parser: argparse.ArgumentParser) -> None:
    """``--dry-run``, ``--yes`` and ``--older-than``."""
    parser.add_argument("--dry-run", action="store_true", help="list only")
    parser.add_argument("--yes", action="store_true", help="delete without asking")
    age = "leave alone what is younger, for instance 12h; default 1d"
    parser.add_argument("--older-than", metavar="AGE", type=seconds, default=_GRACE, help=age)


def seconds(text: str) -> float:
    """``90m``, ``12h`` or ``7d`` in seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no age; write 90m, 12h or 7d")
    return float(match[1]) * _UNITS[match[2]]


def main(args: argparse.Namespace) -> int:
    """List, ask, delete."""
    from ichigo.cli.naming import connect
    from ichigo.engines import platform
    from ichigo.store import Store, garbage, workplace

    home = platform.default_home(os.environ).resolve()
    store = Store.at(connect(home).store)
    # Servers round the times of objects up to whole seconds: without an age nothing is too young.
    before = time.time() - args.older_than if args.older_than else math.inf
    active = training()
    found = garbage.find(store, roots(store, before), before, active)
    work = [one for one in workplace.kept(workplace.folder_of(home)) if one.modified < before]
    saves = workplace.kept(home / "checkpoints")
    work += [one for one in saves if one.modified < before and one.folder.name not in active]
    _show(found, work)
    if args.dry_run or not (found or work) or not (args.yes or _agreed()):
        return 0
    for item in found:
        garbage.sweep(store, item)
    for left in work:
        workplace.remove(left)
    print(f"deleted {len(found) + len(work)}")
    return 0


def roots(store: Store, before: float) -> Iterator[str]:
    """Addresses of what must stay: registered models, and artifacts of runs that go on or ended after ``before``."""
    from ichigo.registry.lookup import registered
    from ichigo.steps.records import Records, run_keys

    yield from (version.uri for version in registered())
    for key in run_keys(store):
        records = Records(store, key)
        summary = records.summary()
        if summary is None or summary["started"] + summary["wall_seconds"] > before:
            yield from (step.artifact["uri"] for step in records.steps() if step.artifact)


def training() -> set[str]:
    """The lineages of trainings that run now; what they saved may be old if their steps are long."""
    from ichigo.tracking.runs import running
    from ichigo.training.shelf import LINEAGE

    return {tags[LINEAGE] for tags in running(LINEAGE)}


def _show(found: Sequence[Garbage], work: Sequence[Kept]) -> None:
    now = time.time()
    lines = [(item.size, item.modified, item.place, item.why) for item in found]
    lines += [(left.size, left.modified, str(left.folder), _why(left)) for left in work]
    for size, modified, place, why in lines:
        print(f"{_size(size):>10}  {_age(now - modified):>6}  {place}  {why}")
    total = sum(size for size, *_ in lines)
    print(f"{_size(total):>10}  in {len(lines)} places that nothing refers to")


def _why(left: Kept) -> str:
    saved = left.folder.parent.name == "checkpoints"
    return "checkpoints of a training that nobody went on with" if saved else "work that no run took up"


def _size(size: float) -> str:
    return f"{size / 2**20:.1f} MiB"


def _age(age: float) -> str:
    return f"{age / 86400:.1f} d" if age >= 86400 else f"{age / 3600:.1f} h"


def _agreed() -> bool:
    if not sys.stdin.isatty():
        print("nothing is deleted; say --yes to delete without being asked")
        return False
    return input("delete all of this? [y/N] ").strip().lower() in {"y", "yes"}
