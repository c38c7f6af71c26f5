"""Artifacts: what a step commits and the next one opens.

An artifact is a set of files below ``<kind>/<fingerprint>/<attempt>/``. Its *fingerprint* says from what it was made
(settings, input digests, code); its *digest* says what it is (paths, sizes and SHA-256 of its files), so a step that is
run again and writes the same bytes leaves everything after it valid. Writers never share a prefix: each draft has an
attempt of its own, and the pointer, written last, names the attempt that counts.
"""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ichigo.errors import IntegrityError, UserError
from ichigo.hashing import canonical_json, sha256_bytes, sha256_file, sha256_json
from ichigo.store.objects import NoSuchObject, Objects, open_objects

POINTER = "COMMITTED.json"
MANIFEST = "manifest.json"
_TRANSFERS = 8  # files under way at once
_HINTS = 20  # recent identities that explain why nothing was reused
_REMEDY = "delete this attempt's prefix and run again: the step will be done anew"
_END_OF_TIME = 10**13  # milliseconds; counting down from it makes the newest key sort first


@dataclass(frozen=True)
class Identity:
    """From what an artifact is made; equal identities may share one artifact."""

    kind: str
    settings: Mapping[str, Any]
    inputs: Mapping[str, str]  # name -> digest
    code: str

    @property
    def fingerprint(self) -> str:
        """Hexadecimal SHA-256, cut to 32 digits (128 bits) to keep keys readable."""
        return sha256_json(asdict(self))[:32]


@dataclass(frozen=True)
class File:
    """One file of an artifact; ``path`` is relative and uses forward slashes, ``size`` is in bytes."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Reference:
    """A short, complete address: what travels between steps instead of bytes."""

    kind: str
    uri: str
    digest: str
    manifest: str  # SHA-256 of the manifest, so that nobody can exchange it
    size: int

    def save(self, path: Path) -> None:
        """Write the reference as a small JSON file, the body of a KFP artifact."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(canonical_json(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Reference:
        """Read what :meth:`save` wrote."""
        return cls(**json.loads(path.read_bytes()))


@dataclass(frozen=True)
class Artifact:
    """A committed artifact; opening it checked the pointer and the manifest, reading a file checks its SHA-256."""

    reference: Reference
    identity: Identity
    files: tuple[File, ...]
    parents: Mapping[str, str]
    recipe: str
    run: str
    facts: Mapping[str, Any]
    _objects: Objects = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """What the artifact is: a digest over its files alone."""
        return self.reference.digest

    def subset_digest(self, prefix: str) -> str:
        """The digest of the files below ``prefix``: the input of a step that reads only those."""
        return content_digest(self._below(prefix))

    def fetch(self, target: Path, prefix: str = "") -> Path:
        """Download the files below ``prefix`` into ``target``; :class:`IntegrityError` on the first wrong byte."""
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda file: self._fetch_one(file, target / file.path), self._below(prefix)))
        return target

    def read_json(self, path: str) -> Any:
        """One small JSON file of the artifact."""
        with tempfile.TemporaryDirectory() as folder:
            return json.loads((self.fetch(Path(folder), path) / path).read_bytes())

    def _below(self, prefix: str) -> list[File]:
        files = [file for file in self.files if file.path == prefix or file.path.startswith(prefix)]
        if not files:
            held = [file.path for file in self.files]
            raise IntegrityError(f"{self.reference.uri} holds no file {prefix!r}; it has {held}")
        return files

    def _fetch_one(self, file: File, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        key = f"{_key_of(self.reference.uri, self._objects)}/{file.path}"
        try:
            self._objects.get_file(key, target)
        except NoSuchObject:
            raise IntegrityError(f"{self.reference.uri}/{file.path} was committed but is gone") from None
        found = sha256_file(target)
        if found != file.sha256:
            target.unlink()
            raise IntegrityError(
                f"{self.reference.uri}/{file.path}: SHA-256 is {found[:12]}…, committed was {file.sha256[:12]}…; "
                f"the stored bytes changed; {_REMEDY}"
            )


@dataclass
class Draft:
    """A folder to fill; what lies in it when the writer ends without an error becomes the artifact."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = None

    @property
    def committed(self) -> Artifact:
        """The artifact, once the draft has been committed."""
        if self.artifact is None:
            raise IntegrityError("this draft was not committed")
        return self.artifact


class Store:
    """Artifacts below one root of an object store."""

    def __init__(self, objects: Objects) -> None:
        self.objects = objects

    @classmethod
    def at(cls, uri: str) -> Store:
        """The store whose root is ``uri`` (``s3://bucket/prefix``)."""
        return cls(open_objects(uri))

    def open(self, reference: Reference) -> Artifact:
        """The committed artifact behind a reference; :class:`IntegrityError` if it has no pointer or was exchanged."""
        kind, fingerprint, attempt = _parts_of(reference.uri, self.objects)
        if self._pointer(kind, fingerprint) is None:
            raise IntegrityError(f"{reference.uri} was never committed: it has no {POINTER}; run the step again")
        return self._read(kind, fingerprint, attempt, reference.manifest)

    def open_uri(self, uri: str) -> Artifact:
        """The committed artifact at an address alone, as manifests and the registry give it.

        The pointer vouches for the manifest; an attempt that a later one has replaced has only its own word for it.
        Raises :class:`IntegrityError` if nothing was committed there, or no artifact can be there.
        """
        parts = _key_of(uri, self.objects).split("/")
        if len(parts) != 3:
            raise IntegrityError(f"{uri} is no address of an artifact; it ends with KIND/FINGERPRINT/ATTEMPT")
        kind, fingerprint, attempt = parts
        pointer = self._pointer(kind, fingerprint)
        if pointer is None:
            raise IntegrityError(f"{uri} was never committed: it has no {POINTER}; run the step again")
        if pointer["attempt"] == attempt:
            return self._read(kind, fingerprint, attempt, pointer["manifest"])
        try:
            manifest = self.objects.get(f"{kind}/{fingerprint}/{attempt}/{MANIFEST}")
        except NoSuchObject:
            raise IntegrityError(f"{uri} has no {MANIFEST}: it was never finished") from None
        return self._read(kind, fingerprint, attempt, sha256_bytes(manifest))

    def find(self, identity: Identity) -> Artifact | None:
        """The committed artifact of an identity, if there is one and its bytes are still there."""
        pointer = self._pointer(identity.kind, identity.fingerprint)
        if pointer is None:
            return None
        key = f"{identity.kind}/{identity.fingerprint}/{pointer['attempt']}"
        stored = {name.removeprefix(f"{key}/"): size for name, size in self.objects.list(f"{key}/")}
        if MANIFEST not in stored:
            return None
        artifact = self._read(identity.kind, identity.fingerprint, pointer["attempt"], pointer["manifest"])
        return artifact if all(stored.get(file.path) == file.size for file in artifact.files) else None

    def recent(self, kind: str) -> list[Identity]:
        """What was committed lately under ``kind``, newest first: to explain why nothing was reused."""
        keys = [key for key, _ in self.objects.list(f"index/{kind}/", limit=_HINTS)]
        return [Identity(**json.loads(self.objects.get(key))) for key in keys]

    @contextmanager
    def write(
        self, identity: Identity, *, parents: Mapping[str, Reference], recipe: str = "", run: str = ""
    ) -> Iterator[Draft]:
        """Give a folder to fill and commit it; after an error, or a kill at any moment, nothing is committed."""
        folder = Path(tempfile.mkdtemp(prefix=f"ichigo-{identity.kind}-"))
        draft = Draft(folder)
        try:
            yield draft
            uris = {name: reference.uri for name, reference in parents.items()}
            draft.artifact = self._commit(identity, draft, uris, recipe, run)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _commit(self, identity: Identity, draft: Draft, parents: dict[str, str], recipe: str, run: str) -> Artifact:
        files = tuple(_describe(draft.folder))
        if any(file.path == MANIFEST for file in files):
            raise UserError(
                f"{identity.kind}: the store keeps the name {MANIFEST} for itself; rename or remove this file"
            )
        attempt = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        key = f"{identity.kind}/{identity.fingerprint}/{attempt}"
        manifest = canonical_json(
            {
                "kind": identity.kind,
                "fingerprint": identity.fingerprint,
                "digest": content_digest(files),
                "identity": asdict(identity),
                "parents": parents,
                "recipe": recipe,
                "run": run,
                "facts": draft.facts,
                "files": [asdict(file) for file in files],
            }
        )
        self._upload(key, draft.folder, files)
        self.objects.put(f"{key}/{MANIFEST}", manifest)
        pointer = {"attempt": attempt, "manifest": sha256_bytes(manifest)}
        self.objects.put(f"{identity.kind}/{identity.fingerprint}/{POINTER}", canonical_json(pointer))
        self._hint(identity)
        return self._read(identity.kind, identity.fingerprint, attempt, pointer["manifest"])

    def _upload(self, key: str, folder: Path, files: Iterable[File]) -> None:
        def upload(file: File) -> None:
            self.objects.put_file(f"{key}/{file.path}", folder / file.path)

        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(upload, files))

    def _hint(self, identity: Identity) -> None:
        newest_first = _END_OF_TIME - int(time.time() * 1000)
        key = f"index/{identity.kind}/{newest_first:013d}-{identity.fingerprint}.json"
        self.objects.put(key, canonical_json(asdict(identity)))

    def _pointer(self, kind: str, fingerprint: str) -> dict[str, str] | None:
        try:
            pointer: dict[str, str] = json.loads(self.objects.get(f"{kind}/{fingerprint}/{POINTER}"))
        except NoSuchObject:
            return None
        return pointer

    def _read(self, kind: str, fingerprint: str, attempt: str, expected: str) -> Artifact:
        key = f"{kind}/{fingerprint}/{attempt}"
        try:
            data = self.objects.get(f"{key}/{MANIFEST}")
        except NoSuchObject:
            raise IntegrityError(f"{self.objects.uri}/{key} has no {MANIFEST}: it was never finished") from None
        if sha256_bytes(data) != expected:
            raise IntegrityError(
                f"{self.objects.uri}/{key}/{MANIFEST} is not the manifest that was committed; {_REMEDY}"
            )
        body = json.loads(data)
        files = tuple(File(**file) for file in body["files"])
        size = sum(file.size for file in files)
        reference = Reference(kind, f"{self.objects.uri}/{key}", body["digest"], expected, size)
        return Artifact(
            reference,
            Identity(**body["identity"]),
            files,
            body["parents"],
            body["recipe"],
            body["run"],
            body["facts"],
            self.objects,
        )


def content_digest(files: Iterable[File]) -> str:
    """SHA-256 over the sorted list of (path, size, SHA-256): what an artifact *is*."""
    return sha256_json(sorted([file.path, file.size, file.sha256] for file in files))


def _describe(folder: Path) -> Iterator[File]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield File(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_file(path))


def _parts_of(uri: str, objects: Objects) -> tuple[str, str, str]:
    """Kind, fingerprint and attempt of an artifact's address."""
    match _key_of(uri, objects).split("/"):
        case [kind, fingerprint, attempt]:
            return kind, fingerprint, attempt
    raise IntegrityError(f"{uri} is no address of an artifact; it looks like {objects.uri}/KIND/FINGERPRINT/ATTEMPT")


def _key_of(uri: str, objects: Objects) -> str:
    if not uri.startswith(objects.uri + "/"):
        raise IntegrityError(f"{uri} does not lie in the store {objects.uri}; set ICHIGO_STORE to its own store")
    return uri.removeprefix(objects.uri + "/")
