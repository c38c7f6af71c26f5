"""How one answer is judged: normalised text, exact match, token F1, word and character errors, outcome, intervals.

Everything here is a function of strings and counts, no model. A *unit* is a word (WER) or a character (CER). Both error
rates are those of jiwer 4 on normalised text: ``tests/unit/jiwer_cases.json`` holds its answers.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, get_args

from ichigo.edits import edit_distance

Outcome = Literal["right", "wrong", "empty", "degenerate", "stray_sound", "refused"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

LOOP_WORDS = 4  # longest group of words whose repetition counts as a loop
LOOP_TIMES = 4  # so often in a row; "no no no" is speech, a fourth time nobody says

_REFUSAL = re.compile(
    r"(im |i am |we are |were )?(very |so |really |terribly )?sorry\b"
    r"|(my )?apologies\b|i apologi[sz]e\b"
    r"|(unfortunately )?i (cannot|can not|cant|could not|couldnt|am not able to|am unable to|im not able to"
    r"|im unable to|did not|didnt|do not|dont) (quite |really |fully )?"
    r"(answer|assist|catch|comply|fulfil|fulfill|hear|help|make out|provide|understand)\b"
)
"""How a refusal opens, normalised: apologies and inabilities of the list by which Zou et al. 2023 ("Universal and
transferable adversarial attacks on aligned language models", section 3) tell refusals, and of not having heard."""

_APOSTROPHES = "'\N{RIGHT SINGLE QUOTATION MARK}"
_Z95 = 1.959963984540054  # the 97.5 % quantile of the standard normal distribution


def normalise(text: str) -> str:
    """Text as it is compared: NFKC, case folded, without punctuation, single spaces.

    Apostrophes inside a word vanish (``don't`` = ``dont``). What carries a number's value stays: ``3.5`` is not
    ``3 5``, ``-5`` is not ``5``, ``50%`` is not ``50``.
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(_compared(folded, at) for at in range(len(folded))).split())


def _compared(text: str, at: int) -> str:
    """What the character ``text[at]`` becomes: itself, a space or nothing."""
    char, before, after = text[at], text[max(at - 1, 0) : at], text[at + 1 : at + 2]
    if not unicodedata.category(char).startswith("P"):
        return char
    if char in _APOSTROPHES and before.isalnum() and after.isalnum():
        return ""
    decimal = char in ".," and before.isdigit() and after.isdigit()
    sign = char == "-" and after.isdigit() and not before.isalnum()
    percent = char == "%" and before.isdigit()
    return char if decimal or sign or percent else " "


def exact_match(reference: str, hypothesis: str) -> bool:
    """Whether both are the same text after :func:`normalise`."""
    return normalise(reference) == normalise(hypothesis)


def token_f1(reference: str, hypothesis: str) -> float:
    """F1 in [0, 1] over the bags of normalised words (SQuAD, Rajpurkar et al. 2016, here without dropping articles)."""
    wanted, given = normalise(reference).split(), normalise(hypothesis).split()
    shared = (Counter(wanted) & Counter(given)).total()
    if not wanted or not given:
        return float(wanted == given)
    return 2 * shared / (len(wanted) + len(given))


@dataclass(frozen=True)
class ErrorRate:
    """Errors over reference units; sums of both add up to the corpus level."""

    errors: int = 0
    units: int = 0

    def __add__(self, other: ErrorRate) -> ErrorRate:
        return ErrorRate(self.errors + other.errors, self.units + other.units)

    @property
    def rate(self) -> float:
        """Errors per reference unit; above 1 when the hypothesis has many extra units.

        Raises:
            ZeroDivisionError: without any reference unit there is no rate.
        """
        return self.errors / self.units


def word_errors(reference: str, hypothesis: str) -> ErrorRate:
    """Errors in normalised, white-space separated words."""
    words = normalise(reference).split()
    return ErrorRate(edit_distance(words, normalise(hypothesis).split()), len(words))


def character_errors(reference: str, hypothesis: str) -> ErrorRate:
    """Errors in characters of the normalised text; the single spaces between words count."""
    characters = normalise(reference)
    return ErrorRate(edit_distance(characters, normalise(hypothesis)), len(characters))


def refuses(text: str, known: Collection[str] = ()) -> bool:
    """Whether ``text`` declines to answer: it is one of ``known`` (normalised texts), or opens as refusals do."""
    plain = normalise(text)
    return plain in known or _REFUSAL.match(plain) is not None


def outcome(
    reference: str, hypothesis: str, *, stray_sound: bool, stopped: bool, refusals: Collection[str] = ()
) -> Outcome:
    """The one class of an answer; the first that fits, in this order.

    ``stray_sound``: the answer holds sound tokens, whatever its text; ``empty``: no word; ``right``: the same text
    after :func:`normalise`; ``degenerate``: never ended by itself, or a loop (:func:`loops`); ``refused``: it declines
    (:func:`refuses`); ``wrong``: anything else.

    Args:
        reference: the expected text.
        hypothesis: the text of the answer, without special tokens.
        stray_sound: whether a sound token was generated.
        stopped: whether the model ended the answer, rather than the limit on new tokens.
        refusals: texts, normalised, that are known to be refusals.
    """
    if stray_sound:
        return "stray_sound"
    if not normalise(hypothesis):
        return "empty"
    if exact_match(reference, hypothesis):
        return "right"
    if not stopped or loops(hypothesis):
        return "degenerate"
    return "refused" if refuses(hypothesis, refusals) else "wrong"


def loops(text: str) -> bool:
    """Whether some group of at most ``LOOP_WORDS`` words stands ``LOOP_TIMES`` times in a row."""
    words = normalise(text).split()
    return any(_longest_run(words, size) >= (LOOP_TIMES - 1) * size for size in range(1, LOOP_WORDS + 1))


def _longest_run(words: list[str], size: int) -> int:
    """Longest stretch of positions whose word equals the one ``size`` positions later."""
    longest = run = 0
    for word, later in zip(words, words[size:], strict=False):
        run = run + 1 if word == later else 0
        longest = max(longest, run)
    return longest


def wilson_interval(successes: int, trials: int) -> tuple[float, float]:
    """95 % interval of a rate, both ends in [0, 1] (Wilson 1927, score interval without continuity correction).

    With n trials, p = successes/n and z = 1.96: ``(p + z²/2n ± z·sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)``. It takes the
    trials as independent; several items of one speaker make it slightly too narrow.

    Raises:
        ValueError: no trials, or more successes than trials.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(f"{successes} successes in {trials} trials have no rate")
    rate, scale = successes / trials, _Z95**2 / trials
    centre = (rate + scale / 2) / (1 + scale)
    reach = math.sqrt(rate * (1 - rate) * scale + scale**2 / 4) / (1 + scale)
    return max(0.0, centre - reach), min(1.0, centre + reach)
