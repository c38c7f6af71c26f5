"""``ichigo run``: the compiled pipeline on this machine, step by step, each in a process of its own.

The engine uploads the recipe, starts :mod:`ichigo.engines.kfp_runner`, keeps its output in ``run.log``, hands what the
steps say to a listener, and brings the summary home to ``<home>/runs/<run key>/summary.json`` (``runs/latest`` points
there). On cancel it ends every child and calls the pipeline's closing step itself, because kfp.local runs no exit
handler then.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ichigo import recipe as recipes
from ichigo.engines.pipeline import compiled_pipeline
from ichigo.engines.platform import Endpoints
from ichigo.errors import Cancelled, IchigoError, StepError, UserError
from ichigo.progress import PREFIX
from ichigo.recipe.schema import Recipe
from ichigo.steps import finish
from ichigo.steps.context import LINE
from ichigo.steps.records import Records, save_recipe
from ichigo.store import Store

_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_REWRITTEN = "python3"  # kfp.local replaces this text in every argument by its interpreter's path, paths included
_GRACE = 10.0  # seconds between SIGTERM and SIGKILL

Listener = Callable[[str, str], None]
"""Called with (kind, text): ``step`` for what a step says, ``progress`` for a beat of long work."""


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


def run(recipe: Recipe, endpoints: Endpoints, home: Path, listen: Listener) -> dict[str, Any]:
    """Run a recipe to its end and return the summary (see :mod:`ichigo.steps.summary`).

    Raises:
        StepError: a step failed; the message is the summary's reason.
        Cancelled: SIGINT or SIGTERM arrived; children are gone and the run is closed.
    """
    os.environ.update(endpoints.environment())
    this = _prepare(recipe, home)
    with scratch_folder() as scratch:
        request = scratch / "request.json"
        arguments = {"run": this.uri, "recipe_uri": this.recipe_uri, "recipe_digest": this.recipe_digest}
        body = {"pipeline": str(compiled_pipeline()), "root": str(scratch / "kfp"), "arguments": arguments}
        request.write_text(json.dumps(body))
        summary = _supervise(this, request, listen)
    _bring_home(this, summary, home)
    if summary["status"] == "cancelled":
        raise Cancelled(f"run {this.key} was cancelled; run again to go on from what is committed")
    if summary["status"] != "succeeded":
        raise StepError(f"{summary['reason']}\n(log: {this.folder / 'run.log'})")
    return summary


def _prepare(recipe: Recipe, home: Path) -> Run:
    store = Store.at(os.environ["ICHIGO_STORE"])
    uri, digest = save_recipe(store, recipe)
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    key = f"{recipe.name}-{stamp}-{recipes.fingerprint(recipe)[:6]}-{secrets.token_hex(2)}"
    folder = home / "runs" / key
    folder.mkdir(parents=True)
    return Run(key, folder, uri, digest, Records(store, key))


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder whose path does not hold the text that kfp.local rewrites."""
    places = [Path(tempfile.gettempdir()), Path("/tmp"), Path("/var/tmp"), Path.home()]
    safe = [place for place in places if _REWRITTEN not in str(place.resolve()) and os.access(place, os.W_OK)]
    if not safe:
        raise UserError(f"no temporary folder without {_REWRITTEN!r} in its path (KFP rewrites it); set TMPDIR to one")
    folder = Path(tempfile.mkdtemp(prefix="ichigo-run-", dir=safe[0]))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _supervise(this: Run, request: Path, listen: Listener) -> dict[str, Any]:
    """Run the request to its end; the summary is the one that the exit handler wrote, or one written here."""
    command = [sys.executable, "-m", "ichigo.engines.kfp_runner", str(request)]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    with _terminable():
        try:
            code = _relay(child, this.folder / "run.log", listen)
        except KeyboardInterrupt:
            listen("step", "engine | stopping: ending every step, then closing the run")
            stop_tree(child)
            return finish.main(this.uri, this.recipe_uri, this.recipe_digest, "CANCELLED")
    summary = this.records.summary()
    if summary is None:
        message = f"the pipeline ended with status {code} and without its exit handler"
        return finish.main(this.uri, this.recipe_uri, this.recipe_digest, "FAILED", message)
    return summary


def _relay(child: subprocess.Popen[str], log: Path, listen: Listener) -> int:
    assert child.stdout is not None
    with log.open("w") as out:
        for line in child.stdout:
            plain = _ANSI.sub("", line).rstrip()
            out.write(plain.lstrip() + "\n")
            for prefix, kind in ((LINE, "step"), (PREFIX, "progress")):
                if prefix in plain:
                    listen(kind, plain.partition(prefix)[2].strip())
    return child.wait()


@contextmanager
def _terminable() -> Iterator[None]:
    """Let SIGTERM end the run as SIGINT does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def stop_tree(child: subprocess.Popen[str]) -> None:
    """End a process with everything below it, also children in sessions of their own (torchrun's workers)."""
    import psutil

    try:
        below = psutil.Process(child.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        below = []
    family: Sequence[Any] = [*below, psutil.Process(child.pid)] if child.poll() is None else below
    _signal(family, signal.SIGTERM)
    _, alive = psutil.wait_procs(family, timeout=_GRACE)
    _signal(alive, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=_GRACE)
    child.wait()


def _signal(processes: Sequence[Any], number: int) -> None:
    import psutil

    for process in processes:
        try:
            process.send_signal(number)
        except psutil.NoSuchProcess:
            continue


def _bring_home(this: Run, summary: dict[str, Any], home: Path) -> None:
    (this.folder / "summary.json").write_text(json.dumps(summary, indent=2, sort_keys=True) + "\n")
    latest = home / "runs" / "latest"
    link = latest.with_name(f".latest-{this.key}")
    link.symlink_to(this.key)
    link.replace(latest)  # atomic: a reader sees the old run or the new one


def latest_summary(home: Path) -> dict[str, Any]:
    """The summary of the newest run on this machine; :class:`IchigoError` where there is none."""
    path = home / "runs" / "latest" / "summary.json"
    if not path.exists():
        raise IchigoError(f"no run has ended here yet: {path} does not exist")
    found: dict[str, Any] = json.loads(path.read_text())
    return found
