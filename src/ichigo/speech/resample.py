"""Sample-rate conversion by the windowed sinc filter that made Ichigo's published sound tokens.

The filter is the default of ``torchaudio.functional.resample`` (``sinc_interp_hann``, ``lowpass_filter_width=6``,
``rolloff=0.99``), written down again in numpy: another filter, soxr's for one, gives other samples (by up to 0.02 of
full scale from 8 to 16 kHz) and therefore other tokens.
"""

from __future__ import annotations

import functools
import math

import numpy as np
import numpy.typing as npt

LOWPASS_WIDTH = 6  # zero crossings of the sinc on each side
ROLLOFF = 0.99  # cut-off as a share of the lower Nyquist frequency
_BLOCK = 1 << 16  # outputs at a time: the work arrays stay in cache and an hour of sound needs no more memory


def resample(waveform: npt.NDArray[np.float32], source_rate: int, target_rate: int) -> npt.NDArray[np.float32]:
    """``waveform`` float32 ``(samples,)`` at ``source_rate`` Hz, as float32 ``(ceil(samples * target / source),)``.

    Weights and sums are float64 in a fixed order, so the thread count changes nothing; torchaudio 2.8 computes both in
    float32 and differs by at most 4e-5 on full-scale noise. Outside the waveform lies silence, as in torchaudio.
    """
    if source_rate == target_rate:
        return waveform
    divisor = math.gcd(source_rate, target_rate)
    source, target = source_rate // divisor, target_rate // divisor
    first, taps = _polyphase(source, target)
    samples = -(-waveform.size * target // source)
    frames = -(-samples // target)
    width = len(taps) // 2
    padded = np.zeros(frames * source + len(taps), np.float64)
    padded[width : width + waveform.size] = waveform
    return _convolve(padded, first, taps, source, frames).reshape(-1)[:samples]


def _convolve(
    padded: npt.NDArray[np.float64],
    first: npt.NDArray[np.int64],
    taps: npt.NDArray[np.float64],
    source: int,
    frames: int,
) -> npt.NDArray[np.float32]:
    """``(frames, phases)``: frame ``f``, phase ``p`` weighs ``padded`` from ``f * source + first[p]`` on."""
    phases = first.size
    result = np.empty((frames, phases), np.float32)
    step = max(1, _BLOCK // phases)
    starts = np.arange(min(step, frames))[:, None] * source + first
    for begin in range(0, frames, step):
        index = starts[: frames - begin]
        total = np.zeros(index.shape, np.float64)
        for number, tap in enumerate(taps, start=begin * source):
            total += tap * padded[number:].take(index)
        result[begin : begin + step] = total
    return result


@functools.lru_cache(maxsize=16)
def _polyphase(source: int, target: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """First input of each output phase ``(target,)`` and the weights ``(2 * width + 1, target)``, for coprime rates.

    Output ``p`` lies at input position ``p * source / target``. With the cut-off ``c = ROLLOFF * min(source, target) /
    source`` and ``t = c * distance``, a weight is ``c * sinc(t) * cos(pi * t / (2 * LOWPASS_WIDTH)) ** 2``, and zero
    from ``|t| = LOWPASS_WIDTH`` on.
    """
    cutoff = ROLLOFF * min(source, target) / source
    width = math.ceil(LOWPASS_WIDTH / cutoff)
    first, remainder = np.divmod(np.arange(target, dtype=np.int64) * source, target)
    distance = np.arange(-width, width + 1)[:, None] - remainder / target
    t = np.clip(cutoff * distance, -LOWPASS_WIDTH, LOWPASS_WIDTH)
    window = np.cos(math.pi * t / (2 * LOWPASS_WIDTH)) ** 2
    return first, cutoff * np.sinc(t) * window
