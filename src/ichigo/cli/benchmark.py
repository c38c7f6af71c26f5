"""``ichigo benchmark FILE… --model MODEL``: published spoken benchmarks, their authors' scores and ours side by side.

The files are Parquet in the shape of VoiceBench or AudioBench (:mod:`ichigo.evaluation.benchmarks.rows`), on this
machine or in S3; the files of one set are one set. ``OUT/items.parquet`` holds every reply with both scores.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.cli import naming
from ichigo.cli.ask import positive

if TYPE_CHECKING:
    from ichigo.evaluation.benchmarks.report import SetReport
    from ichigo.evaluation.benchmarks.rows import BenchmarkSet

HELP = "ask a model VoiceBench- or AudioBench-shaped files, and score the replies their way and ours"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The files, the model, and how to ask."""
    parser.add_argument(
        "files", metavar="FILE", nargs="+", help="a Parquet file, a folder or pattern of them, or s3://…"
    )
    naming.arguments(parser)
    parser.add_argument(
        "--set", metavar="NAME", help="the set's name; default the folder or file that names a known one"
    )
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=128, help="longest reply; default 128")
    parser.add_argument("--batch", metavar="N", type=positive, default=16, help="replies at once; default 16")
    parser.add_argument("--items", metavar="N", type=positive, help="ask the first N rows of each set only")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="draws prompts and intervals; default 0")
    spellings = "Whisper's normalizer.json, for AudioBench's word errors; default none, colour is not color"
    parser.add_argument("--spellings", metavar="FILE", type=Path, help=spellings)
    parser.add_argument("--out", metavar="FOLDER", type=Path, help="where items.parquet goes; default nowhere")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Read the files, which needs no model, then ask."""
    from ichigo.evaluation.benchmarks.report import plain, write_items

    sets = read_sets(args.files, args.set, args.items)
    spellings = read_spellings(args.spellings) if args.spellings else {}
    model = naming.locate(args, sound=True)
    print(f"asking {model.name}", file=sys.stderr)
    with redirect_stdout(sys.stderr):  # progress
        reports = ask(model, sets, spellings, args)
    metrics = {name: value for report in reports for name, value in report.metrics(args.seed).items()}
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        write_items(reports, args.out)
    if args.json:
        print(json.dumps(_json(model.name, reports, metrics, args), indent=2, sort_keys=True))
    else:
        print(plain(reports, metrics))
    return 0


def read_sets(places: Sequence[str], name: str | None, items: int | None) -> list[BenchmarkSet]:
    """The sets in the files at ``places``, by name, each with its first ``items`` rows.

    Raises :class:`~ichigo.errors.DataError` for a place without Parquet files, for a file that is none or of neither
    benchmark, and for two files of one set in different shapes.
    """
    from ichigo.corpus.files import open_files
    from ichigo.errors import DataError
    from ichigo.evaluation.benchmarks.rows import BenchmarkSet, read_set

    sets: dict[str, BenchmarkSet] = {}
    for place in places:
        files = open_files(place)
        entries = files.entries(".parquet")
        if not entries:
            raise DataError(f"{place}: no *.parquet file; name a folder or a file of a benchmark")
        for entry in entries:
            root = place.rstrip("/").removesuffix(entry.name).rstrip("/")
            with files.open(entry.name) as handle:
                found = read_set(handle, f"{root}/{entry.name}", name)
            whole = sets.setdefault(found.name, BenchmarkSet(found.name, found.benchmark, found.scoring))
            if whole.scoring != found.scoring:
                raise DataError(f"{root}/{entry.name}: {found.name} is {whole.scoring} elsewhere, {found.scoring} here")
            whole.rows += found.rows
            whole.set_aside += found.set_aside
    for one in sets.values():
        one.rows = one.rows[:items]
    return [sets[known] for known in sorted(sets)]


def read_spellings(path: Path) -> dict[str, str]:
    """Whisper's ``normalizer.json``: British words and their American spelling."""
    from ichigo.errors import DataError

    try:
        spellings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); take normalizer.json of a Whisper checkpoint") from error
    if not isinstance(spellings, dict) or not all(isinstance(value, str) for value in spellings.values()):
        raise DataError(f"{path}: is no object of words; take normalizer.json of a Whisper checkpoint")
    return spellings


def ask(
    model: naming.Model, sets: Sequence[BenchmarkSet], spellings: Mapping[str, str], args: argparse.Namespace
) -> list[SetReport]:
    """The replies of ``model`` to every set."""
    from ichigo.evaluation.benchmarks.asking import ask_set
    from ichigo.evaluation.benchmarks.audiobench import Normaliser
    from ichigo.inference.session import Session
    from ichigo.speech.vq import WhisperVQ

    assert model.tokenizer is not None
    tokenizer = WhisperVQ.open(model.tokenizer)
    engine, normaliser = Session.open(model.folder, model.tokenizer).engine, Normaliser(spellings)
    asked = {"max_new_tokens": args.max_new_tokens, "batch": args.batch, "seed": args.seed, "normaliser": normaliser}
    return [ask_set(engine, tokenizer, one, **asked) for one in sets]


def _json(
    model: str, reports: Sequence[SetReport], metrics: Mapping[str, float], args: argparse.Namespace
) -> dict[str, Any]:
    return {
        "model": model,
        "seed": args.seed,
        "max_new_tokens": args.max_new_tokens,
        "spellings": args.spellings is not None,
        "sets": {one.name: {"benchmark": one.benchmark, "scoring": one.scoring} for one in reports},
        "set_aside": {one.name: dict(one.set_aside) for one in reports},
        "metrics": dict(metrics),
    }
