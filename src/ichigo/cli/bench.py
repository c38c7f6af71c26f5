"""``ichigo bench RECIPE --out FOLDER``: a recipe several times over, and its results beside its bars.

Each run is a whole one, corpus and tokenizer included: with another seed (``--seeds 1,2,3``), or with another speaker
of ``--data`` left out of training (``--leave-out-each``). ``FOLDER/table.md`` and ``FOLDER/results.json`` are written
after every run, with the command that made them and the machine that it ran on.
"""

from __future__ import annotations

import argparse
import json
import os
import platform as system
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.cli import recipes

if TYPE_CHECKING:
    from ichigo.recipe.schema import Recipe

HELP = "run a recipe several times, by seed or by speaker, and set the results beside its bars"
TABLE_FILE, RESULTS_FILE = "table.md", "results.json"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The recipe's arguments, ``--seeds`` or ``--leave-out-each``, and ``--out``."""
    recipes.arguments(parser)
    varied = parser.add_mutually_exclusive_group()
    varied.add_argument("--seeds", metavar="N,N", type=seeds, default=(1, 2, 3), help="seeds to run; default 1,2,3")
    each = "a run per speaker of --data, who is left out of its training; the seed is the recipe's"
    varied.add_argument("--leave-out-each", action="store_true", help=each)
    parser.add_argument("--out", metavar="FOLDER", type=Path, required=True, help="where the table and the results go")


def seeds(text: str) -> tuple[int, ...]:
    """``1,2,3`` as numbers, for argparse."""
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 0 or len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"{text}: give different seeds of 0 or more, separated by commas")
    return found


def main(args: argparse.Namespace) -> int:
    """Check the recipe in every variant, then run one after the other."""
    from ichigo import recipe as room
    from ichigo.errors import RecipeError

    planned = {name: _with(args, override) for name, override in variants(args).items()}
    for recipe in planned.values():
        if missing := room.missing_places(recipe):
            raise RecipeError(f"{recipe.name} needs more before it can run here:", missing)
    args.out.mkdir(parents=True, exist_ok=True)
    runs: list[dict[str, Any]] = []
    for name, recipe in planned.items():
        asked = time.time()
        runs.append(measured(name, _run(recipe, f"ichigo bench {recipe.name}, {name}"), asked, time.time()))
        write(args.out, shlex.join(["ichigo", *sys.argv[1:]]), machine(), runs)
    print((args.out / TABLE_FILE).read_text())
    return 0


def variants(args: argparse.Namespace) -> dict[str, str]:
    """The runs by name, and the field that each sets.

    Raises :class:`~ichigo.errors.DataError` if there are not two speakers to tell apart.
    """
    if not args.leave_out_each:
        return {f"seed {seed}": f"seed={seed}" for seed in args.seeds}
    from ichigo.corpus.audiofolder import AudioFolder
    from ichigo.corpus.sources import open_source, settings_of
    from ichigo.errors import DataError

    data = recipes.load(args).data
    folder = open_source(settings_of(data)["data.folder"], data, "data.folder") if data.folder else None
    people = folder.speakers() if isinstance(folder, AudioFolder) else []
    if len(people) < 2:
        found = f"names {len(people)} speaker(s)" if folder else "is not set"
        raise DataError(f"data.folder {found}; to leave out each in turn, give --data a folder with two or more")
    return {f"without {person}": f"data.leave_out={json.dumps([person])}" for person in people}


def _with(args: argparse.Namespace, override: str) -> Recipe:
    return recipes.load(argparse.Namespace(**{**vars(args), "overrides": [*args.overrides, override]}))


def _run(recipe: Recipe, title: str) -> dict[str, Any]:
    from ichigo.cli.screen import screen
    from ichigo.engines import local, platform
    from ichigo.engines.pipeline import compiled_pipeline
    from ichigo.engines.plan import planned_steps
    from ichigo.steps.summary import render

    home = platform.default_home(os.environ).resolve()
    with screen(title, planned_steps(compiled_pipeline())) as seen:
        endpoints = platform.resolve(home, os.environ)
        platform.check_reachable(endpoints)
        summary = local.run(recipe, endpoints, home, seen.show)
        seen.show("end", render(summary))
    return summary


def measured(name: str, summary: Mapping[str, Any], asked: float, answered: float) -> dict[str, Any]:
    """What is kept of the run called ``name`` that was asked for and answered at these times (seconds since the epoch).

    ``run.seconds`` and ``run.model_seconds`` count from the command, so that starting the platform is in them. A run
    that reused the work of an earlier one did not take its own time: it has neither.
    """
    from ichigo.recipe.schema import STAGE_ORDER

    steps: Sequence[Mapping[str, Any]] = summary["steps"]
    metrics = dict(summary["evaluation"]) | {"run.peak_memory": float(max(step["peak_memory"] for step in steps))}
    reused = [step["name"] for step in steps if step["status"] == "reused"]
    ended = {step["name"]: step["ended_seconds"] for step in steps}
    if not reused:
        metrics["run.model_seconds"] = summary["started"] - asked + ended[STAGE_ORDER[-1]]
        metrics["run.seconds"] = answered - asked
    kept = ("recipe", "run_key", "fingerprint", "gate", "model")
    numbers = ("name", "status", "seconds", "startup_seconds", "ended_seconds", "peak_memory")
    rows = [{key: step[key] for key in numbers} for step in steps]
    return {"name": name, **{key: summary[key] for key in kept}, "metrics": metrics, "reused": reused, "steps": rows}


def write(folder: Path, command: str, facts: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> None:
    """Write the table and the results of ``runs`` of one recipe, as :func:`measured` gives them."""
    from ichigo.evaluation import table

    recipe = runs[0]["recipe"]
    results = {"command": command, "machine": facts, "recipe": recipe, "runs": runs, "group": group(runs)}
    (folder / RESULTS_FILE).write_text(json.dumps(results, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    rows = table.markdown({run["name"]: run["metrics"] for run in runs}, recipe)
    reused = [
        f"The run {run['name']} reused {', '.join(run['reused'])}, so it has no times." for run in runs if run["reused"]
    ]
    where = f"{facts['cores']} cores, {facts['processor']}, {facts['memory_gib']:.0f} GiB; {facts['software']}."
    how = (
        "Brackets are 95 % intervals: over the items of one run, and behind the mean over runs (Student's t); bars are "
        "set to the mean."
    )
    text = "\n\n".join([f"# {recipe}", f"`{command}`", "\n".join([where, how, *reused]), rows])
    (folder / TABLE_FILE).write_text(text, encoding="utf-8")


def group(runs: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """``mean``, ``low`` and ``high`` over ``runs`` of every number that all of them have; nothing of a single run."""
    from ichigo.evaluation.group import mean_interval

    ends = (".low", ".high", ".p", ".p_holm")
    shared = set.intersection(*(set(run["metrics"]) for run in runs)) if len(runs) > 1 else set()
    return {
        name: dict(zip(("mean", "low", "high"), mean_interval([run["metrics"][name] for run in runs]), strict=True))
        for name in sorted(shared)
        if not name.endswith(ends)
    }


def machine() -> dict[str, Any]:
    """What a time depends on: cores that may be used, processor, memory, and the versions that compute."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    known = [f"{name} {found}" for name in ("torch", "transformers", "deepspeed") if (found := _version(name))]
    software = ", ".join([f"Python {system.python_version()}", *known])
    cores = len(os.sched_getaffinity(0))
    return {"cores": cores, "processor": _processor(), "memory_gib": round(memory, 1), "software": software}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """The CPU's name, from Linux's /proc/cpuinfo; elsewhere its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return system.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else system.machine()
