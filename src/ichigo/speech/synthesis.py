"""Text to speech: one interface, :class:`Speaker`, and espeak-ng behind it.

espeak-ng runs in process (ctypes on the library and data of ``espeakng-loader``) and reports when each phone starts,
which gives the tokenizer's training frame-exact labels for nothing. It is one global state per process: calls are
serialised by a lock, and what it says depends on what it said before (the phase of its voice carries over, even through
a restart of the library and with its noise seeded). :func:`speak_all` therefore says every utterance in a process that
never spoke.
"""

from __future__ import annotations

import ctypes
import functools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ichigo.errors import DataError, StepError
from ichigo.progress import Progress
from ichigo.speech.audio import SAMPLE_RATE
from ichigo.speech.resample import resample

PAUSE = "_"
RATE_RANGE = (80, 450)  # words per minute; espeak-ng clips silently outside
PITCH_RANGE = (0, 99)

# speak_lib.h of espeak-ng 1.52
_SYNCHRONOUS, _PHONEME_EVENTS, _UTF8 = 2, 1, 1
_RATE, _PITCH = 1, 3
_END_OF_LIST, _PHONEME = 0, 7
_NOISE_SEED = 1  # breathy voices draw noise; left alone, the library seeds itself with the time of day


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of an utterance; ``symbol`` is espeak-ng's mnemonic without stress marks, or :data:`PAUSE`."""

    start_s: float
    end_s: float
    symbol: str


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """``waveform``: float32 ``(samples,)``, 16 kHz; ``phones`` cover it from 0 to its end without gaps."""

    waveform: npt.NDArray[np.float32]
    phones: tuple[Phone, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What to say and how; ``pitch`` on espeak-ng's scale of 0 to 99."""

    text: str
    voice: str
    words_per_minute: int
    pitch: int


class Speaker(Protocol):
    """Anything that turns text into speech."""

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int) -> Utterance:
        """Say ``text``; raises :class:`~ichigo.errors.DataError` for a voice, rate, pitch or text it cannot do."""
        ...


class Espeak:
    """espeak-ng in this process. Not repeatable from call to call: see :func:`speak_all`."""

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int) -> Utterance:
        """Say ``text`` in ``voice``: a language or ``language+variant``, e.g. ``en-us+f2``."""
        request = Request(text, voice, words_per_minute, pitch)
        check(request)
        return _utterance(_engine().say(request), request)


def check(request: Request) -> None:
    """Refuse what espeak-ng would accept and say wrongly: silent texts, clipped rates, unknown variants."""
    if "\0" in request.text + request.voice:
        raise DataError(f"text {request.text!r} or voice {request.voice!r} holds a NUL character; remove it")
    if not any(character.isalnum() for character in request.text):
        raise DataError(f"text {request.text!r} cannot be spoken; give a sentence with at least one letter or digit")
    for what, value, (lowest, highest) in (
        ("words_per_minute", request.words_per_minute, RATE_RANGE),
        ("pitch", request.pitch, PITCH_RANGE),
    ):
        if not lowest <= value <= highest:
            raise DataError(f"{what} {value} is outside {lowest} to {highest}, which is all that espeak-ng can do")
    _, plus, variant = request.voice.partition("+")
    if plus and variant not in variants():
        raise DataError(f"voice {request.voice!r}: no variant {variant!r}; known are {', '.join(sorted(variants()))}")


@functools.cache
def variants() -> frozenset[str]:
    """Names that may follow the ``+`` of a voice."""
    import espeakng_loader

    return frozenset(entry.name for entry in (Path(espeakng_loader.get_data_path()) / "voices" / "!v").iterdir())


def speak_all(requests: Sequence[Request], processes: int = 1) -> list[Utterance]:
    """One utterance per request, in order; equal requests give equal bytes, whatever the list and ``processes``.

    Each of ``processes`` workers is a fresh Python without torch that forks once per utterance, so espeak-ng always
    starts from the same state (about 15 ms each). Prints progress. Raises :class:`~ichigo.errors.DataError` for the
    first request that cannot be spoken, :class:`~ichigo.errors.StepError` if a worker dies.
    """
    for request in dict.fromkeys(requests):
        check(request)
    spoken: dict[int, Utterance] = {}
    progress, lock, stop = Progress("speaking", len(requests), "utterances"), threading.Lock(), threading.Event()

    def work(indices: range) -> None:
        try:
            for index, utterance in zip(indices, _spoken_by_worker([requests[i] for i in indices], stop), strict=False):
                with lock:
                    spoken[index] = utterance
                    progress.advance()
        except BaseException:
            stop.set()
            raise

    shares = [range(start, len(requests), processes) for start in range(min(processes, len(requests)))]
    with ThreadPoolExecutor(max(len(shares), 1)) as pool:
        for done in [pool.submit(work, share) for share in shares]:
            done.result()
    return [spoken[index] for index in range(len(requests))]


def _spoken_by_worker(requests: list[Request], stop: threading.Event) -> Iterator[Utterance]:
    """Utterances of one worker process, as they come; it is ended early once ``stop`` is set."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from ichigo.speech.synthesis import serve; serve()"]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
    try:
        with worker:
            for request, reply in zip(requests, _replies(worker, requests), strict=True):
                if stop.is_set():
                    worker.kill()
                    return
                if isinstance(reply, Exception):
                    worker.kill()
                    raise reply
                yield _utterance(reply, request)
    except (EOFError, BrokenPipeError):
        raise StepError(f"a speech process ended early with code {worker.returncode}; its words are above") from None


def _replies(worker: subprocess.Popen[bytes], requests: list[Request]) -> Iterator[_Speech | Exception]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    pickle.dump(requests, worker.stdin)
    worker.stdin.close()
    for _ in requests:
        yield pickle.load(worker.stdout)  # written by our own child


def serve() -> None:
    """Body of a worker process: a pickled list of requests on stdin, one pickled reply for each on stdout."""
    requests: list[Request] = pickle.load(sys.stdin.buffer)
    engine = _engine()
    for request in requests:
        pickle.dump(_say_in_fork(engine, request), sys.stdout.buffer)
        sys.stdout.buffer.flush()


@dataclass(frozen=True, slots=True)
class _Speech:
    """What espeak-ng answered: 16-bit samples at ``rate`` Hz and ``(first sample, mnemonic)`` of each phone."""

    pcm: bytes
    rate: int
    starts: list[tuple[int, str]]


def _say_in_fork(engine: _Engine, request: Request) -> _Speech | Exception:
    """Let a copy of this process, in which espeak-ng never spoke, answer ``request``."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        _answer_and_exit(engine, request, write_end)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        return DataError(f"espeak-ng died (code {status}) of {request.text!r} in {request.voice!r}; change the text")
    reply: _Speech | Exception = pickle.loads(answer)
    return reply


def _answer_and_exit(engine: _Engine, request: Request, write_end: int) -> None:
    reply: _Speech | Exception
    try:
        reply = engine.say(request)
    except DataError as error:
        reply = error
    with open(write_end, "wb") as pipe:
        pickle.dump(reply, pipe)
    os._exit(0)


def _utterance(speech: _Speech, request: Request) -> Utterance:
    samples = np.frombuffer(speech.pcm, np.int16).astype(np.float32) / np.float32(32768)
    phones = tuple(_phones(speech.starts, samples.size, speech.rate))
    if all(phone.symbol == PAUSE for phone in phones):
        raise DataError(f"text {request.text!r} gives no sound in voice {request.voice!r}; change one of them")
    return Utterance(np.clip(resample(samples, speech.rate, SAMPLE_RATE), -1.0, 1.0), phones)


def _phones(starts: list[tuple[int, str]], samples: int, rate: int) -> Iterator[Phone]:
    """Intervals from starting points; empty ones (a pause right before a pause) are left out."""
    points = [(0, PAUSE), *((start, _symbol(mnemonic)) for start, mnemonic in starts), (samples, PAUSE)]
    for (start, symbol), (end, _) in pairwise(points):
        if end > start:
            yield Phone(start / rate, end / rate, symbol)


def _symbol(mnemonic: str) -> str:
    """Without stress marks (``'`` ``,`` ``%`` ``=`` in front); every kind of pause (``_:``, ``_|`` …) is one symbol."""
    bare = mnemonic.lstrip("',%=")
    return PAUSE if not bare or bare.startswith(PAUSE) else bare


class _Identifier(ctypes.Union):
    _fields_ = (("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8))


class _Event(ctypes.Structure):
    """``espeak_EVENT`` of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Identifier),
    )


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class _Engine:
    """The loaded library; one per process, made by :func:`_engine`."""

    def __init__(self, library_path: str, data_path: str) -> None:
        self._library = ctypes.CDLL(library_path)
        self._lock = threading.Lock()
        self._pcm: list[bytes] = []
        self._starts: list[tuple[int, str]] = []
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data_path), _PHONEME_EVENTS))
        if self.rate <= 0:
            raise StepError(f"espeak-ng does not start with the data in {data_path}; reinstall espeakng-loader")
        self._callback = _CALLBACK(self._receive)  # the library keeps only a pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, request: Request) -> _Speech:
        text = request.text.encode()
        with self._lock:
            self._pcm, self._starts = [], []
            if self._library.espeak_SetVoiceByName(request.voice.encode()):
                raise DataError(f"voice {request.voice!r} is unknown to espeak-ng; use e.g. en, en-us, de or en-us+f2")
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(_NOISE_SEED))
            self._library.espeak_SetParameter(_RATE, request.words_per_minute, 0)
            self._library.espeak_SetParameter(_PITCH, request.pitch, 0)
            if self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None):
                raise DataError(f"espeak-ng cannot say {request.text!r}; change the text")
            return _Speech(b"".join(self._pcm), self.rate, self._starts)

    def _receive(self, pcm: Any, samples: int, events: Any) -> int:
        """Called by espeak-ng with some more sound; 0 asks it to go on."""
        if pcm and samples > 0:
            self._pcm.append(ctypes.string_at(pcm, 2 * samples))
        index = 0
        while (event := events[index]).type != _END_OF_LIST:
            if event.type == _PHONEME:
                self._starts.append((event.sample, event.id.string.decode(errors="replace")))
            index += 1
        return 0


@functools.cache
def _engine() -> _Engine:
    import espeakng_loader

    return _Engine(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
