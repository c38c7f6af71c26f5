"""Closes MLflow runs that nobody runs: RUNNING ones whose owner (:mod:`ichigo.tracking.owners`) is gone for certain.

A process that is killed cannot end its run, and one that runs no more cannot close the runs of others; so whoever comes
next does it. MLflow is asked by its REST interface, because importing its client takes 1.4 s and ``ichigo status``
should not.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ichigo.engines.platform.endpoints import Endpoints, ask_mlflow
from ichigo.tracking.owners import OWNER, REASON, Owner

_PAGE = 1000


@dataclass(frozen=True)
class Closed:
    """A run that was closed, and why."""

    run_id: str
    name: str
    reason: str

    def __str__(self) -> str:
        return f"closed {self.name} (MLflow run {self.run_id}): {self.reason}"


def reap(endpoints: Endpoints) -> list[Closed]:
    """Set every run of a gone owner to KILLED, with the reason in its tag ``ichigo.reason``.

    Left alone: runs of living processes, of other machines, containers and users, and runs that name no owner.

    Raises:
        PlatformError: MLflow does not answer as it should.
    """
    if urlsplit(endpoints.mlflow).scheme not in ("http", "https"):
        return []  # a database or a hosted service: nothing at an address of its own
    return [_close(endpoints, run, owner) for run, owner in list(_left(endpoints))]


def _left(endpoints: Endpoints) -> Iterator[tuple[dict[str, Any], Owner]]:
    me = Owner.this()
    if me is None:
        return
    ours = {"filter": "name LIKE 'ichigo/%'", "max_results": _PAGE}
    experiments = [one["experiment_id"] for one in _all(endpoints, "experiments", ours)]
    open_here = f"attributes.status = 'RUNNING' and tags.`{OWNER}` LIKE '{me.host} %'"
    asked = {"experiment_ids": experiments, "filter": open_here, "max_results": _PAGE}
    for run in _all(endpoints, "runs", asked) if experiments else ():
        owner = Owner.parse(_tags(run)[OWNER])
        if owner and owner.is_gone(began=int(run["info"]["start_time"]) / 1000):
            yield run, owner


def _all(endpoints: Endpoints, kind: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every result of a search, page by page."""
    token = None
    while True:
        page = ask_mlflow(endpoints, f"{kind}/search", asked | ({"page_token": token} if token else {}))
        yield from page.get(kind, ())
        token = page.get("next_page_token")
        if not token:
            return


def _tags(run: dict[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag["value"] for tag in run["data"]["tags"]}


def _close(endpoints: Endpoints, run: dict[str, Any], owner: Owner) -> Closed:
    run_id, name = run["info"]["run_id"], run["info"]["run_name"]
    reason = f"its process {owner.pid} on {owner.host} ended without a word (killed, or the machine went down)"
    ask_mlflow(endpoints, "runs/set-tag", {"run_id": run_id, "key": REASON, "value": reason})
    ended = {"run_id": run_id, "status": "KILLED", "end_time": int(time.time() * 1000)}
    ask_mlflow(endpoints, "runs/update", ended)
    return Closed(run_id, name, reason)
