"""Asking an engine: questions in, judged answers out, conversations turn by turn with the model's own answers.

A base model that was never expanded is asked in text by an engine of its own (:func:`open_text_engine`): the text ids
of the expanded tokenizer are the base's own, so both engines get identical prompts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.devices import best_device
from ichigo.evaluation.items import MODEL, ItemResult, Judged, Question, Suite, measured_as
from ichigo.evaluation.scorers import outcome, refuses
from ichigo.language.layouts import Codes, Layouts, Sample, Turn
from ichigo.recipe.schema import Evaluation

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine, Generation
    from ichigo.language.contract import TokenContract

_MARKERS = 3  # of an answer in sound tokens: <|sound_start|>, <|sound_end|>, <|eot_id|>


def open_text_engine(folder: Path, contract: TokenContract) -> Engine:
    """The text model that ``contract`` was made from, as an engine for text prompts.

    Raises :class:`~ichigo.errors.ContractError` for a folder with another tokenizer and
    :class:`~ichigo.errors.ModelError` for one that is no usable Llama.
    """
    from ichigo.inference.engine import Engine
    from ichigo.language.checkpoint import open_llama

    model = open_llama(folder)
    model.to(best_device())  # type: ignore[arg-type]  # transformers types its decorator, not the method
    return Engine(model, Layouts.open(folder, contract))


class Examiner:
    """Asks one engine and judges what it says; everything it generates is greedy.

    Attributes:
        seed: chooses items and prompts, and seeds intervals.
        system: the name under which its answers are kept.
    """

    def __init__(
        self,
        engine: Engine,
        settings: Evaluation,
        seed: int,
        *,
        system: str = MODEL,
        refusals: Collection[str] = (),
    ) -> None:
        """``refusals``: texts, normalised, that are known to be refusals."""
        self.seed, self.system = seed, system
        self._engine, self._settings, self._refusals = engine, settings, refusals

    def named(self, system: str) -> Examiner:
        """The same under the name of another system."""
        return Examiner(self._engine, self._settings, self.seed, system=system, refusals=self._refusals)

    def choose(self, suite: Suite) -> list[Question]:
        """The questions of ``suite`` that are asked."""
        return suite.choose(self._settings.items, self.seed)

    def ask(self, suite: str, questions: Sequence[Question]) -> list[ItemResult]:
        """The answer to the last turn of each question."""
        return [turns[-1] for turns in self.converse(suite, questions)]

    def converse(self, suite: str, questions: Sequence[Question]) -> list[list[ItemResult]]:
        """The answers to every turn of each question; the model's own answers are the history of its later turns.

        A conversation in which the model says nothing cannot go on: its later turns count as empty. One in which it
        said so much that no room for an answer is left counts as degenerate from there on.
        """
        turns: list[list[ItemResult]] = [[] for _ in questions]
        longest = max((len(question.sample.turns) for question in questions), default=0)
        for at in range(longest):
            here = [number for number, question in enumerate(questions) if at < len(question.sample.turns)]
            going = [number for number in here if all(result.hypothesis for result in turns[number])]
            said = dict(zip(going, self._turn(suite, [(questions[n], turns[n]) for n in going]), strict=True))
            for number in here:
                turns[number].append(said.get(number) or self._lost(suite, questions[number], turns[number]))
        return turns

    def speak(self, suite: str, questions: Sequence[Question], max_codes: int) -> list[Codes]:
        """The sound codes, int16 (n,) with n <= ``max_codes``, with which the model answers each question."""
        layouts, batch = self._engine.layouts, self._settings.batch
        prompts = [layouts.prompt_for(question.sample) for question in questions]
        generations = self._engine.generate(prompts, max_codes + _MARKERS, batch, what=measured_as(suite, self.system))
        return [layouts.codes_of(generation.tokens)[:max_codes] for generation in generations]

    def losses(self, questions: Sequence[Question]) -> list[tuple[float, int]]:
        """Nats of each question's expected answers, and over how many tokens."""
        examples = [self._engine.layouts.example(question.sample, loss_on="answers") for question in questions]
        return self._engine.losses(examples, self._settings.batch, what="loss")

    def result(self, suite: str, question: Question, turn: int, text: str, judged: Judged, tokens: int) -> ItemResult:
        """``text`` as this system's answer to one turn of ``question``."""
        declines = self.is_refusal(question.references[turn])
        return question.result(suite, turn, text, judged, tokens, system=self.system, expects_refusal=declines)

    def is_refusal(self, text: str) -> bool:
        """Whether ``text`` is a refusal, as far as this evaluation knows them."""
        return refuses(text, self._refusals)

    def _turn(self, suite: str, asked: Sequence[tuple[Question, list[ItemResult]]]) -> list[ItemResult]:
        """The next answer of each conversation, given what was said in it so far."""
        layouts, limit = self._engine.layouts, self._settings.max_new_tokens
        prompts = [layouts.prompt_for(_so_far(question, said)) for question, said in asked]
        room = self._engine.positions - limit
        fitting = [at for at, (_, said) in enumerate(asked) if not said or len(prompts[at]) <= room]
        generations = self._engine.generate(
            [prompts[at] for at in fitting], limit, self._settings.batch, what=measured_as(suite, self.system)
        )
        results = {
            at: self._judged(suite, *asked[at], generation) for at, generation in zip(fitting, generations, strict=True)
        }
        return [
            results.get(at) or self.result(suite, question, len(said), "", "degenerate", 0)
            for at, (question, said) in enumerate(asked)
        ]

    def _lost(self, suite: str, question: Question, said: Sequence[ItemResult]) -> ItemResult:
        """The next turn of a conversation that cannot go on."""
        full = said[-1].outcome == "degenerate"
        return self.result(suite, question, len(said), "", "degenerate" if full else "empty", 0)

    def _judged(self, suite: str, question: Question, said: list[ItemResult], generation: Generation) -> ItemResult:
        text, stray = self._engine.decode(generation.tokens), self._engine.stray_sound(generation.tokens)
        reference, ended = question.references[len(said)], generation.stopped == "eot"
        judged = outcome(reference, text, stray_sound=stray, stopped=ended, refusals=self._refusals)
        return self.result(suite, question, len(said), text, judged, len(generation.tokens))


def _so_far(question: Question, said: Sequence[ItemResult]) -> Sample:
    """The sample through the turn after ``said``, with what was really said as its history."""
    turns = question.sample.turns[: len(said) + 1]
    answers = [*(result.hypothesis for result in said), ""]
    own = tuple(Turn(turn.user, answer) for turn, answer in zip(turns, answers, strict=True))
    return Sample(question.sample.kind, own, question.sample.prompt)
