"""Whisper's log-mel spectrogram, number for number (openai-whisper, ``audio.py``; filters of librosa, ``mel``).

:func:`log_mel` is Whisper's own and needs the whole recording, because its floor hangs on the loudest value.
:class:`CausalMel` has the same frames and a floor that hangs on what was heard so far.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from ichigo.errors import TokenizerError
from ichigo.speech.codes import SAMPLES_PER_TOKEN, token_count

N_FFT = 400
HOP = 160
FRAMES_PER_WINDOW = 3000
"""30 s."""

PAD_VALUE = -1.5
"""What whisperspeech pads a mel with; the clamp below allows values from ``max/4 - 1`` to ``max/4 + 1``."""

_REACH = N_FFT // 2 - HOP  # samples of a frame beyond the hop that it opens

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
    decades = _decades(samples, bands, center=True)[:, :-1]
    return _floored(decades, decades.max())


class CausalMel:
    """Log-mel of a recording while it is heard, in blocks of a fixed number of frames.

    Frames are those of :func:`log_mel`, but a block's floor is 8 decades below the loudest value up to *its own end*.
    The last frame of a block reaches 40 samples (2.5 ms) beyond it, so a block is ready that much later; at the end of
    the recording those samples are mirrored, as Whisper does. Sums are in float64, the result is float32: the same
    samples give the same bits however they are cut into pieces, and on other processors.
    """

    def __init__(self, bands: int, tokens: int) -> None:
        """Blocks of ``tokens`` sound tokens, 4 frames each."""
        self._bands, self._hop = bands, tokens * SAMPLES_PER_TOKEN
        self._rest = np.empty(0, np.float32)  # from 200 samples before the next block on, once there was a block
        self._mirrored = 0
        self._loudest = torch.tensor(-torch.inf, dtype=torch.float64)

    def feed(self, samples: NDArray[np.float32]) -> list[torch.Tensor]:
        """Blocks ``(bands, frames)`` that ``samples`` (floating point, 16 kHz, any number) complete."""
        self._rest = np.concatenate([self._rest, samples.astype(np.float32)])
        blocks = []
        while self._rest.size >= self._mirrored + self._hop + _REACH:
            blocks.append(self._block(self._hop))
        return blocks

    def finish(self) -> list[torch.Tensor]:
        """The last block, cut to whole tokens, or nothing if less than a token is left."""
        whole = token_count(self._rest.size - self._mirrored) * SAMPLES_PER_TOKEN
        return [self._block(whole)] if whole else []

    def _block(self, samples: int) -> torch.Tensor:
        """Takes ``samples`` from the rest."""
        if not self._mirrored:
            self._mirrored = N_FFT // 2
            self._rest = np.pad(self._rest, (self._mirrored, 0), mode="reflect")
        heard = self._rest[: self._mirrored + samples + _REACH]
        heard = np.pad(heard, (0, self._mirrored + samples + _REACH - heard.size), mode="reflect")
        self._rest = self._rest[samples:]
        decades = _decades(torch.from_numpy(heard.astype(np.float64)), self._bands, center=False)
        self._loudest = torch.maximum(self._loudest, decades.max())
        return _floored(decades, self._loudest).float()


def causal_log_mel(waveform: NDArray[np.float32], bands: int, tokens: int) -> torch.Tensor:
    """What :class:`CausalMel` hears in a whole recording of at least one token: float32 ``(bands, frames)``."""
    mel = CausalMel(bands, tokens)
    return torch.cat([*mel.feed(waveform), *mel.finish()], dim=1)


def _decades(samples: torch.Tensor, bands: int, center: bool) -> torch.Tensor:
    """log10 of the power in each band, ``(bands, frames)``, in the precision of ``samples``."""
    window = torch.hann_window(N_FFT, dtype=samples.dtype)
    power = torch.stft(samples, N_FFT, HOP, window=window, center=center, return_complex=True).abs() ** 2
    return torch.clamp(torch.from_numpy(filters(bands)).to(samples.dtype) @ power, min=1e-10).log10()


def _floored(decades: torch.Tensor, loudest: torch.Tensor) -> torch.Tensor:
    """Nothing more than 8 decades below ``loudest``, on Whisper's scale."""
    return (torch.maximum(decades, loudest - 8.0) + 4.0) / 4.0


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
