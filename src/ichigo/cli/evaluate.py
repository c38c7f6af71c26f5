"""``ichigo evaluate [MODEL]``: the evaluation of one model alone, on the evaluation rows of the run that made it.

It is what the pipeline's step does: for the same model the report has the same bytes. ``--suite`` asks some suites
only; ``--rows`` takes the rows, the recipe and the base of another model's run, so that two models, or a model folder
that does not know its past, are asked the same items. The report goes to a folder and, as a run of its own that names
the model, to the MLflow experiment of the recipe.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.cli import naming
from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.evaluation.items import Report
    from ichigo.recipe.schema import Recipe
    from ichigo.steps.evaluate import Folders, Rows
    from ichigo.store import Artifact

HELP = "evaluate a model alone, on the evaluation rows of the run that made it"
_DIGITS = 12  # of a digest, in names of folders and runs


@dataclass(frozen=True)
class Parts:
    """What a model was made of: its base, its speech tokenizer, shards of tokens, corpora with texts."""

    base: Artifact
    tokenizer: Artifact
    tokens: Sequence[Artifact]
    corpora: Sequence[Artifact]


@dataclass(frozen=True)
class Asked:
    """A model on this disk and what it is: its digest ("" of a folder), what a person calls it, where it lies."""

    folders: Folders
    systems: Mapping[str, str]
    digest: str
    name: str
    uri: str


def arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the suites, whose rows, and where the report goes."""
    known = "a registered model (name, name@alias or name@version), a run's summary.json or folder, an s3:// address"
    parser.add_argument(
        "model", metavar="MODEL", nargs="?", help=f"{known}, or a model folder; default: the model of the last run here"
    )
    suite = "a suite to ask, * and ? fit any: 'spoken.*'; may be repeated; default: all"
    parser.add_argument("--suite", dest="suites", metavar="NAME", action="append", default=[], help=suite)
    rows = "the model whose run's rows are asked; default: the model's own, which a model folder does not know"
    parser.add_argument("--rows", metavar="MODEL", help=rows)
    parser.add_argument(
        "--out", metavar="FOLDER", type=Path, help="where the report goes; default: .ichigo/evaluations/…"
    )


def main(args: argparse.Namespace) -> int:
    """Find the model and its rows, ask, write the report, log it."""
    from ichigo.steps.evaluate import judge, rows_of

    source = _source(args)
    recipe, experiment = past_of(source)
    parts = parts_of(source.artifact)
    asked = _asked(args.model, source, parts)
    out = args.out or naming.home_folder() / "evaluations" / (asked.digest[:_DIGITS] or Path(args.model).name)
    out.mkdir(parents=True, exist_ok=True)
    print(f"evaluating {asked.name} on the rows of {source.run}", file=sys.stderr)
    with redirect_stdout(sys.stderr):  # progress
        rows: Rows = rows_of(asked.folders, parts.tokens, parts.corpora)
        report = judge(
            asked.folders, rows, recipe.evaluation, recipe.seed, out, systems=asked.systems, only=args.suites
        )
    for line in [*lines(report, recipe.name), "", f"report   {out}"]:
        print(line)
    inputs = {"base": parts.base, **{f"tokens-{at}": one for at, one in enumerate(parts.tokens)}}
    print(f"MLflow   run {log(report, asked, source.run, experiment, recipe.name, inputs, out)}")
    return 0


def _source(args: argparse.Namespace) -> naming.Stored:
    """The model whose run's rows are asked."""
    if args.rows is None and args.model and (Path(args.model) / "config.json").is_file():
        raise UserError(f"{args.model} is a model folder, which does not say what it may be asked; add --rows MODEL")
    return naming.stored(argparse.Namespace(model=args.rows or args.model))


def past_of(model: naming.Stored) -> tuple[Recipe, str]:
    """The recipe of the run that ``model`` is known by, and the id of its MLflow experiment; :class:`UserError` if the
    store has no such run."""
    from ichigo.steps.records import Records, read_recipe

    records = Records(naming.store_of(model.artifact), model.run)
    run = records.run() if model.run else None
    if run is None:
        raise UserError(
            f"{model.name}: the store has no run {model.run!r}, whose rows could be asked; add --rows MODEL"
        )
    return read_recipe(records.store, run.recipe_uri, run.recipe_digest), run.experiment


def parts_of(model: Artifact) -> Parts:
    """What an evaluation needs of the ancestors of ``model``; :class:`UserError` for one that was not trained here."""
    from ichigo.corpus.texts import TEXTS_FILE
    from ichigo.inference.chain import ancestors

    found: dict[str, list[Artifact]] = {}
    for ancestor in ancestors(model, naming.store_of(model)):
        found.setdefault(ancestor.reference.kind, []).append(ancestor)
    if missing := [kind for kind in ("base", "tokenizer", "tokens", "corpus") if kind not in found]:
        raise UserError(
            f"{model.reference.uri} descends from no {' and no '.join(missing)}: only a model that a stage has trained "
            "can be evaluated"
        )
    written = [one for one in found["corpus"] if any(file.path == TEXTS_FILE for file in one.files)]
    return Parts(found["base"][0], found["tokenizer"][0], found["tokens"], written)


def _asked(spec: str | None, source: naming.Stored, parts: Parts) -> Asked:
    """The model that is asked: a folder, or an artifact with its own base and tokenizer."""
    from ichigo.steps.evaluate import Folders, systems_of

    if spec and (Path(spec) / "config.json").is_file():
        folders = Folders(Path(spec), naming.on_disk(parts.base), naming.on_disk(parts.tokenizer))
        base = f"{parts.base.reference.kind} {parts.base.digest}"
        return Asked(folders, systems_of(f"folder {Path(spec).name}", base), "", spec, Path(spec).resolve().as_uri())
    model = naming.stored(argparse.Namespace(model=spec))
    own = parts if model.artifact.digest == source.artifact.digest else parts_of(model.artifact)
    folders = Folders(*(naming.on_disk(one) for one in (model.artifact, own.base, own.tokenizer)))
    systems = systems_of(*(f"{one.reference.kind} {one.digest}" for one in (model.artifact, own.base)))
    return Asked(folders, systems, model.artifact.digest, model.name, model.artifact.reference.uri)


def lines(report: Report, recipe: str) -> list[str]:
    """What a person is shown: the table of measures, or every metric where there is none, and the notes."""
    from ichigo.evaluation import table

    metrics = report.metrics
    plain = [f"{name:<60} {value:.4g}" for name, value in metrics.items() if not name.endswith((".low", ".high"))]
    return [*(table.plain(metrics, recipe) or plain), *(f"note: {note}" for note in report.notes)]


def log(
    report: Report,
    asked: Asked,
    made_by: str,
    experiment: str,
    recipe: str,
    inputs: Mapping[str, Artifact],
    out: Path,
) -> str:
    """Log the report as an MLflow run of its own that names the model; returns the run's id."""
    from ichigo.corpus.contamination import CONTAMINATION_FILE
    from ichigo.evaluation.items import ITEMS_FILE, REPORT_FILE
    from ichigo.tracking.runs import DatasetInput, RunTree

    key = f"evaluate-{asked.digest[:_DIGITS] or 'folder'}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
    tags = {
        "ichigo.recipe": recipe,
        "ichigo.evaluates": asked.uri,
        "ichigo.model": asked.name,
        "ichigo.model_digest": asked.digest,
        "ichigo.rows_of": made_by,
    }
    tree = RunTree.begin_single(experiment, key, {"suites": ", ".join(report.suites)}, tags)
    try:
        datasets = [
            DatasetInput(one.reference.kind, one.digest, one.reference.uri, name) for name, one in inputs.items()
        ]
        tree.log_inputs(tree.parent, datasets)
        tree.log_metrics(tree.parent, report.metrics)
        for name in (REPORT_FILE, ITEMS_FILE, CONTAMINATION_FILE):
            tree.log_file(tree.parent, out / name)
    except BaseException:
        tree.end(tree.parent, "FAILED")
        raise
    tree.end(tree.parent)
    return tree.parent
