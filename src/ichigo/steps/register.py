"""``register``: put the model into the MLflow registry; runs only behind a gate that did not refuse it."""

from __future__ import annotations

from ichigo.registry.models import MANIFEST, RUN_KEY, register
from ichigo.steps.context import open_step


def main(run: str, model: str, verdict: str) -> None:
    """Register the model whose reference lies at ``model``; the alias is set only for the verdict ``promote``."""
    with open_step("register", run) as step:
        artifact, policy = step.open(model), step.recipe.registry
        tags = {
            RUN_KEY: step.run.run_key,
            "ichigo.recipe": step.recipe.name,
            "ichigo.fingerprint": step.run.fingerprint,
            MANIFEST: artifact.reference.manifest,
            "ichigo.verdict": verdict,
        }
        alias = policy.alias if verdict == "promote" else None
        version = register(
            policy.model_name,
            artifact.reference.uri,
            artifact.digest,
            mlflow_run=step.run.mlflow_run,
            tags=tags,
            alias=alias,
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
