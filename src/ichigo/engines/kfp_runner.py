"""The process that executes the compiled pipeline with ``kfp.local``: ``python -m ichigo.engines.kfp_runner REQUEST``.

A process of its own, because kfp.local prints everything to its own stdout, replaces ``print`` per thread, and runs no
exit handler when it is interrupted: so :mod:`ichigo.engines.local` reads its output, and can end it with all its
children. Its standard input is held open by that parent; when it closes, the parent is gone, and this process ends
its whole group and leaves no file behind.

``REQUEST`` is a JSON file with ``pipeline`` (the IR) and ``arguments``; its folder is KFP's scratch folder.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import threading
import warnings
from pathlib import Path

_SWEEP = """\
import os, shutil, signal, sys
os.killpg(int(sys.argv[1]), signal.SIGKILL)
shutil.rmtree(sys.argv[2], ignore_errors=True)
"""


def execute(pipeline: Path, arguments: dict[str, str], scratch: Path) -> None:
    """Run the IR at ``pipeline``; raises ``RuntimeError`` from KFP when a step failed.

    No ``workspace_root`` is ever given: KFP deletes that folder after each run, also one that the user named.
    """
    warnings.filterwarnings("ignore", module=r"kfp\..*")  # image names without "python", resources without effect
    from kfp import components, local

    call_python_by_name(scratch / "bin")
    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(scratch / "kfp"), raise_on_error=True)
    components.load_component_from_file(str(pipeline))(**arguments)


def call_python_by_name(folder: Path) -> None:
    """Let ``python3`` be found in ``folder``, and let this process call its interpreter by that name.

    kfp.local puts ``sys.executable`` in place of the text "python3" in every argument of a step, unquoted, and also
    where the text is part of a path or a run key. With this name the replacement changes nothing.
    """
    folder.mkdir()
    script = folder / "python3"
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} "$@"\n')
    script.chmod(0o700)
    os.environ["PATH"] = f"{folder}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    sys.executable = script.name


def main(request: Path) -> int:
    """Execute a request file; the exit status is 1 when a step failed."""
    scratch, body = request.parent, json.loads(request.read_text())
    sweep = [sys.executable, "-c", _SWEEP, str(os.getpgrp()), str(scratch)]
    threading.Thread(target=_end_with_parent, args=(sweep,), daemon=True).start()
    try:
        execute(Path(body["pipeline"]), body["arguments"], scratch)
    except RuntimeError as error:
        print(f"[kfp] {error}", flush=True)
        return 1
    return 0


def _end_with_parent(sweep: list[str]) -> None:
    """When the parent closes our standard input, have a process outside our group end the group."""
    os.read(sys.stdin.fileno(), 1)
    subprocess.Popen(sweep, start_new_session=True, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
