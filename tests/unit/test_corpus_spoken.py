"""The recipe's own sentences: every voice says every one, and no voice is on both sides."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from ichigo.corpus.spoken import speak_sentences
from ichigo.errors import DataError
from ichigo.recipe.schema import Sentence, Voices
from ichigo.speech.audio import SAMPLE_RATE, read_audio

SENTENCES = (Sentence(text="Which city is in France?", answer="Paris"), Sentence(text="Say seven."))
VOICES = Voices(train=("en-us+f2", "en+m3"), held_out=("en-us+m1",), takes=2)


def test_every_voice_says_every_sentence_on_its_own_side() -> None:
    rows = speak_sentences(SENTENCES, VOICES, seed=0, processes=2)
    expected = {
        ("en-us+f2", "train", 2), ("en+m3", "train", 2), ("en-us+m1", "test", 1),
    }  # fmt: skip
    for sentence in SENTENCES:
        said = Counter(
            (row.speaker, row.split) for row in rows if (row.text, row.answer) == (sentence.text, sentence.answer)
        )
        assert {(*who, count) for who, count in said.items()} == expected
    assert len({row.id for row in rows}) == len(rows) == 10
    for row in rows:
        assert (row.origin, row.language, row.license) == ("spoken", "en", "synthetic (espeak-ng)")
        assert read_audio(row.audio).size / SAMPLE_RATE == row.seconds
        assert row.phones[-1].end_s == pytest.approx(row.seconds, abs=1 / SAMPLE_RATE)


def test_rows_are_the_same_whatever_the_processes_and_the_company() -> None:
    rows = speak_sentences(SENTENCES, VOICES, seed=3, processes=1)
    assert speak_sentences(SENTENCES, VOICES, seed=3, processes=2) == rows
    fewer = speak_sentences(SENTENCES[1:], VOICES.model_copy(update={"train": ("en+m3",)}), seed=3, processes=1)
    assert {row.id for row in fewer} <= {row.id for row in rows}
    assert {row.id for row in speak_sentences(SENTENCES, VOICES, seed=4, processes=2)} != {row.id for row in rows}


def test_speeds_and_pitches_stay_in_their_bounds() -> None:
    fixed = VOICES.model_copy(update={"takes": 1, "words_per_minute": (200, 200), "pitch": (40, 40)})
    one, other = (speak_sentences(SENTENCES[:1], fixed, seed, processes=1) for seed in (1, 2))
    assert one == other, "nothing is left to draw"
    slow = fixed.model_copy(update={"words_per_minute": (90, 100)})
    lengths = [np.mean([row.seconds for row in speak_sentences(SENTENCES[:1], v, 1, 1)]) for v in (slow, fixed)]
    assert lengths[0] > 1.5 * lengths[1]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [({"train": ("en+nosuch",)}, "no variant 'nosuch'"), ({"words_per_minute": (10, 10)}, "words_per_minute 10")],
)
def test_what_cannot_be_spoken_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        speak_sentences(SENTENCES, VOICES.model_copy(update=change), seed=0, processes=1)
