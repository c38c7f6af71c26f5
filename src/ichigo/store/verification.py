"""Whether stored bytes are still those that were committed: an artifact and all that it descends from, file by file.

A manifest names the SHA-256 of every file and of each parent's manifest, so one manifest vouches for the whole chain; a
registered model's tag ``ichigo.manifest`` is such a one. The manifest of an artifact whose child is older than that
chain is vouched for by its pointer alone.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Literal

from ichigo.hashing import sha256_bytes
from ichigo.store.artifacts import BYTES_AT, MANIFEST, POINTER, File, Identity, Store, content_digest, located
from ichigo.store.objects import NoSuchObject, Objects

Status = Literal["ok", "away", "damaged", "missing"]
_TRANSFERS = 8  # files read at once


@dataclass(frozen=True)
class Wanted:
    """An artifact's address and what is known of it beforehand: digests of its manifest and its content, "" unknown."""

    uri: str
    manifest: str = ""
    digest: str = ""


@dataclass
class Finding:
    """One artifact: ``problems`` are empty where it is ``ok``; ``files`` and ``size`` (bytes) count what was read.

    One that is ``away`` came along as a manifest alone (:mod:`~.copying`), which is as it was; its bytes lie at
    ``bytes_at``, in the store that it came from. ``manifest`` is the SHA-256 that its manifest has,
    ``parent_manifests`` are those that it recorded.
    """

    uri: str
    status: Status = "ok"
    problems: list[str] = field(default_factory=list)
    files: int = 0
    size: int = 0
    manifest: str = ""
    bytes_at: str = ""
    parents: dict[str, str] = field(default_factory=dict)
    parent_manifests: dict[str, str] = field(default_factory=dict)

    def add(self, status: Status, problem: str) -> None:
        """Note a problem; what is damaged counts as worse than what is missing."""
        self.problems.append(problem)
        self.status = "damaged" if "damaged" in (status, self.status) else status


def verify(store: Store, wanted: Iterable[Wanted]) -> list[Finding]:
    """What is found of each ``wanted`` artifact and of its ancestors, each once, nearest first."""
    waiting, found = deque(wanted), dict[str, Finding]()
    while waiting:
        one = waiting.popleft()
        if one.uri not in found:
            found[one.uri] = _check(store.objects, one)
            waiting.extend(Wanted(uri) for _, uri in sorted(found[one.uri].parents.items()))
    for child in list(found.values()):
        for name, recorded in child.parent_manifests.items():
            parent = found[child.parents[name]]
            if parent.manifest not in ("", recorded):
                parent.add("damaged", f"{MANIFEST} is not that which {child.uri} recorded")
    return list(found.values())


def _check(objects: Objects, wanted: Wanted) -> Finding:
    finding = Finding(wanted.uri)
    root, parts = f"{objects.uri}/", wanted.uri.removeprefix(objects.uri + "/").split("/")
    if not wanted.uri.startswith(root) or len(parts) != 3:
        finding.add("missing", f"does not lie in the store {objects.uri}")
        return finding
    place = "/".join(parts)
    try:
        data = objects.get(f"{place}/{MANIFEST}")
    except NoSuchObject:
        finding.add("missing", f"has no {MANIFEST}")
        return finding
    finding.manifest = sha256_bytes(data)
    pointed, finding.bytes_at = _pointed(objects, *parts)
    if pointed is None:
        finding.add("missing", f"was never committed: it has no {POINTER}")
    for whose, expected in (("whoever refers to it", wanted.manifest), ("its pointer", pointed)):
        if expected and expected != finding.manifest:
            finding.add("damaged", f"{MANIFEST} is not that which {whose} recorded")
    try:
        body = json.loads(data)
        files = [File(**file) for file in body["files"]]
        finding.parents = {name: located(uri, objects) for name, uri in body["parents"].items()}
        finding.parent_manifests = dict(body.get("parent_manifests", {}))
        for problem in _disagreements(body, files, parts[1], wanted.digest):
            finding.add("damaged", problem)
    except (ValueError, KeyError, TypeError) as error:
        finding.add("damaged", f"{MANIFEST} cannot be read ({error!r})")
        return finding
    if finding.bytes_at and finding.status == "ok":
        finding.status = "away"
    elif not finding.bytes_at:
        _check_files(objects, place, files, finding)
    return finding


def _pointed(objects: Objects, kind: str, fingerprint: str, attempt: str) -> tuple[str | None, str]:
    """The manifest's digest that the pointer records ("" if it points to another attempt, None without a pointer), and
    where the bytes are if only the manifest is here."""
    try:
        pointer = json.loads(objects.get(f"{kind}/{fingerprint}/{POINTER}"))
        return (str(pointer["manifest"]), pointer.get(BYTES_AT, "")) if pointer["attempt"] == attempt else ("", "")
    except NoSuchObject:
        return None, ""
    except (ValueError, KeyError, TypeError):
        return "unreadable", ""


def _disagreements(body: dict[str, Any], files: list[File], fingerprint: str, digest: str) -> Iterator[str]:
    """What a manifest says that does not follow from its own parts, or from what is known of it."""
    if body["digest"] != content_digest(files):
        yield "its digest is not that of the files which its manifest lists"
    if Identity(**body["identity"]).fingerprint != fingerprint:
        yield "its fingerprint is not that of the identity in its manifest"
    if digest and digest != body["digest"]:
        yield f"its digest is {body['digest'][:12]}…, recorded was {digest[:12]}…"


def _check_files(objects: Objects, place: str, files: list[File], finding: Finding) -> None:
    def digest(file: File) -> str | None:
        try:
            return objects.sha256(f"{place}/{file.path}")
        except NoSuchObject:
            return None

    with ThreadPoolExecutor(_TRANSFERS) as pool:
        for file, found in zip(files, pool.map(digest, files), strict=True):
            finding.files += 1
            if found is None:
                finding.add("missing", f"{file.path} is gone")
            elif found != file.sha256:
                finding.add("damaged", f"{file.path}: SHA-256 is {found[:12]}…, committed was {file.sha256[:12]}…")
            finding.size += file.size if found else 0
