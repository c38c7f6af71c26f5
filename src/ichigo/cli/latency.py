"""``ichigo latency MODEL``: from the end of speech to the first token of the answer, by the length of the speech.

Four arms (:mod:`ichigo.inference.latency`): speech, speech that is heard while it is said, the same words in writing,
and a cascade with the base model that the model was made from. The lengths are made of sentences that espeak-ng says.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.cli import naming
from ichigo.cli.ask import positive

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine
    from ichigo.inference.latency import Latency, Row
    from ichigo.inference.session import Session

HELP = "measure how long the first token of an answer takes, by the length of the speech"
_BASE_HELP = "folder or s3:// address of the cascade's base model; default: the one the model was made from"
_LONGEST = 600  # seconds of speech that are made; models have room for less


def arguments(parser: argparse.ArgumentParser) -> None:
    """The model, the lengths, and how often to ask."""
    naming.arguments(parser, "model")
    parser.add_argument("--base", metavar="PLACE", help=_BASE_HELP)
    lengths = "lengths of speech, separated by commas; default 1,2,5,10,20,30"
    parser.add_argument("--seconds", metavar="S,S", type=seconds, default=(1, 2, 5, 10, 20, 30), help=lengths)
    parser.add_argument("--repeat", metavar="N", type=positive, default=20, help="ask N times each; default 20")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def seconds(text: str) -> tuple[float, ...]:
    """``1,2,5`` as different lengths in rising order, for argparse."""
    found = sorted({float(part) for part in text.split(",")})
    if not 0 < found[0] <= found[-1] <= _LONGEST:
        raise argparse.ArgumentTypeError(f"{text}: give lengths above 0 and up to {_LONGEST} s, separated by commas")
    return tuple(found)


def main(args: argparse.Namespace) -> int:
    """Make the speech, measure, and print the table."""
    model = naming.locate(args, sound=True)
    assert model.tokenizer is not None
    base = naming.locate_base(args)
    from ichigo.inference.latency import Bench, joined_speech
    from ichigo.inference.session import Session

    session = Session.open(model.folder, model.tokenizer)
    bench = Bench(session, _base(base, session) if base else None)
    with redirect_stdout(sys.stderr):  # espeak-ng's progress, which is no part of the report
        speeches = [joined_speech(length) for length in args.seconds]
    print(f"asking {model.name} for {len(speeches)} lengths, {args.repeat} times each", file=sys.stderr)
    found = bench.measure(speeches, args.repeat)
    where = _conditions(model.name, session, args.repeat)
    if args.json:
        print(json.dumps(as_data(found, where), indent=2, sort_keys=True))
    else:
        print("\n".join(table(found, where)))
    return 0


def _base(folder: Path, session: Session) -> Engine:
    from ichigo.evaluation.asking import open_text_engine

    return open_text_engine(folder, session.engine.contract)


def _conditions(model: str, session: Session, repeat: int) -> dict[str, Any]:
    import torch

    from ichigo.devices import best_device
    from ichigo.inference.session import PIECE_SAMPLES
    from ichigo.speech.audio import SAMPLE_RATE

    return {
        "model": model,
        "device": best_device(),
        "dtype": str(session.engine.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "repeat": repeat,
        "piece_seconds": PIECE_SAMPLES / SAMPLE_RATE,
    }


def as_data(found: Latency, where: Mapping[str, Any]) -> dict[str, Any]:
    """Everything that was measured, for a machine; times in milliseconds."""
    from ichigo.inference.latency import PARTS, PERCENTILES

    def spread(row: Row, part: str | None) -> dict[str, float]:
        names = (f"p{percent}" for percent in PERCENTILES)
        return {name: round(value, 3) for name, value in zip(names, row.percentiles(part), strict=True)}

    rows = [
        {
            "arm": row.arm,
            "seconds": row.seconds,
            "prompt_tokens": row.prompt,
            "to_first_token": spread(row, None),
            **{part: spread(row, part) for part in PARTS},
            "against_shortest": round(found.growth(row), 3),
            "computing_while_spoken": round(row.keeps_up, 4),
        }
        for row in found.rows
    ]
    return {**where, "rows": rows, "left_out": [vars(one) for one in found.left_out]}


def table(found: Latency, where: Mapping[str, Any]) -> Iterator[str]:
    """The same for a person: medians of the parts, three percentiles of the whole."""
    from ichigo.inference.latency import PARTS

    yield (
        f"end of speech to first token in ms, {where['repeat']} times each; {where['dtype']} on {where['device']}, "
        f"{where['threads']} threads"
    )
    heads = ("transcribe", "tokenise", "prefill", "1st token", "p50", "p95", "p99", "x")
    yield f"{'arm':<10}{'speech':>8}{'prompt':>8}{''.join(f'{head:>11}' for head in heads)}"
    for row in found.rows:
        parts = [row.percentiles(part)[0] for part in PARTS]
        cells = [f"{value:.2f}" if value else "" for value in (*parts, *row.percentiles(), found.growth(row))]
        yield f"{row.arm:<10}{row.seconds:>6g} s{row.prompt:>8}{''.join(f'{cell:>11}' for cell in cells)}"
    yield "parts are medians; x: the median against that of the shortest speech"
    for row in found.rows:
        if row.arm == "streaming":
            yield f"while {row.seconds:g} s are said: {row.keeps_up:.3f} s of computing for a second of speech"
    for one in found.left_out:
        yield f"left out: {one.arm}{'' if one.seconds is None else f' of {one.seconds:g} s'}: {one.reason}"
