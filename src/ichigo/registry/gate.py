"""The gate: whether a trained model may be promoted, held back or refused, with one readable line per rule.

Pure: numbers and the recipe's policy in, a decision out; no service, no file. The caller keeps the decision.

    refuse   a rule is not kept, or its metric is missing: the model is not registered.
    hold     every rule is kept, but on some rule's metric the candidate is worse than the incumbent (the model that
             holds the alias ``champion``): it is registered without an alias, and a person decides.
    promote  every rule is kept and nothing a rule asks about got worse, or there is no incumbent: the model is
             registered and takes the recipe's alias (``candidate``).

*Worse* has the direction of the rule: lower under ``at_least``, higher under ``at_most``. A rule with both bounds is a
band and one with none only asks that the metric exists; neither has a better side, so neither can hold. Values within
one part in 10^9 are a tie: the same weights evaluated on another machine must not be held for the last bit of a sum.
The comparison is of point estimates, on purpose: letting every loss inside a confidence interval pass would promote a
row of small losses one after another. A metric that the incumbent never had cannot hold a candidate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ichigo.recipe.schema import Registry, Rule

Verdict = Literal["promote", "hold", "refuse"]

_TIE = 1e-9  # relative


@dataclass(frozen=True)
class RuleResult:
    """What one rule of the policy came to.

    Attributes:
        metric: its name.
        found: the candidate's value; None when missing or not finite.
        bound: what was asked, in words.
        kept: whether ``found`` keeps the bound.
        incumbent: the incumbent's value; None without incumbent or without this metric.
        worse: whether the candidate is worse than the incumbent here.
        line: all of it for a person to read.
    """

    metric: str
    found: float | None
    bound: str
    kept: bool
    incumbent: float | None
    worse: bool
    line: str


@dataclass(frozen=True)
class Decision:
    """The verdict and its reasons, one result per rule in the policy's order."""

    verdict: Verdict
    rules: tuple[RuleResult, ...]
    line: str


def decide(candidate: Mapping[str, float], incumbent: Mapping[str, float] | None, policy: Registry) -> Decision:
    """Compare candidate, incumbent and policy (see the module's text for the three verdicts).

    Args:
        candidate: metrics of the model that was just evaluated, by name.
        incumbent: metrics of the champion, from the same suites; None if there is none.
        policy: the recipe's rules.
    """
    results = tuple(_judge(rule, candidate, incumbent) for rule in policy.rules)
    verdict = _verdict(results)
    return Decision(verdict, results, _summary(verdict, results, incumbent is None))


def _judge(rule: Rule, candidate: Mapping[str, float], incumbent: Mapping[str, float] | None) -> RuleResult:
    found = _finite(candidate, rule.metric)
    held = None if incumbent is None else _finite(incumbent, rule.metric)
    kept = found is not None and _keeps(rule, found)
    worse = found is not None and held is not None and _worse(rule, found, held)
    bound = _bound_words(rule)
    against = "no incumbent" if incumbent is None else _incumbent_words(held, found, worse)
    line = f"{'kept' if kept else 'not kept'}: {_found_words(candidate, rule.metric)}, {bound} asked; {against}"
    return RuleResult(rule.metric, found, bound, kept, held, worse, line)


def _verdict(results: tuple[RuleResult, ...]) -> Verdict:
    if not all(result.kept for result in results):
        return "refuse"
    return "hold" if any(result.worse for result in results) else "promote"


def _finite(metrics: Mapping[str, float], name: str) -> float | None:
    value = metrics.get(name)
    return float(value) if value is not None and math.isfinite(value) else None


def _keeps(rule: Rule, found: float) -> bool:
    above = rule.at_least is None or found >= rule.at_least
    below = rule.at_most is None or found <= rule.at_most
    return above and below


def _worse(rule: Rule, found: float, held: float) -> bool:
    if (rule.at_least is None) == (rule.at_most is None) or math.isclose(found, held, rel_tol=_TIE):
        return False
    return found < held if rule.at_least is not None else found > held


def _bound_words(rule: Rule) -> str:
    bounds = (("at least", rule.at_least), ("at most", rule.at_most))
    return " and ".join(f"{side} {bound:g}" for side, bound in bounds if bound is not None) or "any value"


def _found_words(metrics: Mapping[str, float], name: str) -> str:
    found = _finite(metrics, name)
    if found is None:
        return f"{name} is missing" + (f" (found {metrics[name]})" if name in metrics else "")
    low, high = _finite(metrics, f"{name}.low"), _finite(metrics, f"{name}.high")
    interval = f" [{low:.3g}, {high:.3g}]" if low is not None and high is not None else ""
    return f"{name} is {found:.6g}{interval}"


def _incumbent_words(held: float | None, found: float | None, worse: bool) -> str:
    if held is None:
        return "the incumbent has no such metric"
    if found is None:
        return f"the incumbent has {held:.6g}"
    return f"{'worse than' if worse else 'not worse than'} the incumbent's {held:.6g}"


def _summary(verdict: Verdict, results: tuple[RuleResult, ...], alone: bool) -> str:
    kept, worse = sum(result.kept for result in results), sum(result.worse for result in results)
    rules = f"{kept} of {len(results)} rules kept" if results else "the recipe has no rules"
    against = "no incumbent" if alone else f"worse than the incumbent on {worse}"
    return f"{verdict}: {rules}, {against}"
