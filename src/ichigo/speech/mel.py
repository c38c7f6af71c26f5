"""Whisper's log-mel spectrogram, number for number (openai-whisper, ``audio.py``; filters of librosa, ``mel``)."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ichigo.errors import TokenizerError

N_FFT = 400
HOP = 160
FRAMES_PER_WINDOW = 3000
"""30 s."""

PAD_VALUE = -1.5
"""What whisperspeech pads a mel with; the clamp below allows values from ``max/4 - 1`` to ``max/4 + 1``."""

_NYQUIST = 8000.0
_HZ_PER_MEL = 200 / 3  # Slaney's scale is linear up to 1 kHz,
_KNEE_HZ = 1000.0  # and logarithmic above it,
_MELS_PER_E = 27 / np.log(6.4)  # with 27 mels from 1 to 6.4 kHz


def log_mel(waveform: NDArray[np.float32], bands: int = 80) -> torch.Tensor:
    """Log-mel of one waveform: float32 ``(bands, samples // 160)``.

    ``waveform``: float32 ``(samples,)``, 16 kHz, in [-1, 1]. The floor is 8 decades below the loudest value *of this
    waveform*, so a recording's mel does not depend on its neighbours in a batch.

    Raises :class:`TokenizerError` for 200 samples or fewer, which the STFT cannot mirror at its edges.
    """
    if waveform.size <= N_FFT // 2:
        raise TokenizerError(f"audio of {waveform.size} samples has no spectrum; at least {N_FFT // 2 + 1} are needed")
    samples = torch.from_numpy(np.array(waveform, dtype=np.float32, order="C"))  # a copy: the caller's may be read-only
    spectrum = torch.stft(samples, N_FFT, HOP, window=torch.hann_window(N_FFT), return_complex=True)
    power = spectrum[:, :-1].abs() ** 2
    decades = torch.clamp(torch.from_numpy(filters(bands)) @ power, min=1e-10).log10()
    return (torch.maximum(decades, decades.max() - 8.0) + 4.0) / 4.0


def pad_frames(mel: torch.Tensor, frames: int) -> torch.Tensor:
    """``mel`` ``(bands, n)`` extended to ``(bands, frames)`` with :data:`PAD_VALUE`."""
    return F.pad(mel, (0, frames - mel.shape[-1]), value=PAD_VALUE)


@lru_cache
def filters(bands: int) -> NDArray[np.float32]:
    """Slaney's triangular filters for 16 kHz and ``n_fft`` 400, area-normalised: float32 ``(bands, 201)``."""
    edges = _mel_to_hz(np.linspace(0.0, _hz_to_mel(_NYQUIST), bands + 2))
    ramps = edges[:, None] - np.linspace(0.0, _NYQUIST, N_FFT // 2 + 1)[None, :]
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0.0, np.minimum(-ramps[:-2] / widths[:-1], ramps[2:] / widths[1:]))
    # librosa rounds the triangles to float32 before it scales them; Whisper ships numbers that were rounded like that
    return (triangles.astype(np.float32) * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)


def _hz_to_mel(hz: float) -> float:
    """Slaney's scale above its knee."""
    return float(_KNEE_HZ / _HZ_PER_MEL + _MELS_PER_E * np.log(hz / _KNEE_HZ))


def _mel_to_hz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Inverse of Slaney's scale, both branches."""
    knee = _KNEE_HZ / _HZ_PER_MEL
    hz: NDArray[np.float64] = np.where(mels < knee, _HZ_PER_MEL * mels, _KNEE_HZ * np.exp((mels - knee) / _MELS_PER_E))
    return hz
