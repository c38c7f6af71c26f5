"""Small JSON records of a run, below ``runs/<run key>/`` in the store: the run itself, and one record per step.

They are how steps in processes (or pods) of their own tell ``finish`` what happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ichigo import recipe as recipes
from ichigo.errors import IntegrityError, UserError
from ichigo.hashing import canonical_json, sha256_bytes
from ichigo.recipe.schema import Recipe
from ichigo.store import NoSuchObject, Store

SUMMARY, REPORT = "summary.json", "report.html"


@dataclass(frozen=True)
class RunRecord:
    """One run: its key, its recipe and its MLflow parent."""

    run_key: str
    recipe_uri: str
    recipe_digest: str
    fingerprint: str
    experiment: str = ""  # MLflow experiment id; empty before the parent run exists
    mlflow_run: str = ""
    started: float = 0.0  # seconds since the epoch


@dataclass
class StepRecord:
    """What one step did; times in seconds since the epoch, durations in seconds."""

    name: str
    status: str = "running"  # running, done, reused, skipped (by the recipe), failed, cancelled
    reason: str = ""
    exit_code: int = 0  # of a step that failed: whose fault it is (ichigo.errors)
    process_started: float = 0.0
    entered: float = 0.0
    started: float = 0.0
    finished: float = 0.0
    peak_memory: int = 0  # bytes: the largest resident set of a process of the step
    artifact: dict[str, Any] | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    mlflow_run: str = ""
    heavy: list[str] = field(default_factory=list)  # what costs seconds to import and this process has imported


def facts_line(facts: Mapping[str, Any]) -> str:
    """The facts of a step that are numbers, in one line for a person."""
    return ", ".join(f"{name} {_number(value)}" for name, value in facts.items() if isinstance(value, int | float))


def _number(value: float) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def read_recipe(store: Store, uri: str, digest: str) -> Recipe:
    """The recipe at ``uri``; :class:`IntegrityError` if its bytes do not have the digest."""
    data = store.objects.get(uri.removeprefix(store.objects.uri + "/"))
    if sha256_bytes(data) != digest:
        raise IntegrityError(f"the recipe at {uri} has digest {sha256_bytes(data)}, the run was started with {digest}")
    return recipes.parse(data.decode())


def save_recipe(store: Store, recipe: Recipe) -> tuple[str, str]:
    """Upload a recipe; returns its URI and digest. Local paths travel with it, its fingerprint leaves them out."""
    data = canonical_json(json.loads(recipe.model_dump_json()))
    digest = sha256_bytes(data)
    store.objects.put(f"recipes/{digest}.json", data)
    return f"{store.objects.uri}/recipes/{digest}.json", digest


def run_keys(store: Store) -> list[str]:
    """The keys of every run that ever began in ``store``."""
    found = (key.split("/") for key, _ in store.objects.list("runs/"))
    return [parts[1] for parts in found if parts[2:] == ["run.json"]]


class Records:
    """The records of one run."""

    def __init__(self, store: Store, run_key: str) -> None:
        self.store, self.run_key = store, run_key
        self._prefix = f"runs/{run_key}"

    @classmethod
    def at(cls, uri: str) -> Records:
        """The records around a run record's address, ``<store>/runs/<run key>/run.json``."""
        root, found, key = uri.removesuffix("/run.json").rpartition("/runs/")
        if not found:
            raise UserError(
                f"{uri!r} is no address of a run record; it looks like s3://bucket/prefix/runs/KEY/run.json"
            )
        return cls(Store.at(root), key)

    @property
    def uri(self) -> str:
        """The address of the run record."""
        return f"{self.store.objects.uri}/{self._prefix}/run.json"

    def save_run(self, record: RunRecord) -> None:
        """Write the run record."""
        self._put("run.json", asdict(record))

    def run(self) -> RunRecord | None:
        """The run record, or None before ``begin`` wrote it."""
        try:
            return RunRecord(**self._get("run.json"))
        except NoSuchObject:
            return None

    def save_step(self, record: StepRecord) -> None:
        """Write a step's record, replacing an earlier one (a retried step)."""
        self._put(f"steps/{record.name}.json", asdict(record))

    def step(self, name: str) -> StepRecord | None:
        """What an earlier attempt of a step said, or None."""
        try:
            return StepRecord(**self._get(f"steps/{name}.json"))
        except NoSuchObject:
            return None

    def steps(self) -> list[StepRecord]:
        """Every step that said something, in the order they started."""
        keys = [key for key, _ in self.store.objects.list(f"{self._prefix}/steps/")]
        records = [StepRecord(**json.loads(self.store.objects.get(key))) for key in keys]
        return sorted(records, key=lambda record: record.process_started)

    def save_summary(self, summary: Mapping[str, Any]) -> None:
        """Write the end of the run."""
        self._put(SUMMARY, summary)

    def save_report(self, page: str) -> None:
        """Write what a person reads of the run."""
        self.store.objects.put(f"{self._prefix}/{REPORT}", page.encode())

    def report(self) -> str | None:
        """The page, or None where there is none."""
        try:
            return self.store.objects.get(f"{self._prefix}/{REPORT}").decode()
        except NoSuchObject:
            return None

    def summary(self) -> dict[str, Any] | None:
        """The end of the run, or None while it goes on."""
        try:
            return self._get(SUMMARY)
        except NoSuchObject:
            return None

    def _put(self, name: str, value: Mapping[str, Any]) -> None:
        self.store.objects.put(f"{self._prefix}/{name}", canonical_json(value))

    def _get(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.objects.get(f"{self._prefix}/{name}"))
        return found
