"""Writes ``tests/unit/jiwer_cases.json``: pairs of texts with the errors that jiwer counts in them.

jiwer is no dependency; whoever wants the cases anew takes a Python of their own (nothing of ours is imported)::

    python3 -m venv /tmp/jiwer && /tmp/jiwer/bin/pip install jiwer==4.0.0
    /tmp/jiwer/bin/python tests/jiwer_cases.py

Texts have capitals, full stops, commas, question and exclamation marks, which jiwer is told to take away; what
``normalise`` does beyond that (apostrophes, numbers, a sharp s) has tests of its own.
"""

from __future__ import annotations

import json
import random
from importlib.metadata import version
from pathlib import Path

FILE = Path(__file__).parent / "unit" / "jiwer_cases.json"
_COMMON = [
    "a",
    "the",
    "set",
    "turn",
    "on",
    "off",
    "light",
    "fan",
    "in",
    "kitchen",
    "to",
    "seven",
    "timer",
    "for",
    "ten",
]
_WORDS = [*_COMMON, "ten", "minutes", "café", "naïve", "हिन्दी", "東京", "no", "yes"]
_FIXED = [
    ("yes", ""),
    ("yes", "no"),
    ("yes", "oh yes it is"),
    ("one two three", "three two one"),
    ("a b c d e", "b c d e a"),
    ("kitten", "sitting"),
    ("set a timer", "seta timer"),
    ("no no no no", "no"),
    ("light", "light " * 1700),
    (" ".join(["set the timer"] * 40), " ".join(["set a timer now"] * 40)),
]


def cases() -> list[tuple[str, str]]:
    """References with a word at least, and what was heard instead."""
    rng, found = random.Random(1), list(_FIXED)
    for _ in range(290):
        words = rng.choices(_WORDS, k=rng.randint(1, 14))
        heard = [_misheard(word, rng) for word in words]
        found.append((_written(words, rng), _written([word for word in heard if word], rng)))
    return found


def _misheard(word: str, rng: random.Random) -> str:
    """The word, nothing, another one, two, or one with a letter less."""
    kinds = [word] * 6 + ["", rng.choice(_WORDS), f"{word} {rng.choice(_WORDS)}", word[:-1]]
    return rng.choice(kinds)


def _written(words: list[str], rng: random.Random) -> str:
    text = " ".join(word + rng.choice(["", "", "", ","]) for word in words)
    return text[:1].upper() + text[1:] + rng.choice(["", ".", "!", "?"])


def main() -> None:
    """Ask jiwer and write the file."""
    import jiwer

    clean = [jiwer.ToLowerCase(), jiwer.RemovePunctuation(), jiwer.RemoveMultipleSpaces(), jiwer.Strip()]
    by_word = jiwer.Compose([*clean, jiwer.ReduceToListOfListOfWords()])
    by_character = jiwer.Compose([*clean, jiwer.ReduceToListOfListOfChars()])

    def words(reference: str | list[str], hypothesis: str | list[str]) -> jiwer.WordOutput:
        return jiwer.process_words(reference, hypothesis, by_word, by_word)

    def characters(reference: str | list[str], hypothesis: str | list[str]) -> jiwer.CharacterOutput:
        return jiwer.process_characters(reference, hypothesis, by_character, by_character)

    def errors(found: jiwer.WordOutput | jiwer.CharacterOutput) -> list[int]:
        wrong = found.substitutions + found.deletions
        return [wrong + found.insertions, wrong + found.hits]

    pairs = cases()
    lines = [[*pair, *errors(words(*pair)), *errors(characters(*pair))] for pair in pairs]
    references, hypotheses = (list(texts) for texts in zip(*pairs, strict=True))
    whole = {"wer": words(references, hypotheses).wer, "cer": characters(references, hypotheses).cer}
    head = ", ".join(f'"{name}": {json.dumps(value)}' for name, value in {"jiwer": version("jiwer"), **whole}.items())
    body = ",\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    FILE.write_text(f'{{{head}, "cases": [\n{body}\n]}}\n', encoding="utf-8")


if __name__ == "__main__":
    main()
