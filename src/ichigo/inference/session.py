"""A model that a person asks: a spoken or written question in, an answer with its times out.

A :class:`Session` joins a model folder and the speech tokenizer that its contract names. What it times is what a
listener waits for, at batch 1::

    tokenise      the waveform becomes sound tokens and, with the conversation before it, the prompt
    prefill       the prompt goes through the model
    first token   the answer's first token is chosen
    total         until the last token is chosen

Reading a file and loading the model are not part of it. The first question of a process is slower (memory, thread
pools): ask once before timing.

A question can also be heard while it is said (:meth:`Session.listen`): sound becomes tokens block by block, and each
block goes through the model at once. Then the times above count from the end of the speech, and what is left to do at
that moment does not grow with it. The answer is that of the whole recording.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Literal

import numpy as np
import numpy.typing as npt

from ichigo.errors import ContractError, DataError
from ichigo.inference.engine import Decoding, Engine
from ichigo.language.layouts import SPEAK_PROMPTS, Codes, Ids, Sample, Turn
from ichigo.recipe.schema import SampleType
from ichigo.speech.audio import SAMPLE_RATE
from ichigo.speech.codes import SAMPLES_PER_TOKEN, SOUND_TOKENS_PER_SECOND, token_count
from ichigo.speech.stream import Stream
from ichigo.speech.vq import WhisperVQ

Waveform = npt.NDArray[np.float32]
Question = str | Waveform
"""What is asked: text, or float32 ``(samples,)``, 16 kHz, mono, in [-1, 1]."""

MAX_NEW_TOKENS = 64
PIECE_SAMPLES = 1600
"""Samples of a piece of a recording that is given as a microphone gives it: 0.1 s."""

_UNFINISHED = "\N{REPLACEMENT CHARACTER}"
_NO_TOKENIZER = "a spoken question needs the model's speech tokenizer; none was given"


@dataclass(frozen=True)
class Timings:
    """Milliseconds; ``to_first_token`` is the sum of the three before it, ``total`` goes on to the last token.

    ``while_spoken`` is what was computed before the end of the speech, which nobody waits for: 0 unless streamed.
    """

    tokenise: float
    prefill: float
    first_token: float
    to_first_token: float
    total: float
    while_spoken: float = 0.0


@dataclass(frozen=True, eq=False)
class Reply:
    """One answer.

    Attributes:
        text: the answer.
        turn: the question as the model got it and the answer: what a next question builds on.
        sound_tokens: of the question; 0 for text.
        seconds: of audio in the question; 0 for text.
        tokens: generated ids without the stop id; ``strays`` of them are sound tokens, which are no part of the text.
        stopped: ``eot`` if the model ended the answer, ``length`` if the limit did.
        timings: what the question cost.
    """

    text: str
    turn: Turn
    sound_tokens: int
    seconds: float
    tokens: tuple[int, ...]
    strays: int
    stopped: Literal["eot", "length"]
    timings: Timings


@dataclass(frozen=True, eq=False)
class Spoken:
    """Speech that the model made: sound codes int16 ``(n,)``, 25 per second, and whether it ended by itself."""

    codes: Codes
    ended: bool


class Session:
    """A model with its speech tokenizer; without one it only takes text."""

    def __init__(self, engine: Engine, tokenizer: WhisperVQ | None = None) -> None:
        self.engine = engine
        self._tokenizer = tokenizer
        if tokenizer and (found := tokenizer.identity()) != (wanted := engine.contract.speech_tokenizer):
            raise ContractError(
                f"the speech tokenizer has identity {found}, the model knows the sound tokens of {wanted}; others mean "
                "nothing to it: give the tokenizer of the model's own run"
            )

    @classmethod
    def open(cls, model: Path, tokenizer: Path | None) -> Session:
        """Open both folders.

        Raises:
            ContractError: the tokenizer is not the one of the model's contract, or the model's own parts disagree.
            ModelError: ``model`` is no model folder.
            TokenizerError: ``tokenizer`` is no folder of a speech tokenizer.
        """
        return cls(Engine.open(model), WhisperVQ.open(tokenizer) if tokenizer else None)

    def ask(
        self,
        question: Question,
        history: Sequence[Turn] = (),
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        listen: Callable[[str], None] | None = None,
    ) -> Reply:
        """The greedy answer to ``question`` after ``history``, the turns of earlier replies.

        Earlier turns that the model answered with nothing are left out: no model was trained on any. ``listen`` gets
        the answer's text piece by piece as it is made.

        Raises:
            DataError: a question without a speakable character, too short for a sound token or too long for the model,
                or a conversation that is neither all spoken nor all written.
        """
        history = _answered(history)
        began = time.perf_counter()
        self._check(question, history, max_new_tokens)
        turn = Turn(question if isinstance(question, str) else self.codes(question))
        prompt = self._prompt([*history, turn])
        tokenised = time.perf_counter()
        decoding = self.engine.begin(prompt, max_new_tokens)
        seconds = 0.0 if isinstance(question, str) else question.size / SAMPLE_RATE
        return self._reply(turn, seconds, decoding, listen, (began, tokenised, time.perf_counter()))

    def listen(self, history: Sequence[Turn] = (), *, max_new_tokens: int = MAX_NEW_TOKENS) -> Listening:
        """Begin to hear a question after ``history``; the conversation so far goes through the model now.

        Raises:
            TokenizerError: the speech tokenizer hears whole recordings and cannot stream; ask in plain mode.
            DataError: a session without tokenizer, or a written conversation, or no room for one more question.
        """
        history = _answered(history)
        if self._tokenizer is None:
            raise DataError(_NO_TOKENIZER)
        _check_kind(history, spoken=True)
        return Listening(self, Stream(self._tokenizer), history, max_new_tokens)

    def ask_while_spoken(
        self,
        waveform: Waveform,
        history: Sequence[Turn] = (),
        *,
        max_new_tokens: int = MAX_NEW_TOKENS,
        listen: Callable[[str], None] | None = None,
    ) -> Reply:
        """:meth:`ask`, with the recording arriving in pieces of :data:`PIECE_SAMPLES`; the last ends the speech.

        The times count from the arrival of the last piece, as if everything before it had been done in time: it was
        if ``timings.while_spoken`` is well below the length of the recording. Raises what :meth:`ask` and
        :meth:`listen` raise.
        """
        listening = self.listen(history, max_new_tokens=max_new_tokens)
        last = max(waveform.size - 1, 0) // PIECE_SAMPLES * PIECE_SAMPLES
        for start in range(0, last, PIECE_SAMPLES):
            listening.feed(waveform[start : start + PIECE_SAMPLES])
        return listening.finish(waveform[last:], listen=listen)

    def speak(self, text: str, max_seconds: float = 10.0) -> Spoken:
        """``text`` as sound tokens of the model's own making, at most ``max_seconds`` of them.

        Raises :class:`DataError` for text without a speakable character.
        """
        _check_speakable(text)
        prompt = self.engine.layouts.prompt_for(Sample("speak", (Turn(text),), SPEAK_PROMPTS[0]))
        contract, limit = self.engine.contract, int(max_seconds * SOUND_TOKENS_PER_SECOND)
        decoding = self.engine.begin(prompt, limit + 2)  # its two markers
        tokens: list[int] = []
        for token in decoding:
            tokens.append(token)
            if token == contract.sound_end:
                break
        return Spoken(self.engine.layouts.codes_of(tokens), decoding.stopped != "length")

    def codes(self, waveform: Waveform) -> Codes:
        """The sound tokens of a whole recording, int16 ``(n,)``; :class:`DataError` in a session without tokenizer."""
        if self._tokenizer is None:
            raise DataError(_NO_TOKENIZER)
        return self._tokenizer.encode([waveform])[0]

    def _reply(
        self,
        turn: Turn,
        seconds: float,
        decoding: Decoding,
        listen: Callable[[str], None] | None,
        times: tuple[float, float, float],
        while_spoken: float = 0.0,
    ) -> Reply:
        """The reply to ``turn``; ``times`` are the moments of the end of speech, its tokens and the prefill."""
        tokens, chosen = self._answer(decoding, listen)
        ended = time.perf_counter()
        assert decoding.stopped is not None
        text = self.engine.decode(tokens)
        return Reply(
            text=text,
            turn=Turn(turn.user, text),
            sound_tokens=0 if isinstance(turn.user, str) else len(turn.user),
            seconds=seconds,
            tokens=tuple(tokens),
            strays=sum(self.engine.stray_sound([token]) for token in tokens),
            stopped=decoding.stopped,
            timings=_timings(*times, chosen, ended, while_spoken),
        )

    def _answer(self, decoding: Decoding, listen: Callable[[str], None] | None) -> tuple[list[int], float]:
        """The tokens, and the moment at which the first was chosen (also where it was the stop id)."""
        pieces = TextPieces(self.engine.decode)
        tokens: list[int] = []
        token = next(decoding, None)
        chosen = time.perf_counter()
        while token is not None:
            tokens.append(token)
            if listen and (piece := pieces.feed(token)):
                listen(piece)
            token = next(decoding, None)
        return tokens, chosen

    def _prompt(self, turns: Sequence[Turn]) -> Ids:
        written = isinstance(turns[-1].user, str)
        kind: SampleType = "text" if written else "speech" if len(turns) == 1 else "multi_turn"
        return self.engine.layouts.prompt_for(Sample(kind, tuple(turns)))

    def _check(self, question: Question, history: Sequence[Turn], max_new_tokens: int) -> None:
        _check_kind(history, spoken=not isinstance(question, str))
        if isinstance(question, str):
            _check_speakable(question)
        else:
            self._check_length(question.size, len(np.concatenate(self._around(history))), max_new_tokens)

    def _around(self, history: Sequence[Turn]) -> tuple[Ids, Ids]:
        """The ids before and after the sound tokens of a question that follows ``history``."""
        contract, prompt = self.engine.contract, self._prompt([*history, Turn(np.zeros(1, dtype=np.int16))])
        (places,) = np.nonzero(prompt == contract.first_sound)
        return prompt[: places[-1]], prompt[places[-1] + 1 :]

    def _check_length(self, samples: int, around: int, max_new_tokens: int) -> None:
        """Refuse a recording that gives no sound token, or more than the model has room for."""
        count, milliseconds = token_count(samples), 1000 * samples / SAMPLE_RATE
        if not count:
            least = 1000 * SAMPLES_PER_TOKEN / SAMPLE_RATE
            raise DataError(
                f"the recording lasts {milliseconds:g} ms; one sound token takes {least:g} ms: ask for longer"
            )
        room = self.engine.positions - around - max_new_tokens
        if count > room:
            raise DataError(
                f"the recording lasts {milliseconds / 1000:.1f} s, {count} sound tokens; of the model's "
                f"{self.engine.positions} positions the conversation takes {around} and the answer {max_new_tokens}: "
                f"speak for {max(room, 0) / SOUND_TOKENS_PER_SECOND:.1f} s at most"
            )


class Listening:
    """A spoken question while it is said, made by :meth:`Session.listen`.

    Blocks of sound become tokens and go through the model when they are complete; at the end of the speech one
    incomplete block and the end of the prompt are left. Sound tokens and answer are those that :meth:`Session.ask`
    gives for the whole recording.
    """

    def __init__(self, session: Session, stream: Stream, history: Sequence[Turn], max_new_tokens: int) -> None:
        before, self._after = session._around(history)
        self._session, self._stream, self._max_new_tokens = session, stream, max_new_tokens
        self._around = len(before) + len(self._after)
        self._samples, self._spent, self._codes = 0, 0.0, [np.empty(0, dtype=np.int16)]
        self._prefill = session.engine.prefill()
        self._prefill.feed(before)

    def feed(self, samples: Waveform) -> None:
        """Hear the next ``samples``, float32 ``(n,)`` of any length, 16 kHz, in [-1, 1].

        Raises :class:`DataError` when the question gets too long for the model and :class:`TokenizerError` for samples
        that are damaged; nothing can be heard after either.
        """
        began = time.perf_counter()
        codes = self._hear(samples)
        self._prefill.feed(self._session.engine.contract.sound_ids(codes))
        self._spent += time.perf_counter() - began

    def finish(self, rest: Waveform | None = None, *, listen: Callable[[str], None] | None = None) -> Reply:
        """The answer, once the speech has ended with ``rest``; raises what :meth:`Session.ask` raises."""
        began = time.perf_counter()
        heard = self._hear(np.empty(0, dtype=np.float32) if rest is None else rest)
        self._session._check_length(self._samples, self._around, self._max_new_tokens)
        last = self._stream.finish()
        self._codes.append(last)
        ids = self._session.engine.contract.sound_ids(np.concatenate([heard, last]))
        tokenised = time.perf_counter()
        decoding = self._prefill.begin(np.concatenate([ids, self._after]), self._max_new_tokens)
        turn, times = Turn(np.concatenate(self._codes)), (began, tokenised, time.perf_counter())
        seconds = self._samples / SAMPLE_RATE
        return self._session._reply(turn, seconds, decoding, listen, times, self._spent)

    def _hear(self, samples: Waveform) -> Codes:
        """The sound tokens of the blocks that ``samples`` complete."""
        self._samples += samples.size
        if token_count(self._samples):
            self._session._check_length(self._samples, self._around, self._max_new_tokens)
        codes = self._stream.feed(samples)
        self._codes.append(codes)
        return codes


class TextPieces:
    """Turns tokens into text as they come: a piece is what a token adds to the text of all so far.

    Tokens of bytes can end inside a character; such text waits for the tokens that complete it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._tokens: list[int] = []
        self._shown = ""

    def feed(self, token: int) -> str:
        """The text that ``token`` completes, "" if none."""
        self._tokens.append(token)
        text = self._decode(self._tokens).rstrip(_UNFINISHED)
        piece, self._shown = text.removeprefix(self._shown), text
        return piece


def medians(timings: Sequence[Timings]) -> Timings:
    """The median of every part; the parts' medians need not add up to that of their sum."""
    return Timings(*(median(getattr(one, part.name) for one in timings) for part in fields(Timings)))


def _answered(history: Sequence[Turn]) -> list[Turn]:
    """The turns that the model answered with something."""
    return [turn for turn in history if len(turn.assistant)]


def _timings(
    began: float, tokenised: float, prefilled: float, chosen: float, ended: float, while_spoken: float
) -> Timings:
    parts = (tokenised - began, prefilled - tokenised, chosen - prefilled, chosen - began, ended - began, while_spoken)
    return Timings(*(1000 * seconds for seconds in parts))


def _check_kind(history: Sequence[Turn], *, spoken: bool) -> None:
    if any(isinstance(turn.user, str) == spoken for turn in history):
        raise DataError("one conversation is all spoken or all written; the model was trained on nothing else")


def _check_speakable(text: str) -> None:
    if not any(character.isalnum() for character in text):
        raise DataError(f"text {text!r} has no word; give a sentence with at least one letter or digit")
