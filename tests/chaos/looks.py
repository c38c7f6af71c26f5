"""What is visible in a store and in MLflow after a kill, and at the end."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from ichigo.corpus.tokens import read_tokens
from ichigo.errors import IchigoError, IntegrityError
from ichigo.hashing import sha256_bytes
from ichigo.steps.curves import CURVES
from ichigo.steps.records import Records
from ichigo.store import Artifact, Store
from ichigo.store.artifacts import POINTER
from ichigo.training.checkpoint import MANIFEST, checked_manifest
from ichigo.training.shelf import POINTER as LATEST

STAGES = ("pretrain", "instruct", "enhance")
Curves = dict[str, dict[int, list[float]]]
"""Curve -> step -> the values of its points."""

_REPEATED = ("loss", "learning_rate", "grad_norm")


def partial_artifacts(store: Store) -> list[str]:
    """Artifacts that a pointer names and that are not whole, byte for byte."""
    found = []
    for key, _ in store.objects.list(""):
        if key.endswith(f"/{POINTER}"):
            uri = f"{store.objects.uri}/{key.removesuffix(POINTER)}{json.loads(store.objects.get(key))['attempt']}"
            try:
                with tempfile.TemporaryDirectory() as folder:
                    store.open_uri(uri).fetch(Path(folder))
            except IchigoError as error:
                found.append(str(error))
    return found


def unusable_checkpoints(store: Store) -> list[str]:
    """Checkpoints that a pointer names and that are not whole, byte for byte."""
    found = []
    for key, _ in store.objects.list("checkpoints/"):
        if key.endswith(f"/{LATEST}"):
            place = key.removesuffix(f"/{LATEST}")
            names: dict[str, str] = json.loads(store.objects.get(key))
            found += [problem for name, digest in names.items() for problem in _wrong(store, f"{place}/{name}", digest)]
    return found


def _wrong(store: Store, place: str, digest: str) -> list[str]:
    try:
        manifest = checked_manifest(store.objects.get(f"{place}/{MANIFEST}"), digest, place)
        bad = [
            one.path for one in manifest.files if sha256_bytes(store.objects.get(f"{place}/{one.path}")) != one.sha256
        ]
    except (KeyError, IntegrityError) as error:
        return [f"{place}: {error}"]
    return [f"{place}/{path}" for path in bad]


def rows(shards: list[Artifact]) -> Counter[str]:
    """How often each row was tokenised."""
    found: Counter[str] = Counter()
    for shard in shards:
        with tempfile.TemporaryDirectory() as folder:
            found.update(row.id for row in read_tokens(shard.fetch(Path(folder))))
    return found


def curves(store: Store, mlflow: Any, keys: list[str], stage: str) -> list[Curves]:
    """The curves of a stage in every MLflow run that trained it in these runs: curve -> step -> values."""
    records = [Records(store, key).step(stage) for key in keys]
    runs = sorted({record.mlflow_run for record in records if record and record.mlflow_run})
    return [{name: _history(mlflow, run, name) for name in CURVES} for run in runs]


def _history(mlflow: Any, run: str, name: str) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for point in mlflow.get_metric_history(run, name):
        found.setdefault(point.step, []).append(point.value)
    return found


def curve_problems(
    found: list[dict[str, dict[int, list[float]]]], whole: dict[str, dict[int, list[float]]]
) -> list[str]:
    """What is wrong with the curves of a disturbed stage, against those of the undisturbed one."""
    problems = []
    for run in found:
        doubled = [(name, step) for name, points in run.items() for step, values in points.items() if len(values) > 1]
        other = [
            (name, step) for name in _REPEATED for step, values in run[name].items() if values != whole[name].get(step)
        ]
        problems += [f"{name} of step {step} has several points" for name, step in doubled]
        problems += [f"{name} of step {step} is not the undisturbed one" for name, step in other]
    if not any(run["loss"].keys() == whole["loss"].keys() for run in found):
        problems.append("no run has the whole curve")
    return problems
