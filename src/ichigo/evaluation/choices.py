"""Multiple choice, judged twice: by the likelihood of each option, and by what the model says when it is asked.

The likelihood needs no parsing and no chance: the option that the model finds likeliest after the question is its
answer, by the sum of log-likelihoods or by the sum per character of the option (``acc`` and ``acc_norm`` of lm-eval).

What it says is read by :func:`read_choice` and has one of five outcomes (:func:`choice_outcome`). Nobody guesses for
the model: a reply that names no option is ``unparsable`` and counts as not right. The grammar, first rule that finds
a letter; a rule that finds two different ones makes the reply unparsable::

    reply      = alone | first | stated | bracketed | option text
    letter     = one of the first N letters, in either case, N options
    mark       = "(" letter ")" | "[" letter "]" | letter
    alone      = ["option" | "choice" | "answer" [":"]] mark ["." | ":" | ")"]          the whole reply
    first      = "(" letter ")" ... | letter ("." | ":" | ")" | ",") ...                the beginning, no "or" after it
    stated     = ("answer" | "option" | "choice") ["is" | "would be" | ":" | "="] ["option" | "choice"] mark
               | ("choose" | "pick" | "select" | "say" | "go with") ["option" | "choice" | "answer"] mark
               | mark "is" ("the" | "")  ("correct" | "right" | "best") ...             anywhere
    bracketed  = "(" letter ")"                                                         anywhere
    option text= the words of one option, whole, and of no other                        anywhere

A bare letter of ``stated`` ends there: it is followed by the end of the reply, by punctuation or by "because", "since"
or "as"; so "the answer is a dog" names no letter. Markdown emphasis, quotes and ``\\boxed{}`` are taken off first.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from ichigo.errors import DataError
from ichigo.evaluation.measures import Metrics, rate
from ichigo.evaluation.scorers import loops, normalise

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine, Ids

ChoiceOutcome = Literal["right", "wrong", "unparsable", "refused", "degenerate"]
CHOICE_OUTCOMES: tuple[ChoiceOutcome, ...] = get_args(ChoiceOutcome)

LETTERS = "ABCDEFGHIJ"
"""Names of the options; MMLU-Pro has ten, no common set more."""

_LABEL = r"(?:(?:option|choice)\s+)?"
_END = r"(?=\s*(?:$|[.,:;!?)\]]|(?:because|since|as)\b))"
_APOSTROPHES = re.compile("['\N{RIGHT SINGLE QUOTATION MARK}]")
_REFUSALS = re.compile(
    r"\b(?:i|we) (?:cannot|cant|can not|wont|could not|couldnt|do not know|dont know|am unable|am not able)\b"
    r"|\b(?:i|we) (?:do not|dont|did not|didnt) (?:hear|understand)\b"
    r"|\b(?:im|i am) (?:sorry|unable|not able|not sure)\b|\bsorry\b|\bas an ai\b"
)
_WRAPPING = re.compile(
    "[*_`\"'$\\\\{}\N{LEFT DOUBLE QUOTATION MARK}\N{RIGHT DOUBLE QUOTATION MARK}"
    "\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}]"
)


@dataclass(frozen=True)
class Likelihoods:
    """The options of one question as a model finds them.

    Attributes:
        log_likelihoods: natural logarithm of each option's probability after the question.
        characters: length of each option, by which ``normalised`` divides.
    """

    log_likelihoods: tuple[float, ...]
    characters: tuple[int, ...]

    @property
    def chosen(self) -> int | None:
        """Place of the likeliest option, the first of equals; None where a likelihood is not a number."""
        return _first_best(self.log_likelihoods)

    @property
    def normalised(self) -> int | None:
        """Place of the option that is likeliest per character; likewise."""
        return _first_best([nats / count for nats, count in zip(self.log_likelihoods, self.characters, strict=True)])


def by_likelihood(
    engine: Engine, questions: Sequence[tuple[Ids, Sequence[str]]], batch: int, what: str = "options"
) -> list[Likelihoods]:
    """How likely ``engine`` finds each option of each question, in their order.

    Args:
        engine: the model.
        questions: the ids before an option (a prompt through its assistant header, or any text), and the options as
            they stand after it; an option is spelled on its own, so no token reaches over the seam.
        batch: options at once.
        what: name on the progress line.

    Raises :class:`DataError` for a question with fewer than two options or with an empty one.
    """
    for number, (_, options) in enumerate(questions):
        if len(options) < 2 or not all(options):
            raise DataError(f"question {number} has the options {list(options)}; it needs two or more, none empty")
    pairs = [(before, engine.layouts.spell(option)) for before, options in questions for option in options]
    scored = iter(engine.score(pairs, batch, what))
    return [
        Likelihoods(tuple(next(scored).log_likelihood for _ in options), tuple(map(len, options)))
        for _, options in questions
    ]


def read_choice(reply: str, options: Sequence[str]) -> int | None:
    """The place of the option that ``reply`` names under the module's grammar; None if it names none, or several.

    ``options`` are the options' words, "" where they are not known; there are at most ``len(LETTERS)``.
    """
    text = _plain(reply)
    names = LETTERS[: len(options)]
    for rule in (_alone, _first, _stated, _bracketed):
        if found := {names.index(letter.upper()) for letter in rule(text, names)}:
            return found.pop() if len(found) == 1 else None
    said = _options_said(normalise(text), [normalise(option) for option in options])
    return said[0] if len(said) == 1 else None


def choice_outcome(
    reply: str, options: Sequence[str], answer: int, *, stray_sound: bool, stopped: bool
) -> ChoiceOutcome:
    """The one class of a reply; the first that fits, in this order.

    ``degenerate``: sound tokens in it, or a loop; ``right`` and ``wrong``: it names an option; ``refused``: it says
    that it cannot or will not answer; ``degenerate``: it never ended by itself; ``unparsable``: anything else, an empty
    reply too. A reply that names its option and then goes on to the limit has named it.

    Args:
        reply: the text of the answer, without special tokens.
        options: their words.
        answer: place of the right one.
        stray_sound: whether a sound token was generated.
        stopped: whether the model ended the reply, rather than the limit on new tokens.
    """
    if stray_sound or loops(reply):
        return "degenerate"
    chosen = read_choice(reply, options)
    if chosen is not None:
        return "right" if chosen == answer else "wrong"
    if refuses(reply):
        return "refused"
    return "unparsable" if stopped else "degenerate"


def refuses(reply: str) -> bool:
    """Whether ``reply`` says that it cannot, will not or does not know how to answer."""
    return _REFUSALS.search(" ".join(_APOSTROPHES.sub("", reply.casefold()).split())) is not None


def choice_metrics(suite: str, outcomes: Sequence[ChoiceOutcome]) -> Metrics:
    """``items`` and, with Wilson's interval, the share of each outcome: ``<suite>.choice.<outcome>``."""
    counted, metrics = Counter(outcomes), {f"{suite}.choice.items": float(len(outcomes))}
    for name in CHOICE_OUTCOMES if outcomes else ():
        metrics |= rate(f"{suite}.choice.{name}", counted[name], len(outcomes))
    return metrics


def likelihood_metrics(suite: str, found: Sequence[Likelihoods], answers: Sequence[int]) -> Metrics:
    """``<suite>.likelihood.accuracy`` and ``.accuracy_per_character`` with Wilson's interval; a question whose
    likelihoods are not numbers is not right."""
    metrics = {f"{suite}.likelihood.items": float(len(found))}
    for name, chosen in (
        ("accuracy", [one.chosen for one in found]),
        ("accuracy_per_character", [one.normalised for one in found]),
    ):
        if found:
            right = sum(place == answer for place, answer in zip(chosen, answers, strict=True))
            metrics |= rate(f"{suite}.likelihood.{name}", right, len(found))
    return metrics


def _first_best(values: Sequence[float]) -> int | None:
    if any(math.isnan(value) for value in values):
        return None
    return max(range(len(values)), key=lambda place: (values[place], -place))


def _plain(reply: str) -> str:
    """``reply`` in NFKC without emphasis, quotes, LaTeX around a letter and surplus white space."""
    text = unicodedata.normalize("NFKC", reply)
    text = re.sub(r"\\(?:boxed|text|textbf|mathbf|mathrm)\s*\{", "{", text)
    return " ".join(_WRAPPING.sub(" ", text).split())


def _mark(names: str, end: str = _END) -> str:
    """A letter in brackets, or a bare one that ends there."""
    letter = f"[{names}{names.lower()}]"
    return rf"(?:\(\s*({letter})\s*\)|\[\s*({letter})\s*\]|\b({letter})\b{end})"


def _alone(text: str, names: str) -> list[str]:
    lead = r"(?:(?:the\s+)?(?:option|choice|answer)\s*:?\s*)?"
    return _letters(re.fullmatch, rf"{lead}{_mark(names, '')}\s*[.:)]?", text)


def _first(text: str, names: str) -> list[str]:
    letter = f"[{names}{names.lower()}]"
    return _letters(re.match, rf"(?:\(\s*({letter})\s*\)|({letter})\s?[.:),](?=\s|$))(?!\s*or\b)", text)


def _stated(text: str, names: str) -> list[str]:
    mark = _mark(names)
    to_be = r"\s*(?:(?:is|was|(?:would|should|must|will) be)\b|:|=)?\s*:?\s*(?:(?:most )?likely\s+|probably\s+)?"
    told = rf"\b(?:answer|option|choice)(?:\s+to\s+(?:the|this|that|your)\s+[\w-]+)?{to_be}(?:the\s+)?{_LABEL}{mark}"
    picked = rf"\b(?:choose|pick|select|say|go with)\s+(?:the\s+)?(?:answer\s+|option\s+|choice\s+)?{mark}"
    judged = rf"{_mark(names, '')}\s+is\s+(?:the\s+)?(?:correct|right|best)\b"
    return [letter for pattern in (told, picked, judged) for letter in _all_letters(pattern, text)]


def _bracketed(text: str, names: str) -> list[str]:
    return _all_letters(rf"\(\s*([{names}{names.lower()}])\s*\)", text)


def _letters(how: Callable[..., re.Match[str] | None], pattern: str, text: str) -> list[str]:
    found = how(pattern, text, re.IGNORECASE)
    return [group for group in found.groups() if group] if found else []


def _all_letters(pattern: str, text: str) -> list[str]:
    return [group for found in re.finditer(pattern, text, re.IGNORECASE) for group in found.groups() if group]


def _options_said(text: str, options: Sequence[str]) -> list[int]:
    """Places of the options whose words stand in ``text``, but for those that are only part of a longer one there."""
    said = [place for place, option in enumerate(options) if option and f" {option} " in f" {text} "]
    rest = text
    for place in sorted(said, key=lambda place: -len(options[place])):
        if f" {options[place]} " not in f" {rest} ":
            said.remove(place)
        rest = f" {rest} ".replace(f" {options[place]} ", " ; ").strip()
    return said
