"""``ichigo speak``: let a model say a text in sound tokens of its own, and read back what these tokens say.

There is no vocoder: the tokens are turned into phones and words by the lexicon that was fitted with the tokenizer, so
what a person sees is what the model said and not what it was told to say.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ichigo.cli import naming

HELP = "let a trained model say a text in sound tokens, and read the phones and words back from them"


def arguments(parser: argparse.ArgumentParser) -> None:
    """The text and the model."""
    parser.add_argument("text", metavar="TEXT", help="what to say")
    naming.arguments(parser)
    parser.add_argument("--seconds", metavar="S", type=_seconds, default=10.0, help="longest speech; default 10")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    """Generate, read back, and count the word errors against the text."""
    model = naming.locate(args, sound=True)
    assert model.tokenizer is not None
    print(f"{model.name} speaks", file=sys.stderr)
    from ichigo.inference.session import Session

    spoken = Session.open(model.folder, model.tokenizer).speak(args.text, args.seconds)
    report = {"model": model.name, "ended": spoken.ended, **read_back(args.text, spoken.codes, model.tokenizer)}
    print(json.dumps(report, indent=2, sort_keys=True, ensure_ascii=False) if args.json else describe(report))
    return 0


def read_back(text: str, codes: Any, tokenizer: Path) -> dict[str, Any]:
    """What ``codes``, int16 ``(n,)``, say by the lexicon in the tokenizer's folder, and how far that is from ``text``.

    Raises :class:`~ichigo.errors.TokenizerError` for a tokenizer without a lexicon, such as an imported one.
    """
    from ichigo.evaluation.scorers import word_errors
    from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND
    from ichigo.speech.lexicon import Recogniser

    recogniser = Recogniser.open(tokenizer)
    words = recogniser.words(codes)
    errors = word_errors(text, words)
    return {
        "text": text,
        "codes": [int(code) for code in codes],
        "seconds": len(codes) / SOUND_TOKENS_PER_SECOND,
        "phones": list(recogniser.phones(codes)),
        "words": words,
        "word_errors": errors.errors,
        "words_asked": errors.units,
    }


def describe(report: dict[str, Any]) -> str:
    """The report for a person."""
    end = "" if report["ended"] else ", cut off"
    return "\n".join(
        [
            f"tokens   {len(report['codes'])} sound tokens, {report['seconds']:.2f} s{end}",
            f"phones   {' '.join(report['phones'])}",
            f"words    {report['words'] or '(none)'}",
            f"errors   {report['word_errors']} of {report['words_asked']} words",
        ]
    )


def _seconds(text: str) -> float:
    if not 0 < (value := float(text)) <= 60:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 60")
    return value
