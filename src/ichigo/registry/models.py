"""The MLflow registry: versions that point at committed artifacts by a direct ``s3://`` URI.

A version is identified by the digest of its model artifact (tag ``ichigo.digest``): registering the same model again
finds the version that is there, so a repeated run never fills the registry with copies. What its verdict stands on
travels with it (tag ``ichigo.evidence``), so that a later promotion can judge it again without the run that made it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ichigo.hashing import canonical_json
from ichigo.recipe.schema import Registry, Rule
from ichigo.registry.gate import Evidence, decide
from ichigo.registry.ledger import CHAMPION
from ichigo.registry.promotion import Opinion, current, place
from ichigo.registry.tags import CARD, DIGEST, EVIDENCE, MANIFEST, RUN_KEY, VERDICT
from ichigo.tracking.runs import client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

__all__ = [
    "CHAMPION",
    "DIGEST",
    "EVIDENCE",
    "LONGEST_DESCRIPTION",
    "MANIFEST",
    "RUN_KEY",
    "VERDICT",
    "Record",
    "Version",
    "incumbent",
    "opinion_of",
    "record_of",
    "register",
]

LONGEST_DESCRIPTION = 5000  # characters: MLflow's column, which PostgreSQL enforces
_ALIASES = "Who holds which alias, since when and why: `ichigo models {name}`, experiment `ichigo/ledger/{name}`."
_LONGEST_TAG = 100_000  # characters: MLflow's limit
_REFRESHED = (VERDICT, EVIDENCE, CARD)  # of a model that was judged again


@dataclass(frozen=True)
class Version:
    """A registered model version; ``created`` is False when the registry already held this model."""

    name: str
    version: str
    uri: str
    created: bool


@dataclass(frozen=True)
class Record:
    """What a version's verdict stands on: the evidence, the rules it was judged by, where the evaluation lies."""

    evidence: Evidence
    rules: tuple[Rule, ...] = ()
    evaluation: Mapping[str, str] = field(default_factory=dict)  # uri, digest and manifest of the artifact

    def tag(self) -> str:
        """As the value of the tag ``ichigo.evidence``; where it would be too long, with the rules' metrics alone."""
        body = {
            "metrics": dict(self.evidence.metrics),
            "items": dict(self.evidence.items),
            "rules": [rule.model_dump() for rule in self.rules],
            "evaluation": dict(self.evaluation),
        }
        if len(text := canonical_json(body).decode()) > _LONGEST_TAG:
            numbers = self.numbers()
            ends = {f"{name}{end}": value for name in numbers for end, value in zip(_ENDS, numbers[name], strict=False)}
            text = canonical_json(body | {"metrics": ends}).decode()
        return text

    @classmethod
    def parsed(cls, tag: str) -> Record:
        """What :meth:`tag` wrote."""
        body = json.loads(tag)
        rules = tuple(Rule.model_validate(rule) for rule in body["rules"])
        return cls(Evidence(body["metrics"], body["items"]), rules, body["evaluation"])

    def numbers(self) -> dict[str, tuple[float, ...]]:
        """What the rules ask about: metric -> value, or value, low and high, to six digits."""
        found: dict[str, tuple[float, ...]] = {}
        for rule in self.rules:
            values = [self.evidence.metrics.get(f"{rule.metric}{end}") for end in _ENDS]
            known = [float(f"{value:.6g}") for value in values if value is not None]
            if values[0] is not None:
                found[rule.metric] = tuple(known if len(known) == len(_ENDS) else known[:1])
        return found


_ENDS = ("", ".low", ".high")


def register(
    name: str,
    uri: str,
    digest: str,
    *,
    mlflow_run: str | None,
    tags: Mapping[str, str],
    alias: str | None,
    description: str = "",
    reason: str = "",
) -> Version:
    """Register what lies at ``uri`` under ``name`` and, if an alias is given, let this version take it.

    A version with this digest that is there already gets the new verdict and evidence. The alias is an entry in the
    ledger, with ``reason``; there is none if the version holds the alias, or was promoted from it, already.
    """
    mlflow = client()
    _ensure_model(mlflow, name)
    version = _version_of(mlflow, name, digest)
    if version is None:
        about = {DIGEST: digest, **tags}
        made = mlflow.create_model_version(
            name, uri, run_id=mlflow_run, tags=about, description=description or None, await_creation_for=0
        )
        version = Version(name, str(made.version), uri, True)
    else:
        _refresh(mlflow, version, tags, description)
    if alias:
        record = Record.parsed(tags[EVIDENCE]) if EVIDENCE in tags else Record(Evidence({}))
        place(name, version.version, alias, reason=reason, numbers=record.numbers())
    return version


def incumbent(name: str, alias: str = CHAMPION) -> Evidence | None:
    """What is known of the version that now holds ``alias``, or None where there is no such model or alias."""
    return _evidence(name, current(name).get(alias, ""))


def record_of(found: Any) -> Record:
    """What MLflow's model version ``found`` was judged by.

    A version older than the tag has the metrics of its run and no items; one that somebody registered by hand, without
    a run, has nothing.
    """
    if text := found.tags.get(EVIDENCE):
        return Record.parsed(text)
    metrics: Mapping[str, float] = client().get_run(found.run_id).data.metrics if found.run_id else {}
    return Record(Evidence(metrics))


def opinion_of(name: str, version: str) -> Callable[[str, str], Opinion]:
    """What speaks for and against a version on its way to an alias, for :func:`ichigo.registry.promotion.move`.

    On the way to ``champion`` the gate judges anew, by the rules that the version was judged by, against whoever holds
    the alias now; on the way to ``staging`` its verdict at registration counts.
    """
    found = client().get_model_version(name, version)
    record, verdict, digest = record_of(found), found.tags.get(VERDICT, ""), found.tags.get(DIGEST, "")

    def opinion(target: str, holder: str) -> Opinion:
        against = [] if digest else [f"version {version} has no digest: nobody can tell whether its bytes changed"]
        if not record.rules:
            against.append(f"version {version} has no evidence by which the gate could judge it")
            return Opinion(verdict, tuple(against), record.numbers(), digest)
        if target != CHAMPION:
            against += [] if verdict == "promote" else [f"the gate's verdict was {verdict or 'never given'}"]
            return Opinion(verdict, tuple(against), record.numbers(), digest)
        decision = decide(record.evidence, _evidence(name, holder), Registry(model_name=name, rules=record.rules))
        if decision.verdict != "promote":
            against.append(f"the gate says {decision.line}")
            against += [one.line for one in decision.rules if not one.kept or one.worse or not one.comparable]
        return Opinion(decision.verdict, tuple(against), record.numbers(), digest)

    return opinion


def _evidence(name: str, version: str) -> Evidence | None:
    """None for nobody, and for a version that somebody has deleted from the registry."""
    from mlflow.exceptions import MlflowException

    if not version:
        return None
    try:
        return record_of(client().get_model_version(name, version)).evidence
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None


def _ensure_model(mlflow: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name, description=_ALIASES.format(name=name))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(mlflow: MlflowClient, name: str, digest: str) -> Version | None:
    found: Sequence[Any] = mlflow.search_model_versions(
        f"name = '{name}' and tags.`{DIGEST}` = '{digest}'", max_results=1
    )
    return Version(name, str(found[0].version), str(found[0].source), False) if found else None


def _refresh(mlflow: MlflowClient, version: Version, tags: Mapping[str, str], description: str) -> None:
    there = mlflow.get_model_version(version.name, version.version)
    for tag in _REFRESHED:
        if tag in tags and there.tags.get(tag) != tags[tag]:
            mlflow.set_model_version_tag(version.name, version.version, tag, tags[tag])
    if description and there.description != description:
        mlflow.update_model_version(version.name, version.version, description)
