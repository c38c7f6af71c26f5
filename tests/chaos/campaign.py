"""Kill after kill over worlds that are compared, each when it has come to its end, with one that nobody disturbed."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Protocol

from tests.chaos.monkey import PATIENCE, Strike, Target, Try, strike

GOES_ON = re.compile(r"goes on after step (\d+)")
DAMAGED = re.compile(r"is damaged and not used|did not come out as in the try before")


class World(Protocol):
    """Something that can be run, killed, and run again until it is done."""

    def start(self) -> Try:
        """Begin, or go on."""

    def visible_problems(self) -> list[str]:
        """What nobody should be able to see now, after a kill."""

    def differences(self) -> list[str]:
        """At the end: what did not come out as in the undisturbed world."""


@dataclass
class Report:
    """What a campaign did and found."""

    strikes: list[Strike] = field(default_factory=list)
    worlds: int = 0
    resumed: list[int] = field(default_factory=list)  # the step after which a stage went on, for each time it did
    problems: list[str] = field(default_factory=list)

    def table(self) -> str:
        """For a person: kills by moment and by victim, and every problem."""
        kills = Counter(one.target for one in self.strikes)
        victims = Counter(one.victim for one in self.strikes)
        codes = Counter("hung" if one.status is None else str(one.status) for one in self.strikes)
        lines = [
            f"{len(self.strikes)} kills in {self.worlds} worlds",
            f"{len(self.resumed)} times a stage went on from a checkpoint",
            f"moments: {_counts(kills)}",
            f"killed: {_counts(victims)}",
            f"exit status of what was left: {_counts(codes)}",
            f"problems: {len(self.problems)}",
            *(f"  {problem}" for problem in self.problems),
        ]
        return "\n".join(lines)


def _counts(found: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(found.items()))


def campaign(
    new_world: Callable[[int], World], targets: Sequence[Target], random: Random, say: Callable[[str], None]
) -> Report:
    """One kill for each of ``targets``, in this order, and each world brought to its end."""
    report = Report()
    world, waiting = None, list(targets)
    while waiting or world:
        if world is None:
            report.worlds += 1
            world = new_world(report.worlds)
        run = world.start()
        found = strike(run, waiting[0], random) if waiting else None
        if found is None and not run.ended(PATIENCE):
            raise AssertionError(f"nobody was killed and it hangs:\n{''.join(run.lines[-40:])}")
        _listen(report, run)
        if found:
            waiting.pop(0)
            _note(report, found, world, say)
        elif run.process.returncode == 0:
            report.problems += [f"world {report.worlds}: {one}" for one in world.differences()]
            say(f"world {report.worlds} is done; problems so far: {len(report.problems)}")
            world = None
        else:
            raise AssertionError(f"nobody was killed and it failed:\n{''.join(run.lines[-40:])}")
    return report


def _listen(report: Report, run: Try) -> None:
    text = "".join(run.lines)
    report.resumed += [int(match[1]) for match in GOES_ON.finditer(text)]
    report.problems += [line.strip() for line in run.lines if DAMAGED.search(line)]


def _note(report: Report, found: Strike, world: World, say: Callable[[str], None]) -> None:
    report.strikes.append(found)
    which = f"kill {len(report.strikes)} ({found.victim} at {found.target})"
    say(f"{which}: ended with {found.status}")
    if found.status is None:
        report.problems.append(f"{which}: it hung")
    report.problems += [f"{which}: {one} outlived it" for one in found.orphans]
    report.problems += [f"{which}: {one}" for one in world.visible_problems()]
