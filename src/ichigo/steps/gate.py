"""``gate``: compare the candidate's metrics with the recipe's policy and with the incumbent; the verdict decides."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.hashing import sha256_json
from ichigo.registry.gate import EVERYTHING, Evidence, decide
from ichigo.registry.ledger import CHAMPION
from ichigo.registry.models import incumbent
from ichigo.steps.context import open_step

if TYPE_CHECKING:
    from ichigo.evaluation.items import Report
    from ichigo.store import Artifact

_CHANGE_NO_ANSWER = {"items", "batch"}  # how many are chosen shows in the items themselves


def main(run: str, evaluation: str) -> str:
    """Judge the evaluation whose reference lies at ``evaluation``; returns ``promote``, ``hold`` or ``refuse``."""
    with open_step("gate", run) as step:
        artifact, policy = step.open(evaluation), step.recipe.registry
        decision = decide(evidence(artifact), incumbent(policy.model_name), policy)
        step.record.facts = {
            "verdict": decision.verdict,
            "line": decision.line,
            "incumbent": CHAMPION,
            "evaluation": artifact.reference.uri,
            "rules": [asdict(rule) for rule in decision.rules],
        }
        for rule in decision.rules:
            step.say(rule.line)
        step.say(f"verdict: {decision.verdict}")
        return decision.verdict


def evidence(evaluation: Artifact) -> Evidence:
    """The metrics of an evaluation and what was asked."""
    from ichigo.evaluation.items import Report

    with tempfile.TemporaryDirectory() as folder:
        report = Report.read(evaluation.fetch(Path(folder)))
    return Evidence(report.metrics, asked(report))


def asked(report: Report) -> dict[str, str]:
    """Suite -> digest of its items (id, turn, question, expected answer) and of the settings that change answers."""
    settings = report.settings.model_dump(exclude=_CHANGE_NO_ANSWER)
    items: defaultdict[str, set[tuple[str, int, str, str]]] = defaultdict(set)
    for one in report.items:
        items[one.suite].add((one.id, one.turn, one.question, one.reference))
    digests = {suite: sha256_json([settings, sorted(items[suite])]) for suite in sorted(items)}
    return {EVERYTHING: sha256_json([settings, digests]), **digests}
