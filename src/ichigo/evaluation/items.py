"""What is asked and what came back: rows, questions, suites of questions, results, and the report."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from ichigo.errors import DataError
from ichigo.evaluation.scorers import Outcome, normalise
from ichigo.hashing import sha256_json
from ichigo.language.layouts import Part, Sample, Turn
from ichigo.recipe.schema import Evaluation, SampleType

REPORT_FILE = "evaluation.json"
ITEMS_FILE = "items.jsonl"

Users = Part | tuple[Part, ...]


@dataclass(frozen=True, eq=False)
class EvalRow:
    """One held-out recording: its sound codes, int16 (n,), its words and, if it asks something, the answer.

    ``suite`` is the suite that asks it ("" for those of any corpus). Rows of one ``dialogue`` are its turns, counted
    from 0. ``word_ends`` holds the number of codes up to the end of each word, where that is known. ``heard`` is what
    the tokenizer's own recogniser hears in the recording; "" if nobody asked it.
    """

    id: str
    codes: npt.NDArray[np.int16]
    text: str
    answer: str | None
    speaker: str
    topic: str = ""
    suite: str = ""
    dialogue: str = ""
    turn: int = 0
    word_ends: tuple[int, ...] = ()
    heard: str = ""


@dataclass(frozen=True)
class EvalText:
    """One held-out question in writing; the fields are those of :class:`EvalRow`."""

    id: str
    text: str
    answer: str | None
    topic: str = ""
    suite: str = ""
    dialogue: str = ""
    turn: int = 0


@dataclass(frozen=True)
class ItemResult:
    """One answer beside what was expected.

    ``tokens`` counts the generated ids without the stop id, ``question`` is what was asked in words where they are
    known, ``turn`` counts the turns of a conversation from 0.
    """

    suite: str
    id: str
    reference: str
    hypothesis: str
    outcome: Outcome
    tokens: int
    question: str = ""
    topic: str = ""
    turn: int = 0

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one."""
        return self.outcome == "right"


@dataclass(frozen=True, eq=False)
class Question:
    """One item of a suite: what the user says, turn by turn, and what is expected.

    Attributes:
        id: the row's, or the dialogue's.
        sample: its kind, prompt and user turns; the answers in it are not used.
        references: the expected words, one text per turn.
        words: what each turn says in words; "" where nothing is said.
        topic: of the last turn.
    """

    id: str
    sample: Sample
    references: tuple[str, ...]
    words: tuple[str, ...]
    topic: str = ""

    @classmethod
    def of(cls, row: EvalRow | EvalText, kind: SampleType, user: Users, reference: str, prompt: str = "") -> Question:
        """The question of a single row: ``user`` in a layout of ``kind``."""
        return cls(row.id, Sample(kind, (Turn(user, reference),), prompt), (reference,), (row.text,), row.topic)

    @property
    def reference(self) -> str:
        """The words expected at last."""
        return self.references[-1]


@dataclass
class Suite:
    """What a suite may ask, and how many items it had to set aside."""

    name: str
    questions: list[Question] = field(default_factory=list)
    set_aside: int = 0

    def offer(self, question: Question) -> None:
        """Take a question that has something to hear or read in every part and a word to expect."""
        parts = [part for turn in question.sample.turns for part in turn.question]
        if all(map(_holds_something, parts)) and all(map(normalise, question.references)):
            self.questions.append(question)
        else:
            self.set_aside += 1

    def choose(self, items: int, seed: int) -> list[Question]:
        """At most ``items`` questions by the hash of seed and id, in the order of their ids."""
        ranked = sorted(self.questions, key=lambda question: sha256_json([seed, question.id]))
        return sorted(ranked[:items], key=lambda question: question.id)


@dataclass
class Findings:
    """What an evaluation found so far, and the questions whose expected answers its loss is measured on."""

    metrics: dict[str, float] = field(default_factory=dict)
    results: list[ItemResult] = field(default_factory=list)
    answered: list[Question] = field(default_factory=list)

    def add(self, suite: Suite, results: Iterable[ItemResult], *metrics: Mapping[str, float]) -> None:
        """The results and metrics of a suite, and what it set aside."""
        self.results += results
        self.metrics[f"{suite.name}.set_aside"] = float(suite.set_aside)
        for some in metrics:
            self.metrics |= some


def _holds_something(part: Part) -> bool:
    return len(part.strip() if isinstance(part, str) else part) > 0


class Identified(Protocol):
    """Anything with an id."""

    @property
    def id(self) -> str:
        """The id."""
        ...


Kind = TypeVar("Kind", bound=Identified)


def by_id(rows: Iterable[Kind]) -> list[Kind]:
    """``rows`` in the order of their ids; :class:`DataError` where two share one."""
    ordered = sorted(rows, key=lambda row: row.id)
    twice = [row.id for row, following in pairwise(ordered) if row.id == following.id]
    if twice:
        raise DataError(f"{len(twice)} held-out rows share an id, the first is {twice[0]!r}; ids must be distinct")
    return ordered


@dataclass(frozen=True)
class Report:
    """Metrics by name, every item, and what they were measured with."""

    metrics: dict[str, float]
    items: tuple[ItemResult, ...]
    settings: Evaluation
    seed: int
    contract: str  # digest of the model's token contract

    def write(self, folder: Path) -> None:
        """Write ``evaluation.json`` (all but the items) and ``items.jsonl``; equal reports give equal bytes."""
        head = {"metrics": self.metrics, "seed": self.seed, "contract": self.contract}
        text = json.dumps({**head, "settings": self.settings.model_dump()}, indent=2, sort_keys=True, allow_nan=False)
        lines = [json.dumps(asdict(item), sort_keys=True, ensure_ascii=False) + "\n" for item in self.items]
        (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        (folder / ITEMS_FILE).write_text("".join(lines), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Report:
        """The report that :meth:`write` left in ``folder``; :class:`DataError` if it is not one."""
        try:
            head: dict[str, Any] = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
            lines: Sequence[str] = (folder / ITEMS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
            items = tuple(ItemResult(**json.loads(line)) for line in lines)
            settings = Evaluation.model_validate(head.pop("settings"))
            return cls(items=items, settings=settings, **head)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{folder}: no readable evaluation report ({error}); evaluate the model again") from error
