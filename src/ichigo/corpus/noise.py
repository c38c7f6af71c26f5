"""Sound that is no speech: what a model should answer with a refusal instead of guessing words.

Eight kinds are heard in training. Two others, tones that glide and noise that swells and fades some times a second (as
syllables do), are never heard before evaluation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import cycle, islice

import numpy as np
import numpy.typing as npt

from ichigo.corpus.rows import Row, Split, row_id, sound_digest
from ichigo.corpus.world import REFUSAL
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import World as Settings
from ichigo.speech.audio import SAMPLE_RATE, write_flac

TOPIC = "noise"
LICENSE = "synthetic"
NO_LANGUAGE = "zxx"  # BCP 47: no linguistic content

_SECONDS = (0.6, 3.0)
_PEAK_DB = (-30.0, -1.0)  # of full scale

Waveform = npt.NDArray[np.float64]
_Maker = Callable[[int, np.random.Generator], Waveform]


def noise(kind: str, seed: int) -> npt.NDArray[np.float32]:
    """One sound of :data:`KNOWN` or :data:`NEW`: float32 ``(samples,)``, 16 kHz, 0.6 to 3 s, peak -30 to -1 dB.

    The same arguments give the same sound.
    """
    rng = np.random.default_rng([seed, *kind.encode()])
    sound = {**_KNOWN, **_NEW}[kind](round(rng.uniform(*_SECONDS) * SAMPLE_RATE), rng)
    peak = 10 ** (rng.uniform(*_PEAK_DB) / 20)
    scaled: npt.NDArray[np.float32] = (sound * (peak / np.abs(sound).max())).astype(np.float32)
    return scaled


def noise_rows(settings: Settings, seed: int) -> Iterator[Row]:
    """``settings.noise`` training rows, and ``settings.items`` test rows in each of ``noise_known`` and ``noise_new``.

    Their text is empty, their answer is the refusal, their speaker is the kind. Without training rows there are none.
    """
    if settings.noise:
        yield from _rows(KNOWN, settings.noise, "train", "", seed)
        yield from _rows(KNOWN, settings.items, "test", "noise_known", seed)
        yield from _rows(NEW, settings.items, "test", "noise_new", seed)


def _rows(kinds: Sequence[str], number: int, split: Split, suite: str, seed: int) -> Iterator[Row]:
    for place, kind in enumerate(islice(cycle(kinds), number)):
        waveform = noise(kind, int(sha256_json([seed, "noise", suite, place])[:12], 16))
        yield Row(
            id=row_id(sound_digest(waveform), "", REFUSAL, suite),
            text="",
            answer=REFUSAL,
            speaker=kind,
            split=split,
            language=NO_LANGUAGE,
            license=LICENSE,
            seconds=waveform.size / SAMPLE_RATE,
            audio=write_flac(waveform),
            origin="world",
            topic=TOPIC,
            suite=suite,
        )


def _coloured(samples: int, rng: np.random.Generator, exponent: float) -> Waveform:
    """Gaussian noise whose power falls with frequency to the ``exponent``: 0 is white, 1 pink, 2 brown."""
    size = 1 << (samples - 1).bit_length()  # transforms of a prime length take ten times as long
    spectrum = np.fft.rfft(rng.standard_normal(size))
    frequency = np.fft.rfftfreq(size, 1 / SAMPLE_RATE)
    sound: Waveform = np.fft.irfft(spectrum / np.maximum(frequency, 20.0) ** (exponent / 2), size)[:samples]
    return sound


def _tones(samples: int, frequencies: Sequence[float], rng: np.random.Generator) -> Waveform:
    """Sines at random phases, each next one weaker."""
    time = np.arange(samples) / SAMPLE_RATE
    phases = rng.uniform(0, 2 * np.pi, len(frequencies))
    parts = [np.sin(2 * np.pi * f * time + p) / n for n, (f, p) in enumerate(zip(frequencies, phases, strict=True), 1)]
    sound: Waveform = np.sum(parts, axis=0) + 1e-3 * rng.standard_normal(samples)
    return sound


def _hum(samples: int, rng: np.random.Generator) -> Waveform:
    """Mains: 50 or 60 Hz and harmonics."""
    base = float(rng.choice([50.0, 60.0]))
    return _tones(samples, [base * n for n in range(1, int(rng.integers(4, 12)))], rng)


def _chords(samples: int, rng: np.random.Generator) -> Waveform:
    """Music of a sort: three notes of the equal temperament at a time, dying away, two to four times a second."""
    parts, left = [], samples
    while left > 0:
        length = min(left, int(SAMPLE_RATE * rng.uniform(0.25, 0.5)))
        root = 110 * 2 ** (rng.integers(0, 36) / 12)
        notes = [root * 2 ** (step / 12) for step in (0, int(rng.choice([3, 4])), 7)]
        parts.append(_tones(length, notes, rng) * np.exp(-np.arange(length) / (0.2 * SAMPLE_RATE)))
        left -= length
    return np.concatenate(parts)


def _beeps(samples: int, rng: np.random.Generator) -> Waveform:
    """One tone, switched on and off."""
    period = SAMPLE_RATE * rng.uniform(0.15, 0.6)
    return _tones(samples, [rng.uniform(300, 3000)], rng) * (np.arange(samples) % period < period / 2)


def _clicks(samples: int, rng: np.random.Generator) -> Waveform:
    """Two to twenty short taps a second on a faint hiss."""
    return _taps(samples, rng, rng.uniform(2, 20)) + 1e-3 * rng.standard_normal(samples)


def _rain(samples: int, rng: np.random.Generator) -> Waveform:
    """Thousands of taps a second."""
    return _taps(samples, rng, rng.uniform(500, 3000))


def _taps(samples: int, rng: np.random.Generator, per_second: float) -> Waveform:
    """Taps at random times, each a burst of noise that is gone after 2 ms."""
    taps = np.zeros(samples)
    number = max(1, rng.poisson(per_second * samples / SAMPLE_RATE))
    np.add.at(taps, rng.integers(0, samples, number), rng.standard_normal(number))
    burst = rng.standard_normal(64) * np.exp(-np.arange(64) / 16)
    return np.convolve(taps, burst)[:samples]


def _chirp(samples: int, rng: np.random.Generator) -> Waveform:
    """A tone that glides between 200 and 4000 Hz, once to four times."""
    turns = np.exp(rng.uniform(np.log(200), np.log(4000), int(rng.integers(2, 6))))
    frequency = np.exp(np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, turns.size), np.log(turns)))
    sound: Waveform = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
    return sound


def _modulated(samples: int, rng: np.random.Generator) -> Waveform:
    """Noise whose amplitude goes up and down 2 to 8 times a second, the rate of syllables."""
    time = np.arange(samples) / SAMPLE_RATE
    swell = 1 + np.sin(2 * np.pi * (rng.uniform(2, 8) * time + rng.uniform()))
    return swell * _coloured(samples, rng, rng.uniform(0, 1.5))


def _of_colour(exponent: float) -> _Maker:
    return lambda samples, rng: _coloured(samples, rng, exponent)


_KNOWN: Mapping[str, _Maker] = {
    "white": _of_colour(0.0),
    "pink": _of_colour(1.0),
    "brown": _of_colour(2.0),
    "hum": _hum,
    "chords": _chords,
    "beeps": _beeps,
    "clicks": _clicks,
    "rain": _rain,
}
_NEW: Mapping[str, _Maker] = {"chirp": _chirp, "modulated": _modulated}

KNOWN = tuple(_KNOWN)
"""Kinds of sound in training and in the suite ``noise_known``."""

NEW = tuple(_NEW)
"""Kinds of sound in the suite ``noise_new`` alone."""
