"""What is asked and what came back: rows, questions, suites of questions, results, and the report.

A report is two files. ``items.parquet`` has a row for each answer (and for each question that was set aside), and every
number of ``evaluation.json`` that comes of answers follows from it (:mod:`ichigo.evaluation.recount`):

===============  =======================================================================================================
system           who answered: ``model`` (the one evaluated), ``base`` (the text model it began with), ``cascade``
                 (the model transcribes, the base answers), ``real_speech`` (no answer: what a recogniser reads in a
                 recording) or any other; the report's ``systems`` says what each is
suite            what was asked, such as ``spoken.held_out``; the same suite of two systems has the same items
id, turn         the row's id, or the dialogue's with the turn counted from 0
kind             the layout of the question (:data:`~ichigo.recipe.schema.SampleType`)
topic, variant   the row's topic; what tells apart two ways of asking it (``speech_first``), else ""
speaker          of the row; "" where none is known, and in writing
question         what was asked, in words; "" where nobody speaks words
reference        what was expected
hypothesis       what came, without special and sound tokens; of generated speech: what a recogniser reads in it
outcome          :data:`~ichigo.evaluation.scorers.Outcome`, or ``set_aside``: it was not asked
expects_refusal  whether the expected answer is a refusal
tokens           generated ids without the stop id; of generated speech: its sound codes
seconds          of speech: that was heard, or of a person saying the text that was to be said; 0.0 without speech
f1               :func:`~ichigo.evaluation.scorers.token_f1`
errors, units    word errors and words of the reference, of ``transcription`` and ``speak``; else null
char_errors, …   the same in characters (``char_units``), of ``transcription``; else null
nats, …          sum of the negative log-likelihood of the reference, given the question, over ``nats_tokens`` tokens
                 (its end included), where the loss was measured; else null
===============  =======================================================================================================

Rows lie in the order in which they were asked: suite by suite, within one by system, id and turn. Equal reports have
equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.errors import DataError
from ichigo.evaluation.scorers import Outcome, character_errors, normalise, token_f1, word_errors
from ichigo.hashing import sha256_json
from ichigo.language.layouts import Part, Sample, Turn
from ichigo.recipe.schema import Evaluation, SampleType
from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND

REPORT_FILE = "evaluation.json"
ITEMS_FILE = "items.parquet"

MODEL, BASE, CASCADE, REAL_SPEECH = "model", "base", "cascade", "real_speech"
"""Systems of every evaluation; others may join."""

_SCHEMA = pa.schema(
    [
        ("system", pa.string()),
        ("suite", pa.string()),
        ("id", pa.string()),
        ("turn", pa.int32()),
        ("kind", pa.string()),
        ("topic", pa.string()),
        ("variant", pa.string()),
        ("speaker", pa.string()),
        ("question", pa.string()),
        ("reference", pa.string()),
        ("hypothesis", pa.string()),
        ("outcome", pa.string()),
        ("expects_refusal", pa.bool_()),
        ("tokens", pa.int32()),
        ("seconds", pa.float64()),
        ("f1", pa.float64()),
        ("errors", pa.int32()),
        ("units", pa.int32()),
        ("char_errors", pa.int32()),
        ("char_units", pa.int32()),
        ("nats", pa.float64()),
        ("nats_tokens", pa.int32()),
    ]
)

Judged = Outcome | Literal["set_aside"]
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


def measured_as(suite: str, system: str) -> str:
    """What the metrics of ``system`` on a suite are called: the suite's name for the model, the system behind it for
    any other."""
    return suite if system == MODEL else f"{suite}.{system}"


@dataclass(frozen=True)
class ItemResult:
    """One answer beside what was expected; the fields are the columns of ``items.parquet``."""

    suite: str
    id: str
    reference: str
    hypothesis: str
    outcome: Judged
    tokens: int
    question: str = ""
    topic: str = ""
    turn: int = 0
    system: str = MODEL
    kind: str = "speech"
    variant: str = ""
    speaker: str = ""
    expects_refusal: bool = False
    seconds: float = 0.0
    f1: float = 0.0
    errors: int | None = None
    units: int | None = None
    char_errors: int | None = None
    char_units: int | None = None
    nats: float | None = None
    nats_tokens: int | None = None

    @property
    def right(self) -> bool:
        """Whether the answer is the expected one."""
        return self.outcome == "right"

    @property
    def key(self) -> tuple[str, int]:
        """What tells the items of a suite apart."""
        return self.id, self.turn

    def scored(self) -> ItemResult:
        """The same with everything that follows from its two texts."""
        words = word_errors(self.reference, self.hypothesis) if self.kind in ("transcription", "speak") else None
        letters = character_errors(self.reference, self.hypothesis) if self.kind == "transcription" else None
        return replace(
            self,
            f1=token_f1(self.reference, self.hypothesis),
            errors=words.errors if words else None,
            units=words.units if words else None,
            char_errors=letters.errors if letters else None,
            char_units=letters.units if letters else None,
        )


@dataclass(frozen=True, eq=False)
class Question:
    """One item of a suite: what the user says, turn by turn, and what is expected.

    Attributes:
        id: the row's, or the dialogue's.
        sample: its kind, prompt and user turns; the answers in it are not used.
        references: the expected words, one text per turn.
        words: what each turn says in words; "" where nothing is said.
        topic: of the last turn.
        speaker: who says it; "" in writing.
        variant: the way of asking, where a suite has more than one.
    """

    id: str
    sample: Sample
    references: tuple[str, ...]
    words: tuple[str, ...]
    topic: str = ""
    speaker: str = ""
    variant: str = ""

    @classmethod
    def of(cls, row: EvalRow | EvalText, kind: SampleType, user: Users, reference: str, prompt: str = "") -> Question:
        """The question of a single row: ``user`` in a layout of ``kind``."""
        sample, heard = Sample(kind, (Turn(user, reference),), prompt), _heard(user) > 0
        speaker = row.speaker if isinstance(row, EvalRow) and heard else ""
        return cls(row.id, sample, (reference,), (row.text,), row.topic, speaker)

    @property
    def reference(self) -> str:
        """The words expected at last."""
        return self.references[-1]

    def result(
        self,
        suite: str,
        turn: int,
        hypothesis: str,
        outcome: Judged,
        tokens: int,
        *,
        system: str = MODEL,
        expects_refusal: bool = False,
    ) -> ItemResult:
        """What came of one turn of this question."""
        return ItemResult(
            suite=suite,
            id=self.id,
            reference=self.references[turn],
            hypothesis=hypothesis,
            outcome=outcome,
            tokens=tokens,
            question=self.words[turn],
            topic=self.topic,
            turn=turn,
            system=system,
            kind=self.sample.kind,
            variant=self.variant,
            speaker=self.speaker,
            expects_refusal=expects_refusal,
            seconds=_heard(self.sample.turns[turn].user),
        ).scored()


@dataclass
class Suite:
    """What a suite may ask, and what it had to set aside."""

    name: str
    questions: list[Question] = field(default_factory=list)
    set_aside: list[Question] = field(default_factory=list)

    def offer(self, question: Question) -> None:
        """Take a question that has something to hear or read in every part and a word to expect."""
        parts = [part for turn in question.sample.turns for part in turn.question]
        able = all(map(_holds_something, parts)) and all(map(normalise, question.references))
        (self.questions if able else self.set_aside).append(question)

    def choose(self, items: int, seed: int) -> list[Question]:
        """At most ``items`` questions by the hash of seed and id, in the order of their ids."""
        ranked = sorted(self.questions, key=lambda question: sha256_json([seed, question.id]))
        return sorted(ranked[:items], key=lambda question: question.id)


@dataclass
class Findings:
    """What an evaluation found so far.

    Attributes:
        suites: names of the suites that were asked, in this order; one without items is among them.
        results: every answer.
        set_aside: every question that could not be asked.
        answered: suite and question of every answer whose loss is measured.
        wanted: names of the suites that may be asked; None for all.
    """

    wanted: frozenset[str] | None = None
    suites: list[str] = field(default_factory=list)
    results: list[ItemResult] = field(default_factory=list)
    set_aside: list[ItemResult] = field(default_factory=list)
    answered: list[tuple[str, Question]] = field(default_factory=list)

    def wants(self, *suites: str) -> bool:
        """Whether one of these suites may be asked."""
        return self.wanted is None or not self.wanted.isdisjoint(suites)

    def add(self, suite: Suite, results: Iterable[ItemResult]) -> None:
        """The answers to a suite, and what it set aside."""
        self.suites.append(suite.name)
        self.results += results
        aside = sorted(suite.set_aside, key=lambda question: question.id)
        last = [(question, len(question.references) - 1) for question in aside]
        self.set_aside += [question.result(suite.name, turn, "", "set_aside", 0) for question, turn in last]


def _holds_something(part: Part) -> bool:
    return len(part.strip() if isinstance(part, str) else part) > 0


def _heard(user: Users) -> float:
    """Seconds of speech in what a user says."""
    parts = user if isinstance(user, tuple) else (user,)
    return sum(len(part) for part in parts if not isinstance(part, str)) / SOUND_TOKENS_PER_SECOND


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
    """Metrics by name, every item, and what they were measured with.

    Attributes:
        metrics: see :mod:`ichigo.evaluation.recount`.
        items: the answers.
        settings: the recipe's.
        seed: the recipe's.
        contract: digest of the model's token contract.
        suites: names of the suites that were asked, one without items among them.
        set_aside: questions that could not be asked, as rows without an answer.
        systems: what each system of ``items`` is, in words with its digest.
        notes: what a reader must know to read the metrics, a sentence each.
    """

    metrics: dict[str, float]
    items: tuple[ItemResult, ...]
    settings: Evaluation
    seed: int
    contract: str
    suites: tuple[str, ...] = ()
    set_aside: tuple[ItemResult, ...] = ()
    systems: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def write(self, folder: Path) -> None:
        """Write ``evaluation.json`` (all but the items) and ``items.parquet``; equal reports give equal bytes."""
        head = {"metrics": self.metrics, "seed": self.seed, "contract": self.contract, "suites": self.suites}
        head |= {"systems": self.systems, "notes": self.notes, "settings": self.settings.model_dump()}
        text = json.dumps(head, indent=2, sort_keys=True, allow_nan=False)
        (folder / REPORT_FILE).write_text(text + "\n", encoding="utf-8")
        rows = [*self.items, *self.set_aside]
        columns = {name: [getattr(row, name) for row in rows] for name in _SCHEMA.names}
        pq.write_table(pa.table(columns, schema=_SCHEMA), folder / ITEMS_FILE, compression="zstd")

    @classmethod
    def read(cls, folder: Path) -> Report:
        """The report that :meth:`write` left in ``folder``; :class:`DataError` if it is not one."""
        try:
            head: dict[str, Any] = json.loads((folder / REPORT_FILE).read_text(encoding="utf-8"))
            rows = [ItemResult(**row) for row in pq.read_table(folder / ITEMS_FILE, schema=_SCHEMA).to_pylist()]
            settings = Evaluation.model_validate(head.pop("settings"))
            suites, notes = tuple(head.pop("suites")), tuple(head.pop("notes"))
            items = tuple(row for row in rows if row.outcome != "set_aside")
            aside = tuple(row for row in rows if row.outcome == "set_aside")
            return cls(items=items, set_aside=aside, settings=settings, suites=suites, notes=notes, **head)
        except (OSError, ValueError, TypeError, KeyError, pa.ArrowException) as error:
            raise DataError(f"{folder}: no readable evaluation report ({error}); evaluate the model again") from error
