"""Which of espeak-ng's voice variants a person could have, judged by what their files say.

A vocal tract that is shorter or longer moves all formants by about one factor. Averaged over speakers, women's formants
lie at 1.1 to 1.2 and children's at 1.2 to 1.4 times men's (Peterson and Barney, 1952, table II). espeak-ng's own
formants are a man's, and a variant gives its own in percent of them.
"""

from __future__ import annotations

import functools
from pathlib import Path

from ichigo.speech.synthesis import variants

FORMANT_PERCENT = (75, 140)
"""Where the first three formants of a person lie; they tell the vowels apart."""

FORMANT_SPREAD = 1.5
"""The largest of the three factors over the smallest; further apart they belong to no single vocal tract."""

_NO_VOICE = frozenset(
    {"Demonic", "UniRobot", "anikaRobot", "croak", "fast", "robosoft", "whisper", "whisperf"}
    | {f"robosoft{number}" for number in range(2, 9)}
)
"""Robots, whispers, and a variant that changes the speed: 15 of 104."""


@functools.cache
def people() -> tuple[str, ...]:
    """Variants that a person could have, in order: 73 of espeak-ng 1.52's 104."""
    return tuple(variant for variant in sorted(variants() - _NO_VOICE) if _human(formants(variant)))


@functools.cache
def oddities() -> tuple[str, ...]:
    """Variants with a voice, but with formants that no person has, in order: 16."""
    return tuple(sorted(variants() - _NO_VOICE - set(people())))


def formants(variant: str) -> tuple[int, int, int]:
    """The first three formants of ``variant`` in percent of espeak-ng's own."""
    import espeakng_loader

    file = Path(espeakng_loader.get_data_path()) / "voices" / "!v" / variant
    given = {"1": 100, "2": 100, "3": 100}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        word, *values = line.split() or [""]
        if word == "formant" and len(values) > 1 and values[0] in given:
            given[values[0]] = int(values[1])
    return given["1"], given["2"], given["3"]


def _human(percent: tuple[int, ...]) -> bool:
    lowest, highest = FORMANT_PERCENT
    return lowest <= min(percent) and max(percent) <= min(highest, FORMANT_SPREAD * min(percent))
