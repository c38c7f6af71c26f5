"""The MLflow registry: versions that point at committed artifacts by a direct ``s3://`` URI.

A version is identified by the digest of its model artifact (tag ``ichigo.digest``): registering the same model again
finds the version that is there, so a repeated run never fills the registry with copies.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ichigo.tracking.runs import client

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DIGEST, MANIFEST, RUN_KEY = "ichigo.digest", "ichigo.manifest", "ichigo.run_key"
CHAMPION = "champion"


@dataclass(frozen=True)
class Version:
    """A registered model version; ``created`` is False when the registry already held this model."""

    name: str
    version: str
    uri: str
    created: bool


def register(
    name: str, uri: str, digest: str, *, mlflow_run: str, tags: Mapping[str, str], alias: str | None
) -> Version:
    """Register the model at ``uri`` under ``name`` and, if an alias is given, point it at this version."""
    mlflow = client()
    _ensure_model(mlflow, name)
    version = _version_of(mlflow, name, digest)
    created = version is None
    if version is None:
        made = mlflow.create_model_version(name, uri, run_id=mlflow_run, tags={DIGEST: digest, **tags})
        version = Version(name, str(made.version), uri, created)
    if alias:
        mlflow.set_registered_model_alias(name, alias, version.version)
    return version


def incumbent(name: str, alias: str = CHAMPION) -> dict[str, float] | None:
    """The metrics of the version that now holds ``alias``, or None where there is no such model or alias.

    A version that somebody registered by hand, without a run, has no metrics.
    """
    from mlflow.exceptions import MlflowException

    mlflow = client()
    try:
        version = mlflow.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            return None
        raise
    metrics: dict[str, float] = mlflow.get_run(version.run_id).data.metrics if version.run_id else {}
    return metrics


def _ensure_model(mlflow: MlflowClient, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        mlflow.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _version_of(mlflow: MlflowClient, name: str, digest: str) -> Version | None:
    found = mlflow.search_model_versions(f"name = '{name}' and tags.`{DIGEST}` = '{digest}'", max_results=1)
    return Version(name, str(found[0].version), str(found[0].source), False) if found else None
