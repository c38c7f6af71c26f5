"""The arithmetic of sound tokens, for rooms that count them without torch.

Samples are at 16 kHz. Whisper's mel has a frame per 160 samples, its encoder halves that (50 Hz), WhisperVQ halves it
again: a sound token stands for 640 samples.
"""

from __future__ import annotations

SOUND_TOKENS_PER_SECOND = 25
SAMPLES_PER_TOKEN = 640
WINDOW_SAMPLES = 480_000
"""30 s, what the encoder hears at once: exactly 750 tokens, so cutting long audio into windows loses none."""


def token_count(samples: int) -> int:
    """Sound tokens of a waveform of ``samples`` samples: a rest of less than 40 ms gives none."""
    return samples // SAMPLES_PER_TOKEN
