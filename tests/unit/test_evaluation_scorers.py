"""Scorers against hand-counted cases and published interval values."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ichigo.evaluation.scorers import (
    ErrorRate,
    character_errors,
    exact_match,
    loops,
    normalise,
    outcome,
    token_f1,
    wilson_interval,
    word_errors,
)


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("  Hello,\tWORLD! ", "hello world"),
        ("Don\N{RIGHT SINGLE QUOTATION MARK}t — stop.", "dont stop"),
        ("well-known", "well known"),
        ("pages 3-5", "pages 3 5"),
        ("It costs 3.5, not -5.", "it costs 3.5 not -5"),
        ("50% of 1,000", "50% of 1,000"),
        ("STRASSE straße", "strasse strasse"),
        ("\uff34\uff36\u3000\uff11\uff0e\uff15", "tv 1.5"),
        ("हिन्दी", "हिन्दी"),  # combining vowel signs are no punctuation
        ("?!…", ""),
    ],
)
def test_normalised_text(text: str, compared: str) -> None:
    assert normalise(text) == compared
    assert normalise(compared) == compared


@pytest.mark.parametrize(("left", "right"), [("3.5", "35"), ("-5", "5"), ("50%", "50"), ("3.5", "3 5")])
def test_numbers_that_differ_never_match(left: str, right: str) -> None:
    assert not exact_match(left, right)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "f1"),
    [
        ("turning on the light", "Turning on the light.", 1.0),
        ("turning on the light", "turning on", 2 / 3),  # precision 1, recall 1/2
        ("a a b", "a b b", 2 / 3),  # bags, not sets: a and b once each shared
        ("yes", "no", 0.0),
        ("yes", "", 0.0),
    ],
)
def test_token_f1(reference: str, hypothesis: str, f1: float) -> None:
    assert token_f1(reference, hypothesis) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "errors", "words"),
    [
        ("the cat sat on the mat", "the cat sat on the mat", 0, 6),
        ("the cat sat on the mat", "the cat sit on mat", 2, 6),  # one substitution, one deletion
        ("yes", "oh yes it is", 3, 1),  # insertions: more errors than words
        ("turn it off", "", 3, 3),
        ("Don't stop!", "dont stop", 0, 2),
    ],
)
def test_word_errors(reference: str, hypothesis: str, errors: int, words: int) -> None:
    assert word_errors(reference, hypothesis) == ErrorRate(errors, words)


def test_character_errors_count_the_spaces_between_words() -> None:
    assert character_errors("on it", "onit") == ErrorRate(1, 5)
    assert character_errors("Kitten", "sitting") == ErrorRate(3, 6)


def test_corpus_error_rate_weighs_items_by_their_length() -> None:
    total = word_errors("yes", "no") + word_errors("the cat sat on the mat today", "the cat sat on the mat today")
    assert total.rate == pytest.approx(1 / 8)  # the mean of the two rates would be 1/2


@pytest.mark.parametrize(
    ("hypothesis", "stray", "stopped", "expected"),
    [
        ("Four.", False, True, "right"),
        ("Four.", False, False, "right"),
        ("Four.", True, True, "stray_sound"),
        ("", True, False, "stray_sound"),
        ("", False, True, "empty"),
        (" . ", False, False, "empty"),
        ("five", False, True, "wrong"),
        ("five and then", False, False, "degenerate"),
        ("the the the the", False, True, "degenerate"),
        ("I'm sorry, I could not hear you.", False, True, "refused"),
        ("Unfortunately I cannot answer that", False, True, "refused"),
        ("Sorry! And so on", False, False, "degenerate"),
        ("i cannot agree more", False, True, "wrong"),
        ("the sorry state of it", False, True, "wrong"),
        ("no words came", False, True, "refused"),
    ],
)
def test_outcome_of_an_answer(hypothesis: str, stray: bool, stopped: bool, expected: str) -> None:
    found = outcome("four", hypothesis, stray_sound=stray, stopped=stopped, refusals={"no words came"})
    assert found == expected


def test_a_reference_that_repeats_itself_can_be_answered_right() -> None:
    assert outcome("ha ha ha ha ha", "Ha ha ha ha ha!", stray_sound=False, stopped=True) == "right"


@pytest.mark.parametrize(
    ("text", "looping"),
    [
        ("no no no", False),
        ("no no no no", True),
        ("well i see i see i see i see", True),
        ("a b c d a b c d a b c d", False),
        ("a b c d a b c d a b c d a b c d", True),
        ("one two three four five six seven eight", False),
        ("no no, and no no, but no no", False),  # six of them, never more than two in a row
    ],
)
def test_loops(text: str, looping: bool) -> None:
    assert loops(text) is looping


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0),  # 1 / (1 + z²/29)
    ],
)
def test_wilson_interval_equals_published_values(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson_interval(successes, trials) == pytest.approx((low, high), abs=6e-5)


def test_wilson_interval_needs_trials() -> None:
    with pytest.raises(ValueError, match="0 successes in 0 trials"):
        wilson_interval(0, 0)


def test_errors_are_those_of_jiwer() -> None:
    """All 300 pairs of ``tests/jiwer_cases.py``, one by one and together."""
    stored = json.loads(Path(__file__).with_name("jiwer_cases.json").read_text(encoding="utf-8"))
    words, characters = [], []
    for reference, hypothesis, wrong_words, count, wrong_characters, length in stored["cases"]:
        words.append(word_errors(reference, hypothesis))
        characters.append(character_errors(reference, hypothesis))
        assert words[-1] == ErrorRate(wrong_words, count), (reference, hypothesis)
        assert characters[-1] == ErrorRate(wrong_characters, length), (reference, hypothesis)
    assert len(words) == 300
    assert sum(words, ErrorRate()).rate == pytest.approx(stored["wer"], abs=1e-12)
    assert sum(characters, ErrorRate()).rate == pytest.approx(stored["cer"], abs=1e-12)
