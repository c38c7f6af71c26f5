"""``gate``: compare the candidate's metrics with the recipe's policy and with the incumbent; the verdict decides."""

from __future__ import annotations

from dataclasses import asdict

from ichigo.registry.gate import decide
from ichigo.registry.models import CHAMPION, incumbent
from ichigo.steps.context import open_step


def main(run: str, evaluation: str) -> str:
    """Judge the evaluation whose reference lies at ``evaluation``; returns ``promote``, ``hold`` or ``refuse``."""
    with open_step("gate", run) as step:
        metrics = step.open(evaluation).read_json("evaluation.json")["metrics"]
        policy = step.recipe.registry
        decision = decide(metrics, incumbent(policy.model_name), policy)
        step.record.facts = {
            "verdict": decision.verdict,
            "incumbent": CHAMPION,
            "rules": [asdict(rule) for rule in decision.rules],
        }
        for rule in decision.rules:
            step.say(rule.line)
        step.say(f"verdict: {decision.verdict}")
        return decision.verdict
