"""``ichigo run``: the compiled pipeline on this machine, step by step, each in a process of its own.

The engine uploads the recipe, starts :mod:`ichigo.engines.kfp_runner`, keeps its output in ``run.log``, hands what the
steps say to a listener, and brings the summary and the report home to ``<home>/runs/<run key>/`` (``runs/latest``
points there). However a run ends, no process of it is left, nor a file in the temporary folder. On cancel the engine
calls the pipeline's closing step itself, because kfp.local runs no exit handler then.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import Any

from ichigo import recipe as recipes
from ichigo.engines.pipeline import compiled_pipeline
from ichigo.engines.platform import Endpoints
from ichigo.errors import Cancelled, InfrastructureError, PlatformError, RecipeError, UserError, error_for
from ichigo.home import HOME_VARIABLE
from ichigo.progress import PREFIX
from ichigo.recipe.schema import FirstStep, FolderBase, ImportTokenizer, Recipe, Start
from ichigo.registry.lookup import find as registered
from ichigo.steps import finish
from ichigo.steps.context import LINE
from ichigo.steps.records import REPORT, Records, save_recipe
from ichigo.steps.summary import render
from ichigo.store import Store
from ichigo.tracking.owners import OWNER_VARIABLE, Owner

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_GRACE = 10.0  # seconds until a killed process has to be gone
_SHARED_CORES = {"OMP_WAIT_POLICY": "PASSIVE"}
"""For steps side by side: with threads that spin while they wait, two steps on 2 cores encoded a shard in 3.5 s each
instead of 0.23 s."""
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Listener = Callable[[str, str], None]
"""Called with (kind, text): ``step`` for what a step says, ``progress`` for a beat of long work, ``end`` for the table
of a run that has ended, however it did."""


@dataclass(frozen=True)
class Run:
    """One run on this machine."""

    key: str
    folder: Path
    recipe_uri: str
    recipe_digest: str
    records: Records

    @property
    def uri(self) -> str:
        """Where the run's record lies."""
        return self.records.uri

    def close(self, state: str, message: str = "") -> dict[str, Any]:
        """Do what the exit handler does, from here."""
        return finish.close(self.uri, self.recipe_uri, self.recipe_digest, state, message)


def run(recipe: Recipe, endpoints: Endpoints, home: Path, listen: Listener) -> dict[str, Any]:
    """Run a recipe to its end and return the summary (see :mod:`ichigo.steps.summary`).

    Raises:
        IchigoError: a step failed; the message is the summary's reason, the class says whose fault it was.
        Cancelled: SIGINT, SIGTERM or SIGHUP arrived; children are gone and the run is closed.
    """
    os.environ.update(endpoints.environment())
    this = _prepare(recipe, home)
    with tempfile.TemporaryDirectory(prefix="ichigo-run-", ignore_cleanup_errors=True) as scratch:
        summary = _supervise(this, Path(scratch), listen)
    _bring_home(this, summary, home)
    listen("end", render(summary))
    if summary["status"] == "cancelled":
        raise Cancelled(f"run {this.key} was cancelled; run again to go on from what is committed")
    if summary["status"] != "succeeded":
        raise error_for(summary["exit_code"])(f"{summary['reason']}\n(log: {this.folder / 'run.log'})")
    return summary


def check_places(recipe: Recipe) -> None:
    """Look at every place that a run of this recipe needs here, so that a wrong path costs no work.

    Raises:
        RecipeError: with a line for each field that is not set, or whose file or folder does not exist.
    """
    problems = recipes.missing_places(recipe)
    named = {"data.folder": recipe.data.folder}
    named |= {f"data.sources.{number}.path": one.path for number, one in enumerate(recipe.data.sources)}
    if isinstance(recipe.tokenizer, ImportTokenizer):
        named |= {"tokenizer.model": recipe.tokenizer.model, "tokenizer.whisper": recipe.tokenizer.whisper}
    if isinstance(recipe.base, FolderBase):
        named["base.model"] = recipe.base.model
    here = {field: Path(place) for field, place in named.items() if place and not place.startswith("s3://")}
    absent = [field for field, path in here.items() if not path.exists() and not glob(str(path), recursive=True)]
    problems += [f"{field}: {here[field]} does not exist" for field in absent]
    folder = here.get("data.folder")
    if folder and folder.exists() and not (folder / "metadata.jsonl").is_file():
        problems.append(f"data.folder: {folder} has no metadata.jsonl; write one line per recording into it")
    if problems:
        raise RecipeError(f"{recipe.name} cannot run here yet:", problems)


def starting_at(recipe: Recipe, step: FirstStep, model: str, endpoints: Endpoints) -> Recipe:
    """``recipe`` as it goes on at ``step`` with ``model``: the address of an artifact, or a name in the registry.

    Raises:
        UserError: the registry has no such name, or the artifact is no model.
        IntegrityError: nothing was committed at the address.
    """
    os.environ.update(endpoints.environment())
    uri = model if model.startswith("s3://") else registered(model).uri
    artifact = Store.at(endpoints.store).open_uri(uri)
    if not any(file.path == "config.json" for file in artifact.files):
        raise UserError(f"--model {model}: {uri} is no model but {artifact.reference.kind}; name one with config.json")
    if artifact.reference.kind == "package":  # what goes on is the model in it, whose evaluation may be there already
        uri = artifact.parents["model"]
    return recipe.model_copy(update={"start": Start(step=step, model=uri)})


def _prepare(recipe: Recipe, home: Path) -> Run:
    store = Store.at(os.environ["ICHIGO_STORE"])
    uri, digest = save_recipe(store, recipe)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    key = f"{recipe.name}-{stamp}-{recipes.fingerprint(recipe)[:6]}-{secrets.token_hex(2)}"
    folder = home / "runs" / key
    folder.mkdir(parents=True)
    return Run(key, folder, uri, digest, Records(store, key))


def _supervise(this: Run, scratch: Path, listen: Listener) -> dict[str, Any]:
    """Run the pipeline to its end; the summary is the one that the exit handler wrote, or one written here."""
    with _interruptible():
        child = _start(this, scratch)
        threading.Thread(target=_end_with, args=(child.pid,), daemon=True).start()
        try:
            _relay(child, this.folder / "run.log", listen)
        except KeyboardInterrupt:
            end_group(child)
            with suppress(OSError):  # a terminal that was closed
                listen("step", "engine | every process has ended; closing the run")
            return this.close("CANCELLED")
        except BaseException as error:  # such as a listener whose reader has gone
            end_group(child)
            this.close("FAILED", f"the engine stopped: {error!r}")
            raise
        end_group(child)
    return _summary(this, child.returncode)


def _summary(this: Run, status: int) -> dict[str, Any]:
    summary = this.records.summary()
    if summary is None:
        summary = this.close("FAILED", f"the pipeline ended with status {status} and without its exit handler")
        killed = {"exit_code": InfrastructureError.exit_code} if status < 0 else {}
        return {**summary, **killed}
    if summary["status"] == "succeeded" and status != 0:
        log = this.folder / "run.log"
        raise PlatformError(f"run {this.key} did all its work, but its end could not be written to MLflow; see {log}")
    return summary


def _start(this: Run, scratch: Path) -> subprocess.Popen[str]:
    """Start the runner in a process group of its own, with all temporary files of all steps below ``scratch``."""
    arguments = {"run": this.uri, "recipe_uri": this.recipe_uri, "recipe_digest": this.recipe_digest}
    temporary = scratch / "tmp"
    temporary.mkdir()
    request = scratch / "request.json"
    request.write_text(json.dumps({"pipeline": str(compiled_pipeline()), "arguments": arguments}))
    return subprocess.Popen(
        [sys.executable, "-m", "ichigo.engines.kfp_runner", str(request)],
        env={**_SHARED_CORES, **os.environ, **_of_this_process(this), "TMPDIR": str(temporary)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def _end_with(runner: int) -> None:
    """When the runner ends, end what is left of its group: a step that outlived it would hold on to our pipe.

    The runner is not waited for, so its number cannot be another process's by now.
    """
    with suppress(ChildProcessError, ProcessLookupError):  # waited for, or its group gone, meanwhile
        os.waitid(os.P_PID, runner, os.WEXITED | os.WNOWAIT)
        os.killpg(runner, signal.SIGKILL)


def _of_this_process(this: Run) -> dict[str, str]:
    """What steps must know about the process that they live and die with: its home, and who it is."""
    owner = Owner.this()
    return {HOME_VARIABLE: str(this.folder.parents[1]), **({OWNER_VARIABLE: str(owner)} if owner else {})}


def _relay(child: subprocess.Popen[str], log: Path, listen: Listener) -> None:
    """Copy the runner's output to the log and tell the listener what concerns it, until the runner ends."""
    assert child.stdout is not None
    with log.open("w", buffering=1) as out:
        for line in child.stdout:
            plain = _ANSI.sub("", line).rstrip()
            out.write(plain.lstrip() + "\n")
            for prefix, kind in ((LINE, "step"), (PREFIX, "progress")):
                if prefix in plain:
                    listen(kind, plain.partition(prefix)[2].strip())


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let the first signal that stops a run raise ``KeyboardInterrupt``; ignore more of them while it is closed."""

    def interrupt(*_: object) -> None:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.getsignal(number) for number in _STOPS}
    before = {number: old for number, old in before.items() if old is not signal.SIG_IGN}  # nohup wants to go on
    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


def end_group(child: subprocess.Popen[str]) -> None:
    """Kill what is left of a process group and wait until it is gone.

    torchrun's workers are in sessions of their own, but die with torchrun (:mod:`ichigo.training.orphans`). ``child``
    must not have been waited for: only then its number is certain to be still its own.
    """
    import psutil

    below = psutil.Process(child.pid).children(recursive=True)
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    psutil.wait_procs(below, timeout=_GRACE)
    child.wait()


def _bring_home(this: Run, summary: dict[str, Any], home: Path) -> None:
    (this.folder / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    if page := this.records.report():
        (this.folder / REPORT).write_text(page, encoding="utf-8")
    latest = home / "runs" / "latest"
    link = latest.with_name(f".latest-{this.key}")
    link.symlink_to(this.key)
    link.replace(latest)  # atomic: a reader sees the old run or the new one
