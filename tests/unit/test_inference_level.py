"""The level check: it must not doubt a voice, and must notice a microphone that is off."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ichigo.inference.level import has_energy
from ichigo.speech.audio import read_audio

SECOND = 16_000


def clicks(milliseconds: float, count: int = 6) -> npt.NDArray[np.float32]:
    """Two seconds of silence with ``count`` loud bursts, far apart."""
    rng, wave = np.random.default_rng(1), np.zeros(2 * SECOND, dtype=np.float32)
    size = int(SECOND * milliseconds / 1000)
    for start in range(1000, 2 * SECOND - size, 2 * SECOND // count):
        wave[start : start + size] = 0.5 * rng.standard_normal(size)
    return wave


@pytest.mark.parametrize(
    "waveform",
    [
        np.zeros(SECOND, dtype=np.float32),
        np.full(SECOND, 0.2, dtype=np.float32),  # a microphone's offset
        (0.001 * np.random.default_rng(0).standard_normal(SECOND)).astype(np.float32),  # -60 dB
        clicks(0.1),
        clicks(5),
        clicks(30),
        np.zeros(0, dtype=np.float32),
        np.ones(400, dtype=np.float32),
    ],
    ids=["silence", "offset", "hiss", "ticks", "clicks", "knocks", "nothing", "25 ms"],
)
def test_nothing_to_hear(waveform: npt.NDArray[np.float32]) -> None:
    assert not has_energy(waveform)


def test_one_soft_syllable_in_silence_is_heard() -> None:
    """120 ms at -40 dB: the softest that a microphone's speech is."""
    wave = np.zeros(2 * SECOND, dtype=np.float32)
    wave[8000:9920] = 0.01 * np.sqrt(2) * np.sin(2 * np.pi * 150 / SECOND * np.arange(1920))
    assert has_energy(wave)


def test_every_human_recording_is_heard(recordings: Path) -> None:
    lines = [json.loads(line) for line in (recordings / "fsdd" / "metadata.jsonl").read_text().splitlines()][::20]
    assert len(lines) > 50
    paths = [recordings / "fsdd" / line["file_name"] for line in lines]
    assert [path.name for path in paths if not has_energy(read_audio(path))] == []
