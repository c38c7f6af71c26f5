"""Whole runs by the command line whose probes are looked at: what ``probe_seeds`` and ``broken_recipes`` share."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ichigo import recipe as recipes
from ichigo.cli.bench import machine
from ichigo.evaluation import diagnosis
from ichigo.recipe.schema import STAGE_ORDER, StageName


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        status: the exit status of ``ichigo run``.
        stopped: the probe that stopped it, or ``gate`` if that refused the model; "" of one that went through.
        diagnosis: in the words of :mod:`ichigo.evaluation.diagnosis`.
        reason: what the run said.
        probes: what each probe found, by stage.
        bounds: stage -> name -> the bound that held there.
        seconds: of each probe's step, imports included, by stage.
    """

    name: str
    status: int
    stopped: str
    diagnosis: str
    reason: str
    probes: Mapping[str, Mapping[str, float]]
    bounds: Mapping[str, Mapping[str, float]]
    seconds: Mapping[str, float]
    run_seconds: float


def run(name: str, recipe: str, overrides: Sequence[str], home: Path) -> Outcome:
    """``ichigo run RECIPE`` with ``overrides``, its output shown, in ``home``, whose servers the caller ends."""
    arguments = [part for override in overrides for part in ("--set", override)]
    command = [sys.executable, "-m", "ichigo.cli.main", "run", recipe, *arguments]
    environment = {**os.environ, "ICHIGO_HOME": str(home), "TERM": "dumb"}
    latest = home / "runs" / "latest" / "summary.json"
    before = latest.read_text() if latest.exists() else ""
    status = subprocess.run(command, env=environment, check=False).returncode
    text = latest.read_text() if latest.exists() else ""
    if text == before:
        raise SystemExit(f"{name}: `{' '.join(command)}` ended with {status} before there was a run")
    return outcome(name, status, json.loads(text), recipes.load(recipe, list(overrides)))


def outcome(name: str, status: int, summary: Mapping[str, Any], recipe: recipes.Recipe) -> Outcome:
    """What the ``summary`` of a run of ``recipe`` says of its probes."""
    steps = {step["name"]: step for step in summary["steps"]}
    looked: dict[StageName, dict[str, Any]] = {
        stage: steps[f"probe-{stage}"] for stage in STAGE_ORDER if f"probe-{stage}" in steps
    }
    failed = [step for step in looked.values() if step["status"] == "failed"]
    refused = summary["gate"]["verdict"] == "refuse"
    probes: dict[str, dict[str, float]] = {
        stage: {key: value for key, value in step["facts"].items() if isinstance(value, int | float)}
        for stage, step in looked.items()
    }
    bounds: dict[str, dict[str, float]] = {
        stage: {
            check.name: check.bound for check in diagnosis.checks(probes[stage], recipe.probes, recipe.stage(stage))
        }
        for stage in looked
    }
    return Outcome(
        name=name,
        status=status,
        stopped=failed[0]["name"] if failed else "gate" if refused else "",
        diagnosis=failed[0]["facts"].get("diagnosis", "") if failed else "",
        reason=summary["reason"],
        probes=probes,
        bounds=bounds,
        seconds={stage: step["startup_seconds"] + step["seconds"] for stage, step in looked.items()},
        run_seconds=summary["wall_seconds"],
    )


def write(folder: Path, title: str, command: str, lines: Sequence[str], outcomes: Sequence[Outcome]) -> None:
    """``table.md`` and ``results.json``, written anew after every run."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = machine()
    where = f"{facts['cores']} cores, {facts['processor']}, {facts['memory_gib']:.0f} GiB; {facts['software']}."
    results = {"command": command, "machine": facts, "runs": [asdict(one) for one in outcomes]}
    (folder / "results.json").write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    text = "\n".join([f"# {title}", "", f"`{command}`", "", where, "", *lines, ""])
    (folder / "table.md").write_text(re.sub(r"\n{3,}", "\n\n", text), encoding="utf-8")


def row(*cells: str) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(cells)} |"
