"""``ichigo look``: a fresh look at a finished model, with questions and voices that nobody chose anything by.

What is asked was kept from training and from evaluation: combinations of words in no phrasing, voices in no accent. A
seed draws it now. That none of it lies in the data of this very model is checked on that data, not taken on trust. The
numbers stand beside those of the model's own evaluation (:mod:`ichigo.evaluation.look` says how to read them).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.cli import naming
from ichigo.cli.ask import positive
from ichigo.errors import UserError

if TYPE_CHECKING:
    from ichigo.corpus.rows import Row
    from ichigo.corpus.texts import TextRow
    from ichigo.corpus.tokens import TokenRow
    from ichigo.evaluation.look import Line
    from ichigo.recipe.schema import Recipe
    from ichigo.store import Artifact

HELP = "ask a trained model new questions by new voices, and set the results beside its evaluation"


@dataclass(frozen=True)
class Past:
    """How a model came about: its run, the recipe of that run and what the evaluation measured."""

    run: str
    recipe: Recipe
    metrics: Mapping[str, float]


def arguments(parser: argparse.ArgumentParser) -> None:
    """The model, and what to draw."""
    naming.stored_argument(parser)
    parser.add_argument("--seed", metavar="N", type=int, required=True, help="draws the questions and who asks them")
    parser.add_argument("--questions", metavar="N", type=positive, default=300, help="how many; default 300")
    parser.add_argument("--voices", metavar="N", type=positive, default=5, help="reserved voices; default 5")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Draw, make sure that it is new, ask, compare."""
    from ichigo.corpus.look import require_new
    from ichigo.evaluation.look import compare

    model = naming.stored(args)
    past = past_of(model)
    print(f"looking at {model.name}, made by {past.run}", file=sys.stderr)
    with redirect_stdout(sys.stderr):  # progress
        rows = drawn(past.recipe, args.questions, args.voices, args.seed)
        require_new(rows, *data_of(model.artifact))
        lines = compare(answered(model, rows, past.recipe), past.metrics)
    report = _report(model, past, args, rows)
    if args.json:
        print(json.dumps({**report, "measures": [asdict(line) for line in lines]}, indent=2, sort_keys=True))
    else:
        print(describe(report, lines))
    return 0


def past_of(model: naming.Stored) -> Past:
    """The past of ``model``; raises :class:`UserError` if the store does not know it or its recipe has no world."""
    from ichigo.steps.records import Records, read_recipe

    records = Records(naming.store_of(model.artifact), model.run)
    run, summary = (records.run(), records.summary()) if model.run else (None, None)
    if run is None or summary is None:
        raise UserError(
            f"{model.name}: the store has no finished run {model.run!r} to compare with; name another model"
        )
    recipe = read_recipe(records.store, run.recipe_uri, run.recipe_digest)
    if recipe.data.world is None:
        raise UserError(f"{model.name}: recipe {recipe.name} has no data.world, from which a look draws its questions")
    return Past(model.run, recipe, summary["evaluation"])


def drawn(recipe: Recipe, questions: int, voices: int, seed: int) -> list[Row]:
    """New questions of the recipe's world, spoken by new voices."""
    from ichigo.corpus.spoken import speak_reserved
    from ichigo.corpus.world import World

    assert recipe.data.world is not None
    world = World(recipe.data.world, recipe.seed)
    return list(speak_reserved(world, questions, voices, seed, len(os.sched_getaffinity(0))))


def data_of(model: Artifact) -> tuple[list[TokenRow], list[TextRow]]:
    """Every row, spoken and written, that ``model`` or anything it was made of was trained on or judged by."""
    from ichigo.corpus.texts import TEXTS_FILE, read_texts
    from ichigo.corpus.tokens import TOKENS_FILE, read_tokens
    from ichigo.inference.chain import ancestors

    spoken: list[TokenRow] = []
    written: list[TextRow] = []
    for ancestor in ancestors(model, naming.store_of(model)):
        with tempfile.TemporaryDirectory() as folder:
            if ancestor.reference.kind == "tokens":
                spoken += read_tokens(ancestor.fetch(Path(folder), TOKENS_FILE))
            elif ancestor.reference.kind == "corpus":
                written += read_texts(ancestor.fetch(Path(folder), TEXTS_FILE))
    if not (spoken and written):
        raise UserError(f"{model.reference.uri} descends from no tokens or no corpus: nothing shows what is new to it")
    return spoken, written


def answered(model: naming.Stored, rows: Sequence[Row], recipe: Recipe) -> dict[str, float]:
    """What the evaluation measures, on ``rows``."""
    from ichigo.corpus.tokens import token_row
    from ichigo.corpus.world import REFUSAL
    from ichigo.evaluation.asking import Examiner
    from ichigo.evaluation.items import EvalRow
    from ichigo.evaluation.scorers import normalise
    from ichigo.evaluation.world import ask_again
    from ichigo.inference.engine import Engine
    from ichigo.speech.audio import read_audio
    from ichigo.speech.vq import WhisperVQ
    from ichigo.steps.evaluate import item, one_thread_if_small

    one_thread_if_small(model.artifact.reference.size)
    codes = WhisperVQ.open(naming.its_tokenizer(model)).encode([read_audio(row.audio, row.id) for row in rows])
    settings = recipe.evaluation.model_copy(update={"items": len(rows)})
    refusals = {normalise(REFUSAL)}
    exam = Examiner(Engine.open(naming.on_disk(model.artifact)), settings, recipe.seed, refusals=refusals)
    return ask_again(exam, [item(EvalRow, row) for row in map(token_row, rows, codes)])


def _report(model: naming.Stored, past: Past, args: argparse.Namespace, rows: Sequence[Row]) -> dict[str, Any]:
    variants = sorted({row.speaker.partition("+")[2] for row in rows})
    return {
        "model": model.name,
        "digest": model.artifact.digest,
        "run_key": past.run,
        "recipe": past.recipe.name,
        "seed": args.seed,
        "questions": len(rows),
        "voices": variants,
    }


def describe(report: Mapping[str, Any], lines: Sequence[Line]) -> str:
    """The report for a person."""
    from ichigo.evaluation.look import plain

    return "\n".join([*_head(report), "", *plain(lines)])


def _head(report: Mapping[str, Any]) -> Iterator[str]:
    yield f"model      {report['model']}, recipe {report['recipe']}"
    yield f"questions  {report['questions']} new ones, drawn by seed {report['seed']}"
    yield f"voices     {len(report['voices'])} new ones: {', '.join(report['voices'])}"
