"""Who wins when several people promote at once: ``python -m tests.promotion_race [--races 50] [--deployers 3]``.

Deployers are processes of their own, each with a client of its own, on a real MLflow server in a temporary folder. In
each race all of them saw the same ledger, each wants another version as champion, and they start together. Printed is
who won, what the others were told, and what MLflow's alias shows afterwards. The exit status is 1 unless each race has
one winner, a ledger that is one entry longer, losers who were told of this very entry, and the winner's alias.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Barrier
from pathlib import Path

from ichigo.engines.platform import down, up
from ichigo.registry.ledger import CHAMPION, entries
from ichigo.registry.models import register
from ichigo.registry.promotion import Opinion, Overtaken, move
from ichigo.tracking.runs import client

NAME = "race"


@dataclass(frozen=True)
class Said:
    """What one deployer came back with: the mark of the entry that stands, and whether it is its own."""

    version: str
    won: bool
    mark: str
    words: str


@dataclass(frozen=True)
class Outcome:
    """One race: what was said, the ledger's entries before and after it, its new entry's mark, the alias afterwards."""

    said: tuple[Said, ...]
    before: int
    after: int
    mark: str
    shown: str
    seconds: float

    @property
    def winners(self) -> list[Said]:
        """Who was told to have won."""
        return [one for one in self.said if one.won]

    @property
    def told(self) -> int:
        """How many losers were told of the entry that stands."""
        return sum(not one.won and one.mark == self.mark for one in self.said)

    @property
    def fair(self) -> bool:
        """Whether everything is as it must be."""
        one_entry = self.after == self.before + 1
        mine = len(self.winners) == 1 and self.winners[0].mark == self.mark and self.shown == self.winners[0].version
        return one_entry and mine and self.told == len(self.said) - 1


def deployer(orders: Connection, start: Barrier) -> None:
    """Promote what is ordered, (version, entries seen), when all are ready; until the order is None."""
    while order := orders.recv():
        version, seen = order
        start.wait()
        orders.send(_promote(version, seen))


def _promote(version: str, seen: int) -> Said:
    opinion = Opinion("promote", (), {"spoken.exact_match": (0.5, 0.4, 0.6)}, "")
    reason = f"deployer {os.getpid()} wants version {version}"
    try:
        entry = move(NAME, version, CHAMPION, lambda *_: opinion, force=True, reason=reason, after=seen)
        return Said(version, True, entry.mark, str(entry))
    except Overtaken as error:
        return Said(version, False, error.entry.mark, str(error))


def races(count: int, deployers: int) -> list[Outcome]:
    """Run ``count`` races on the configured MLflow server, in a model of its own."""
    for number in range(deployers + 1):
        register(NAME, f"s3://race/store/model/{number}/1", f"{number:064x}", mlflow_run=None, tags={}, alias=None)
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(deployers)
    pipes = [context.Pipe() for _ in range(deployers)]
    workers = [context.Process(target=deployer, args=(far, start), daemon=True) for _, far in pipes]
    for worker in workers:
        worker.start()
    ends = [near for near, _ in pipes]
    try:
        return [_race(ends) for _ in range(count)]
    finally:
        for end in ends:
            end.send(None)
        for worker in workers:
            worker.join()


def _race(ends: Sequence[Connection]) -> Outcome:
    seen = entries(NAME)
    holder = seen[-1].version if seen else ""
    versions = [str(number + 1) for number in range(len(ends) + 1) if str(number + 1) != holder]
    began = time.monotonic()
    for end, version in zip(ends, versions, strict=False):
        end.send((version, len(seen)))
    said = tuple(end.recv() for end in ends)
    seconds = time.monotonic() - began
    now = entries(NAME)
    shown = str(client().get_model_version_by_alias(NAME, CHAMPION).version)
    return Outcome(said, len(seen), len(now), now[-1].mark, shown, seconds)


def table(outcomes: Sequence[Outcome]) -> str:
    """The races in Markdown."""
    head = [
        "| race | wanted | won | losers told who won | entries | alias shows | s |",
        "| --: | --- | --- | --: | --: | --- | --: |",
    ]
    rows = [
        f"| {number} | {' '.join(one.version for one in race.said)} | {' '.join(one.version for one in race.winners)} "
        f"| {race.told} of {len(race.said) - 1} | {race.before} -> {race.after} | {race.shown} | {race.seconds:.2f} |"
        for number, race in enumerate(outcomes, 1)
    ]
    fair = sum(race.fair for race in outcomes)
    losers = [one.words for race in outcomes for one in race.said if not one.won]
    example = ["", "A loser was told:", "", *(f"> {line}" for line in losers[:1])]
    return "\n".join(
        [f"{fair} of {len(outcomes)} races with one winner, whom all others were told.", "", *head, *rows, *example]
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the races on a platform of their own; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.promotion_race", description=__doc__)
    parser.add_argument("--races", type=int, default=50)
    parser.add_argument("--deployers", type=int, default=3)
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        try:
            os.environ.update(up(home).environment())
            outcomes = races(args.races, args.deployers)
        finally:
            down(home)
    print(table(outcomes))
    return 0 if all(race.fair for race in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
