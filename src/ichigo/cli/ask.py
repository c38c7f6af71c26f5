"""``ichigo ask``: put spoken or written questions to a trained model, and see what each part of an answer costs.

Every question is asked once before it is timed, because the first pass of a process pays for memory and threads. With
``--repeat 50`` the times are medians: the command behind every latency that this project states.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.cli import naming
from ichigo.errors import TokenizerError, UserError

if TYPE_CHECKING:
    from ichigo.inference.session import Question, Reply, Session, Timings
    from ichigo.language.layouts import Turn

HELP = "ask a trained model, by voice or in writing; several questions are the turns of one conversation"
VOICE, WORDS_PER_MINUTE, PITCH = "en-us", 175, 50  # the last two are espeak-ng's own defaults


@dataclass(frozen=True)
class Asked:
    """A question with its name (a file or its words), the answer, and the median times of asking it."""

    name: str
    reply: Reply
    times: Timings


def arguments(parser: argparse.ArgumentParser) -> None:
    """Questions, the model, and how often to ask."""
    parser.add_argument("files", metavar="FILE", nargs="*", help="recorded questions: WAV, FLAC, Ogg or MP3")
    parser.add_argument("--say", metavar="TEXT", action="append", default=[], help="a question for espeak-ng to speak")
    parser.add_argument("--text", metavar="TEXT", action="append", default=[], help="a written question")
    parser.add_argument("--voice", default=VOICE, help="espeak-ng voice of --say, for instance en-us+f2")
    naming.arguments(parser)
    stream = "hear a recording while it is said: time counts from its end, and only its end is left to compute then"
    parser.add_argument("--stream", action="store_true", help=stream)
    parser.add_argument("--max-new-tokens", metavar="N", type=positive, default=64, help="longest answer; default 64")
    parser.add_argument("--repeat", metavar="N", type=positive, default=1, help="ask N times and give median times")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def positive(text: str) -> int:
    """``text`` as an integer of at least 1, for argparse."""
    if (value := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value


def main(args: argparse.Namespace) -> int:
    """Read the questions, which needs no model, then ask them."""
    questions = read_questions(args)
    model = naming.locate(args, sound=not args.text)
    print(f"asking {model.name}", file=sys.stderr)
    from ichigo.inference.session import Session

    session = Session.open(model.folder, model.tokenizer)
    asked = converse(session, questions, args)
    if args.json:
        print(json.dumps(_report(model.name, asked, args.repeat), indent=2, sort_keys=True, ensure_ascii=False))
    return 0


def read_questions(args: argparse.Namespace) -> list[tuple[str, Question]]:
    """What is asked, each with its name: all files, or all ``--say``, or all ``--text``.

    Raises:
        UserError: no question, or questions of two kinds.
        DataError: a recording or a text that cannot be used.
    """
    if sum(map(bool, (args.files, args.say, args.text))) != 1:
        raise UserError("ask with recordings, with --say or with --text; give one of the three, once for each turn")
    if args.text and args.stream:
        raise UserError("--stream hears a recording while it is said; leave it out for --text")
    if args.text:
        return [(text, text) for text in args.text]
    from ichigo.inference.level import has_energy

    spoken = _synthesised(args.say, args.voice) if args.say else _recorded(args.files)
    for name, waveform in spoken:
        if not has_energy(waveform):
            print(f"{name}: hardly a sound (below -50 dB, or clicks only); is the microphone on?", file=sys.stderr)
    return list(spoken)


def converse(session: Session, questions: Sequence[tuple[str, Question]], args: argparse.Namespace) -> list[Asked]:
    """Ask the questions as turns of one conversation; without ``--json``, answers appear as they are made."""
    from ichigo.inference.session import medians

    history: list[Turn] = []
    asked: list[Asked] = []
    ask = _way_to_ask(session, args.stream)
    for name, question in questions:
        ask(question, history, max_new_tokens=2)
        if not args.json:
            print(f"\n{name}\n> ", end="", flush=True)
        first = ask(question, history, max_new_tokens=args.max_new_tokens, listen=None if args.json else _print)
        more = [ask(question, history, max_new_tokens=args.max_new_tokens) for _ in range(args.repeat - 1)]
        history.append(first.turn)
        asked.append(Asked(name, first, medians([reply.timings for reply in (first, *more)])))
        if not args.json:
            print(describe(asked[-1], args.repeat))
    return asked


def _way_to_ask(session: Session, stream: bool) -> Callable[..., Reply]:
    """How questions are put to ``session``: as a whole, unless they shall and can be streamed."""
    if not stream:
        return session.ask
    try:
        session.listen()
    except TokenizerError as error:
        print(f"plain mode: {error}", file=sys.stderr)
        return session.ask
    return session.ask_while_spoken


def describe(asked: Asked, repeat: int) -> str:
    """The lines below an answer: what there is to know about it, what was heard, and the times."""
    reply, times = asked.reply, asked.times
    parts = f"tokenise {times.tokenise:.1f}, prefill {times.prefill:.1f}, first token {times.first_token:.2f}"
    how = "once" if repeat == 1 else f"median of {repeat}"
    speed = f"first token after {times.to_first_token:.1f} ms ({parts}), last after {times.total:.1f} ms"
    return "\n".join(
        [
            "" if reply.text else "(no words)",
            *(f"  {note}" for note in _notes(reply)),
            f"  {speed}; {how}, after a warm-up",
        ]
    )


def _notes(reply: Reply) -> list[str]:
    heard = f"{reply.sound_tokens} sound tokens from {reply.seconds:.2f} s" if reply.sound_tokens else ""
    strays = f"{reply.strays} sound tokens in the answer are left out" if reply.strays else ""
    cut = "" if reply.stopped == "eot" else f"cut off after {len(reply.tokens)} tokens"
    return [note for note in (heard, strays, cut) if note]


def _synthesised(texts: Sequence[str], voice: str) -> list[tuple[str, Any]]:
    from ichigo.speech.synthesis import Espeak, Request, check

    for text in texts:
        check(Request(text, voice, WORDS_PER_MINUTE, PITCH))
    return [(text, Espeak().speak(text, voice, WORDS_PER_MINUTE, PITCH).waveform) for text in texts]


def _recorded(files: Sequence[str]) -> list[tuple[str, Any]]:
    from ichigo.speech.audio import read_audio

    return [(name, read_audio(Path(name))) for name in files]


def _print(piece: str) -> None:
    print(piece, end="", flush=True)


def _report(model: str, asked: Sequence[Asked], repeat: int) -> dict[str, Any]:
    import torch

    from ichigo.devices import best_device

    return {
        "model": model,
        "device": best_device(),
        "threads": torch.get_num_threads(),
        "repeat": repeat,
        "warm_up": True,
        "turns": [_turn(one) for one in asked],
    }


def _turn(asked: Asked) -> dict[str, Any]:
    reply = asked.reply
    return {
        "question": asked.name,
        "answer": reply.text,
        "sound_tokens": reply.sound_tokens,
        "seconds": reply.seconds,
        "answer_tokens": len(reply.tokens),
        "stray_sound_tokens": reply.strays,
        "stopped": reply.stopped,
        "milliseconds": {name: round(value, 3) for name, value in asdict(asked.times).items()},
    }
