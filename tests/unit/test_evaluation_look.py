"""Numbers of a look beside those of an evaluation, with intervals written out by hand."""

from __future__ import annotations

import pytest

from ichigo.evaluation.look import MEASURES, compare, plain
from ichigo.evaluation.measures import rate

EXACT, _, REPEAT, WER, REFUSED = MEASURES


def measured(name: str, value: float, low: float, high: float) -> dict[str, float]:
    return {name: value, f"{name}.low": low, f"{name}.high": high}


KNOWN = measured(EXACT, 0.90, 0.88, 0.92)


@pytest.mark.parametrize(
    ("look", "agreement"),
    [
        (measured(EXACT, 0.88, 0.84, 0.91), "within"),
        (measured(EXACT, 0.92, 0.88, 0.95), "within"),
        (measured(EXACT, 0.87, 0.83, 0.90), "overlaps"),
        (measured(EXACT, 0.95, 0.92, 0.97), "overlaps"),
        (measured(EXACT, 0.70, 0.65, 0.75), "apart"),
        (measured(EXACT, 0.99, 0.97, 1.00), "apart"),
    ],
)
def test_a_look_agrees_within_the_interval_of_the_evaluation(look: dict[str, float], agreement: str) -> None:
    (line,) = compare(look, KNOWN)
    assert line.agreement == agreement
    assert line.look == {"value": look[EXACT], "low": look[f"{EXACT}.low"], "high": look[f"{EXACT}.high"]}
    assert line.evaluation == {"value": 0.90, "low": 0.88, "high": 0.92}


def test_never_is_within_the_interval_of_never() -> None:
    """Both ends of Wilson's interval of 0 of 1800 are computed, and the lower one need not be 0 to the last bit."""
    for trials in range(300, 1800, 7):
        (line,) = compare(rate(REFUSED, 0, 300), rate(REFUSED, 0, trials))
        assert line.agreement == "within", trials


def test_a_measure_that_the_evaluation_lacks_is_shown_alone() -> None:
    first, second = compare({**measured(REPEAT, 0.5, 0.4, 0.6), **measured(EXACT, 0.9, 0.8, 0.95)}, KNOWN)
    assert (first.metric, first.agreement) == (EXACT, "within")
    assert (second.metric, second.shown, second.agreement) == (REPEAT, ("50.0 [40.0, 60.0]", "-"), "")
    assert second.evaluation == {}


def test_the_table_has_a_line_per_measure_in_a_fixed_order() -> None:
    look = {**measured(WER, 0.031, 0.02, 0.042), **measured(EXACT, 0.9, 0.86, 0.93)}
    head, *lines = plain(compare(look, {**measured(WER, 0.02, 0.015, 0.025), **KNOWN, "spoken.held_out.timer": 1.0}))
    assert head.split("  ")[0] == "measure"
    assert [line.split()[-1] for line in lines] == ["within", "overlaps"]
    assert "90.0 [86.0, 93.0]    90.0 [88.0, 92.0]" in lines[0]
    assert "3.1 [2.0, 4.2]" in lines[1]
    assert max(map(len, [head, *lines])) < 120
