"""How long a person waits: from the end of speech to the first token of the answer, by the length of the speech.

The arms are asked by one engine each, in the same precision, at batch 1, turn by turn in rounds, so that whatever else
the machine does falls on all of them::

    speech     the whole recording becomes sound tokens at the end of the speech
    streaming  sound becomes tokens and goes through the model while it is said; its last 0.1 s end the speech
    text       the same words in writing: what the model costs without ears
    cascade    the model writes down what was said, then the base model is asked in writing

The cascade's transcript is given the number of tokens that the true one has, whatever the model says, and the base gets
the true one: so its time is that of a right transcript, and does not depend on how well a model was trained.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from typing import Literal

import numpy as np
import numpy.typing as npt

from ichigo.errors import DataError, TokenizerError
from ichigo.inference.engine import Engine
from ichigo.inference.session import Session, Waveform
from ichigo.language.layouts import TRANSCRIPTION_PROMPTS, Ids, Sample, Turn
from ichigo.speech.audio import SAMPLE_RATE
from ichigo.speech.synthesis import Request, Utterance, speak_all

Arm = Literal["speech", "streaming", "text", "cascade"]
ARMS: tuple[Arm, ...] = ("speech", "streaming", "text", "cascade")
PARTS = ("transcribe", "tokenise", "prefill", "first_token")
"""What the wait is made of; ``transcribe`` is the cascade's alone, its recogniser's sound tokens and prefill in it."""

PERCENTILES = (50, 95, 99)

SENTENCES = (
    "turn on the light in the kitchen",
    "what is the weather like tomorrow morning",
    "set a timer for twenty five minutes",
    "how many people live in the city of london",
    "please remind me to call my sister at seven",
    "tell me a short story about a small red boat",
    "which of the two roads is the faster one",
    "play some quiet music while i read my book",
)
"""What is said, over and over until the speech is long enough."""

_VOICE, _WORDS_PER_MINUTE, _PITCH = "en-us", 175, 50  # the last two are espeak-ng's own defaults


@dataclass(frozen=True, eq=False)
class Speech:
    """Speech of an exact length: float32 ``(samples,)``, 16 kHz, and the words that were said to their end in it."""

    waveform: Waveform
    text: str

    @property
    def seconds(self) -> float:
        """How long it lasts."""
        return self.waveform.size / SAMPLE_RATE


@dataclass(frozen=True)
class Wait:
    """One measurement, in milliseconds: the parts of the wait by name, and what was computed during the speech."""

    parts: Mapping[str, float]
    while_spoken: float = 0.0

    @property
    def total(self) -> float:
        """From the end of speech to the first token."""
        return sum(self.parts.values())


@dataclass
class Row:
    """All measurements of one arm at one length; ``prompt`` counts the tokens of the prompt that is answered."""

    arm: Arm
    seconds: float
    prompt: int
    waits: list[Wait] = field(default_factory=list)

    def percentiles(self, part: str | None = None) -> tuple[float, ...]:
        """:data:`PERCENTILES` of a part of the wait, of all of it without ``part``, in milliseconds, interpolated."""
        values = [wait.total if part is None else wait.parts.get(part, 0.0) for wait in self.waits]
        return tuple(float(value) for value in np.percentile(values, PERCENTILES))

    @property
    def keeps_up(self) -> float:
        """Seconds of computing for a second of speech while it is said, the median; above 1 the model falls behind."""
        return float(np.median([wait.while_spoken for wait in self.waits])) / (1000 * self.seconds)


@dataclass(frozen=True)
class LeftOut:
    """An arm that was not measured at a length (None: at any), and why."""

    arm: Arm
    seconds: float | None
    reason: str


@dataclass(frozen=True)
class Latency:
    """What was measured, in the order of arms and lengths."""

    rows: tuple[Row, ...]
    left_out: tuple[LeftOut, ...]

    def growth(self, row: Row) -> float:
        """How many times the median wait at the shortest length of its arm ``row`` waits."""
        shortest = min((other for other in self.rows if other.arm == row.arm), key=lambda other: other.seconds)
        return row.percentiles()[0] / shortest.percentiles()[0]


def joined_speech(seconds: float) -> Speech:
    """:data:`SENTENCES` said by espeak-ng in a row, cut after exactly ``seconds``."""
    return join(_said(), round(seconds * SAMPLE_RATE))


@cache
def _said() -> tuple[Utterance, ...]:
    return tuple(speak_all([Request(text, _VOICE, _WORDS_PER_MINUTE, _PITCH) for text in SENTENCES]))


def join(utterances: Sequence[Utterance], samples: int) -> Speech:
    """``utterances`` one after the other, from the first again after the last, cut after ``samples``."""
    waveforms: list[npt.NDArray[np.float32]] = []
    words: list[str] = []
    filled, number = 0, 0
    while filled < samples:
        utterance = utterances[number % len(utterances)]
        words += [word.text for word in utterance.words if filled + word.end_s * SAMPLE_RATE <= samples]
        waveforms.append(utterance.waveform)
        filled, number = filled + utterance.waveform.size, number + 1
    return Speech(np.concatenate(waveforms)[:samples], " ".join(words))


class Bench:
    """The arms around one session; ``base`` is the cascade's second model, if there is one."""

    def __init__(self, session: Session, base: Engine | None = None) -> None:
        self._session, self._engine, self._base = session, session.engine, base

    def measure(self, speeches: Sequence[Speech], repeat: int) -> Latency:
        """Every arm at every length ``repeat`` times, after one that does not count.

        An arm or length that cannot be asked is left out with the reason.
        """
        left_out = list(self._missing())
        arms = [arm for arm in ARMS if arm not in {one.arm for one in left_out}]
        cells: list[tuple[Row, Speech]] = []
        for arm, speech in ((arm, speech) for arm in arms for speech in speeches):
            try:
                self.wait(arm, speech)
                cells.append((Row(arm, speech.seconds, self._prompt_length(arm, speech)), speech))
            except DataError as error:
                left_out.append(LeftOut(arm, speech.seconds, str(error)))
        for _ in range(repeat):
            for row, speech in cells:
                row.waits.append(self.wait(row.arm, speech))
        return Latency(tuple(row for row, _ in cells), tuple(left_out))

    def wait(self, arm: Arm, speech: Speech) -> Wait:
        """One question, from the end of ``speech`` to the first token of its answer.

        Raises :class:`DataError` for speech that the model has no room for, or in which no word ends.
        """
        if arm == "cascade":
            return self._cascade(speech)
        if arm == "text":
            times = self._session.ask(_words(speech), max_new_tokens=1).timings
        elif arm == "speech":
            times = self._session.ask(speech.waveform, max_new_tokens=1).timings
        else:
            times = self._session.ask_while_spoken(speech.waveform, max_new_tokens=1).timings
        parts = {"tokenise": times.tokenise, "prefill": times.prefill, "first_token": times.first_token}
        return Wait(parts, times.while_spoken)

    def _cascade(self, speech: Speech) -> Wait:
        assert self._base is not None
        words, began = _words(speech), time.perf_counter()
        transcription = Sample("transcription", (Turn(self._session.codes(speech.waveform)),), TRANSCRIPTION_PROMPTS[0])
        prompt = self._engine.layouts.prompt_for(transcription)
        list(self._engine.begin(prompt, self._spelled(words), stops=False))
        transcribed = time.perf_counter()
        question = self._written(words)
        tokenised = time.perf_counter()
        decoding = self._base.begin(question, 1)
        prefilled = time.perf_counter()
        next(decoding, None)
        times = (began, transcribed, tokenised, prefilled, time.perf_counter())
        spans = (1000 * (after - before) for before, after in pairwise(times))
        return Wait(dict(zip(PARTS, spans, strict=True)))

    def _missing(self) -> Iterator[LeftOut]:
        """Arms that there is nothing for."""
        try:
            self._session.listen()
        except TokenizerError as error:
            yield LeftOut("streaming", None, str(error))
        if self._base is None:
            yield LeftOut("cascade", None, "no base model is at hand; name its folder with --base")
        elif self._base.dtype != self._engine.dtype:
            reason = f"the base model computes in {self._base.dtype}, the model in {self._engine.dtype}"
            yield LeftOut("cascade", None, f"{reason}; give one in the same precision")

    def _prompt_length(self, arm: Arm, speech: Speech) -> int:
        if arm in ("text", "cascade"):
            return len(self._written(_words(speech)))
        codes = self._session.codes(speech.waveform)
        return len(self._engine.layouts.prompt_for(Sample("speech", (Turn(codes),))))

    def _written(self, text: str) -> Ids:
        return self._engine.layouts.prompt_for(Sample("text", (Turn(text),)))

    def _spelled(self, text: str) -> int:
        """Tokens that ``text`` takes as an answer, its end included: what one more turn of it adds to a prompt."""
        return len(self._written(text)) - len(self._written(text[:1])) + 2


def _words(speech: Speech) -> str:
    if not speech.text:
        raise DataError(f"no word ends within {speech.seconds:g} s of speech")
    return speech.text
