"""Results beside the bars: which measures are shown, what keeps a bar, and how a reader sees it."""

from __future__ import annotations

import math

import pytest

from ichigo.evaluation import table

HELD_OUT = "spoken.held_out.exact_match"
LOST = "text.held_out.lost_points"
METRICS = {
    LOST: 4.04,
    f"{LOST}.low": 1.5,
    f"{LOST}.high": 6.25,
    HELD_OUT: 0.8817,
    f"{HELD_OUT}.low": 0.853,
    f"{HELD_OUT}.high": 0.905,
    "spoken.seen_voices.exact_match": 0.9,
    "run.peak_memory": 3.5 * 2**30,
    "spoken.held_out.items": 600.0,
}


def test_one_run_shows_its_measures_with_bars_in_the_order_of_the_file() -> None:
    lines = table.plain(METRICS, "tiny")
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "spoken answers: held-out questions, held-out voices",
        "spoken answers: held-out questions, voices of the training",
        "… lost against the base model",
        "memory of the largest process",
    ]
    assert lines[1].endswith("≥ 88.0 %     88.2 [85.3, 90.5]")
    assert lines[2].endswith("  90.0"), "no bar, no interval"
    assert lines[3].endswith("≤ 4.0        4.0 [1.5, 6.2]  missed"), "4.04 is above 4, however it is printed"
    assert lines[4].endswith("≤ 4.00 GiB   3.50")
    assert max(map(len, lines)) <= 100


def test_a_recipe_without_bars_has_a_table_and_one_without_a_world_has_none() -> None:
    assert "≥" not in "".join(table.plain(METRICS, "another"))
    assert table.plain({"spoken_answers.exact_match": 0.5, "loss.held_out": 1.0}, "tiny") == []


def test_bars_are_set_to_the_mean_of_the_seeds() -> None:
    """86, 90 and 91 %: one seed is below the bar of 88 %, the mean is above."""
    seeds = [{HELD_OUT: value} for value in (0.86, 0.90, 0.91)]
    (row,) = table.rows(seeds, "tiny")
    assert row.mean == pytest.approx(0.89)
    assert row.kept is True
    (below,) = table.rows([*seeds[:2], {HELD_OUT: 0.87}], "tiny")
    assert below.kept is False


def test_a_measure_that_one_seed_lacks_has_no_mean_and_misses_its_bar() -> None:
    rows = {row.measure.metric: row for row in table.rows([{HELD_OUT: 0.99, LOST: 0.0}, {HELD_OUT: 0.99}], "tiny")}
    assert (rows[LOST].mean, rows[LOST].kept, rows[LOST].verdict) == (None, None, "missed")
    assert rows[LOST].results == ("0.0", "-")
    assert rows[HELD_OUT].verdict == "kept"


def test_a_mean_of_p_values_means_nothing() -> None:
    (row,) = table.rows([{"spoken.facts.cascade.p": 0.01}, {"spoken.facts.cascade.p": 0.9}], "tiny")
    assert (row.mean, row.results) == (None, ("0.01", "0.90"))


def test_markdown_has_a_column_for_every_seed() -> None:
    text = table.markdown({"seed 1": METRICS, "seed 2": {HELD_OUT: 0.9}}, "tiny")
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert {len(line) for line in cells} == {6}
    assert cells[0] == ["measure", "bar", "mean", "", "seed 1", "seed 2"]
    name = "spoken answers: held-out questions, held-out voices"
    assert cells[2] == [name, "≥ 88.0 %", "89.1 [77.5, 100.7]", "kept", "88.2 [85.3, 90.5]", "90.0"]


@pytest.mark.parametrize(
    ("bar", "value", "kept"),
    [
        (table.Bar(at_least=0.5), 0.5, True),
        (table.Bar(at_least=0.5), 0.4999, False),
        (table.Bar(at_most=2.0), 2.0, True),
        (table.Bar(at_most=2.0), 2.0001, False),
        (table.Bar(at_least=1.0, at_most=2.0), 3.0, False),
        (table.Bar(at_most=2.0), math.nan, False),
        (table.Bar(at_most=2.0), -math.inf, False),
    ],
)
def test_a_bar_is_kept_by_values_on_its_side(bar: table.Bar, value: float, kept: bool) -> None:
    assert bar.kept(value) is kept


def test_every_bar_stands_on_a_measure_that_is_shown() -> None:
    """A bar on a misspelt metric would never be seen, kept or missed."""
    shown = {row.measure.metric for row in table.rows([dict.fromkeys(table.known(), 0.0)], "tiny") if row.bar}
    assert shown == set(table.bars("tiny"))
    assert len(shown) >= 16
