"""Artifacts: what a step commits and the next one opens.

An artifact is a set of files below ``<kind>/<fingerprint>/<attempt>/``. Its *fingerprint* says from what it was made
(settings, input digests, code); its *digest* says what it is (paths, sizes and SHA-256 of its files), so a step that is
run again and writes the same bytes leaves everything after it valid. Writers never share a prefix: each draft has an
attempt of its own, and the pointer, written last, names the attempt that counts.
"""

from __future__ import annotations

import io
import json
import re
import secrets
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from ichigo.errors import IntegrityError, UserError
from ichigo.hashing import canonical_json, sha256_bytes, sha256_file, sha256_json
from ichigo.store.objects import NoSuchObject, Objects, open_objects
from ichigo.store.workplace import discard, workplace

CHECKPOINTS = "checkpoints"
"""Fact of a model: the lineage of the checkpoints that stay as long as the model does."""

POINTER = "COMMITTED.json"
MANIFEST = "manifest.json"
BYTES_AT = "bytes_at"
"""Key of a pointer whose artifact came here as a manifest alone: the address of its bytes."""
_TRANSFERS = 8  # files under way at once
_HINTS = 20  # recent identities that explain why nothing was reused
_REMEDY = "delete this attempt's prefix and run again: the step will be done anew"
_MANIFEST_KEY = re.compile(rf"([^/]+)/([0-9a-f]{{32}})/(\d{{8}}-\d{{6}}-[0-9a-f]{{8}})/{re.escape(MANIFEST)}")
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
    parents: Mapping[str, str]  # name -> address
    recipe: str
    run: str
    facts: Mapping[str, Any]
    parent_manifests: Mapping[str, str]  # name -> SHA-256 of its manifest: the whole chain hangs on one manifest
    _objects: Objects = field(repr=False, compare=False)

    @property
    def digest(self) -> str:
        """What the artifact is: a digest over its files alone."""
        return self.reference.digest

    def file(self, path: str) -> File:
        """The file of this name; :class:`IntegrityError` if there is none."""
        for file in self.files:
            if file.path == path:
                return file
        raise self._lacks(path)

    def subset_digest(self, prefix: str) -> str:
        """The digest of the files below ``prefix``: the input of a step that reads only those."""
        return content_digest(self._below(prefix))

    def fetch(self, target: Path, prefix: str = "") -> Path:
        """Download the files below ``prefix`` into ``target``; :class:`IntegrityError` on the first wrong byte."""
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(lambda file: self.fetch_file(file, target / file.path), self._below(prefix)))
        return target

    def read_json(self, path: str) -> Any:
        """One small JSON file of the artifact."""
        with tempfile.TemporaryDirectory() as folder:
            return json.loads((self.fetch(Path(folder), path) / path).read_bytes())

    def reader(self, path: str) -> io.RawIOBase:
        """A file of the artifact to read here and there without fetching it; nothing checks these bytes."""
        (file,) = [file for file in self.files if file.path == path]
        return _Reader(self._objects, f"{_key_of(self.reference.uri, self._objects)}/{path}", file.size)

    def _below(self, prefix: str) -> list[File]:
        files = [file for file in self.files if file.path == prefix or file.path.startswith(prefix)]
        if not files:
            raise self._lacks(prefix)
        return files

    def _lacks(self, path: str) -> IntegrityError:
        held = [file.path for file in self.files]
        return IntegrityError(f"{self.reference.uri} holds no file {path!r}; it has {held}")

    def fetch_file(self, file: File, target: Path) -> None:
        """Download one of :attr:`files` to ``target``; :class:`IntegrityError` if these are not the committed bytes."""
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


class _Reader(io.RawIOBase):
    """An object as a file that is read by ranges."""

    def __init__(self, objects: Objects, key: str, size: int) -> None:
        super().__init__()
        self._objects, self._key, self._size, self._place = objects, key, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int = -1) -> bytes:
        left = max(self._size - self._place, 0)
        size = left if size < 0 else min(size, left)
        data = self._objects.get_range(self._key, self._place, size) if size else b""
        self._place += len(data)
        return data


@dataclass(frozen=True)
class Taken:
    """A file of another artifact of the same store that becomes one of this: ``source`` is its key there."""

    file: File
    source: str


@dataclass
class Draft:
    """A folder to fill; what lies in it when the writer ends without an error becomes the artifact, with what was
    taken from others.

    ``kept`` says that it is full already: an earlier process did the work and could not commit it.
    """

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    artifact: Artifact | None = None
    kept: bool = False
    taken: list[Taken] = field(default_factory=list)

    def take(self, artifact: Artifact, names: Iterable[str] | None = None, below: str = "") -> None:
        """Let the files ``names`` (None: all) of ``artifact`` be files of this one, in the folder ``below``.

        S3 copies them when this draft is committed; nothing is fetched. Their digests are those of ``artifact``'s
        manifest, so a file that was damaged there is known as damaged here. Raises :class:`IntegrityError` for a name
        that ``artifact`` does not have.
        """
        for file in artifact.files if names is None else [artifact.file(name) for name in names]:
            source = f"{_key_of(artifact.reference.uri, artifact._objects)}/{file.path}"
            self.taken.append(Taken(replace(file, path=f"{below}/{file.path}" if below else file.path), source))

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
        return self._read(kind, fingerprint, attempt, None)

    def open_or_successor(self, uri: str) -> Artifact:
        """The artifact at ``uri`` or, where somebody removed this attempt, the one that was made anew in its place.

        Raises :class:`IntegrityError` where there is neither.
        """
        try:
            return self.open_uri(uri)
        except IntegrityError:
            kind, fingerprint, attempt = _parts_of(uri, self.objects)
            pointer = self._pointer(kind, fingerprint)
            if pointer is None or pointer["attempt"] == attempt:
                raise
            return self._read(kind, fingerprint, pointer["attempt"], pointer["manifest"])

    def here(self, uri: str) -> str:
        """Where the artifact at ``uri`` lies in this store: there, or, of another store's, where a copy of it lies.

        Manifests travel as they are (:mod:`~.copying`), so a copied artifact names its parents by their old addresses;
        the last three parts of an address, KIND/FINGERPRINT/ATTEMPT, are nobody else's.
        """
        return located(uri, self.objects)

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

    def every(self) -> list[Artifact]:
        """Every artifact whose manifest is in the store, those that a later attempt has replaced among them."""
        keys = [match for key, _ in self.objects.list("") if (match := _MANIFEST_KEY.fullmatch(key))]
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            return list(pool.map(lambda match: self._read(match[1], match[2], match[3], None), keys))

    def recent(self, kind: str) -> list[Identity]:
        """What was committed lately under ``kind``, newest first: to explain why nothing was reused."""
        keys = [key for key, _ in self.objects.list(f"index/{kind}/", limit=_HINTS)]
        return [Identity(**json.loads(self.objects.get(key))) for key in keys]

    @contextmanager
    def write(
        self,
        identity: Identity,
        *,
        parents: Mapping[str, Reference],
        recipe: str = "",
        run: str = "",
        keep: bool = False,
    ) -> Iterator[Draft]:
        """Give a folder to fill and commit it; after an error, or a kill at any moment, nothing is committed.

        With ``keep``, work that was finished and could not be committed is kept on this disk (:mod:`~.workplace`); the
        next draft of the identity is then ``kept`` and must be left as it is.
        """
        with workplace(f"{identity.kind}-{identity.fingerprint}", lasting=keep) as place:
            files: tuple[File, ...] | None = None
            if place.finished and (files := _intact(place.files, place.finished["files"])) is None:
                place = discard(place)
            draft = Draft(place.files, dict(place.finished["facts"]) if place.finished else {})
            draft.kept = files is not None
            if place.finished:
                draft.taken = [Taken(File(**one["file"]), one["source"]) for one in place.finished.get("taken", [])]
            yield draft
            files = files or _checked(identity, draft)
            taken = [asdict(one) for one in draft.taken]
            place.finish({"facts": draft.facts, "files": [asdict(file) for file in files], "taken": taken})
            draft.artifact = self._commit(identity, draft, files, parents, recipe, run)

    def _commit(
        self,
        identity: Identity,
        draft: Draft,
        files: tuple[File, ...],
        parents: Mapping[str, Reference],
        recipe: str,
        run: str,
    ) -> Artifact:
        attempt = f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(4)}"
        key = f"{identity.kind}/{identity.fingerprint}/{attempt}"
        whole = sorted([*files, *(one.file for one in draft.taken)], key=lambda file: file.path)
        manifest = canonical_json(
            {
                "kind": identity.kind,
                "fingerprint": identity.fingerprint,
                "digest": content_digest(whole),
                "identity": asdict(identity),
                "parents": {name: reference.uri for name, reference in parents.items()},
                "parent_manifests": {name: reference.manifest for name, reference in parents.items()},
                "recipe": recipe,
                "run": run,
                "facts": draft.facts,
                "files": [asdict(file) for file in whole],
            }
        )
        self._upload(key, draft.folder, files)
        self._copy(key, draft.taken)
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

    def _copy(self, key: str, taken: Iterable[Taken]) -> None:
        def copy(one: Taken) -> None:
            try:
                self.objects.copy(one.source, f"{key}/{one.file.path}")
            except NoSuchObject:
                raise IntegrityError(f"{self.objects.uri}/{one.source} was committed but is gone") from None

        with ThreadPoolExecutor(_TRANSFERS) as pool:
            list(pool.map(copy, taken))

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

    def _read(self, kind: str, fingerprint: str, attempt: str, expected: str | None) -> Artifact:
        """The artifact if its manifest has the digest ``expected``; None takes the manifest's own word for it."""
        key = f"{kind}/{fingerprint}/{attempt}"
        try:
            data = self.objects.get(f"{key}/{MANIFEST}")
        except NoSuchObject:
            raise IntegrityError(f"{self.objects.uri}/{key} has no {MANIFEST}: it was never finished") from None
        found = sha256_bytes(data)
        if found != (expected or found):
            raise IntegrityError(
                f"{self.objects.uri}/{key}/{MANIFEST} is not the manifest that was committed; {_REMEDY}"
            )
        body = json.loads(data)
        files = tuple(File(**file) for file in body["files"])
        size = sum(file.size for file in files)
        reference = Reference(kind, f"{self.objects.uri}/{key}", body["digest"], found, size)
        return Artifact(
            reference,
            Identity(**body["identity"]),
            files,
            body["parents"],
            body["recipe"],
            body["run"],
            body["facts"],
            body.get("parent_manifests", {}),  # older artifacts have none
            self.objects,
        )


def content_digest(files: Iterable[File]) -> str:
    """SHA-256 over the sorted list of (path, size, SHA-256): what an artifact *is*."""
    return sha256_json(sorted([file.path, file.size, file.sha256] for file in files))


def _describe(folder: Path) -> Iterator[File]:
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        yield File(path.relative_to(folder).as_posix(), path.stat().st_size, sha256_file(path))


def _checked(identity: Identity, draft: Draft) -> tuple[File, ...]:
    """The files of a draft's folder, if they and those that it took can be one artifact."""
    files = tuple(_describe(draft.folder))
    names = Counter([MANIFEST, *(file.path for file in files), *(one.file.path for one in draft.taken)])
    if names[MANIFEST] > 1:
        raise UserError(f"{identity.kind}: the store keeps the name {MANIFEST} for itself; rename or remove this file")
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{identity.kind}: {', '.join(twice)} is there twice; take the file or write it, not both")
    return files


def _intact(folder: Path, account: Iterable[Mapping[str, Any]]) -> tuple[File, ...] | None:
    """The files of a draft if they are still those of its ``account``; a power cut may have emptied some."""
    files = tuple(_describe(folder))
    return files if files == tuple(File(**file) for file in account) else None


def located(uri: str, objects: Objects) -> str:
    """See :meth:`Store.here`."""
    place = place_of(uri)
    copied = not uri.startswith(f"{objects.uri}/") and any(objects.list(f"{place}/{MANIFEST}", limit=1))
    return f"{objects.uri}/{place}" if copied else uri


def place_of(uri: str) -> str:
    """The last three parts of an artifact's address."""
    return "/".join(uri.split("/")[-3:])


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
