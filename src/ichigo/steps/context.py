"""What every step shares: the run it belongs to, reuse, its nested MLflow run, and its record.

A step is a ``with open_step(...)`` block that asks for its artifact by identity. If the store has it, the step says so
and ends without importing torch or mlflow; if not, it says which field changed, opens a nested MLflow run, and builds
it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ichigo import recipe as recipes
from ichigo.errors import IchigoError, PlatformError, exit_code_of
from ichigo.progress import STEP_VARIABLE
from ichigo.recipe.schema import Recipe
from ichigo.steps import ENTERED
from ichigo.steps.records import Records, RunRecord, StepRecord, facts_line, read_recipe
from ichigo.store import Artifact, Draft, Identity, Reference, Store, code_digest
from ichigo.tracking.runs import DatasetInput, RunTree

LINE = "[ichigo]"
_HEAVY = ("torch", "deepspeed", "transformers", "mlflow")  # 1.4 to 7 s each; a reused artifact needs none of them
_SHOWN = 3  # changed fields named when nothing could be reused
_DIGITS = 12  # of a digest, for a person


class Step:
    """One step of one run."""

    def __init__(self, name: str, records: Records, run: RunRecord, recipe: Recipe) -> None:
        self.records, self.run, self.recipe = records, run, recipe
        self.store: Store = records.store
        self.record = StepRecord(name, process_started=_process_start(), entered=ENTERED, started=time.time())
        self._before = records.step(name)  # an attempt of this run whose process ended
        self._tree: RunTree | None = None
        self._after_commit: list[Callable[[], None]] = []
        self._curves: set[str] = set()  # metrics that have a point per step, to which no final number is added

    def say(self, message: str) -> None:
        """One line for the person who watches."""
        print(f"{LINE} {self.record.name} | {message}", flush=True)

    def open(self, path: str) -> Artifact:
        """The artifact whose reference lies in the small file at ``path``."""
        return self.store.open(Reference.load(Path(path)))

    def artifact(
        self,
        kind: str,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Artifact],
        build: Callable[[Draft], None],
        modules: tuple[str, ...],
        digests: Mapping[str, str] | None = None,
    ) -> Artifact:
        """The artifact of this identity: found in the store, or built by ``build`` in a folder and committed.

        ``inputs`` are the parents; each counts with its digest unless ``digests`` names a narrower one (the part of
        the input that the step reads, or an input that is no artifact). ``modules`` are where the code digest starts.
        """
        known = {name: artifact.digest for name, artifact in inputs.items()} | dict(digests or {})
        identity = Identity(kind, settings, known, code_digest(*modules))
        artifact = self.store.find(identity)
        if artifact is None:
            self.say(f"runs: {self._why_not(identity)}")
            artifact = self._build(identity, inputs, build)
            self.record.status = "done"
        else:
            self.record.status, self.record.reason = "reused", f"made by {artifact.run or 'an earlier run'}"
            self.say(f"reused {artifact.reference.uri}, {self.record.reason}")
        self.record.artifact = {"kind": kind, "uri": artifact.reference.uri, "digest": artifact.digest}
        self.record.facts.update(artifact.facts)
        return artifact

    def skip(self, reason: str, stands_in: Artifact) -> Artifact:
        """Make nothing: the artifact of another step or run stands in for this step's own."""
        self.record.status, self.record.reason = "skipped", reason
        reference = stands_in.reference
        self.record.artifact = {"kind": reference.kind, "uri": reference.uri, "digest": reference.digest}
        return stands_in

    def _build(self, identity: Identity, inputs: Mapping[str, Artifact], build: Callable[[Draft], None]) -> Artifact:
        self.log_inputs(inputs)
        parents = {name: artifact.reference for name, artifact in inputs.items()}
        of = {"recipe": self.run.fingerprint, "run": self.run.run_key}
        with self.store.write(identity, parents=parents, **of, keep=True) as draft:
            if draft.kept:
                self.say("takes up the finished work that an earlier run left on this disk")
            else:
                build(draft)
        for check in self._after_commit:
            check()
        numbers = {name: value for name, value in draft.facts.items() if isinstance(value, int | float)}
        self.log_metrics({name: value for name, value in numbers.items() if name not in self._curves})
        self.tree.set_tags(self.mlflow_run, {"ichigo.artifact": draft.committed.reference.uri})
        return draft.committed

    def _why_not(self, identity: Identity) -> str:
        recent = [_comparable(other) for other in self.store.recent(identity.kind)]
        changes = [recipes.differences(other, _comparable(identity)) for other in recent]
        if not changes:
            self.record.reason = f"no {identity.kind} was made before"
            return self.record.reason
        nearest = min(changes, key=len)
        if not nearest:
            self.record.reason = "its bytes are gone from the store"
            return self.record.reason
        more = f" and {len(nearest) - _SHOWN} more" if len(nearest) > _SHOWN else ""
        self.record.reason = f"changed: {'; '.join(nearest[:_SHOWN])}{more}"
        return self.record.reason

    @property
    def tree(self) -> RunTree:
        """The MLflow runs of this pipeline run; the first use imports mlflow (1.4 s)."""
        if self._tree is None:
            self._tree = RunTree(self.run.experiment, self.run.mlflow_run)
        return self._tree

    @property
    def mlflow_run(self) -> str:
        """The id of this step's nested run: on first use opened, or that of an attempt before this one opened again."""
        if not self.record.mlflow_run:
            if self._before and self._before.mlflow_run:
                self.tree.reopen_step(self._before.mlflow_run)
                self.record.mlflow_run = self._before.mlflow_run
            else:
                self.record.mlflow_run = self.tree.open_step(self.record.name, self.run.run_key)
            self.records.save_step(self.record)  # for the attempt after this one, should this process be killed
        return self.record.mlflow_run

    def log_inputs(self, inputs: Mapping[str, Artifact]) -> None:
        """Record the artifacts that this step reads as MLflow dataset inputs."""
        datasets = [
            DatasetInput(f"{artifact.reference.kind}", artifact.digest, artifact.reference.uri, name)
            for name, artifact in inputs.items()
        ]
        if datasets:
            self.tree.log_inputs(self.mlflow_run, datasets)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Parameters of the nested run."""
        self.tree.log_params(self.mlflow_run, params)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Final numbers of the nested run."""
        if metrics:
            self.tree.log_metrics(self.mlflow_run, metrics)

    def draws(self, curves: Iterable[str]) -> None:
        """Say which metrics get a point per step from elsewhere; no final number is added to those."""
        self._curves |= set(curves)

    def after_commit(self, check: Callable[[], None]) -> None:
        """Have ``check`` called once the artifact is committed: it may still fail the step, but costs no work."""
        self._after_commit.append(check)

    def finish(self) -> None:
        """End the nested run and write the record of a step that did its work."""
        self._end_run("FINISHED")
        if self.record.status == "running":
            self.record.status = "done"
        self._save()

    def fail(self, error: BaseException) -> None:
        """End the nested run and write the record of a step that ``error`` ended, as far as services still answer."""
        self.record.status, self.record.reason = "failed", str(error) or type(error).__name__
        self.record.exit_code = exit_code_of(error)
        for act in (self._save, lambda: self._end_run("FAILED")):
            try:
                act()
            except PlatformError as another:
                self.say(str(another))

    def _end_run(self, status: str) -> None:
        if self.record.mlflow_run:
            self.tree.end(self.record.mlflow_run, status)

    def _save(self) -> None:
        self.record.finished, self.record.peak_memory = time.time(), _peak_memory()
        self.record.heavy = [name for name in _HEAVY if sys.modules.get(name)]
        facts = facts_line(self.record.facts) if self.record.status == "done" else ""
        seconds = self.record.finished - self.record.started
        self.say(f"{self.record.status} in {seconds:.1f} s{f': {facts}' if facts else ''}")
        self.records.save_step(self.record)


@contextmanager
def open_step(name: str, run: str) -> Iterator[Step]:
    """Run one step of the run whose record lies at the URI ``run``.

    An error is written to the step's record before it ends the process; one of ours ends it with its exit code and its
    message alone, any other with its traceback.
    """
    os.environ[STEP_VARIABLE] = name
    records = Records.at(run)
    record = records.run()
    if record is None:
        raise SystemExit(f"{run} does not exist: the step `begin` did not finish")
    recipe = read_recipe(records.store, record.recipe_uri, record.recipe_digest)
    step = Step(name, records, record, recipe)
    records.save_step(step.record)  # a process that is killed cannot say so; its record stays "running"
    try:
        yield step
        step.finish()
    except BaseException as error:
        step.fail(error)
        if not isinstance(error, IchigoError):
            traceback.print_exc()
        print(f"{LINE} {name} | {type(error).__name__}: {error}", flush=True)
        raise SystemExit(exit_code_of(error)) from None


def _comparable(identity: Identity) -> dict[str, Any]:
    inputs = {name: digest[:_DIGITS] for name, digest in identity.inputs.items()}
    plain = {"settings": identity.settings, "inputs": inputs, "code": identity.code[:_DIGITS]}
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


def _process_start() -> float:
    """When this process was created (seconds since the epoch), from Linux's /proc; elsewhere when our code began."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return ENTERED
    since_boot = time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.time() - since_boot + ticks / os.sysconf("SC_CLK_TCK")


def _peak_memory() -> int:
    """Bytes: the largest resident set that this process, or one that it waited for, ever had (training's workers too).

    Linux counts a new process from what its parent had, so the number is never below that of what started the step.
    """
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2)
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
