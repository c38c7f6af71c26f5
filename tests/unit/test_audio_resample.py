"""Changing the sample rate: torchaudio's filter, to the sample."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ichigo.speech.resample import resample

RATES = [(44_100, 16_000), (22_050, 16_000), (8_000, 16_000), (48_000, 16_000), (11_025, 16_000), (16_001, 16_000)]

# Drawn once, uniform in [-1, 1].
INPUT = [
    0.61, 0.616, 0.031, -0.428, -0.892, -0.233, -0.183, -0.909, -0.902, 0.998, 0.305, -0.531,
    -0.13, 0.948, 0.795, 0.688, -0.215, -0.014, 0.353, -0.878, 0.111, -0.457, 0.759, -0.872,
]  # fmt: skip
# What torchaudio.functional.resample of torchaudio 2.8.0 makes of it at 16 kHz.
TORCHAUDIO = {
    44_100: [0.42769, -0.17219, -0.66789, -0.11112, 0.08356, 0.62813, 0.10426, -0.2431, -0.07908],
    22_050: [
        0.55442, 0.46365, -0.38749, -0.78068, -0.03183, -0.95203, -0.27816, 0.82228, -0.61148,
        0.35725, 1.01515, 0.36527, -0.09714, 0.11817, -0.53571, -0.04841, 0.1643, -0.48768,
    ],
    8_000: [
        0.60939, 0.75549, 0.615, 0.30704, 0.0332, -0.17047, -0.4308, -0.75532, -0.88811, -0.63721, -0.23855, -0.06619,
        -0.17623, -0.47071, -0.91639, -1.23406, -0.89392, 0.12473, 0.98979, 0.97193, 0.31305, -0.28538, -0.53899,
        -0.5011, -0.12234, 0.50807, 0.94106, 0.93628, 0.80056, 0.78212, 0.68457, 0.28948, -0.21553, -0.38195, -0.00735,
        0.48317, 0.33913, -0.45204, -0.85752, -0.35728, 0.0856, -0.23952, -0.42944, 0.24431, 0.73278, 0.05514, -0.84965,
        -0.73419,
    ],
}  # fmt: skip


@pytest.mark.parametrize("rate", TORCHAUDIO)
def test_the_samples_are_those_of_torchaudio(rate: int) -> None:
    heard = resample(np.array(INPUT, np.float32), rate, 16_000)
    np.testing.assert_allclose(heard, TORCHAUDIO[rate], atol=4e-5)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_every_sample_is_the_sum_that_the_formula_asks_for(source: int, target: int) -> None:
    waveform = np.random.default_rng(3).uniform(-1, 1, 700).astype(np.float32)
    heard = resample(waveform, source, target)
    assert heard.shape == (math.ceil(waveform.size * target / source),)
    cutoff = 0.99 * min(source, target) / source
    for place in (0, 1, heard.size // 2, heard.size - 1):
        t = np.clip(cutoff * (np.arange(waveform.size) - place * source / target), -6, 6)
        weights = cutoff * np.sinc(t) * np.cos(np.pi * t / 12) ** 2
        assert heard[place] == pytest.approx(float(weights @ waveform), abs=1e-6)


@pytest.mark.parametrize(("source", "target"), RATES)
def test_a_tone_keeps_its_pitch_and_loudness(source: int, target: int) -> None:
    heard = resample(np.sin(2 * np.pi * 1000 * np.arange(source) / source).astype(np.float32), source, target)
    expected = np.sin(2 * np.pi * 1000 * np.arange(target) / target)
    inside = slice(200, target - 200)
    assert np.abs(heard[inside] - expected[inside]).max() < 5e-3


def test_what_the_target_rate_cannot_hold_is_removed() -> None:
    heard = resample(np.sin(2 * np.pi * 12_000 * np.arange(48_000) / 48_000).astype(np.float32), 48_000, 16_000)
    assert np.abs(heard[200:-200]).max() < 5e-3


def test_long_sound_is_the_same_as_its_pieces() -> None:
    waveform = np.random.default_rng(4).uniform(-1, 1, 4 * 44_100).astype(np.float32)
    whole = resample(waveform, 44_100, 16_000)
    piece = resample(waveform[44_100 : 3 * 44_100], 44_100, 16_000)
    np.testing.assert_array_equal(whole[16_000 + 100 : 3 * 16_000 - 100], piece[100:-100])
