"""The gate's truth table: bounds, missing metrics, incumbents, and the words a person reads."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from ichigo.recipe.schema import Registry, Rule
from ichigo.registry import gate
from ichigo.registry.gate import Decision, Evidence

RIGHT = "spoken_answers.exact_match"
WER = "transcription.wer"


def policy(*rules: Rule) -> Registry:
    return Registry(model_name="ichigo-tiny", rules=rules)


SAME = {"": "a" * 64}


def decide(candidate: Mapping[str, float], incumbent: Mapping[str, float] | None, policy: Registry) -> Decision:
    """The gate's decision where both were asked the same items."""
    held = None if incumbent is None else Evidence(incumbent, SAME)
    return gate.decide(Evidence(candidate, SAME), held, policy)


def by_metric(decision: Decision, metric: str) -> tuple[bool, float | None, str]:
    result = next(result for result in decision.rules if result.metric == metric)
    return result.kept, result.found, result.line


POLICY = policy(Rule(metric=RIGHT, at_least=0.5), Rule(metric=WER, at_most=0.3))


@pytest.mark.parametrize(
    ("right", "wer", "verdict"),
    [
        (0.6, 0.2, "promote"),
        (0.5, 0.3, "promote"),  # both bounds are inclusive
        (0.49, 0.2, "refuse"),
        (0.6, 0.31, "refuse"),
        (0.0, 1.5, "refuse"),
    ],
)
def test_bounds_alone_decide_without_an_incumbent(right: float, wer: float, verdict: str) -> None:
    decision = decide({RIGHT: right, WER: wer}, None, POLICY)
    assert decision.verdict == verdict
    assert "no incumbent" in decision.line
    assert all("no incumbent" in result.line for result in decision.rules)


@pytest.mark.parametrize(
    ("right", "wer", "verdict"),
    [
        (0.8, 0.1, "promote"),  # better on both
        (0.7, 0.2, "promote"),  # a tie takes the alias
        (0.69, 0.1, "hold"),  # worse answers, better transcription
        (0.8, 0.21, "hold"),  # at_most: higher is worse
        (0.4, 0.1, "refuse"),  # a broken bound outweighs any comparison
    ],
)
def test_a_candidate_worse_than_the_incumbent_is_held(right: float, wer: float, verdict: str) -> None:
    assert decide({RIGHT: right, WER: wer}, {RIGHT: 0.7, WER: 0.2}, POLICY).verdict == verdict


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_a_missing_or_non_finite_metric_refuses(value: float | None) -> None:
    """An infinite "at least" metric must not pass as very good."""
    candidate = {WER: 0.1} if value is None else {WER: 0.1, RIGHT: value}
    decision = decide(candidate, {RIGHT: 0.7, WER: 0.2}, POLICY)
    kept, found, line = by_metric(decision, RIGHT)
    assert decision.verdict == "refuse"
    assert (kept, found) == (False, None)
    assert f"{RIGHT} is missing" in line
    assert "0.7" in line


def test_an_incumbent_without_the_metric_cannot_hold_a_candidate() -> None:
    decision = decide({RIGHT: 0.6, WER: 0.2}, {WER: 0.2, RIGHT: math.nan}, POLICY)
    assert decision.verdict == "promote"
    assert "the incumbent has no such metric" in by_metric(decision, RIGHT)[2]


def test_the_last_bit_of_a_sum_is_a_tie() -> None:
    loss = policy(Rule(metric="loss.held_out", at_most=3.0))
    assert decide({"loss.held_out": 2.0 + 1e-12}, {"loss.held_out": 2.0}, loss).verdict == "promote"
    assert decide({"loss.held_out": 2.0 + 1e-6}, {"loss.held_out": 2.0}, loss).verdict == "hold"


def test_a_band_has_no_better_side() -> None:
    band = policy(Rule(metric="tokens", at_least=5.0, at_most=10.0))
    assert decide({"tokens": 6.0}, {"tokens": 9.0}, band).verdict == "promote"
    assert decide({"tokens": 9.0}, {"tokens": 6.0}, band).verdict == "promote"
    assert decide({"tokens": 11.0}, {"tokens": 6.0}, band).verdict == "refuse"
    assert decide({"tokens": 4.0}, None, band).verdict == "refuse"


def test_a_rule_without_bounds_asks_only_that_the_metric_exists() -> None:
    exists = policy(Rule(metric=WER))
    assert decide({WER: 9.0}, {WER: 0.1}, exists).verdict == "promote"
    assert decide({}, {WER: 0.1}, exists).verdict == "refuse"


def test_metrics_that_no_rule_names_change_nothing() -> None:
    """Regressions elsewhere are for the report; the policy alone decides."""
    assert decide({RIGHT: 0.6, WER: 0.2, "x": 0.0}, {RIGHT: 0.6, WER: 0.2, "x": 1.0}, POLICY).verdict == "promote"


def test_no_rules_promotes_and_says_so() -> None:
    decision = decide({}, {}, policy())
    assert (decision.verdict, decision.rules) == ("promote", ())
    assert "no rules" in decision.line


def test_every_rule_is_reported_in_order_with_its_numbers() -> None:
    candidate = {RIGHT: 0.625, f"{RIGHT}.low": 0.5, f"{RIGHT}.high": 0.734, WER: 0.4}
    decision = decide(candidate, {RIGHT: 0.75, WER: 0.5}, POLICY)
    assert decision.line == "refuse: 1 of 2 rules kept, worse than the incumbent on 1"
    assert [result.line for result in decision.rules] == [
        f"kept: {RIGHT} is 0.625 [0.5, 0.734], at least 0.5 asked; worse than the incumbent's 0.75",
        f"not kept: {WER} is 0.4, at most 0.3 asked; not worse than the incumbent's 0.5",
    ]


LOST = "text.held_out.lost_points"
MARGIN = policy(Rule(metric=LOST, at_most=15.0, bound="high"))


@pytest.mark.parametrize(
    ("high", "verdict"),
    [(14.0, "promote"), (15.0, "promote"), (15.1, "refuse"), (math.nan, "refuse"), (None, "refuse")],
)
def test_non_inferiority_is_asked_of_the_end_of_the_interval(high: float | None, verdict: str) -> None:
    """The point estimate alone, 2 lost points, would pass with one item."""
    found = {LOST: 2.0, f"{LOST}.low": -9.0} | ({} if high is None else {f"{LOST}.high": high})
    decision = decide(found, None, MARGIN)
    assert decision.verdict == verdict
    assert "at most 15 at the high end asked" in decision.rules[0].line
    assert ("its high end is missing" in decision.rules[0].line) == (high is None or math.isnan(high))


def test_a_bound_on_an_interval_still_compares_points_with_the_incumbent() -> None:
    """A candidate asked fewer items has a wider interval and is not worse for that."""
    before = {LOST: 2.0, f"{LOST}.low": 1.0, f"{LOST}.high": 3.0}
    assert decide({LOST: 2.0, f"{LOST}.low": -9.0, f"{LOST}.high": 14.0}, before, MARGIN).verdict == "promote"
    assert decide({LOST: 2.5, f"{LOST}.low": 2.4, f"{LOST}.high": 2.6}, before, MARGIN).verdict == "hold"


def against(ours: Mapping[str, str], theirs: Mapping[str, str]) -> Decision:
    """A candidate that is better on both metrics, and what each was asked."""
    return gate.decide(Evidence({RIGHT: 0.9, WER: 0.1}, ours), Evidence({RIGHT: 0.7, WER: 0.2}, theirs), POLICY)


def test_an_incumbent_asked_other_items_holds_the_candidate() -> None:
    """Better numbers on other questions prove nothing; a person decides."""
    decision = against({"": "a" * 64}, {"": "b" * 64})
    assert decision.verdict == "hold"
    assert [(result.comparable, result.worse) for result in decision.rules] == [(False, False)] * 2
    assert "not comparable: the incumbent's 0.7 is of other items (bbbbbbbb, the candidate's are aaaaaaaa)" in (
        decision.rules[0].line
    )
    assert decision.line == "hold: 2 of 2 rules kept, worse than the incumbent on 0, not comparable on 2"


@pytest.mark.parametrize(("ours", "theirs"), [(SAME, {}), ({}, SAME), ({}, {})])
def test_items_that_nobody_recorded_are_not_taken_for_the_same(
    ours: Mapping[str, str], theirs: Mapping[str, str]
) -> None:
    decision = against(ours, theirs)
    assert decision.verdict == "hold"
    assert all("not comparable" in result.line for result in decision.rules)


def test_only_the_suite_that_a_metric_comes_from_must_be_the_same() -> None:
    same = {"": "a" * 64, "spoken_answers": "b" * 64, "transcription": "c" * 64}
    decision = against(same, {**same, "": "d" * 64, "transcription": "e" * 64})
    assert [result.comparable for result in decision.rules] == [True, False]
    assert "not worse than the incumbent's 0.7" in decision.rules[0].line


def test_a_metric_belongs_to_the_longest_suite_it_begins_with() -> None:
    items = {"": "all", "spoken": "s", "spoken.held_out": "h", "loss_of": "x"}
    names = ("spoken.held_out.exact_match", "spoken.other.wer", "spoken.held_outs.f1", "loss.held_out", "spoken")
    assert [Evidence({}, items).asked(name) for name in names] == ["h", "s", "s", "all", "all"]


def test_what_is_not_compared_cannot_hold() -> None:
    """A band has no better side and a missing metric nothing to compare: other items do not matter to either."""
    band = policy(Rule(metric=WER, at_least=0.0, at_most=1.0), Rule(metric=RIGHT, at_least=0.5))
    decision = gate.decide(Evidence({WER: 0.1, RIGHT: 0.9}, SAME), Evidence({WER: 0.2}, {"": "b"}), band)
    assert decision.verdict == "promote"


def test_other_items_do_not_soften_a_refusal() -> None:
    decision = gate.decide(Evidence({RIGHT: 0.1, WER: 0.1}, SAME), Evidence({RIGHT: 0.7, WER: 0.2}, {}), POLICY)
    assert decision.verdict == "refuse"


@pytest.mark.parametrize(("field", "bound"), [("at_most", "low"), ("at_least", "high")])
def test_a_rule_may_not_ask_the_lenient_end(field: str, bound: str) -> None:
    with pytest.raises(ValueError, match=f"found {bound} with {field}: fewer items would pass more easily"):
        Rule.model_validate({"metric": WER, field: 0.5, "bound": bound})
