"""``register``: put the model and its card into the MLflow registry; only behind a gate that did not refuse it."""

from __future__ import annotations

from ichigo.errors import IntegrityError
from ichigo.registry import card
from ichigo.registry.models import Record, register
from ichigo.registry.tags import CARD, EVIDENCE, MANIFEST, RUN_KEY, VERDICT
from ichigo.steps.context import Step, open_step
from ichigo.steps.gate import evidence
from ichigo.store import Artifact, Identity, code_digest


def main(run: str, model: str, verdict: str) -> None:
    """Register the model whose reference lies at ``model``; the alias is set only for the verdict ``promote``."""
    with open_step("register", run) as step:
        artifact, policy = step.open(model), step.recipe.registry
        judged, evaluation, line = _judged(step)
        facts = card.gather(
            artifact, step.store, policy.model_name, (step.recipe.name, step.recipe.description), judged
        )
        written = _card(step, facts, artifact, evaluation)
        tags = {
            RUN_KEY: step.run.run_key,
            "ichigo.recipe": step.recipe.name,
            "ichigo.fingerprint": step.run.fingerprint,
            MANIFEST: artifact.reference.manifest,
            VERDICT: verdict,
            EVIDENCE: judged.tag(),
            CARD: written,
        }
        alias = policy.alias if verdict == "promote" else None
        version = register(
            policy.model_name,
            artifact.reference.uri,
            artifact.digest,
            mlflow_run=step.run.mlflow_run,
            tags=tags,
            alias=alias,
            description=card.description(facts, f"{written}/{card.CARD_FILE}"),
            reason=f"run {step.run.run_key}: {line}",
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


def _judged(step: Step) -> tuple[Record, Artifact, str]:
    """What the gate of this run judged by, the evaluation itself, and the verdict in one line."""
    gate = step.records.step("gate")
    if gate is None:
        raise IntegrityError(f"run {step.run.run_key} has no record of its gate; run it again")
    evaluation = step.store.open_uri(gate.facts["evaluation"])
    reference = evaluation.reference
    where = {"uri": reference.uri, "digest": reference.digest, "manifest": reference.manifest}
    return Record(evidence(evaluation), step.recipe.registry.rules, where), evaluation, gate.facts["line"]


def _card(step: Step, facts: card.Facts, model: Artifact, evaluation: Artifact) -> str:
    """The address of the artifact with the model's card, which the MLflow run shows too."""
    parents = {"model": model.reference, "evaluation": evaluation.reference}
    known = {name: one.manifest for name, one in parents.items()}  # a manifest vouches for all that is before it
    settings = {"name": facts.name, "recipe": facts.recipe, "rules": [rule.model_dump() for rule in facts.record.rules]}
    identity = Identity("card", settings, known, code_digest("ichigo.registry.card"))
    text, artifact = card.render(facts), step.store.find(identity)
    if artifact is None:
        with step.store.write(identity, parents=parents, recipe=step.run.fingerprint, run=step.run.run_key) as draft:
            (draft.folder / card.CARD_FILE).write_text(text, encoding="utf-8")
        artifact = draft.committed
    step.tree.log_text(step.run.mlflow_run, text, card.CARD_FILE)
    return artifact.reference.uri
