"""The log-mel against Whisper's definition computed another way: numpy in double precision, one frame at a time."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from ichigo.errors import TokenizerError
from ichigo.speech.mel import filters, log_mel


def slaney_hz(mel: float) -> float:
    return 200 * mel / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)


def reference_filters(bands: int) -> NDArray[np.float64]:
    """Triangle by triangle, each of area one; 8 kHz is mel 15 + 27 log(8)/log(6.4)."""
    top = 15 + 27 * math.log(8) / math.log(6.4)
    edges = [slaney_hz(top * index / (bands + 1)) for index in range(bands + 2)]
    bank = np.zeros((bands, 201))
    for band, (left, centre, right) in enumerate(zip(edges, edges[1:], edges[2:], strict=False)):
        for bin_ in range(201):
            hz = 40.0 * bin_
            height = min((hz - left) / (centre - left), (right - hz) / (right - centre))
            bank[band, bin_] = max(0.0, height) * 2 / (right - left)
    return bank


def reference_log_mel(waveform: NDArray[np.float32], bands: int) -> NDArray[np.float64]:
    mirrored = np.pad(waveform.astype(np.float64), 200, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    frames = [mirrored[start : start + 400] * window for start in range(0, 160 * (waveform.size // 160), 160)]
    power = np.abs(np.fft.rfft(frames)) ** 2
    decades = np.log10(np.maximum(reference_filters(bands) @ power.T, 1e-10))
    floored: NDArray[np.float64] = (np.maximum(decades, decades.max() - 8) + 4) / 4
    return floored


@pytest.mark.parametrize("bands", [80, 128])
def test_filter_bank_is_slaneys(bands: int) -> None:
    np.testing.assert_allclose(filters(bands), reference_filters(bands), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("samples", [201, 640, 15_999, 16_000, 16_161])
def test_log_mel_is_whispers(samples: int) -> None:
    rng = np.random.default_rng(samples)
    waveform = (np.sin(np.arange(samples) * 0.2) * 0.5 + 0.001 * rng.standard_normal(samples)).astype(np.float32)
    mel = log_mel(waveform)
    assert mel.shape == (80, samples // 160)
    np.testing.assert_allclose(mel.numpy(), reference_log_mel(waveform, 80), atol=2e-4)


def test_nothing_lies_more_than_eight_decades_below_the_loudest() -> None:
    waveform = np.zeros(16_000, np.float32)
    waveform[:8000] = 0.9 * np.sin(np.arange(8000) * 0.3)
    mel = log_mel(waveform)
    assert float(mel.max() - mel.min()) == pytest.approx(2.0, abs=1e-6)


def test_audio_too_short_for_a_spectrum_is_refused() -> None:
    with pytest.raises(TokenizerError, match="200 samples"):
        log_mel(np.ones(200, np.float32))
