"""A committed artifact in another store, with the account of all that it was made from.

Bytes travel where the caller says so; of everything else the manifest travels, byte by byte as it was committed, and a
pointer that says where the bytes are. A manifest names the SHA-256 of each file and of each parent's manifest, so the
copied chain is vouched for by the same digest as the original (tag ``ichigo.manifest`` of a registered model), and
:func:`~ichigo.store.verification.verify` checks it in the new store without the old one. What a model was trained on,
recordings of people among it, does not follow the model to wherever it is used.

An artifact keeps its place (KIND/FINGERPRINT/ATTEMPT). Its pointer is written last, and never replaces one that names
another attempt.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ichigo.errors import IntegrityError, UserError
from ichigo.hashing import canonical_json, sha256_bytes
from ichigo.store.artifacts import BYTES_AT, MANIFEST, POINTER, Artifact, File, Store, place_of
from ichigo.store.objects import NoSuchObject

_TRANSFERS = 4  # files under way at once, each on this disk for that long


def copy(artifacts: Iterable[Artifact], source: Store, target: Store, with_bytes: Collection[str]) -> list[str]:
    """Copy ``artifacts`` from ``source`` to ``target``, in an order in which parents come before children.

    Args:
        artifacts: committed ones in ``source``.
        source: where they lie.
        target: another store.
        with_bytes: addresses of those whose files travel too; of the others the manifest does.

    Returns:
        The addresses in ``target``, in the given order.

    Raises:
        IntegrityError: what is read is not what was committed.
        UserError: both stores are the same.
    """
    if source.objects.uri == target.objects.uri:
        raise UserError(f"{target.objects.uri} is the store that the model lies in; name another one")
    return [_copy(one, source, target, one.reference.uri in with_bytes) for one in artifacts]


def _copy(artifact: Artifact, source: Store, target: Store, with_bytes: bool) -> str:
    place = place_of(artifact.reference.uri)
    manifest = source.objects.get(f"{place}/{MANIFEST}")
    if sha256_bytes(manifest) != artifact.reference.manifest:
        raise IntegrityError(f"{artifact.reference.uri}/{MANIFEST} changed while it was copied")
    if with_bytes:
        _copy_files(artifact, place, target)
    target.objects.put(f"{place}/{MANIFEST}", manifest)
    _point(artifact, place, target, with_bytes)
    return f"{target.objects.uri}/{place}"


def _copy_files(artifact: Artifact, place: str, target: Store) -> None:
    def one(file: File) -> None:
        with tempfile.TemporaryDirectory() as folder:
            artifact.fetch_file(file, path := Path(folder) / "file")
            target.objects.put_file(f"{place}/{file.path}", path)

    there = {key.removeprefix(f"{place}/"): size for key, size in target.objects.list(f"{place}/")}
    left = [file for file in artifact.files if there.get(file.path) != file.size or not _same(file, place, target)]
    with ThreadPoolExecutor(_TRANSFERS) as pool:
        list(pool.map(one, left))


def _same(file: File, place: str, target: Store) -> bool:
    return target.objects.sha256(f"{place}/{file.path}") == file.sha256


def _point(artifact: Artifact, place: str, target: Store, with_bytes: bool) -> None:
    kind, fingerprint, attempt = place.split("/")
    key = f"{kind}/{fingerprint}/{POINTER}"
    pointer = {"attempt": attempt, "manifest": artifact.reference.manifest}
    try:
        there = json.loads(target.objects.get(key))
    except NoSuchObject:
        there = None
    if there is None or (there["attempt"] == attempt and with_bytes):
        absent = {} if with_bytes else {BYTES_AT: artifact.reference.uri}
        target.objects.put(key, canonical_json(pointer | absent))
