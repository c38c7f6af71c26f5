"""Text to speech by WhisperSpeech on a GPU, behind :class:`~ichigo.speech.synthesis.Speaker`.

WhisperSpeech sounds human where espeak-ng sounds like a machine, and costs a GPU and an environment of its own: it
needs torchaudio 2.8, so it is installed from ``images/whisperspeech.lock.txt`` and not beside training. It knows no
times of phones or words: tokenizers are fitted on espeak-ng's speech, and these utterances carry sound alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from ichigo.errors import DataError, StepError
from ichigo.speech.audio import SAMPLE_RATE
from ichigo.speech.resample import resample
from ichigo.speech.synthesis import Utterance

LOCK = "images/whisperspeech.lock.txt"
NEUTRAL_PITCH = 50

_VOCODER_RATE = 24_000
_LETTERS_PER_WORD = 6.0  # with its space: the usual definition of a word in words per minute is 5 and a space
_LONGEST = 549  # bytes; the text model has 550 positions, one of them for the start, and cuts without a word


class Pipeline(Protocol):
    """The part of ``whisperspeech.pipeline.Pipeline`` (0.8.9) that is used."""

    def generate(self, text: str, speaker: str | None = None, lang: str = "en", cps: float = 15) -> Any:
        """A tensor ``(1, samples)`` at 24 kHz; ``cps``: letters a second; ``speaker``: a recording to sound like."""
        ...


class WhisperSpeechSpeaker:
    """One loaded pipeline. What it says is sampled: the same text twice is not the same sound."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline

    @classmethod
    def load(cls, text_to_semantic: Path, semantic_to_acoustic: Path, device: str = "cuda") -> WhisperSpeechSpeaker:
        """The two published ``.model`` files from this machine; the vocoder comes from Hugging Face's cache.

        Raises :class:`~ichigo.errors.DataError` for a missing file, :class:`~ichigo.errors.StepError` if the package is
        not installed or cannot use the files (it prints why and goes on, so this looks at what it loaded).
        """
        for path in (text_to_semantic, semantic_to_acoustic):
            if not path.is_file():
                raise DataError(f"{path}: no such file; give a local copy of WhisperSpeech's .model")
        try:
            from whisperspeech.pipeline import Pipeline as Published  # type: ignore[import-not-found]
        except ImportError as error:
            raise StepError(
                f"whisperspeech does not import here ({error}); install {LOCK} into an environment of its own"
            ) from error
        pipeline = Published(t2s_ref=str(text_to_semantic), s2a_ref=str(semantic_to_acoustic), device=device)
        if not (hasattr(pipeline, "t2s") and hasattr(pipeline, "s2a")):
            raise StepError(
                f"whisperspeech cannot load {text_to_semantic} or {semantic_to_acoustic}; it says why above"
            )
        return cls(pipeline)

    def speak(self, text: str, voice: str, words_per_minute: int, pitch: int) -> Utterance:
        """Say ``text``; ``voice`` is a language, or ``language+recording`` with the path of a voice to sound like.

        Raises :class:`~ichigo.errors.DataError` for a text that is silent or too long, a recording that is not there,
        and a ``pitch`` other than 50, which only the voice decides.
        """
        language, _, recording = voice.partition("+")
        _check(text, language, recording, pitch)
        letters_per_second = words_per_minute * _LETTERS_PER_WORD / 60
        sound = self._pipeline.generate(text, speaker=recording or None, lang=language, cps=letters_per_second)
        samples = np.asarray(sound.detach().float().cpu().numpy(), np.float32).reshape(-1)
        if not samples.size or not np.isfinite(samples).all():
            raise DataError(f"whisperspeech gives no usable sound for {text!r} in {voice!r}; change one of them")
        return Utterance(_at_16_khz(samples), (), ())


def _at_16_khz(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    return np.clip(resample(samples, _VOCODER_RATE, SAMPLE_RATE), -1.0, 1.0)


def _check(text: str, language: str, recording: str, pitch: int) -> None:
    """Refuse what the pipeline would say wrongly, cut or try to download."""
    if not any(character.isalnum() for character in text):
        raise DataError(f"text {text!r} cannot be spoken; give a sentence with at least one letter or digit")
    if len(text.encode()) > _LONGEST:
        raise DataError(f"text of {len(text.encode())} bytes; WhisperSpeech hears {_LONGEST}: split {text[:40]!r} …")
    if not language:
        raise DataError("the voice names no language; use e.g. en or en+/path/to/voice.wav")
    if recording and not Path(recording).is_file():
        raise DataError(f"{recording}: no such recording; a voice is language or language+path, nothing is fetched")
    if pitch != NEUTRAL_PITCH:
        raise DataError(f"pitch {pitch}: WhisperSpeech takes it from the voice; set data.voices.pitch to [50, 50]")
