"""``register``: put the model into the MLflow registry; runs only behind a gate that did not refuse it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ichigo.errors import IntegrityError
from ichigo.registry.models import Record, register
from ichigo.registry.tags import EVIDENCE, MANIFEST, RUN_KEY, VERDICT
from ichigo.steps.context import open_step
from ichigo.steps.gate import evidence

if TYPE_CHECKING:
    from ichigo.steps.context import Step


def main(run: str, model: str, verdict: str) -> None:
    """Register the model whose reference lies at ``model``; the alias is set only for the verdict ``promote``."""
    with open_step("register", run) as step:
        artifact, policy = step.open(model), step.recipe.registry
        judged, why = _judged(step)
        tags = {
            RUN_KEY: step.run.run_key,
            "ichigo.recipe": step.recipe.name,
            "ichigo.fingerprint": step.run.fingerprint,
            MANIFEST: artifact.reference.manifest,
            VERDICT: verdict,
            EVIDENCE: judged.tag(),
        }
        alias = policy.alias if verdict == "promote" else None
        version = register(
            policy.model_name,
            artifact.reference.uri,
            artifact.digest,
            mlflow_run=step.run.mlflow_run,
            tags=tags,
            alias=alias,
            reason=why,
        )
        step.record.facts = {
            "name": version.name,
            "version": version.version,
            "uri": version.uri,
            "digest": artifact.digest,
            "alias": alias,
        }
        if not version.created:
            step.record.status = "reused"
            step.record.reason = f"the registry holds this model as version {version.version}"
        step.say(f"{version.name} version {version.version}{f' @{alias}' if alias else ''} -> {version.uri}")


def _judged(step: Step) -> tuple[Record, str]:
    """What the gate of this run judged by, and its verdict in one line."""
    gate = step.records.step("gate")
    if gate is None:
        raise IntegrityError(f"run {step.run.run_key} has no record of its gate; run it again")
    evaluation = step.store.open_uri(gate.facts["evaluation"])
    reference = evaluation.reference
    where = {"uri": reference.uri, "digest": reference.digest, "manifest": reference.manifest}
    return Record(
        evidence(evaluation), step.recipe.registry.rules, where
    ), f"run {step.run.run_key}: {gate.facts['line']}"
