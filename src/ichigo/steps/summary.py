"""The end of a run as data and as a table.

``summary.json`` (``.ichigo/runs/latest/summary.json`` on the machine that ran it, ``runs/<run key>/summary.json`` in
the store, and an artifact of the MLflow parent run) has these keys:

=================  ==================================================================================================
run_key            name of the run, here and in MLflow
recipe             name of the recipe
fingerprint        of the recipe; equal fingerprints ask for the same model
status             ``succeeded``, ``failed`` or ``cancelled``
reason             why, when it did not succeed
exit_code          whose fault it was, as ``ichigo run`` ends with it: that of the first step that failed, else 0
started            when the run began, seconds since the epoch
wall_seconds       from the run's begin to its end
kfp_seconds        of these, KFP's own cost: from the first step's start to the last one's end, time in which no step's
                   process existed, and in each process the time before our code was reached
steps[]            name, status (``done``, ``reused``, ``skipped``, ``failed``, ``cancelled``), reason, seconds (the
                   step's work), startup_seconds (our imports before it), kfp_seconds (KFP's executor and the
                   interpreter before those), ended_seconds (from the run's begin to the step's end), peak_memory
                   (bytes, of its largest process), artifact {kind, uri, digest}, facts
evaluation         metric -> number, of the evaluation and, as ``tokenizer.NAME``, of the tokenizer's fit
gate               verdict (``promote``, ``hold``, ``refuse`` or null), rules[] {metric, found, bound, kept, line}
model              name, version, uri, digest, alias; null when nothing was registered
mlflow             experiment and run id of the parent run, and the server's address
store              root of the store
=================  ==================================================================================================
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ichigo.evaluation import table
from ichigo.recipe.schema import Recipe
from ichigo.steps.records import RunRecord, StepRecord, facts_line

_WHAT = 49  # columns for what a step did
_GATE: dict[str, Any] = {"verdict": None, "rules": []}


def summarise(
    run: RunRecord, recipe: Recipe, steps: Sequence[StepRecord], status: str, reason: str, store: str
) -> dict[str, Any]:
    """The summary of a run from its records; ``status`` is one of succeeded, failed, cancelled."""
    now = time.time()
    facts = {step.name: step.facts for step in steps if step.status in {"done", "reused"}}
    return {
        "run_key": run.run_key,
        "recipe": recipe.name,
        "fingerprint": run.fingerprint,
        "status": status,
        "reason": reason,
        "exit_code": next((step.exit_code for step in steps if step.status == "failed"), 0),
        "started": round(run.started, 2),
        "wall_seconds": round(now - run.started, 2),
        "kfp_seconds": round(_uncovered(steps) + sum(step.entered - step.process_started for step in steps), 2),
        "steps": [_row(step, run.started) for step in steps],
        "evaluation": _metrics(facts),
        "gate": {name: facts.get("gate", _GATE)[name] for name in _GATE},
        "model": facts.get("register"),
        "mlflow": {"uri": _without_password(os.environ.get("MLFLOW_TRACKING_URI", "")), **_mlflow(run)},
        "store": store,
    }


def _metrics(facts: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    fit = {f"tokenizer.{name}": value for name, value in facts.get("tokenizer", {}).items()}
    return {**fit, **facts.get("evaluate", {}).get("metrics", {})}


def _row(step: StepRecord, run_started: float) -> dict[str, Any]:
    return {
        "name": step.name,
        "status": step.status,
        "reason": step.reason,
        "seconds": round(step.finished - step.started, 2),
        "startup_seconds": round(step.started - step.entered, 2),
        "kfp_seconds": round(step.entered - step.process_started, 2),
        "ended_seconds": round(step.finished - run_started, 2),
        "peak_memory": step.peak_memory,
        "artifact": step.artifact,
        "facts": {name: value for name, value in step.facts.items() if name not in {"rules", "metrics"}},
    }


def _mlflow(run: RunRecord) -> dict[str, str]:
    return {name: value for name, value in asdict(run).items() if name in {"experiment", "mlflow_run"}}


def _uncovered(steps: Sequence[StepRecord]) -> float:
    """Seconds between the first step's start and the last one's end in which no step's process was alive."""
    idle, reached = 0.0, math.inf
    for step in sorted(steps, key=lambda step: step.process_started):
        idle += max(0.0, step.process_started - reached)
        reached = max(reached, step.finished) if reached < math.inf else step.finished
    return idle


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def render(summary: Mapping[str, Any]) -> str:
    """The summary as a plain text table, at most 100 columns but for addresses."""
    lines = [f"{'step':<20} {'':<9} {'work':>8} {'start-up':>9}  what"]
    lines += [_line(step) for step in summary["steps"]]
    lines += ["", *_results(summary)]
    each = summary["kfp_seconds"] / max(len(summary["steps"]), 1)
    seconds = f"{summary['wall_seconds']:.0f} s; KFP's own cost {summary['kfp_seconds']:.1f} s, {each:.2f} s a step"
    lines += [f"run      {summary['run_key']}", f"status   {summary['status']} in {seconds}"]
    if summary["reason"]:
        lines.append(f"reason   {summary['reason'].splitlines()[0]}")
    return "\n".join([*lines, *_addresses(summary)])


def _line(step: Mapping[str, Any]) -> str:
    what = facts_line(step["facts"]) if step["status"] == "done" else step["reason"]
    first = what.splitlines()[0] if what else ""
    first = first if len(first) <= _WHAT else f"{first[: _WHAT - 1]}…"
    times = f"{step['seconds']:>6.1f} s {step['startup_seconds']:>7.1f} s"
    return f"{step['name']:<20} {step['status']:<9} {times}  {first}".rstrip()


def _results(summary: Mapping[str, Any]) -> list[str]:
    rules = [f"gate     {rule['line']}" for rule in summary["gate"]["rules"]]
    verdict = [f"verdict  {summary['gate']['verdict']}", ""] if summary["gate"]["verdict"] else []
    return [*_evaluation(summary["evaluation"], summary["recipe"]), *rules, *verdict]


def _evaluation(metrics: Mapping[str, float], recipe: str) -> list[str]:
    """The measures with their bars where the recipe has them, else a row per metric and a column per suite."""
    if lines := table.plain(metrics, recipe):
        return [*lines, ""]
    parts = [tuple(name.split(".", 1)) for name in metrics if name.count(".") == 1]
    suites, rows = list(dict.fromkeys(part[0] for part in parts)), sorted({part[1] for part in parts})
    if not parts:
        return []
    cells = [[_cell(metrics, f"{suite}.{row}") for suite in suites] for row in rows]
    columns = [("", suites), *zip(rows, cells, strict=True)]
    return [*("".join([f"{row:<17}", *(f"{cell:<21}" for cell in line)]).rstrip() for row, line in columns), ""]


def _cell(metrics: Mapping[str, float], name: str) -> str:
    value, low, high = (metrics.get(f"{name}{end}") for end in ("", ".low", ".high"))
    if value is None:
        return ""
    return f"{value:.3g}" if low is None or high is None else f"{value:<6.3g} [{low:.2f}, {high:.2f}]"


def _addresses(summary: Mapping[str, Any]) -> list[str]:
    mlflow, lines = summary["mlflow"], []
    if mlflow["mlflow_run"]:
        lines.append(f"MLflow   {mlflow['uri']}/#/experiments/{mlflow['experiment']}/runs/{mlflow['mlflow_run']}")
    if model := summary["model"]:
        alias = f" @{model['alias']}" if model["alias"] else ""
        lines += [f"model    {model['name']} version {model['version']}{alias}", f"         {model['uri']}"]
    return lines
