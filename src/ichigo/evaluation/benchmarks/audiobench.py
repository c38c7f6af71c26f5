"""AudioBench's rules (github.com/AudioLLMs/AudioBench, arXiv 2406.16020) that need no judge: word errors, string match.

The normalisation before word errors is Whisper's for English, then digits up to twenty and round tens as words, then
punctuation and fillers away. The rest of the published chain (contractions, brackets, Kaldi's non-words) finds nothing
that Whisper's left. An empty side counts as the word "empty".

Whisper's list of British spellings is no part of any package here; it comes with every Whisper checkpoint as
``normalizer.json``, and :class:`Normaliser` takes it. Without it "colour" and "color" differ.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping, Sequence

from ichigo.edits import edit_distance
from ichigo.evaluation.scorers import ErrorRate

_UNITS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
_WORDS = {str(value): word for value, word in enumerate([*_UNITS.split(), "eighteen", "nineteen"])} | {
    str(10 * value): word for value, word in enumerate(_TENS.split(), 2)
}
_NUMBER = re.compile(r"\b(" + "|".join(sorted(_WORDS, key=lambda number: -len(number))) + r")\b")
_FILLER = re.compile(r"\b(uh|umm|um|er|ah)\b")
_WORD = re.compile(r"\b\w+\b")


class Normaliser:
    """Text as AudioBench compares transcripts."""

    def __init__(self, spellings: Mapping[str, str] | None = None) -> None:
        """``spellings`` are British words with their American spelling, Whisper's ``normalizer.json``."""
        from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

        self._whisper = EnglishTextNormalizer(dict(spellings or {}))  # type: ignore[no-untyped-call]

    def __call__(self, text: str) -> str:
        """``text`` normalised; words are what white space parts."""
        english = _NUMBER.sub(lambda found: _WORDS[found[0]], self._whisper(text.lower()))
        bare = "".join(char for char in english if not unicodedata.category(char).startswith("P"))
        return _FILLER.sub("", bare).strip()

    def word_errors(self, reference: str, hypothesis: str) -> ErrorRate:
        """Errors and reference words; summed over a set they are AudioBench's ``wer``."""
        words = (self(reference) or "empty").split()
        return ErrorRate(edit_distance(words, (self(hypothesis) or "empty").split()), len(words))


def string_match(reply: str, options: Sequence[str], answer: int) -> bool:
    """Whether ``reply`` holds every word of the right option and none that only wrong options have."""
    said, right = _words(reply), _words(options[answer])
    others = (_words(option) for option in options)
    wrong = {word for words in others if words != right for word in words - right}
    return bool(said) and right <= said and not said & wrong


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text.lower()))
