"""The arguments that name a model, shared by the verbs that take one, and the way to its folder.

A model is named by what a person has at hand: nothing (the last run on this machine), a run's ``summary.json`` or its
folder, a name in the registry, an ``s3://`` address, or a model folder. Only a folder needs no platform.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.errors import IntegrityError, UserError

if TYPE_CHECKING:
    from ichigo.engines.platform import Endpoints
    from ichigo.store import Artifact

_KNOWN_BY = "a registered model (name, name@alias or name@version), a run's summary.json or folder, an s3:// address"
_DEFAULT = "default: the model of the last run here"
_TOKENIZER_HELP = "folder or s3:// address of the speech tokenizer; default: the one the model was made with"


@dataclass(frozen=True)
class Model:
    """A model on this disk: its folder, its speech tokenizer's (None: not wanted), what a person calls it."""

    folder: Path
    tokenizer: Path | None
    name: str


@dataclass(frozen=True)
class Stored:
    """A model in a store: its artifact, the run that it is known by ("" unknown), what a person calls it."""

    artifact: Artifact
    run: str
    name: str


@dataclass(frozen=True)
class _Address:
    """Where a model's artifact lies, its digest and the run that it is known by ("" unknown), what a person calls
    it."""

    uri: str
    digest: str
    run: str
    name: str


def stored_argument(parser: argparse.ArgumentParser) -> None:
    """``--model``, for :func:`stored`."""
    parser.add_argument("--model", metavar="MODEL", help=f"{_KNOWN_BY}; {_DEFAULT}")


def arguments(parser: argparse.ArgumentParser, model: str = "--model") -> None:
    """``--model``, or ``model`` as an argument by its place, and ``--tokenizer``, for :func:`locate`."""
    nargs = None if model.startswith("-") else "?"
    parser.add_argument(model, metavar="MODEL", nargs=nargs, help=f"{_KNOWN_BY}, or a model folder; {_DEFAULT}")
    parser.add_argument("--tokenizer", metavar="PLACE", help=_TOKENIZER_HELP)


def locate(args: argparse.Namespace, *, sound: bool) -> Model:
    """The model that the arguments name, on this disk, with its speech tokenizer if ``sound`` is wanted.

    Raises:
        UserError: nothing is known by that name, or a folder's tokenizer was not named.
        IntegrityError: the stored bytes are not those that were committed or registered.
        PlatformError: the platform does not answer.
    """
    from ichigo.registry.package import SPEECH_TOKENIZER

    home = home_folder()
    if given := _given_folder(args.model):
        inside = given / SPEECH_TOKENIZER
        if sound and not args.tokenizer and not inside.is_dir():
            raise UserError(f"{given} is a model folder, which holds no speech tokenizer; name one with --tokenizer")
        own = _folder(args.tokenizer, home) if args.tokenizer else inside
        return Model(given, own if sound else None, str(given))
    found = _stored(args.model, home)
    tokenizer = (_folder(args.tokenizer, home) if args.tokenizer else its_tokenizer(found)) if sound else None
    return Model(on_disk(found.artifact), tokenizer, found.name)


def locate_base(args: argparse.Namespace) -> Path | None:
    """The folder of the base model that ``--base`` names or that ``--model`` was made from; None where neither is."""
    if args.base:
        return _folder(args.base, home_folder())
    if _given_folder(args.model):
        return None
    from ichigo.inference.chain import ancestors

    model = _stored(args.model, home_folder()).artifact
    past = ancestors(model, store_of(model))
    return next((on_disk(one) for one in past if one.reference.kind == "base"), None)


def stored(args: argparse.Namespace) -> Stored:
    """The model that ``--model`` names, in its store, where its past is known; raises what :func:`locate` raises."""
    if given := _given_folder(args.model):
        raise UserError(
            f"{given} is a model folder, which does not say what it was trained on; name its run, its name in the "
            "registry or its s3:// address"
        )
    return _stored(args.model, home_folder())


def on_disk(artifact: Artifact) -> Path:
    """The artifact's files in the cache of this machine."""
    return _cached(artifact, home_folder())


def its_tokenizer(model: Stored) -> Path:
    """The folder of the speech tokenizer that the model was made with."""
    from ichigo.inference.chain import tokenizer_of

    return on_disk(tokenizer_of(model.artifact, store_of(model.artifact)))


def store_of(artifact: Artifact) -> Any:
    """The store in which ``artifact`` lies."""
    from ichigo.store import Store

    return Store.at(artifact.reference.uri.rsplit("/", 3)[0])


def home_folder() -> Path:
    """Where this machine keeps its platform, runs and cache."""
    from ichigo.engines import platform

    return platform.default_home(os.environ).resolve()


def _given_folder(spec: str | None) -> Path | None:
    return Path(spec) if spec and (Path(spec) / "config.json").is_file() else None


def _stored(spec: str | None, home: Path) -> Stored:
    address = _address(spec, Path(spec) if spec else None, home)
    model = _artifact(address.uri, home)
    if address.digest and address.digest != model.digest:
        raise IntegrityError(
            f"{address.name} has digest {address.digest}, what lies at {address.uri} has {model.digest}"
        )
    return Stored(model, address.run or model.run, address.name)


def _address(spec: str | None, given: Path | None, home: Path) -> _Address:
    if spec is None:
        latest = home / "runs" / "latest" / "summary.json"
        if not latest.is_file():
            raise UserError(f"no run has ended here yet ({latest} does not exist); run a recipe or name a --model")
        return _of_run(latest)
    if spec.startswith("s3://"):
        return _Address(spec.rstrip("/"), "", "", spec)
    assert given is not None
    if given.is_file() or (given / "summary.json").is_file():
        return _of_run(given if given.is_file() else given / "summary.json")
    if given.exists() or os.sep in spec:
        raise UserError(f"{spec} is no model folder (it has no config.json) and no run's folder or summary")
    from ichigo.registry import lookup

    connect(home)
    found = lookup.find(spec)
    return _Address(found.uri, found.digest, found.run, str(found))


def _of_run(path: Path) -> _Address:
    """The model of a run: the registered one, or else what its last finished stage made."""
    summary = _summary(path)
    run = summary["run_key"]
    if model := summary["model"]:
        return _Address(model["uri"], model["digest"], run, f"{model['name']} version {model['version']}")
    trained = [step for step in summary["steps"] if (step["artifact"] or {}).get("kind", "").startswith("model")]
    if not trained:
        raise UserError(f"{path}: run {run} {summary['status']} and trained no model; name another one")
    artifact = trained[-1]["artifact"]
    return _Address(artifact["uri"], artifact["digest"], run, f"{trained[-1]['name']} of {run}, unregistered")


def _summary(path: Path) -> dict[str, Any]:
    try:
        summary: dict[str, Any] = json.loads(path.read_text())
        summary["model"], summary["steps"], summary["run_key"], summary["status"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not the summary of a run ({error!r}); give .ichigo/runs/KEY/summary.json") from None
    return summary


def connect(home: Path) -> Endpoints:
    """Let this process use the platform, starting the embedded one if no other is configured."""
    from ichigo.engines import platform

    endpoints = platform.resolve(home, os.environ)
    platform.check_reachable(endpoints)
    os.environ.update(endpoints.environment())
    return endpoints


def _artifact(uri: str, home: Path) -> Artifact:
    """The artifact at ``uri``, in whatever store of the configured S3 it lies."""
    from ichigo.store import Store

    connect(home)
    if uri.count("/") < 6:  # s3://bucket/prefix/KIND/FINGERPRINT/ATTEMPT
        raise UserError(
            f"{uri} is no address of an artifact; it looks like s3://bucket/prefix/KIND/FINGERPRINT/ATTEMPT"
        )
    return Store.at(uri.rsplit("/", 3)[0]).open_uri(uri)


def _cached(artifact: Artifact, home: Path) -> Path:
    from ichigo.inference.chain import local_folder

    if not (home / "cache" / artifact.digest).exists():
        print(f"fetching {artifact.reference.uri}, {artifact.reference.size / 2**20:.0f} MiB", file=sys.stderr)
    return local_folder(artifact, home / "cache")


def _folder(place: str, home: Path) -> Path:
    return _cached(_artifact(place.rstrip("/"), home), home) if place.startswith("s3://") else Path(place)
