"""Is there anything to hear: a check of the sound level before a question is blamed on the model.

Silence and clicks are legal recordings and get an answer like any other; this only lets a person know that a microphone
was off. It says nothing about what the sound is: steady noise has energy too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

FRAME = 320
"""Samples of one frame: 20 ms at 16 kHz."""

FLOOR_DB = -50.0
"""Level of a frame, in dB of full scale, up to which it counts as silent; speech at a microphone is at -40 to -15."""

LEAST_FRAMES = 4
"""Loud frames in a row that a voice must fill: 80 ms, half a short syllable. A click fills one or two."""


def has_energy(waveform: npt.NDArray[np.float32]) -> bool:
    """Whether float32 ``(samples,)``, 16 kHz, in [-1, 1], holds :data:`LEAST_FRAMES` frames in a row above
    :data:`FLOOR_DB`; a recording of less than that many frames does not."""
    frames = waveform[: waveform.size // FRAME * FRAME].reshape(-1, FRAME).astype(np.float64)
    loud = frames.var(axis=1) > 10 ** (FLOOR_DB / 10)  # without the mean, which is a microphone's offset
    return loud.size >= LEAST_FRAMES and bool(sliding_window_view(loud, LEAST_FRAMES).all(axis=1).any())
