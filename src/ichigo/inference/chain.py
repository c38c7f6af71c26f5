"""From a model's artifact to what a session needs on disk: the model's folder, and the speech tokenizer it was made by.

A model folder holds no speech tokenizer. Its manifest names its parents, theirs name theirs, and one of them is the
tokenizer whose identity stands in the model's contract.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ichigo.errors import ContractError, ModelError
from ichigo.store import Artifact, Store


def tokenizer_of(model: Artifact, store: Store) -> Artifact:
    """The speech tokenizer among the ancestors of ``model`` that the model's contract names.

    Raises:
        ModelError: ``model`` is no model under a contract, or no speech tokenizer is among its ancestors.
        ContractError: those that are have another identity.
        IntegrityError: an ancestor is gone from the store.
    """
    if not any(file.path == "contract.json" for file in model.files):
        raise ModelError(f"{model.reference.uri} holds no contract.json; name a model that a stage has trained")
    wanted = model.read_json("contract.json")["speech_tokenizer"]
    others = []
    for ancestor in ancestors(model, store):
        if ancestor.reference.kind != "tokenizer":
            continue
        if (identity := ancestor.read_json("tokenizer.json")["identity"]) == wanted:
            return ancestor
        others.append(f"{ancestor.reference.uri} with identity {identity}")
    if others:
        raise ContractError(f"{model.reference.uri} names the speech tokenizer {wanted}, but descends from {others}")
    raise ModelError(f"{model.reference.uri} descends from no speech tokenizer; give its folder with --tokenizer")


def ancestors(artifact: Artifact, store: Store) -> Iterator[Artifact]:
    """Every ancestor once, nearest first; one that was removed and made anew is the new one."""
    waiting = list(artifact.parents.values())
    seen = set(waiting)
    while waiting:
        parent = store.open_or_successor(store.here(waiting.pop(0)))
        yield parent
        new = [uri for uri in parent.parents.values() if uri not in seen]
        seen.update(new)
        waiting.extend(new)


def local_folder(artifact: Artifact, cache: Path) -> Path:
    """The artifact's files below ``cache/<digest>``, downloaded and checked on first use.

    Later uses look at the files' sizes only: a cache is this user's own, and a model of 16 GB takes long to hash.
    """
    folder = cache / artifact.digest
    if _complete(artifact, folder):
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix=".partial-") as partial:
        fetched = artifact.fetch(Path(partial) / "files")
        try:
            fetched.rename(folder)
        except OSError:  # another process was faster
            if not _complete(artifact, folder):
                raise
    return folder


def _complete(artifact: Artifact, folder: Path) -> bool:
    paths = [(folder / file.path, file.size) for file in artifact.files]
    return all(path.is_file() and path.stat().st_size == size for path, size in paths)
