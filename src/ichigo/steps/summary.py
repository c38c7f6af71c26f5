"""The end of a run as data and as a table.

``summary.json`` (``.ichigo/runs/latest/summary.json`` on the machine that ran it, ``runs/<run key>/summary.json`` in
the store, and an artifact of the MLflow parent run) has these keys:

=================  ==================================================================================================
run_key            name of the run, here and in MLflow
recipe             name of the recipe
fingerprint        of the recipe; equal fingerprints ask for the same model
status             ``succeeded``, ``failed`` or ``cancelled``
reason             why, when it did not succeed
wall_seconds       from the run's begin to its end
kfp_seconds        of these, time in which no process of a step existed: KFP's own scheduling
steps[]            name, status (``done``, ``reused``, ``failed``), reason, seconds (the step's work), startup_seconds
                   (interpreter, KFP's executor and our imports before it), artifact {kind, uri, digest}, facts
evaluation         metric -> number
gate               verdict (``promote``, ``hold``, ``refuse`` or null), rules[] {metric, found, bound, kept, line}
model              name, version, uri, digest, alias; null when nothing was registered
mlflow             experiment and run id of the parent run, and the server's address
store              root of the store
=================  ==================================================================================================
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from ichigo.recipe.schema import Recipe
from ichigo.steps.records import RunRecord, StepRecord

_WHAT = 70  # columns for what a step did
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
        "wall_seconds": round(now - run.started, 2),
        "kfp_seconds": round(_uncovered(steps, run.started, now), 2),
        "steps": [_row(step) for step in steps],
        "evaluation": facts.get("evaluate", {}).get("metrics", {}),
        "gate": {name: facts.get("gate", _GATE)[name] for name in _GATE},
        "model": facts.get("register"),
        "mlflow": {"uri": _without_password(os.environ.get("MLFLOW_TRACKING_URI", "")), **_mlflow(run)},
        "store": store,
    }


def _row(step: StepRecord) -> dict[str, Any]:
    return {
        "name": step.name,
        "status": step.status,
        "reason": step.reason,
        "seconds": round(step.finished - step.started, 2),
        "startup_seconds": round(step.started - step.process_started, 2),
        "artifact": step.artifact,
        "facts": {name: value for name, value in step.facts.items() if name not in {"rules", "metrics"}},
    }


def _mlflow(run: RunRecord) -> dict[str, str]:
    return {name: value for name, value in asdict(run).items() if name in {"experiment", "mlflow_run"}}


def _uncovered(steps: Sequence[StepRecord], start: float, end: float) -> float:
    """Seconds of [start, end] in which no step's process was alive."""
    covered, reached = 0.0, start
    for step in sorted(steps, key=lambda step: step.process_started):
        covered += max(0.0, step.finished - max(step.process_started, reached))
        reached = max(reached, step.finished)
    return max(0.0, end - start - covered)


def _without_password(uri: str) -> str:
    parts = urlsplit(uri)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def render(summary: Mapping[str, Any]) -> str:
    """The summary as a plain text table, at most 100 columns but for addresses."""
    lines = [f"{'step':<20} {'':<8} {'work':>8} {'start-up':>9}  what"]
    lines += [_line(step) for step in summary["steps"]]
    lines += ["", *_results(summary), ""]
    seconds = f"{summary['wall_seconds']:.0f} s, of which KFP's scheduling {summary['kfp_seconds']:.1f} s"
    lines.append(f"run      {summary['run_key']}  {summary['status']} in {seconds}")
    if summary["reason"]:
        lines.append(f"reason   {summary['reason']}")
    return "\n".join([*lines, *_addresses(summary)])


def _line(step: Mapping[str, Any]) -> str:
    what = step["reason"] if step["status"] in {"reused", "failed"} else _facts(step["facts"])
    first = what.splitlines()[0][:_WHAT] if what else ""
    times = f"{step['seconds']:>6.1f} s {step['startup_seconds']:>7.1f} s"
    return f"{step['name']:<20} {step['status']:<8} {times}  {first}".rstrip()


def _facts(facts: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_number(value)}" for name, value in facts.items() if isinstance(value, int | float))


def _results(summary: Mapping[str, Any]) -> list[str]:
    metrics = [_metric(name, summary["evaluation"]) for name in sorted(summary["evaluation"]) if not _bound(name)]
    rules = [f"gate     {rule['line']}" for rule in summary["gate"]["rules"]]
    verdict = [f"verdict  {summary['gate']['verdict']}"] if summary["gate"]["verdict"] else []
    return [*metrics, "", *rules, *verdict] if metrics or rules else verdict


def _bound(name: str) -> bool:
    return name.endswith((".low", ".high"))


def _metric(name: str, metrics: Mapping[str, float]) -> str:
    low, high = metrics.get(f"{name}.low"), metrics.get(f"{name}.high")
    interval = f"  [{_number(low)}, {_number(high)}]" if low is not None and high is not None else ""
    return f"{name:<38} {_number(metrics[name]):>8}{interval}"


def _addresses(summary: Mapping[str, Any]) -> list[str]:
    mlflow, lines = summary["mlflow"], []
    if mlflow["mlflow_run"]:
        lines.append(f"MLflow   {mlflow['uri']}/#/experiments/{mlflow['experiment']}/runs/{mlflow['mlflow_run']}")
    if model := summary["model"]:
        alias = f" @{model['alias']}" if model["alias"] else ""
        lines.append(f"model    {model['name']} version {model['version']}{alias}  {model['uri']}")
    return lines


def _number(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
