"""Which questions can be spoken: long enough and not too long, in a wanted language, and nothing that only eyes read.

The paper (arXiv 2410.15316, section 3) filters 6 M questions to 1.3 M by language, length, duplicates and
unspeakable contents. Only questions are spoken, so answers may hold code and tables.

Languages are told by their most frequent function words (a stop-word heuristic over eight languages in Latin script)
and by script. A text that says too little to tell passes: only a text that is clearly of another language is refused.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection

from ichigo.corpus.rows import UNKNOWN_LANGUAGE, SetAsideError

_STOP_WORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": "the of and to in is that it for was on are as with his they at be this have from or what how you your "
        "can do does which who why when where a an my me i",
        "de": "der die und das ist nicht ein eine zu den mit von auf für im dem des sich auch wie was ich wir sind "
        "kann bitte wer warum welche wo",
        "fr": "le la les de des et est un une du que qui dans pour pas sur au avec ce il je nous vous quel quelle "
        "comment pourquoi où sont ne",
        "es": "el la los las de que y en un una es por con para del se no lo como qué cómo cuál está son mi tu dónde",
        "it": "il lo gli di che e un una è per con del della non sono come cosa qual quale perché dove mi nel",
        "pt": "o os as de que e do da em um uma é para com não se como qual são por no na você quem onde",
        "nl": "de het een en van ik te dat die in is niet op met voor zijn aan hoe wat wie waar wij kan maar",
        "pl": "i w na z się nie to jest że do jak co czy jaki jaka które dla o od są kto gdzie proszę",
    }.items()
}
_SCRIPTS = {
    "CJK": "zh", "HIRAGANA": "ja", "KATAKANA": "ja", "HANGUL": "ko", "CYRILLIC": "ru", "ARABIC": "ar",
    "HEBREW": "he", "DEVANAGARI": "hi", "GREEK": "el", "THAI": "th",
}  # fmt: skip
"""The commonest language of a script: enough to say that it is none of those in Latin letters."""

_LEAD = 2  # more function words than any other language before a text counts as one

_UNSPEAKABLE = (
    ("code", re.compile(r"```|`[^`]+`|[{};]\s*$|=>|[=!]=|</?[a-z]+[^>]*>|\w\([^)]*\)\s*[;{]|\\[a-z]+\{", re.M | re.I)),
    ("url", re.compile(r"https?://|www\.\w|\b[\w.-]+@[\w-]+\.\w|\b\w+\.(?:com|org|net|io|html)\b", re.I)),
    ("table", re.compile(r"^\s*\|.*\||\t.*\t|^\s*[-=]{4,}\s*$", re.M)),
    ("long_number", re.compile(r"\d{7,}|(?:\d[ .,-]?){12,}|\d+\.\d{5,}")),
    ("symbols", re.compile(r"[\^~\\<>{}\[\]|#*_=+]{2,}|[∑∫√≤≥≠≈→∞]")),
)  # fmt: skip


def language_of(text: str) -> str:
    """The language of ``text`` as a BCP 47 tag, ``und`` where its words do not tell."""
    if other := _script(text):
        return other
    words = [word.strip(".,;:!?\"()'") for word in text.lower().split()]
    counts = Counter({language: sum(word in known for word in words) for language, known in _STOP_WORDS.items()})
    (first, most), (_, second) = counts.most_common(2)
    return first if most - second >= _LEAD or (most >= 2 and second == 0) else UNKNOWN_LANGUAGE


def check_question(text: str, words: tuple[int, int], languages: Collection[str]) -> None:
    """Refuse what no voice should say: :class:`SetAsideError` as ``too_few_words``, ``too_many_words``,
    ``other_language``, ``code``, ``url``, ``table``, ``long_number``, ``symbols`` or ``no_letters``."""
    count = len(text.split())
    if count < words[0]:
        raise SetAsideError("too_few_words", f"{count} words, fewer than {words[0]}")
    if count > words[1]:
        raise SetAsideError("too_many_words", f"{count} words, more than {words[1]}")
    for reason, pattern in _UNSPEAKABLE:
        if found := pattern.search(text):
            raise SetAsideError(reason, f"{found[0].strip()[:40]!r} cannot be spoken; say it in words")
    if not any(char.isalpha() for char in text):
        raise SetAsideError("no_letters", "there is no letter in it; say it in words")
    spoken = language_of(text)
    if languages and spoken not in (UNKNOWN_LANGUAGE, *languages):
        raise SetAsideError("other_language", f"it is {spoken}, wanted are {', '.join(languages)}")


def _script(text: str) -> str | None:
    """The language of the script that more than half of the letters have, if it is not Latin."""
    letters = [char for char in text if char.isalpha()]
    foreign = Counter(unicodedata.name(char, "").partition(" ")[0] for char in letters if ord(char) > 0x24F)
    script, count = foreign.most_common(1)[0] if foreign else ("", 0)
    return _SCRIPTS.get(script, "mul") if 2 * count > len(letters) else None
