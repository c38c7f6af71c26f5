"""Text to speech: one interface, :class:`Speaker`, and espeak-ng behind it.

espeak-ng runs in process (ctypes on the library and data of ``espeakng-loader``) and reports when each phone and word
starts, which gives the tokenizer's training frame-exact labels for nothing. It is one global state per process: calls
are serialised by a lock, and what it says depends on what it said before (the phase of its voice carries over, even
through a restart of the library and with its noise seeded). :func:`speak_blocks` therefore says every block of
utterances in a process that never spoke, and :func:`speak_all` makes every utterance a block of its own.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import pickle
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

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
_END_OF_LIST, _WORD, _PHONEME = 0, 1, 7
_NOISE_SEED = 1  # breathy voices draw noise; left alone, the library seeds itself with the time of day

_ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": str(64 << 20), "MALLOC_TRIM_THRESHOLD_": "-1"}
"""For speech processes: glibc keeps freed memory, which halves the page faults (2100, not 4900) after each fork."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Phone:
    """One phone of an utterance; ``symbol`` is espeak-ng's mnemonic without stress marks, or :data:`PAUSE`."""

    start_s: float
    end_s: float
    symbol: str


@dataclass(frozen=True, slots=True)
class Word:
    """One word of ``text.split()``. Where espeak-ng joins two (``on the``), letters say where the second starts."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """``waveform``: float32 ``(samples,)``, 16 kHz; ``phones`` cover it from 0 to its end without gaps, ``words`` do
    not: pauses lie between them."""

    waveform: npt.NDArray[np.float32]
    phones: tuple[Phone, ...]
    words: tuple[Word, ...]


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

    Costs a fork per request (2 to 5 ms beside the 1.5 ms of speaking); otherwise as :func:`speak_blocks`.
    """
    blocks = speak_blocks([[request] for request in requests], processes, _itself)
    return [utterance for block in blocks for utterance in block]


def speak_blocks(
    blocks: Sequence[Sequence[Request]], processes: int, then: Callable[[Utterance], T]
) -> Iterator[list[T]]:
    """``then`` of each request's utterance, block by block in order; equal blocks give equal bytes.

    Within a block a request's bytes depend on the requests before it, on nothing else and never on ``processes``. Each
    of these is a fresh Python without torch that forks once per block; ``then``, a function that can be imported by its
    name, runs there too. Prints progress. Raises :class:`~ichigo.errors.DataError` for the first request that cannot be
    spoken, :class:`~ichigo.errors.StepError` if a process dies.
    """
    for request in {request for block in blocks for request in block}:
        check(request)
    progress = Progress("speaking", sum(map(len, blocks)), "utterances")
    with contextlib.ExitStack() as stack:
        count = min(processes, len(blocks))
        workers = [stack.enter_context(_worker(blocks[first::count], then)) for first in range(count)]
        for number, block in enumerate(blocks):
            yield _reply(workers[number % count])
            progress.advance(len(block))


@contextlib.contextmanager
def _worker(blocks: Sequence[Sequence[Request]], then: Callable[[Utterance], T]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers ``blocks`` on its stdout; it ends with the context, finished or not."""
    environment = os.environ | _ENVIRONMENT | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", "from ichigo.speech.synthesis import serve; serve()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as worker:
        assert worker.stdin is not None
        try:
            with contextlib.suppress(BrokenPipeError), worker.stdin as pipe:  # a dead one is noticed by its silence
                pickle.dump((then, blocks), pipe)
            yield worker
        finally:
            worker.kill()


def _reply(worker: subprocess.Popen[bytes]) -> list[Any]:
    """The next block that ``worker`` finished."""
    assert worker.stdout is not None
    try:
        reply: list[Any] | DataError = pickle.load(worker.stdout)  # written by our own child
    except (EOFError, pickle.UnpicklingError):
        raise StepError(f"a speech process ended early with code {worker.wait()}; its words are above") from None
    if isinstance(reply, DataError):
        raise reply
    return reply


def serve() -> None:
    """Body of a worker process: a pickled function and list of blocks on stdin, a pickled reply for each on stdout."""
    then, blocks = pickle.load(sys.stdin.buffer)
    engine = _engine()
    for block in blocks:
        sys.stdout.buffer.write(_say_in_fork(engine, block, then))
        sys.stdout.buffer.flush()


def _say_in_fork(engine: _Engine, block: Sequence[Request], then: Callable[[Utterance], T]) -> bytes:
    """Let a copy of this process, in which espeak-ng never spoke, answer ``block``: a pickled list or DataError."""
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read_end)  # else the write of a child whose parent was killed never fails, and it waits for ever
        _answer_and_exit(engine, block, then, write_end)
    os.close(write_end)
    with open(read_end, "rb") as pipe:
        answer = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        said = ", ".join(repr(request.text) for request in block[:3])
        return pickle.dumps(DataError(f"espeak-ng died (code {status}) of {said} in {block[0].voice!r}; change them"))
    return answer


def _answer_and_exit(engine: _Engine, block: Sequence[Request], then: Callable[[Utterance], T], write_end: int) -> None:
    """Never returns: this is the child of a fork."""
    code = 1
    try:
        reply: list[T] | DataError
        try:
            reply = [then(_utterance(engine.say(request), request)) for request in block]
        except DataError as error:
            reply = error
        with open(write_end, "wb") as pipe:
            pickle.dump(reply, pipe)
        code = 0
    except BrokenPipeError:
        pass  # nobody waits for the answer any more
    except Exception:
        traceback.print_exc()
    finally:
        os._exit(code)


def _itself(utterance: Utterance) -> Utterance:
    return utterance


@dataclass(frozen=True, slots=True)
class _Speech:
    """What espeak-ng answered: 16-bit samples at ``rate`` Hz, ``(first sample, mnemonic)`` of each phone, and
    ``(first character from 0, first sample)`` of the words that it tells apart."""

    pcm: bytes
    rate: int
    starts: list[tuple[int, str]]
    words: list[tuple[int, int]]


def _utterance(speech: _Speech, request: Request) -> Utterance:
    samples = np.frombuffer(speech.pcm, np.int16).astype(np.float32) / np.float32(32768)
    phones = tuple(_phones(speech.starts, samples.size, speech.rate))
    if all(phone.symbol == PAUSE for phone in phones):
        raise DataError(f"text {request.text!r} gives no sound in voice {request.voice!r}; change one of them")
    words = tuple(_words(request.text, speech, phones))
    return Utterance(np.clip(resample(samples, speech.rate, SAMPLE_RATE), -1.0, 1.0), phones, words)


def _phones(starts: list[tuple[int, str]], samples: int, rate: int) -> Iterator[Phone]:
    """Intervals from starting points; empty ones (a pause right before a pause) are left out."""
    points = [(0, PAUSE), *((start, _symbol(mnemonic)) for start, mnemonic in starts), (samples, PAUSE)]
    for (start, symbol), (end, _) in pairwise(points):
        if end > start:
            yield Phone(start / rate, end / rate, symbol)


def _words(text: str, speech: _Speech, phones: Sequence[Phone]) -> Iterator[Word]:
    """Each of ``text.split()``, from its start to the next one's or to the pause between them."""
    words = text.split()
    sounds = [phone for phone in phones if phone.symbol != PAUSE]
    characters = [place for place, _ in speech.words] or [0]
    seconds = [sample / speech.rate for _, sample in speech.words] or [0.0]
    places = [*_places(text, words), len(text)]
    starts = np.interp(places, [*characters, len(text)], [*seconds, sounds[-1].end_s]).tolist()
    for word, (start, following) in zip(words, pairwise(starts), strict=True):
        heard = [phone.end_s for phone in sounds if start < phone.end_s and phone.start_s < following]
        yield Word(start, min(heard[-1], following) if heard else following, word)


def _places(text: str, words: Sequence[str]) -> Iterator[int]:
    """The character at which each of ``words``, all of ``text``, starts."""
    end = 0
    for word in words:
        place = text.index(word, end)
        end = place + len(word)
        yield place


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
        self._words: dict[int, int] = {}
        self.rate = int(self._library.espeak_Initialize(_SYNCHRONOUS, 0, os.fsencode(data_path), _PHONEME_EVENTS))
        if self.rate <= 0:
            raise StepError(f"espeak-ng does not start with the data in {data_path}; reinstall espeakng-loader")
        self._callback = _CALLBACK(self._receive)  # the library keeps only a pointer
        self._library.espeak_SetSynthCallback(self._callback)

    def say(self, request: Request) -> _Speech:
        text = request.text.encode()
        with self._lock:
            self._pcm, self._starts, self._words = [], [], {}
            if self._library.espeak_SetVoiceByName(request.voice.encode()):
                raise DataError(f"voice {request.voice!r} is unknown to espeak-ng; use e.g. en, en-us, de or en-us+f2")
            self._library.espeak_ng_SetRandSeed(ctypes.c_long(_NOISE_SEED))
            self._library.espeak_SetParameter(_RATE, request.words_per_minute, 0)
            self._library.espeak_SetParameter(_PITCH, request.pitch, 0)
            if self._library.espeak_Synth(text, len(text) + 1, 0, 1, 0, _UTF8, None, None):
                raise DataError(f"espeak-ng cannot say {request.text!r}; change the text")
            return _Speech(b"".join(self._pcm), self.rate, self._starts, sorted(self._words.items()))

    def _receive(self, pcm: Any, samples: int, events: Any) -> int:
        """Called by espeak-ng with some more sound; 0 asks it to go on."""
        if pcm and samples > 0:
            self._pcm.append(ctypes.string_at(pcm, 2 * samples))
        index = 0
        while (event := events[index]).type != _END_OF_LIST:
            if event.type == _PHONEME:
                self._starts.append((event.sample, event.id.string.decode(errors="replace")))
            elif event.type == _WORD:
                self._words.setdefault(event.text_position - 1, event.sample)
            index += 1
        return 0


@functools.cache
def _engine() -> _Engine:
    import espeakng_loader

    return _Engine(espeakng_loader.get_library_path(), espeakng_loader.get_data_path())
