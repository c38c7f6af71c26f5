"""The report of a run that has ended: gathered from the records and the store, kept beside ``summary.json``.

It is what a person is told, and never what a run depends on: whatever goes wrong here is said in one line.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ichigo.recipe.schema import Recipe
from ichigo.report.gather import STAGES, Curves, Known, gather
from ichigo.report.page import report
from ichigo.steps.context import LINE
from ichigo.steps.curves import CURVES
from ichigo.steps.records import REPORT, Records, StepRecord
from ichigo.tracking.runs import Point, RunTree

SHOWN_CURVES = ("loss", "grad_norm")
"""Curves of the stages that the parent run has too, thinned, so that MLflow's compare view draws those of two runs."""
_POINTS = 200  # of each of them


def write(records: Records, recipe: Recipe, summary: Mapping[str, Any], tree: RunTree | None) -> str | None:
    """Write the report of the run into its records and among the artifacts of its MLflow run; None if that failed."""
    try:
        curves = stage_curves(records, summary, tree) if tree else {}
        ledger = promotions(recipe.registry.model_name) if tree else []
        page = made(records, recipe, summary, Known(curves=curves, earlier=earlier(records, summary), ledger=ledger))
        records.save_report(page)
        if tree:
            tree.log_text(tree.parent, page, REPORT)
            tree.log_points(tree.parent, thinned(curves, int(summary["started"] * 1000)))
    except Exception as error:  # the run's end is written, and stays what it is
        print(f"{LINE} finish | no report: {type(error).__name__}: {error}", flush=True)
        return None
    return page


def made(records: Records, recipe: Recipe, summary: Mapping[str, Any], known: Known) -> str:
    """The page."""
    return report(gather(summary, recipe, records.store, known))


def stage_curves(records: Records, summary: Mapping[str, Any], tree: RunTree) -> Curves:
    """The curves of every stage; those of a reused one are in the run that made it."""
    found = {}
    for step in summary["steps"]:
        record = _maker(records, step) if step["name"] in STAGES else None
        if record and record.mlflow_run:
            found[step["name"]] = tree.points(record.mlflow_run, CURVES)
    return found


def promotions(name: str) -> list[dict[str, str]]:
    """What the ledger of the registered model ``name`` says, oldest first."""
    from ichigo.registry.ledger import entries

    return [{"when": one.time, "who": one.who, "what": one.words, "why": one.reason} for one in entries(name)]


def earlier(records: Records, summary: Mapping[str, Any]) -> dict[str, float]:
    """Seconds that reused steps took when they did their work."""
    reused = [step for step in summary["steps"] if step["status"] == "reused"]
    makers = {step["name"]: _maker(records, step) for step in reused}
    return {name: maker.finished - maker.started for name, maker in makers.items() if maker and maker.status == "done"}


def thinned(curves: Curves, time: int) -> Iterator[Point]:
    """At most 200 points of each curve that is worth comparing, the last one among them: ``curves/pretrain.loss``.

    ``time`` (milliseconds since the epoch) is the same for all, so that a run that is closed twice has them once.
    """
    for stage, points in curves.items():
        steps = sorted(points)
        every = -(-len(steps) // _POINTS) or 1
        for step in steps[::-every][::-1]:
            for name in SHOWN_CURVES:
                if name in points[step]:
                    yield Point(f"curves/{stage}.{name}", points[step][name], step, time)


def _maker(records: Records, step: Mapping[str, Any]) -> StepRecord | None:
    """The record of the attempt that did the work of ``step``: its own, or that of the run which it reused."""
    if step["status"] != "reused" or not step["artifact"]:
        return records.step(step["name"])
    maker = records.store.open_uri(step["artifact"]["uri"]).run
    return Records(records.store, maker).step(step["name"]) if maker else None
