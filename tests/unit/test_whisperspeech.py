"""WhisperSpeech behind the interface of every speaker: the sound at 16 kHz, and clear words about what it cannot do."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ichigo.errors import DataError, StepError
from ichigo.speech.synthesis import Speaker
from ichigo.speech.whisperspeech import LOCK, WhisperSpeechSpeaker

ROOT = Path(__file__).parents[2]


@dataclass
class Tone:
    """A pipeline that answers with 1 kHz for 1 s at 24 kHz, shaped as the package does: ``(1, samples)``."""

    sound: torch.Tensor = field(
        default_factory=lambda: torch.sin(2 * torch.pi * 1000 / 24_000 * torch.arange(24_000.0))
    )
    asked: list[dict[str, Any]] = field(default_factory=list)

    def generate(self, text: str, speaker: str | None = None, lang: str = "en", cps: float = 15) -> torch.Tensor:
        self.asked.append({"text": text, "speaker": speaker, "lang": lang, "cps": cps})
        return self.sound[None].half().requires_grad_()


def test_the_sound_keeps_its_length_and_pitch_at_16_khz() -> None:
    speaker: Speaker = WhisperSpeechSpeaker(Tone())
    utterance = speaker.speak("hello there", "en", 180, 50)
    assert utterance.waveform.dtype == np.float32
    assert utterance.waveform.shape == (16_000,)
    assert np.abs(utterance.waveform).max() <= 1
    assert np.abs(np.fft.rfft(utterance.waveform)).argmax() == 1000
    assert (utterance.phones, utterance.words) == ((), ())


def test_voice_and_speed_reach_the_pipeline(tmp_path: Path) -> None:
    pipeline, recording = Tone(), tmp_path / "anna.wav"
    recording.touch()
    speaker = WhisperSpeechSpeaker(pipeline)
    speaker.speak("guten tag", "de", 150, 50)
    speaker.speak("good day", f"en+{recording}", 200, 50)
    assert pipeline.asked == [
        {"text": "guten tag", "speaker": None, "lang": "de", "cps": pytest.approx(15)},
        {"text": "good day", "speaker": str(recording), "lang": "en", "cps": pytest.approx(20)},
    ]


@pytest.mark.parametrize(
    ("text", "voice", "pitch", "message"),
    [
        ("...", "en", 50, "cannot be spoken"),
        ("a" * 550, "en", 50, "550 bytes"),
        ("ä" * 300, "en", 50, "600 bytes"),
        ("hello", "", 50, "names no language"),
        ("hello", "en+https://example.org/voice.wav", 50, "no such recording"),
        ("hello", "en", 60, "pitch 60"),
    ],
)
def test_what_it_cannot_do_is_told_before_it_speaks(text: str, voice: str, pitch: int, message: str) -> None:
    pipeline = Tone()
    with pytest.raises(DataError, match=message):
        WhisperSpeechSpeaker(pipeline).speak(text, voice, 180, pitch)
    assert not pipeline.asked


@pytest.mark.parametrize("sound", [torch.zeros(0), torch.full((100,), torch.nan)])
def test_sound_that_is_none_is_refused(sound: torch.Tensor) -> None:
    with pytest.raises(DataError, match="no usable sound for 'hello'"):
        WhisperSpeechSpeaker(Tone(sound)).speak("hello", "en", 180, 50)


def test_a_missing_package_names_the_lock_that_brings_it(tmp_path: Path) -> None:
    assert find_spec("whisperspeech") is None, "it never shares this environment"
    models = [tmp_path / "t2s.model", tmp_path / "s2a.model"]
    with pytest.raises(DataError, match=r"t2s\.model: no such file"):
        WhisperSpeechSpeaker.load(models[0], models[1])
    for path in models:
        path.touch()
    with pytest.raises(StepError, match=LOCK):
        WhisperSpeechSpeaker.load(models[0], models[1])
    lines = (ROOT / LOCK).read_text().splitlines()
    assert "whisperspeech==0.8.9" in lines
    assert all("==" in line for line in lines if not line.startswith("#")), "every version is pinned"
