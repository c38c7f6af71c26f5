"""``ichigo compare A B …``: what differs between runs or registered models, with paired tests on the same items.

A run is named by its key, by the folder or the ``summary.json`` that it left, or ``latest``; a registered model by
``name``, ``name@alias`` or ``name@version``, which stands for the run that registered it.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.report.comparison import Side
    from ichigo.steps.records import Records
    from ichigo.store import Artifact, Store

HELP = "compare runs or registered models: recipes, data, measures with tests, curves, items where they differ"
NAMED_BY = "a run's key, its folder or summary.json, latest, or a registered model (name, name@alias, name@version)"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The runs, and where the page and the data go."""
    parser.add_argument(
        "runs", metavar="RUN", nargs="+", help=f"{NAMED_BY}; the first is what the others are set against"
    )
    parser.add_argument("--html", metavar="FILE", type=Path, help="write a page that stands alone")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="write everything as JSON, every differing item among it"
    )


def main(args: argparse.Namespace) -> int:
    """Open every run, compare, print."""
    from ichigo.report import comparison, differences

    store = connected()
    found = comparison.compare([side(name, store) for name in args.runs])
    if args.html:
        args.html.write_text(differences.rendered(found), encoding="utf-8")
    if args.json:
        text = json.dumps(comparison.as_data(found), indent=2, sort_keys=True, ensure_ascii=False)
        args.json.write_text(text + "\n", encoding="utf-8")
    print(differences.plain(found))
    return 0


def connected() -> Store:
    """The store of the configured platform, or of the embedded one, which is started."""
    from ichigo.engines import platform
    from ichigo.store import Store

    endpoints = platform.resolve(home(), os.environ)
    platform.check_reachable(endpoints)
    os.environ.update(endpoints.environment())
    return Store.at(endpoints.store)


def home() -> Path:
    """Where runs of this machine lie."""
    from ichigo.engines import platform

    return platform.default_home(os.environ).resolve()


def records_of(name: str, store: Store) -> Records:
    """The records of the run that ``name`` means; :class:`UserError` where there is none, with what is known."""
    from ichigo.steps.records import Records, run_keys

    key = _key(name)
    if "/" in key or not key:
        raise UserError(f"{name} is no run; name {NAMED_BY}")
    records = Records(store, key)
    if records.run() is None:
        newest = ", ".join(sorted(run_keys(store))[-3:]) or "none"
        raise UserError(f"{store.objects.uri} has no run {key!r} (known are … {newest}); name {NAMED_BY}")
    return records


def _key(name: str) -> str:
    place = home() / "runs" / "latest" if name == "latest" else Path(name)
    summary = place / "summary.json" if place.is_dir() else place
    if summary.is_file():
        return _key_in(summary)
    if name == "latest":
        raise UserError(f"no run has ended here yet ({place} does not exist); name {NAMED_BY}")
    if "@" not in name and not _registered(name):
        return name
    from ichigo.registry.lookup import find

    model = find(name)
    if not model.run:
        raise UserError(f"{model} was registered by hand: no run is known that could be compared")
    return model.run


def _registered(name: str) -> bool:
    from ichigo.registry.lookup import registered

    return any(model.name == name for model in registered())


def _key_in(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8"))["run_key"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path} is not the summary of a run ({error!r}); give .ichigo/runs/KEY/summary.json") from None


def side(name: str, store: Store) -> Side:
    """The run that ``name`` means, opened; :class:`UserError` if it has not ended."""
    from ichigo.report.comparison import Side
    from ichigo.report.gather import items_of
    from ichigo.steps.records import read_recipe
    from ichigo.steps.reporting import stage_curves
    from ichigo.tracking.runs import RunTree

    records = records_of(name, store)
    run, summary = records.run(), records.summary()
    if run is None or summary is None:
        raise UserError(f"{name}: run {records.run_key} has not ended; compare it when it has")
    artifacts = _artifacts(summary, store)
    evaluation, corpus = artifacts.get("evaluate"), artifacts.get("prepare")
    tree = RunTree(run.experiment, run.mlflow_run) if run.mlflow_run else None
    return Side(
        name if name != "latest" else records.run_key,
        summary,
        read_recipe(store, run.recipe_uri, run.recipe_digest),
        artifacts,
        corpus.read_json("summary.json") if corpus else {},
        items_of(evaluation) if evaluation else (),
        stage_curves(records, summary, tree) if tree else {},
    )


def _artifacts(summary: Mapping[str, Any], store: Store) -> dict[str, Artifact]:
    return {step["name"]: store.open_uri(step["artifact"]["uri"]) for step in summary["steps"] if step["artifact"]}
