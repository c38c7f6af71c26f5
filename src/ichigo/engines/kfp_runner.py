"""The process that executes the compiled pipeline with ``kfp.local``: ``python -m ichigo.engines.kfp_runner REQUEST``.

A process of its own, because kfp.local prints everything to its own stdout, replaces ``print`` per thread, and runs no
exit handler when it is interrupted: so :mod:`ichigo.engines.local` reads its output, and can end it with all its
children. Its standard input is held open by that parent; when it closes, the parent is gone and this process ends its
whole group.

``REQUEST`` is a JSON file: ``pipeline`` (the IR), ``root`` (KFP's scratch folder), ``arguments``.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import warnings
from pathlib import Path


def _die_with_parent() -> None:
    """End this process group when the parent closes our standard input."""
    os.read(sys.stdin.fileno(), 1)
    os.killpg(os.getpgrp(), signal.SIGKILL)


def execute(pipeline: Path, root: Path, arguments: dict[str, str]) -> None:
    """Run the IR at ``pipeline``; raises ``RuntimeError`` from KFP when a step failed.

    No ``workspace_root`` is ever given: KFP deletes that folder after each run, also one that the user named.
    """
    warnings.filterwarnings("ignore", module=r"kfp\..*")  # image names without "python", resources without effect
    from kfp import components, local

    local.init(local.SubprocessRunner(use_venv=False), pipeline_root=str(root), raise_on_error=True)
    components.load_component_from_file(str(pipeline))(**arguments)


def main(request: Path) -> int:
    """Execute a request file; the exit status is 1 when a step failed."""
    threading.Thread(target=_die_with_parent, daemon=True).start()
    body = json.loads(request.read_text())
    try:
        execute(Path(body["pipeline"]), Path(body["root"]), body["arguments"])
    except RuntimeError as error:
        print(f"[kfp] {error}", flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
