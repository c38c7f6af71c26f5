"""A registered version in another bucket or on other servers: bytes copied, digests checked, then registered there.

What travels with its bytes: the model, the speech tokenizer that it was made with, its evaluation and its model card.
Of all else that it was made from, recordings among it, the manifest travels (:mod:`ichigo.store.copying`), so that
``ichigo verify`` can check the copy in its new place without the old one, by the manifest digest that the original was
registered with. The other registry has a ledger of its own: the copy enters it as ``candidate`` and is promoted there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ichigo.errors import IntegrityError, UserError
from ichigo.inference.chain import ancestors, tokenizer_of
from ichigo.registry.ledger import CANDIDATE
from ichigo.registry.lookup import Registered
from ichigo.registry.models import Version, record_of, register
from ichigo.registry.tags import CARD, COPIED_FROM, DIGEST, EVIDENCE, MANIFEST
from ichigo.store import Artifact, Store
from ichigo.store.copying import copy
from ichigo.store.verification import Finding, Wanted, verify
from ichigo.tracking.runs import client

PREFIX = "ICHIGO_TO_"
"""Of variables that hold for the other servers: ``ICHIGO_TO_AWS_ACCESS_KEY_ID`` is their ``AWS_ACCESS_KEY_ID``."""


@dataclass(frozen=True)
class Transfer:
    """A copy that was checked and registered, and what was found when it was read back."""

    version: Version
    findings: tuple[Finding, ...]


def transfer(found: Registered, to_store: str, to_tracking: str | None, to_name: str | None, reason: str) -> Transfer:
    """Copy ``found`` to the store at ``to_store`` and register it at ``to_tracking`` (None: the same server).

    Raises:
        UserError: the place or the name is the one that it has; it was registered by hand.
        IntegrityError: bytes are not the registered ones, here before or there after the copy.
    """
    if not (to_tracking or to_name):
        raise UserError(
            f"this registry has {found} already, under a digest that the copy shares; name another server with "
            "--to-tracking, or the copy with --to-name"
        )
    tags, description = _about(found)
    source = Store.at(found.uri.rsplit("/", 3)[0])
    model, judged = _registered(found, source), record_of(client().get_model_version(found.name, found.version))
    beside = [source.open_uri(uri) for uri in (judged.evaluation.get("uri"), tags.get(CARD)) if uri]
    with servers(to_tracking):
        target = Store.at(to_store)
        there = _copied(model, beside, source, target)
        findings = verify(target, [Wanted(uri, one.reference.manifest, one.digest) for uri, one in there])
        _require(findings)
        new = {one.reference.uri: uri for uri, one in there}
        moved = {name: new.get(value, value) for name, value in judged.evaluation.items()}
        evidence = replace(judged, evaluation=moved).tag()
        about = {name: new.get(value, value) for name, value in tags.items()}
        about |= {EVIDENCE: evidence, COPIED_FROM: f"{found}, {found.uri}"}
        name, why = to_name or found.name, reason or f"copied from {found} at {found.uri}"
        version = register(
            name, new[model.reference.uri], model.digest,
            mlflow_run=None, tags=about, alias=CANDIDATE, description=description, reason=why,
        )  # fmt: skip
    return Transfer(version, tuple(findings))


@contextmanager
def servers(tracking: str | None) -> Iterator[None]:
    """Let this process use the other servers: ``tracking``, and what the variables with :data:`PREFIX` say."""
    other = {name.removeprefix(PREFIX): value for name, value in os.environ.items() if name.startswith(PREFIX)}
    other |= {"MLFLOW_TRACKING_URI": tracking} if tracking else {}
    before = {name: os.environ.get(name) for name in other}
    os.environ.update(other)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _about(found: Registered) -> tuple[dict[str, str], str]:
    """Our own tags of a version, and its description."""
    raw: Any = client().get_model_version(found.name, found.version)
    ours: Mapping[str, str] = {name: value for name, value in raw.tags.items() if name.startswith("ichigo.")}
    return {name: value for name, value in ours.items() if name != DIGEST}, raw.description or ""


def _registered(found: Registered, source: Store) -> Artifact:
    """The artifact of a version, if it is the one that was registered."""
    if not (found.digest and found.manifest):
        raise UserError(f"{found} was registered by hand: it has no {DIGEST} and {MANIFEST} to check a copy by")
    model = source.open_uri(found.uri)
    if (model.digest, model.reference.manifest) != (found.digest, found.manifest):
        raise IntegrityError(f"{found.uri} is not what was registered as {found}; `ichigo verify` says more")
    return model


def _copied(model: Artifact, beside: Sequence[Artifact], source: Store, target: Store) -> list[tuple[str, Artifact]]:
    """Copy the model and what belongs to it; gives the new address of each, the model first."""
    wanted = [model, *beside]
    with_bytes = {one.reference.uri for one in (*wanted, tokenizer_of(model, source))}
    chain = {one.reference.uri: one for start in wanted for one in (start, *ancestors(start, source))}
    ordered = list(_parents_first(chain, source))
    addresses = dict(
        zip((one.reference.uri for one in ordered), copy(ordered, source, target, with_bytes), strict=True)
    )
    return [(addresses[one.reference.uri], one) for one in wanted]


def _parents_first(chain: Mapping[str, Artifact], source: Store) -> Iterator[Artifact]:
    done: set[str] = set()

    def visit(uri: str) -> Iterator[Artifact]:
        if uri in done:
            return
        done.add(uri)
        for parent in chain[uri].parents.values():
            yield from visit(source.here(parent))
        yield chain[uri]

    for uri in chain:
        yield from visit(uri)


def _require(findings: Sequence[Finding]) -> None:
    bad = [f"{one.uri}: {problem}" for one in findings for problem in one.problems]
    if bad:
        listed = "\n".join(f"  - {problem}" for problem in bad)
        raise IntegrityError(f"the copy is not what was registered, and was not registered there:\n{listed}")
