"""Finding a registered model by what a person calls it: ``name``, ``name@alias`` or ``name@version``."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ichigo.errors import UserError
from ichigo.registry.tags import DIGEST, MANIFEST, RUN_KEY
from ichigo.tracking.runs import client, pages

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

NAME = re.compile(r"(?P<name>[a-z0-9][a-z0-9._-]*)(@(?P<which>[A-Za-z0-9._-]+))?")


@dataclass(frozen=True)
class Registered:
    """A registered version: where its artifact lies, the digest of its bytes and of its manifest, and the run that
    registered it; "" where somebody registered it by hand."""

    name: str
    version: str
    uri: str
    digest: str
    run: str = ""
    manifest: str = ""
    aliases: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} version {self.version}"


def find(spec: str) -> Registered:
    """The version behind ``spec``; a bare name means the newest one, digits after the ``@`` a version.

    Raises:
        UserError: no such name, alias or version, with those that exist.
    """
    from mlflow.exceptions import MlflowException

    match = NAME.fullmatch(spec)
    if not match:
        raise UserError(f"{spec!r} is no name of a registered model; write name, name@alias or name@version")
    name, which = match["name"], match["which"]
    try:
        found = _version(name, which)
    except MlflowException as error:
        if error.error_code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
        raise UserError(f"the registry has no {spec!r}; it has {known(name)}") from None
    return _registered(found, found.aliases)


def registered() -> list[Registered]:
    """Every version of every model, by name and number."""
    return [one for one, _ in raw_versions()]


def raw_versions(name: str | None = None) -> list[tuple[Registered, ModelVersion]]:
    """The same of all models, or of one, each beside what MLflow says of it."""
    mlflow = client()
    aliases: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    chosen = f"name = '{name}'" if name else None
    for model in pages(partial(mlflow.search_registered_models, filter_string=chosen)):
        for alias, version in model.aliases.items():
            aliases[model.name, str(version)].append(alias)
    found = pages(partial(mlflow.search_model_versions, filter_string=chosen))
    ordered = sorted(found, key=lambda version: (version.name, int(version.version)))
    return [(_registered(version, aliases[version.name, str(version.version)]), version) for version in ordered]


def _registered(found: Any, aliases: Iterable[str]) -> Registered:
    tags = found.tags
    digest, run, manifest = (str(tags.get(tag, "")) for tag in (DIGEST, RUN_KEY, MANIFEST))
    where = found.name, str(found.version), str(found.source)
    return Registered(*where, digest, run, manifest, tuple(sorted(aliases)))


def _version(name: str, which: str | None) -> Any:
    mlflow = client()
    if which is None:
        mlflow.get_registered_model(name)  # a search for an unknown name finds nothing and says nothing
        return max(mlflow.search_model_versions(f"name = '{name}'"), key=lambda version: int(version.version))
    if which.isdigit():
        return mlflow.get_model_version(name, which)
    return mlflow.get_model_version_by_alias(name, which)


def known(name: str) -> str:
    """What the registry has of the model called ``name``, or, if it has no such model, which it has."""
    models = client().search_registered_models()
    here = next((model for model in models if model.name == name), None)
    if here is None:
        return ", ".join(sorted(model.name for model in models)) or "no model at all"
    aliases = [f"{name}@{alias}" for alias in sorted(here.aliases)]
    versions = sorted(int(version.version) for version in client().search_model_versions(f"name = '{name}'"))
    return ", ".join([*aliases, *(f"{name}@{version}" for version in versions)]) or f"{name} without a version"
