"""The document of metric names says what is logged."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

from ichigo.evaluation import table
from ichigo.recipe import STAGE_ORDER
from ichigo.report import metrics
from ichigo.steps.curves import CURVES
from ichigo.steps.reporting import thinned
from tests.unit.report_support import curve

ROOT = Path(__file__).parents[2]


def test_the_document_is_the_one_that_the_code_writes() -> None:
    written = (ROOT / metrics.DOCUMENT).read_text(encoding="utf-8")
    assert written == metrics.document(), "run `python -m ichigo.report.metrics`"


def test_the_curves_that_are_logged_are_those_of_the_document() -> None:
    assert tuple(metrics.OF_A_STAGE) == CURVES
    stage = STAGE_ORDER[0]
    logged = {point.name for point in thinned({stage: curve(3, 1.0)}, 0)}
    assert logged == {name.replace("STAGE", stage) for name in metrics.OF_THE_PARENT if "STAGE" in name}


def test_a_thinned_curve_ends_where_the_whole_one_does() -> None:
    points = [point for point in thinned({"instruct": curve(3801, 1.0)}, 7) if point.name.endswith("loss")]
    assert len(points) <= 200
    assert (points[-1].step, points[-1].value) == (3800, 1.0 / 3801)
    assert {after.step - before.step for before, after in pairwise(points)} == {20}
    assert {point.time for point in points} == {7}


def test_the_table_for_mlflow_has_values_intervals_and_bars() -> None:
    name = "spoken.held_out.exact_match"
    metrics = {name: 0.5, f"{name}.low": 0.25, f"{name}.high": 0.75, "spoken.held_out.cascade.p": 0.5}
    (first, second) = table.plain_rows(metrics, "tiny")
    assert first[1:] == [name, 0.5, 0.25, 0.75, "≥ 88.0 %", "missed"]
    assert second[1:] == ["spoken.held_out.cascade.p", 0.5, None, None, "", ""]


def test_a_recipe_without_such_suites_has_every_number_with_an_interval() -> None:
    metrics = {"spoken_answers.exact_match": 0.5, "spoken_answers.f1": 0.6, "tokenizer.bottleneck_cost": 0.1}
    metrics |= {"spoken_answers.exact_match.low": 0.4, "spoken_answers.exact_match.high": 0.6}
    (row,) = table.reported(metrics, "smoke")
    assert (row.measure.label, row.results) == ("spoken answers: exact match", ("50.0 [40.0, 60.0]",))
