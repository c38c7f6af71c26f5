"""``python -m tests.chaos``: processes of whole runs of a small recipe, killed at random.

A platform of its own is started in a temporary folder. One run is left alone; then worlds (a store and a home each) are
run, killed and run again until every kill has been made and every world has come to its end. The report says what was
lost, doubled or changed; the exit status is 1 if anything was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

from ichigo.engines.platform import Endpoints, down, up
from ichigo.store import Store
from ichigo.tracking.runs import client
from tests.chaos.campaign import campaign
from tests.chaos.looks import STAGES, curve_problems, curves, partial_artifacts, rows, unusable_checkpoints
from tests.chaos.monkey import PATIENCE, Target, Try, committing, saving, says, uploading

SETTINGS = (
    *(f"stages.{stage}.steps=60" for stage in STAGES),
    *(f"stages.{stage}.sequence_length=256" for stage in STAGES),
    *("stages.pretrain.examples=200", "stages.instruct.examples=200", "stages.enhance.examples=120"),
    *("launch.checkpoints.every=10", "tokenizer.steps=20", "evaluation.items=3", "evaluation.max_new_tokens=4"),
)
TARGETS = (
    Target("prepare", says(r"\bprepare\b.*runs: "), 3.0),
    Target("tokenise", says(r"\btokenize-shard-\d+\b.*runs: "), 3.0),
    Target("tokenise", says(r"\btokenize-shard-\d+\b.*runs: "), 8.0),
    Target("mix", says(r"\bmix\b.*runs: "), 3.0),
    Target("commit an artifact", committing, 0.2),
    Target("pretrain", says(r"\bpretrain \d+/60"), 3.0),
    Target("save", saving, 0.0),
    Target("upload a checkpoint", uploading, 0.1),
    Target("instruct", says(r"\binstruct \d+/60"), 3.0),
    Target("save", saving, 0.02),
    Target("commit an artifact", committing, 0.05),
    Target("enhance", says(r"\benhance \d+/60"), 3.0),
    Target("evaluate", says(r"\bevaluate\b.*runs: "), 6.0),
    Target("register", says(r"\bgate\b.*done in"), 3.0),
)
"""In the order in which a run comes to them, so that one world takes a kill of each."""


@dataclass
class House:
    """A store and a home in which somebody types ``ichigo run`` until it succeeds."""

    folder: Path
    platform: Endpoints
    name: str
    undisturbed: House | None = None
    started: int = 0

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def store(self) -> Store:
        return Store.at(self.platform.store)

    def start(self) -> Try:
        """A run in this house, all of its temporary files too."""
        (self.folder / "tmp").mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        settings = [word for field in (*SETTINGS, f"registry.model_name={self.name}") for word in ("--set", field)]
        process = subprocess.Popen(
            [sys.executable, "-m", "ichigo.cli.main", "run", "smoke", *settings],
            cwd=self.folder,
            env={
                **os.environ,
                **self.platform.environment(),
                **{"ICHIGO_HOME": str(self.home), "TMPDIR": str(self.folder / "tmp"), "TERM": "dumb", "COLUMNS": "200"},
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        return Try(process, self.home)

    def visible_problems(self) -> list[str]:
        return [*partial_artifacts(self.store), *unusable_checkpoints(self.store)]

    @property
    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "runs" / "latest" / "summary.json").read_text())
        return found

    @property
    def artifacts(self) -> dict[str, dict[str, str]]:
        """Kind, address and digest by the step that made it."""
        return {step["name"]: step["artifact"] for step in self.summary["steps"] if step["artifact"]}

    @property
    def keys(self) -> list[str]:
        return [path.name for path in (self.home / "runs").iterdir() if not path.is_symlink()]

    def differences(self) -> list[str]:
        """Digests, rows, metrics, curves, versions: all as in the undisturbed house."""
        whole = self.undisturbed
        assert whole
        mine, theirs = self.artifacts, whole.artifacts
        problems = [f"{name}: other bytes" for name in theirs if mine[name]["digest"] != theirs[name]["digest"]]
        if self.summary["evaluation"] != whole.summary["evaluation"]:
            problems.append("the evaluation has other numbers")
        problems += _row_problems(*(rows(house.shards()) for house in (self, whole)))
        for stage in STAGES:
            undisturbed = curves(whole.store, client(), whole.keys, stage)[0]
            found = curves(self.store, client(), self.keys, stage)
            problems += [f"{stage}: {problem}" for problem in curve_problems(found, undisturbed)]
        versions = client().search_model_versions(f"name = '{self.name}'")
        if len(versions) != 1:
            problems.append(f"{len(versions)} versions of one model are registered")
        return [*problems, *self.visible_problems()]

    def shards(self) -> list[Any]:
        return [self.store.open_uri(one["uri"]) for name, one in self.artifacts.items() if name.startswith("tokenize-")]


def _row_problems(mine: Any, theirs: Any) -> list[str]:
    lost, doubled = theirs - mine, mine - theirs
    return [
        *([f"{sum(lost.values())} rows lost: {sorted(lost)[:3]}"] if lost else []),
        *([f"{sum(doubled.values())} rows doubled: {sorted(doubled)[:3]}"] if doubled else []),
    ]


def main() -> int:
    """Run the campaign; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write the report there too")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ichigo-chaos-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        try:
            text, good = _campaign(folder, args.kills, Random(args.seed), _say)
        finally:
            down(folder / "platform")
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    return 0 if good else 1


def _say(message: str) -> None:
    print(message, flush=True)


def _campaign(folder: Path, kills: int, random: Random, say: Callable[[str], None]) -> tuple[str, bool]:
    platform = up(folder / "platform")
    os.environ.update(platform.environment())

    def house(name: str, undisturbed: House | None = None) -> House:
        (folder / name).mkdir()
        return House(folder / name, replace(platform, store=f"{platform.store}-{name}"), name, undisturbed)

    whole = house("chaos-undisturbed")
    run = whole.start()
    if not run.ended(PATIENCE) or run.process.returncode != 0:
        raise AssertionError(f"the undisturbed run did not succeed:\n{''.join(run.lines[-40:])}")
    say(f"undisturbed: {whole.summary['wall_seconds']:.0f} s")
    targets = [TARGETS[kill % len(TARGETS)] for kill in range(kills)]
    report = campaign(lambda number: house(f"chaos-{number}", whole), targets, random, say)
    return report.table(), not report.problems


if __name__ == "__main__":
    sys.exit(main())
