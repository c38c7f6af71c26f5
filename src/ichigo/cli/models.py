"""``ichigo models [NAME]``: what the registry holds, who promoted it, and on what numbers."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ichigo.registry.catalogue import Listed, Listing

HELP = "list registered versions with aliases, the gate's verdict, numbers and age; with NAME also the ledger"
_SHOWN = 3  # numbers of each version; --json has them all


def arguments(parser: argparse.ArgumentParser) -> None:
    """``NAME``, ``--repair`` and ``--json``."""
    parser.add_argument("name", metavar="NAME", nargs="?", help="a registered model; default: all of them")
    parser.add_argument("--repair", action="store_true", help="set MLflow's aliases to what the ledger says")
    parser.add_argument("--json", action="store_true", help="print everything as JSON, the ledger among it")


def main(args: argparse.Namespace) -> int:
    """Print the list."""
    from ichigo.cli.naming import connect
    from ichigo.engines import platform
    from ichigo.registry.catalogue import catalogue
    from ichigo.registry.promotion import repair

    connect(platform.default_home(os.environ).resolve())
    found = catalogue(args.name)
    if args.repair:
        for one in found:
            repair(one.name)
        found = catalogue(args.name)
    if args.json:
        print(json.dumps([as_data(one) for one in found], indent=2, sort_keys=True))
    else:
        print("\n".join(lines(found, time.time(), ledger=bool(args.name))) or "no model is registered yet")
    return 0


def as_data(model: Listing) -> dict[str, object]:
    """Everything that is known of a model, for a machine."""
    versions = [
        {**asdict(one.registered), "aliases": one.aliases, "verdict": one.verdict, "created": one.created}
        | {"numbers": {name: list(values) for name, values in one.numbers.items()}}
        for one in model.versions
    ]
    ledger, drift = [asdict(entry) for entry in model.ledger], [asdict(one) for one in model.drift]
    return {"name": model.name, "versions": versions, "ledger": ledger, "drift": drift}


def lines(found: Sequence[Listing], now: float, *, ledger: bool) -> list[str]:
    """The same for a person; ``ledger`` adds who did what."""
    return [line for model in found for line in _model(model, now, ledger)]


def _model(model: Listing, now: float, ledger: bool) -> Iterator[str]:
    yield f"{model.name}, ledger of {len(model.ledger)} {'entry' if len(model.ledger) == 1 else 'entries'}"
    for one in model.versions:
        aliases = " ".join(f"@{alias}" for alias in one.aliases)
        age, verdict = _age(now - one.created), one.verdict or "-"
        yield f"  {one.registered.version:>4}  {aliases:<12}{verdict:<9}{age:>7}  {_numbers(one)}"
    yield from (f"  {one}; `ichigo models {model.name} --repair` sets it right" for one in model.drift)
    if ledger:
        yield from (f"  entry {entry}" for entry in model.ledger)


def _numbers(one: Listed) -> str:
    shown = [f"{name} {number(values)}" for name, values in list(one.numbers.items())[:_SHOWN]]
    more = len(one.numbers) - len(shown)
    return ", ".join([*shown, *([f"{more} more"] if more else [])]) or "no numbers"


def number(values: Sequence[float]) -> str:
    """``0.86 [0.84, 0.88]``, or the value alone."""
    value, *interval = (f"{one:.3g}" for one in values)
    return f"{value} [{', '.join(interval)}]" if interval else value


def table(numbers: Mapping[str, Sequence[float]]) -> list[str]:
    """A line for each number."""
    return [f"  {name} {number(values)}" for name, values in numbers.items()]


def _age(seconds: float) -> str:
    units = ((86400, "d"), (3600, "h"), (60, "min"))
    size, unit = next(((size, unit) for size, unit in units if seconds >= size), (1, "s"))
    return f"{max(seconds, 0) / size:.0f} {unit}"
