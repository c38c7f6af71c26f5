"""What the registry holds, for people who decide: versions with aliases, verdict and numbers, and the ledger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ichigo.errors import UserError
from ichigo.registry.ledger import Entry, Ledger, holders
from ichigo.registry.lookup import Registered, known, raw_versions
from ichigo.registry.models import record_of
from ichigo.registry.promotion import Drift, drift
from ichigo.registry.tags import VERDICT


@dataclass(frozen=True)
class Listed:
    """A version; ``created`` in seconds since the epoch, ``numbers`` as in :class:`~ichigo.registry.ledger.Entry`.

    ``aliases`` are those that it has by the ledger, or, where the ledger does not know them, in MLflow.
    """

    registered: Registered
    aliases: tuple[str, ...]
    verdict: str
    created: float
    numbers: Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Listing:
    """A model: its versions, the newest first, its ledger, and aliases that are not what the ledger says."""

    name: str
    versions: tuple[Listed, ...]
    ledger: tuple[Entry, ...]
    drift: tuple[Drift, ...]


def catalogue(name: str | None = None) -> list[Listing]:
    """Every model by name, or the one called ``name``; UserError if there is none by this name."""
    found: dict[str, list[Listed]] = {}
    for one, raw in raw_versions(name):
        numbers = record_of(raw).numbers()
        verdict, created = str(raw.tags.get(VERDICT, "")), raw.creation_timestamp / 1000
        found.setdefault(one.name, []).append(Listed(one, one.aliases, verdict, created, numbers))
    if name and name not in found:
        raise UserError(f"the registry has no version of {name!r}; it has {known(name)}")
    return [_listing(model, versions) for model, versions in sorted(found.items())]


def _listing(name: str, versions: Sequence[Listed]) -> Listing:
    written = Ledger(name).entries()
    held = holders(written)
    newest_first = sorted(versions, key=lambda one: -int(one.registered.version))
    return Listing(name, tuple(_by_ledger(one, held) for one in newest_first), tuple(written), tuple(drift(name)))


def _by_ledger(one: Listed, held: Mapping[str, str]) -> Listed:
    own = {alias for alias, version in held.items() if version == one.registered.version}
    aliases = tuple(sorted(own | {alias for alias in one.aliases if alias not in held}))
    return Listed(one.registered, aliases, one.verdict, one.created, one.numbers)
