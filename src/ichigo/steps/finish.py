"""``finish``: the exit handler. Closes what is still open in MLflow and writes the end of the run, whatever it was:
``summary.json`` for scripts, ``report.html`` for people.

KFP runs it after success and after failure; on cancel the engine on this machine calls :func:`close` itself.
"""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Any

from ichigo import recipe as recipes
from ichigo.errors import InfrastructureError
from ichigo.evaluation import table
from ichigo.steps import reporting
from ichigo.steps.context import LINE
from ichigo.steps.curves import ship_left
from ichigo.steps.records import Records, RunRecord, StepRecord, facts_line, read_recipe
from ichigo.steps.summary import render, summarise
from ichigo.tracking.runs import DatasetInput, JudgedModel, RunTree, Table

_STATUS = {"SUCCEEDED": "succeeded", "CANCELLED": "cancelled"}
_NOTE = "mlflow.note.content"  # the description on a run's page, in Markdown
_MLFLOW = {"succeeded": "FINISHED", "failed": "FAILED", "cancelled": "KILLED"}


def main(run: str, recipe_uri: str, recipe_digest: str, state: str, message: str = "") -> None:
    """Close the run whose pipeline ended in KFP's ``state`` and print its table."""
    print(render(close(run, recipe_uri, recipe_digest, state, message)), flush=True)


def close(run: str, recipe_uri: str, recipe_digest: str, state: str, message: str = "") -> dict[str, Any]:
    """Close the run whose pipeline ended in KFP's ``state``; returns the summary that it wrote."""
    records = Records.at(run)
    recipe = read_recipe(records.store, recipe_uri, recipe_digest)
    record = records.run() or RunRecord(
        records.run_key, recipe_uri, recipe_digest, recipes.fingerprint(recipe), started=time.time()
    )
    status = _STATUS.get(state, "failed")
    steps = [_ended(step, status) for step in records.steps()]
    summary = summarise(record, recipe, steps, status, _reason(status, steps, message), records.store.objects.uri)
    records.save_summary(summary)
    tree = RunTree(record.experiment, record.mlflow_run) if record.mlflow_run else None
    try:
        if tree:
            _describe(tree, record, summary, steps)
    finally:
        reporting.write(records, recipe, summary, tree)
        if tree:
            tree.close(_MLFLOW[summary["status"]], record.run_key)
    return summary


def _ended(step: StepRecord, status: str) -> StepRecord:
    """A process that was killed left its record at ``running``."""
    if step.status != "running":
        return step
    if status == "cancelled":
        return replace(step, status="cancelled", reason="stopped", finished=time.time())
    reason, code = "its process ended without a word (killed?)", InfrastructureError.exit_code
    return replace(step, status="failed", reason=reason, exit_code=code, finished=time.time())


def _reason(status: str, steps: list[StepRecord], message: str) -> str:
    if status == "cancelled":
        return "a person stopped the run"
    if status == "succeeded":
        return ""
    said = [f"{step.name}: {step.reason}" for step in steps if step.status == "failed"]
    return "; ".join(said) or f"a step failed before it could say why; see the log ({message})"


def _describe(tree: RunTree, run: RunRecord, summary: dict[str, Any], steps: list[StepRecord]) -> None:
    """Tell MLflow how the run went; first of all the points of steps that were killed."""
    ship_left(lambda message: print(f"{LINE} finish | {message}", flush=True))
    tree.log_metrics(run.mlflow_run, {"wall_seconds": summary["wall_seconds"]})
    tree.log_judged(run.mlflow_run, _judged(summary), summary["evaluation"])
    tags = {"ichigo.status": summary["status"], "ichigo.verdict": summary["gate"]["verdict"] or "none"}
    tree.set_tags(run.mlflow_run, tags | _reused(summary) | _description(summary))
    for step in steps:
        if step.mlflow_run:
            tree.set_tags(step.mlflow_run, {_NOTE: _of_step(step)})
    tree.log_inputs(run.mlflow_run, _data(summary))
    tree.log_text(run.mlflow_run, json.dumps(summary, indent=2, sort_keys=True), "summary.json")
    tree.log_text(run.mlflow_run, render(summary), "summary.txt")
    _log_tables(tree, run, summary)


def _log_tables(tree: RunTree, run: RunRecord, summary: dict[str, Any]) -> None:
    """The results and the gate's rules as tables, which MLflow's page shows and sets side by side for several runs."""
    results = table.plain_rows(summary["evaluation"], summary["recipe"])
    rules = [[str(rule["line"])] for rule in summary["gate"]["rules"]]
    tables: dict[str, Table] = {"results.json": (table.COLUMNS, results), "gate.json": (("rule",), rules)}
    tree.log_tables(run.mlflow_run, {name: one for name, one in tables.items() if one[1]})


def _judged(summary: dict[str, Any]) -> JudgedModel | None:
    """The model that the evaluation is of: what the last stage made."""
    trained = [step for step in summary["steps"] if (step["artifact"] or {}).get("kind", "").startswith("model-")]
    if not trained:
        return None
    artifact, name = trained[-1]["artifact"], f"{summary['recipe']}-{trained[-1]['name']}"
    return JudgedModel(name, artifact["uri"], artifact["digest"], summary["run_key"], trained[-1]["status"] == "done")


def _description(summary: dict[str, Any]) -> dict[str, str]:
    """The verdict and the table as the run's description: the first thing that a reviewer sees."""
    verdict, model = summary["gate"]["verdict"], summary["model"]
    said = f"**{verdict or 'no verdict'}** · run {summary['status']}"
    named = f" · {model['name']} version {model['version']}" if model else " · no model registered"
    return {
        _NOTE: f"{said}{named} · the whole story: artifact `report.html`\n\n```\n{render(summary)}\n```",
        "mlflow.source.name": f"ichigo run {summary['recipe']}",
    }


def _of_step(step: StepRecord) -> str:
    """A nested run's description."""
    facts = facts_line(step.facts)
    return "\n\n".join(filter(None, [f"**{step.status}** · {step.reason}".removesuffix(" · "), facts]))


def _data(summary: dict[str, Any]) -> list[DatasetInput]:
    """What the run was trained and judged on."""
    read = [step["artifact"] for step in summary["steps"] if step["name"] in {"prepare", "mix"} and step["artifact"]]
    return [DatasetInput(one["kind"], one["digest"], one["uri"], "training") for one in read]


def _reused(summary: dict[str, Any]) -> dict[str, str]:
    """One tag per reused step, naming the artifact: such a step opened no nested run of its own."""
    reused = [step for step in summary["steps"] if step["status"] == "reused" and step["artifact"]]
    return {f"ichigo.reused.{step['name']}": step["artifact"]["uri"] for step in reused}
