"""The gate: whether a trained model may be promoted, held back or refused, with one readable line per rule.

Pure: evidence and the recipe's policy in, a decision out; no service, no file. The caller keeps the decision.

    refuse   a rule is not kept, or its metric is missing: the model is not registered.
    hold     every rule is kept, but on some rule's metric the candidate is worse than the incumbent (the model that
             holds the alias ``champion``), or the two were asked different items and nobody can say which is better: it
             is registered without an alias, and a person decides.
    promote  every rule is kept and nothing a rule asks about got worse, or there is no incumbent: the model is
             registered and takes the recipe's alias (``candidate``).

A rule asks its bound of the point estimate, or, with ``bound: low`` or ``bound: high``, of an end of the metric's 95 %
interval. Non-inferiority is such a rule: *lost points, bound high, at most 15* is kept only where the data exclude a
loss beyond the margin, so that few items fail it and do not pass it.

*Worse* has the direction of the rule: lower under ``at_least``, higher under ``at_most``. A rule with both bounds is a
band and one with none only asks that the metric exists; neither has a better side, so neither can hold. Values within
one part in 10^9 are a tie: the same weights evaluated on another machine must not be held for the last bit of a sum.
The comparison is of point estimates, on purpose: letting every loss inside a confidence interval pass would promote a
row of small losses one after another. A metric that the incumbent never had cannot hold a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from ichigo.recipe.schema import Registry, Rule

Verdict = Literal["promote", "hold", "refuse"]

EVERYTHING = ""
"""The entry of :attr:`Evidence.items` that stands for all items together."""

_TIE = 1e-9  # relative


@dataclass(frozen=True)
class Evidence:
    """What an evaluation found.

    Attributes:
        metrics: by name; ``<name>.low`` and ``<name>.high`` are the ends of a 95 % interval.
        items: suite -> digest of the items that it asked and how; :data:`EVERYTHING` -> that of all suites, for metrics
            of no suite. Empty where it is not known what was asked.
    """

    metrics: Mapping[str, float]
    items: Mapping[str, str] = field(default_factory=dict)

    def asked(self, metric: str) -> str:
        """The digest of the items behind ``metric``: of the longest suite that its name begins with; "" unknown."""
        suites = [suite for suite in self.items if suite and metric.startswith(f"{suite}.")]
        return self.items.get(max(suites, key=len, default=EVERYTHING), "")


@dataclass(frozen=True)
class RuleResult:
    """What one rule of the policy came to.

    Attributes:
        metric: its name.
        found: the candidate's value; None when missing or not finite.
        bound: what was asked, in words.
        kept: whether the candidate keeps the bound.
        incumbent: the incumbent's value; None without incumbent or without this metric.
        worse: whether the candidate is worse than the incumbent here.
        comparable: whether the incumbent was asked the same items; True where nothing is compared.
        line: all of it for a person to read.
    """

    metric: str
    found: float | None
    bound: str
    kept: bool
    incumbent: float | None
    worse: bool
    comparable: bool
    line: str


@dataclass(frozen=True)
class Decision:
    """The verdict and its reasons, one result per rule in the policy's order."""

    verdict: Verdict
    rules: tuple[RuleResult, ...]
    line: str


def decide(candidate: Evidence, incumbent: Evidence | None, policy: Registry) -> Decision:
    """Compare candidate, incumbent and policy (see the module's text for the three verdicts).

    Args:
        candidate: what is known of the model that was just evaluated.
        incumbent: the same of the champion; None if there is none.
        policy: the recipe's rules.
    """
    results = tuple(_judge(rule, candidate, incumbent) for rule in policy.rules)
    verdict = _verdict(results)
    return Decision(verdict, results, _summary(verdict, results, incumbent is None))


def _judge(rule: Rule, candidate: Evidence, incumbent: Evidence | None) -> RuleResult:
    found = _finite(candidate.metrics, rule.metric)
    held = None if incumbent is None else _finite(incumbent.metrics, rule.metric)
    judged = _judged(rule, candidate.metrics)
    kept = found is not None and judged is not None and _keeps(rule, judged)
    comparable, against = _against(rule, candidate, incumbent)
    worse = comparable and found is not None and held is not None and _worse(rule, found, held)
    bound = _bound_words(rule)
    line = f"{'kept' if kept else 'not kept'}: {_found_words(rule, candidate.metrics)}, {bound} asked; {against}"
    return RuleResult(rule.metric, found, bound, kept, held, worse, comparable, line)


def _verdict(results: tuple[RuleResult, ...]) -> Verdict:
    if not all(result.kept for result in results):
        return "refuse"
    return "hold" if any(result.worse or not result.comparable for result in results) else "promote"


def _judged(rule: Rule, metrics: Mapping[str, float]) -> float | None:
    """The number of which the rule asks its bound."""
    return _finite(metrics, rule.metric if rule.bound == "point" else f"{rule.metric}.{rule.bound}")


def _finite(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _keeps(rule: Rule, found: float) -> bool:
    above = rule.at_least is None or found >= rule.at_least
    below = rule.at_most is None or found <= rule.at_most
    return above and below


def _worse(rule: Rule, found: float, held: float) -> bool:
    if not _has_better_side(rule) or math.isclose(found, held, rel_tol=_TIE):
        return False
    return found < held if rule.at_least is not None else found > held


def _has_better_side(rule: Rule) -> bool:
    return (rule.at_least is None) != (rule.at_most is None)


def _bound_words(rule: Rule) -> str:
    bounds = (("at least", rule.at_least), ("at most", rule.at_most))
    words = " and ".join(f"{side} {bound:g}" for side, bound in bounds if bound is not None) or "any value"
    return words if rule.bound == "point" else f"{words} at the {rule.bound} end"


def _found_words(rule: Rule, metrics: Mapping[str, float]) -> str:
    name = rule.metric
    found = _finite(metrics, name)
    if found is None:
        return f"{name} is missing" + (f" (found {metrics[name]})" if name in metrics else "")
    low, high = _finite(metrics, f"{name}.low"), _finite(metrics, f"{name}.high")
    interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
    gap = "" if _judged(rule, metrics) is not None else f", its {rule.bound} end is missing"
    return f"{name} is {found:.6g}{interval}{gap}"


def _against(rule: Rule, candidate: Evidence, incumbent: Evidence | None) -> tuple[bool, str]:
    """Whether candidate and incumbent can be compared here, and how they do, in words."""
    if incumbent is None:
        return True, "no incumbent"
    found, held = _finite(candidate.metrics, rule.metric), _finite(incumbent.metrics, rule.metric)
    if held is None:
        return True, "the incumbent has no such metric"
    if found is None:
        return True, f"the incumbent has {held:.6g}"
    if not _has_better_side(rule):
        return True, f"the incumbent has {held:.6g}, and neither is better"
    ours, theirs = candidate.asked(rule.metric), incumbent.asked(rule.metric)
    if not ours or ours != theirs:
        return False, f"not comparable: the incumbent's {held:.6g} is {_items_words(ours, theirs)}"
    return True, f"{'worse than' if _worse(rule, found, held) else 'not worse than'} the incumbent's {held:.6g}"


def _items_words(ours: str, theirs: str) -> str:
    if not ours or not theirs:
        return f"of items that {'nobody recorded' if not theirs else 'may be others: the candidate records none'}"
    return f"of other items ({theirs[:8]}, the candidate's are {ours[:8]})"


def _summary(verdict: Verdict, results: tuple[RuleResult, ...], alone: bool) -> str:
    kept, worse = sum(result.kept for result in results), sum(result.worse for result in results)
    apart = sum(not result.comparable for result in results)
    rules = f"{kept} of {len(results)} rules kept" if results else "the recipe has no rules"
    against = "no incumbent" if alone else f"worse than the incumbent on {worse}"
    return f"{verdict}: {rules}, {against}" + (f", not comparable on {apart}" if apart else "")
