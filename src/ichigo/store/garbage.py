"""What lies in a store and nothing refers to. Nothing here deletes before :func:`sweep` is called with it.

An artifact is referred to by its pointer, by a root that the caller names (a registered model, a run that goes on), and
by every artifact that descends from it. The checkpoints of a training are referred to while it runs, and those that its
recipe keeps for good by the model that came of it (its fact ``checkpoints``); others serve to go on, and once they are
old nobody did. What is younger than ``before`` is never garbage, whoever refers to it: its writer may be about to.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ichigo.errors import IntegrityError
from ichigo.store.artifacts import CHECKPOINTS, MANIFEST, POINTER, Store, place_of
from ichigo.store.objects import NoSuchObject, Objects, Stored, Upload

_TRANSFERS = 8
_ATTEMPT = re.compile(r"(?P<place>(?P<kind>[^/]+)/[0-9a-f]{32}/\d{8}-\d{6}-[0-9a-f]{8})/(?P<file>.+)")
_CHECKPOINT = re.compile(r"(?P<place>checkpoints/[0-9a-f]+/\d{8}-[0-9a-f]{8})/.+")
_LINEAGE = re.compile(r"(?P<place>checkpoints/[0-9a-f]+)/.+")
_NAMES = "LATEST.json"  # the checkpoints of a lineage that count
_PACK = re.compile(r"(?P<place>cache/tokens/(?P<tokenizer>[0-9a-f]+))/.+")


@dataclass(frozen=True)
class Garbage:
    """Something that nothing refers to: ``place`` is a key or the beginning of keys, ``size`` in bytes, ``modified``
    (of its youngest part) in seconds since the epoch."""

    place: str
    why: str
    size: int
    modified: float
    keys: tuple[str, ...] = ()  # in the order in which they go
    upload: Upload | None = None


def find(store: Store, roots: Iterable[str], before: float, training: Collection[str] = ()) -> list[Garbage]:
    """Everything in ``store`` that nothing refers to and that is older than ``before``, in the order of its places.

    ``roots`` are addresses of artifacts that must stay with all that they descend from; addresses in other stores and
    of what is gone count nothing. ``training`` are the lineages of trainings that run now. Raises
    :class:`~ichigo.errors.IntegrityError` for a manifest that cannot be read: what it stands on is then unknown.
    """
    stored = list(store.objects.stored(""))
    attempts = _grouped(stored, _ATTEMPT)
    pointers = _pointers(store.objects, [one.key for one in stored])
    live = _with_ancestors(store.objects, {*pointers.values(), *_places(roots, store.objects.uri)}, attempts.keys())
    wanted = {*training, *(str(body["facts"][CHECKPOINTS]) for body in live.values() if CHECKPOINTS in body["facts"])}
    left = {place: own for place, own in _grouped(stored, _LINEAGE).items() if place.split("/")[1] not in wanted}
    old = [one for one in map(_left_behind, left, left.values()) if one.modified < before]
    gone = {one.place for one in old}
    saves = _grouped(stored, _CHECKPOINT).items()
    others = {place: own for place, own in saves if f"{place.rpartition('/')[0]}/" not in gone}
    found = [
        *(_attempt(place, own, pointers) for place, own in attempts.items() if place not in live),
        *old,
        *_checkpoints(store.objects, others),
        *_packs(store.objects, _grouped(stored, _PACK), live),
        *map(_upload, store.objects.uploads("")),
    ]
    return sorted((one for one in found if one.modified < before), key=lambda one: one.place)


def sweep(store: Store, found: Garbage) -> None:
    """Delete what was found."""
    for key in found.keys:
        store.objects.delete(key)
    if found.upload:
        store.objects.abort(found.upload)


def _grouped(stored: Iterable[Stored], pattern: re.Pattern[str]) -> dict[str, list[Stored]]:
    groups: defaultdict[str, list[Stored]] = defaultdict(list)
    for one in stored:
        if match := pattern.fullmatch(one.key):
            groups[match["place"]].append(one)
    return dict(groups)


def _pointers(objects: Objects, keys: Iterable[str]) -> dict[str, str]:
    """The attempt that counts, by its identity's place (``kind/fingerprint``)."""
    named = [key.removesuffix(f"/{POINTER}") for key in keys if re.fullmatch(rf"[^/]+/[0-9a-f]{{32}}/{POINTER}", key)]
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        bodies = list(pool.map(lambda place: json.loads(objects.get(f"{place}/{POINTER}")), named))
    return {place: f"{place}/{body['attempt']}" for place, body in zip(named, bodies, strict=True)}


def _places(uris: Iterable[str], root: str) -> Iterator[str]:
    return (uri.removeprefix(f"{root}/") for uri in uris if uri.startswith(f"{root}/"))


def _with_ancestors(objects: Objects, roots: Iterable[str], known: Iterable[str]) -> dict[str, dict[str, Any]]:
    """``roots`` and all that they descend from, as far as it is ``known`` to lie here: parents and facts by place."""
    here, waiting = set(known), set(roots)
    live: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        while order := sorted((waiting & here) - live.keys()):
            live |= zip(order, pool.map(lambda place: _body(objects, place), order), strict=True)
            # A copy names its parents by their old addresses.
            waiting = {place_of(uri) for one in order for uri in live[one]["parents"].values()}
    return live


def _body(objects: Objects, place: str) -> dict[str, Any]:
    """Parents and facts of an attempt; nothing of one whose manifest is gone."""
    try:
        body = json.loads(objects.get(f"{place}/{MANIFEST}"))
        return {"parents": dict(body["parents"]), "facts": dict(body["facts"])}
    except NoSuchObject:
        return {"parents": {}, "facts": {}}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            f"{objects.uri}/{place}/{MANIFEST} cannot be read ({error!r}), so nobody knows what it stands on; nothing "
            "is deleted. Delete this attempt's prefix if it is not needed"
        ) from None


def _attempt(place: str, own: list[Stored], pointers: Mapping[str, str]) -> Garbage:
    manifest = f"{place}/{MANIFEST}"
    if all(one.key != manifest for one in own):
        why = "an upload that was never finished"
    elif place.rpartition("/")[0] in pointers:
        why = "replaced by a later attempt"
    else:
        why = "never committed: it has no pointer"
    # The manifest first: whoever holds an address finds nothing, and never a part.
    return _of(place, why, sorted(own, key=lambda one: (one.key != manifest, one.key)))


def _left_behind(lineage: str, own: list[Stored]) -> Garbage:
    """All checkpoints of a training, the pointer first: nobody then sees a part of one."""
    ordered = sorted(own, key=lambda one: (one.key != f"{lineage}/{_NAMES}", one.key))
    return _of(lineage, "checkpoints of a training that nobody went on with", ordered)


def _checkpoints(objects: Objects, groups: Mapping[str, list[Stored]]) -> Iterator[Garbage]:
    """Checkpoints that the pointer of their stage does not name."""
    named: dict[str, set[str]] = {}
    for place, own in groups.items():
        lineage, _, name = place.rpartition("/")
        if lineage not in named:
            named[lineage] = _named(objects, lineage)
        if name not in named[lineage]:
            yield _of(place, "a checkpoint that no pointer names", own)


def _named(objects: Objects, lineage: str) -> set[str]:
    try:
        return set(json.loads(objects.get(f"{lineage}/{_NAMES}")))
    except NoSuchObject:
        return set()


def _packs(objects: Objects, groups: Mapping[str, list[Stored]], live: Iterable[str]) -> Iterator[Garbage]:
    """Cached tokens of tokenizers that are gone."""
    known = [_identity(objects, place) for place in live if place.startswith("tokenizer/")]
    for place, own in groups.items():
        if not any(identity.startswith(place.rpartition("/")[2]) for identity in known):
            yield _of(place, "cached tokens of a tokenizer that is gone", own)


def _identity(objects: Objects, tokenizer: str) -> str:
    try:
        return str(json.loads(objects.get(f"{tokenizer}/tokenizer.json"))["identity"])
    except NoSuchObject:
        return ""


def _upload(upload: Upload) -> Garbage:
    return Garbage(upload.key, "parts of an unfinished upload", upload.size, upload.started, upload=upload)


def _of(place: str, why: str, own: list[Stored]) -> Garbage:
    youngest = max(one.modified for one in own)
    return Garbage(f"{place}/", why, sum(one.size for one in own), youngest, tuple(one.key for one in own))
