"""The suites a model is asked, the metrics they give, and the report.

===================  ==========================================  =================================================
suite                asks                                        metrics beside ``items`` and ``set_aside``
===================  ==========================================  =================================================
``spoken_answers``   the speech of each row that has an answer   exact_match, f1, the outcome rates
``text_answers``     each distinct question of them, as text     exact_match, f1, the outcome rates
``transcription``    the speech of each row, "transcribe"        wer, cer, exact_match, the outcome rates
``loss``             nothing: answers and transcripts are given  held_out (nats per answer token), tokens
===================  ==========================================  =================================================

A metric is called ``<suite>.<name>``. The outcome rates are ``mute_rate`` (an empty answer), ``degenerate_rate`` (a
loop, or never ended) and ``stray_sound_rate`` (sound tokens in the answer); every rate of items carries its Wilson 95 %
interval as ``.low`` and ``.high``. A suite without items reports ``items`` = 0 and nothing else that could be taken for
a measurement. ``set_aside`` counts rows that cannot be asked or compared: nothing to hear, or no word to expect.

Rows are chosen by a hash of seed and id: the same rows for every model, and the same rows in every suite that can use
them, whatever order they come in.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ichigo.errors import DataError
from ichigo.evaluation.scorers import (
    ErrorRate,
    Outcome,
    character_errors,
    normalise,
    outcome,
    token_f1,
    wilson_interval,
    word_errors,
)
from ichigo.hashing import sha256_json
from ichigo.language.layouts import Sample, Turn, transcription_prompt
from ichigo.recipe.schema import Evaluation

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine

REPORT_FILE = "evaluation.json"
ITEMS_FILE = "items.jsonl"

_RATES: dict[str, Outcome] = {
    "exact_match": "right",
    "mute_rate": "empty",
    "degenerate_rate": "degenerate",
    "stray_sound_rate": "stray_sound",
}


@dataclass(frozen=True, eq=False)
class EvalRow:
    """One held-out recording: its sound codes, int16 (n,), its words and, if it asks something, the answer."""

    id: str
    codes: npt.NDArray[np.int16]
    text: str
    answer: str | None
    speaker: str


@dataclass(frozen=True)
class ItemResult:
    """One answer beside what was expected; ``tokens`` counts the generated ids without the stop id."""

    suite: str
    id: str
    reference: str
    hypothesis: str
    outcome: Outcome
    tokens: int


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
            lines = (folder / ITEMS_FILE).read_text(encoding="utf-8").split("\n")[:-1]
            items = tuple(ItemResult(**json.loads(line)) for line in lines)
            settings = Evaluation.model_validate(head.pop("settings"))
            return cls(items=items, settings=settings, **head)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{folder}: no readable evaluation report ({error}); evaluate the model again") from error


@dataclass(frozen=True, eq=False)
class _Question:
    """One item of a suite: a row's sample with the expected answer in its last turn."""

    id: str
    sample: Sample

    @property
    def reference(self) -> str:
        return self.sample.turns[-1].assistant


@dataclass
class _Suite:
    """What a suite may ask, and how many rows it had to set aside."""

    name: str
    questions: list[_Question] = field(default_factory=list)
    set_aside: int = 0

    def offer(self, row: EvalRow, sample: Sample) -> None:
        question = _Question(row.id, sample)
        if len(sample.turns[-1].user) and normalise(question.reference):
            self.questions.append(question)
        else:
            self.set_aside += 1

    def choose(self, items: int, seed: int) -> list[_Question]:
        """At most ``items`` questions by the hash of seed and id, in the order of their ids."""
        ranked = sorted(self.questions, key=lambda question: sha256_json([seed, question.id]))
        return sorted(ranked[:items], key=lambda question: question.id)


def evaluate(engine: Engine, items: Sequence[EvalRow], settings: Evaluation, seed: int) -> Report:
    """Ask ``engine`` every suite over ``items``, the held-out rows.

    Args:
        engine: the opened model.
        items: held-out rows with distinct ids, in any order.
        settings: items per suite, limit on new tokens, batch.
        seed: the recipe's seed; chooses rows and transcription prompts.

    Raises:
        DataError: two rows with one id, or what :meth:`Engine.generate` refuses.
    """
    rows = _by_id(items)
    metrics: dict[str, float] = {}
    results: list[ItemResult] = []
    asked: dict[str, list[_Question]] = {}
    for suite in (_spoken_answers(rows), _text_answers(rows), _transcription(rows, seed)):
        asked[suite.name] = suite.choose(settings.items, seed)
        answers = _ask(engine, suite.name, asked[suite.name], settings)
        results += answers
        metrics |= {f"{suite.name}.set_aside": float(suite.set_aside)} | _measure(suite.name, answers)
    metrics |= _held_out_loss(engine, [*asked["spoken_answers"], *asked["transcription"]], settings.batch)
    return Report(metrics, tuple(results), settings, seed, engine.contract.digest)


def _by_id(rows: Iterable[EvalRow]) -> list[EvalRow]:
    ordered = sorted(rows, key=lambda row: row.id)
    twice = [row.id for row, following in pairwise(ordered) if row.id == following.id]
    if twice:
        raise DataError(f"{len(twice)} held-out rows share an id, the first is {twice[0]!r}; ids must be distinct")
    return ordered


def _spoken_answers(rows: Iterable[EvalRow]) -> _Suite:
    suite = _Suite("spoken_answers")
    for row in rows:
        if row.answer is not None:
            suite.offer(row, Sample("speech", (Turn(row.codes, row.answer),)))
    return suite


def _text_answers(rows: Iterable[EvalRow]) -> _Suite:
    """Each distinct pair of question and answer once, under the first of its rows' ids."""
    suite, seen = _Suite("text_answers"), set()
    for row in rows:
        if row.answer is not None and (row.text, row.answer) not in seen:
            seen.add((row.text, row.answer))
            suite.offer(row, Sample("text", (Turn(row.text.strip(), row.answer),)))
    return suite


def _transcription(rows: Iterable[EvalRow], seed: int) -> _Suite:
    suite = _Suite("transcription")
    for row in rows:
        prompt = transcription_prompt(seed, row.id)
        suite.offer(row, Sample("transcription", (Turn(row.codes, row.text),), prompt))
    return suite


def _ask(engine: Engine, suite: str, questions: Sequence[_Question], settings: Evaluation) -> list[ItemResult]:
    prompts = [engine.layouts.prompt_for(question.sample) for question in questions]
    generations = engine.generate(prompts, settings.max_new_tokens, settings.batch, what=suite)
    results = []
    for question, generation in zip(questions, generations, strict=True):
        text, stray = engine.decode(generation.tokens), engine.stray_sound(generation.tokens)
        judged = outcome(question.reference, text, stray_sound=stray, stopped=generation.stopped == "eot")
        results.append(ItemResult(suite, question.id, question.reference, text, judged, len(generation.tokens)))
    return results


def _measure(suite: str, results: Sequence[ItemResult]) -> dict[str, float]:
    """The metrics of one suite's answers."""
    metrics = {f"{suite}.items": float(len(results))}
    if not results:
        return metrics
    outcomes = Counter(result.outcome for result in results)
    for name, counted in _RATES.items():
        metrics |= _rate(f"{suite}.{name}", outcomes[counted], len(results))
    pairs = [(result.reference, result.hypothesis) for result in results]
    if suite == "transcription":
        metrics[f"{suite}.wer"] = sum((word_errors(*pair) for pair in pairs), ErrorRate()).rate
        metrics[f"{suite}.cer"] = sum((character_errors(*pair) for pair in pairs), ErrorRate()).rate
    else:
        metrics[f"{suite}.f1"] = math.fsum(token_f1(*pair) for pair in pairs) / len(pairs)
    return metrics


def _rate(name: str, successes: int, trials: int) -> dict[str, float]:
    low, high = wilson_interval(successes, trials)
    return {name: successes / trials, f"{name}.low": low, f"{name}.high": high}


def _held_out_loss(engine: Engine, questions: Sequence[_Question], batch: int) -> dict[str, float]:
    """Nats per token of answers and transcripts; of a diverged model (nan) ``loss.held_out`` stays missing."""
    examples = [engine.layouts.example(question.sample, loss_on="answers") for question in questions]
    total, tokens = engine.loss(examples, batch, what="loss")
    metrics = {"loss.items": float(len(examples)), "loss.tokens": float(tokens)}
    if tokens and math.isfinite(total):
        metrics["loss.held_out"] = total / tokens
    elif tokens:
        print(f"loss.held_out is left out: the sum over {tokens} tokens is {total}", flush=True)
    return metrics
