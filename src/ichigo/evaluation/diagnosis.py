"""What the numbers of a stage mean: each bound of ``probes`` in the recipe kept or not, and a diagnosis if not.

Pure and light: numbers in, lines out. Three diagnoses are the ways in which the trainings behind arXiv 2410.15316 went
wrong: a model that declines clear speech, sound tokens that mean nothing to it (v0.4 was fed by another tokenizer's),
and text skill that is gone (v0.2, without text in its mix, lost 29 % of it; v0.3, with 8 %, lost 8 %). The fourth is a
stage that did not learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ichigo.recipe.schema import Probes, Stage

REFUSES, DEAF, FORGETS, IDLE = (
    "too many refusals",
    "sound tokens are not used",
    "text skill is lost",
    "the stage did not learn",
)


@dataclass(frozen=True)
class Meaning:
    """What it means that a bound is not kept, and what to do about it."""

    diagnosis: str
    seen: str
    change: str


MEANINGS: dict[str, Meaning] = {
    "loss_fall": Meaning(
        IDLE,
        "the loss of the last tenth of its steps is where that of the first tenth was",
        "raise learning_rate or steps, or look at what its mix holds",
    ),
    "below_entropy": Meaning(
        IDLE,
        "its loss is that of guessing tokens by how common they are",
        "raise learning_rate or steps, or look at what its mix holds",
    ),
    "sound_gain": Meaning(
        DEAF,
        "speech is no likelier to the model than the same sound tokens in random order",
        "see that the sound tokens are in the order and of the tokenizer in which they were spoken "
        "(ablations.shuffle_sound off), or give pretrain more steps",
    ),
    "answer_gain": Meaning(
        DEAF,
        "the answer to a question is no likelier after its own speech than after that of another one",
        "see that the sound tokens are those of the tokenizer (ablations.shuffle_sound, the stage's replacement), or "
        "give speech more steps",
    ),
    "text_rise": Meaning(
        FORGETS,
        "answers to written questions cost the model far more than the text model that it began as",
        "put text into the stage's mix (the paper's second stage has 8 %), or lower its learning_rate",
    ),
    "false_refusals": Meaning(
        REFUSES,
        "clean spoken questions get the answer for noise",
        "lower the share of noise in the stage's mix (the paper's third stage has 5 %)",
    ),
}

_AT_MOST = ("text_rise", "false_refusals")


@dataclass(frozen=True)
class Check:
    """One bound of the recipe and what was found; ``kept`` is False for NaN."""

    name: str
    found: float
    bound: float

    @property
    def kept(self) -> bool:
        """Whether the bound is kept."""
        return self.found <= self.bound if self.name in _AT_MOST else self.found >= self.bound

    @property
    def line(self) -> str:
        """For a person: ``sound_gain 4.38, at least 0.3: kept``."""
        side = "at most" if self.name in _AT_MOST else "at least"
        return f"{self.name} {self.found:.3g}, {side} {self.bound:g}: {'kept' if self.kept else 'NOT kept'}"

    @property
    def meaning(self) -> Meaning:
        """Of not being kept."""
        return MEANINGS[self.name]


def checks(measured: Mapping[str, float], limits: Probes, stage: Stage) -> list[Check]:
    """Every bound of ``limits`` that is set, was measured, and holds for ``stage``.

    Pre-training on sound alone forgets text, in the paper as here, and gets it back in the next stage: ``text_rise`` is
    judged after stages with another kind in their mix.
    """
    bounds = {name: getattr(limits, name) for name in MEANINGS if name != "text_rise" or answers(stage)}
    return [
        Check(name, measured[name], bound) for name, bound in bounds.items() if bound is not None and name in measured
    ]


def answers(stage: Stage) -> bool:
    """Whether ``stage`` teaches answers, and not the sound of speech alone."""
    return any(share > 0 and kind != "sound" for kind, share in stage.mix.items())


def curve(began: float, ended: float, entropy: float) -> dict[str, float]:
    """``loss_fall`` and ``below_entropy`` of a stage.

    Args:
        began: mean loss of the first tenth of the steps, nats per labelled token.
        ended: that of the last tenth.
        entropy: of the labels, taken one by one: the loss of guessing by frequency alone.
    """
    fall = 1 - ended / began if began > 0 else 0.0
    return {"loss_fall": fall, "below_entropy": entropy - ended}


def not_finite(stage: str, measured: Mapping[str, float]) -> str:
    """What stops a run whose measures are no numbers; "" where all are."""
    wrong = [f"{name} {value}" for name, value in measured.items() if not math.isfinite(value)]
    if not wrong:
        return ""
    return (
        f"stage {stage} made a model without sane losses: {', '.join(wrong)}. What to change: lower its learning_rate"
    )


def reason(stage: str, found: Sequence[Check]) -> str:
    """Why ``found``, bounds that were not kept, stop the run, in words that end with what to change."""
    said = [f"{check.line} (probes.{check.name}): {check.meaning.seen}" for check in found]
    changes = "; or ".join(dict.fromkeys(check.meaning.change for check in found))
    return (
        f"stage {stage} is no good start for what follows: {diagnosis(found)}. {'; '.join(said)}. What to change: "
        f"{changes}. A bound that is wrong for this recipe is set, or switched off by null, in probes"
    )


def diagnosis(found: Sequence[Check]) -> str:
    """What is wrong, in a few words; the first bound that was not kept comes first."""
    return " and ".join(dict.fromkeys(check.meaning.diagnosis for check in found))
