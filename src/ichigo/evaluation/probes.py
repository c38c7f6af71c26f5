"""Small measurements of a model between two stages, on a seeded sample of held-out rows: what :mod:`.diagnosis` judges.

====================  =================================================================================================
``sound_real``        nats per token of held-out speech
``sound_shuffled``    the same sound tokens, in random order within each utterance
``sound_gain``        their difference: what the model knows of how speech goes on; 0 for one that heard no order
``answer_own``        nats per token of the expected answers to spoken questions
``answer_other``      the same answers after the speech of questions with another answer
``answer_gain``       their difference: what listening is worth; 0 for a model that answers without it
``text_model``        nats per token of the expected answers to written questions
``text_base``         the same by the model that training began with
``text_rise``         their difference: what was forgotten
``false_refusals``    the share of clean spoken questions whose greedy answer is a refusal
``*_items``           how many rows each group was measured on
====================  =================================================================================================

Answers and refusals are measured of models that were taught to answer. What a corpus has no rows for is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ichigo.evaluation.items import EvalRow, EvalText, Identified, Kind
from ichigo.evaluation.scorers import normalise
from ichigo.hashing import sha256_json
from ichigo.language.layouts import Codes, LossOn, Sample, Turn
from ichigo.language.mixing import NOISE_ANSWERS
from ichigo.recipe.schema import Evaluation

if TYPE_CHECKING:
    from ichigo.inference.engine import Engine

Written = tuple[str, str]  # question and answer

_UNWRITTEN = "tokens"  # the origin, and so the topic, of published token strings: speech whose words nobody knows

CLEAN = ("", "held_out", "seen_voices")
"""Suites whose questions a good model answers: a world's facts and odd voices are hard on purpose."""


@dataclass(frozen=True)
class Chosen:
    """What a model is measured on.

    Attributes:
        speech: utterances, for the loss of their sound tokens; noise is none.
        questions: those of them that ask something.
        written: questions and answers in writing.
        refusals: what the corpus answers to sound that is no speech.
    """

    speech: tuple[EvalRow, ...]
    questions: tuple[EvalRow, ...]
    written: tuple[Written, ...]
    refusals: tuple[str, ...]


def choose(rows: Sequence[EvalRow], texts: Sequence[EvalText], items: int, seed: int) -> Chosen:
    """At most ``items`` held-out rows of each kind, by the hash of seed and id.

    Where a corpus has no written suites, the spoken questions are asked in writing.
    """
    alone = [row for row in rows if (row.suite in CLEAN or _is_noise(row)) and not row.dialogue and len(row.codes)]
    noise, clean = [row for row in alone if _is_noise(row)], [row for row in alone if not _is_noise(row)]
    asked = [row for row in clean if row.answer]
    single = [(row.text, row.answer) for row in _some(texts, items, seed) if row.answer and not row.dialogue]
    written = single or [(row.text, row.answer) for row in _some(asked, items, seed) if row.text and row.answer]
    refusals = sorted({row.answer for row in noise if row.answer}) or NOISE_ANSWERS
    return Chosen(_some(clean, items, seed), _some(asked, items, seed), tuple(dict.fromkeys(written)), tuple(refusals))


def _is_noise(row: EvalRow) -> bool:
    return not row.text and row.topic != _UNWRITTEN


def measure(
    engine: Engine, base: Engine, chosen: Chosen, settings: Evaluation, seed: int, answers: bool
) -> dict[str, float]:
    """What the module's table says of ``engine``; ``answers``: whether it was taught to answer.

    ``base`` is the text model that training began with; ``settings`` gives batch and longest answer.
    """
    found = _sound(engine, chosen.speech, settings.batch, seed)
    if answers:
        found |= _answers(engine, chosen.questions, settings.batch)
        found |= _refusals(engine, chosen, settings)
    return found | _text(engine, base, chosen.written, settings.batch)


def _sound(engine: Engine, speech: Sequence[EvalRow], batch: int, seed: int) -> dict[str, float]:
    if not speech:
        return {}
    mixed = [np.random.default_rng(_number(seed, "shuffled", row.id)).permutation(row.codes) for row in speech]
    real = _loss(engine, [_sounding(row.codes) for row in speech], batch, "all")
    shuffled = _loss(engine, [_sounding(codes) for codes in mixed], batch, "all")
    return {
        "sound_real": real,
        "sound_shuffled": shuffled,
        "sound_gain": shuffled - real,
        "sound_items": float(len(speech)),
    }


def _sounding(codes: Codes) -> Sample:
    return Sample("sound", (Turn(codes),))


def _answers(engine: Engine, questions: Sequence[EvalRow], batch: int) -> dict[str, float]:
    pairs = [(row, found) for place, row in enumerate(questions) if (found := _another(questions, place))]
    if not pairs:
        return {}
    own = _loss(engine, [_answered(row.codes, row) for row, _ in pairs], batch, "answers")
    other = _loss(engine, [_answered(another.codes, row) for row, another in pairs], batch, "answers")
    return {
        "answer_own": own,
        "answer_other": other,
        "answer_gain": other - own,
        "answer_items": float(len(pairs)),
    }


def _answered(codes: Codes, row: EvalRow) -> Sample:
    return Sample("speech", (Turn(codes, row.answer or ""),))


def _another(questions: Sequence[EvalRow], place: int) -> EvalRow | None:
    """The next question, all round, that has another answer."""
    following = [*questions[place + 1 :], *questions[:place]]
    return next((row for row in following if row.answer != questions[place].answer), None)


def _text(engine: Engine, base: Engine, written: Sequence[Written], batch: int) -> dict[str, float]:
    if not written:
        return {}
    samples = [Sample("text", (Turn(text, answer),)) for text, answer in written]
    now, before = (_loss(one, samples, batch, "answers") for one in (engine, base))
    return {"text_model": now, "text_base": before, "text_rise": now - before, "text_items": float(len(written))}


def _loss(engine: Engine, samples: Sequence[Sample], batch: int, loss_on: LossOn) -> float:
    """Nats per token that carries loss."""
    nats, tokens = engine.loss([engine.layouts.example(sample, loss_on) for sample in samples], batch, "probe")
    return nats / tokens


def _refusals(engine: Engine, chosen: Chosen, settings: Evaluation) -> dict[str, float]:
    questions = [row for row in chosen.questions if normalise(row.answer or "") not in _spelled(chosen.refusals)]
    prompts = [engine.layouts.prompt_for(Sample("speech", (Turn(row.codes),))) for row in questions]
    said = engine.generate(prompts, settings.max_new_tokens, settings.batch, "probe refusals")
    refused = sum(normalise(engine.decode(one.tokens)) in _spelled(chosen.refusals) for one in said)
    return {"false_refusals": refused / len(said), "refusal_items": float(len(said))} if said else {}


def _spelled(texts: Iterable[str]) -> set[str]:
    return set(map(normalise, texts))


def _some(rows: Sequence[Kind], items: int, seed: int) -> tuple[Kind, ...]:
    def rank(row: Identified) -> str:
        return sha256_json([seed, "probe", row.id])

    return tuple(sorted(rows, key=rank)[:items])


def _number(*key: str | int) -> int:
    return int(sha256_json(list(key))[:16], 16)
