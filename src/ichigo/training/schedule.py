"""The learning rate as a pure function of the step: linear warm-up, then cosine, linear, constant or wsd.

``wsd`` (warm-up, stable, decay: Hu et al., 2024, arXiv 2404.06395) stays at the peak and falls linearly at the end.

The shapes are those of torchtune and Hugging Face; here the first step of the warm-up is 1/warmup_steps of the peak and
not 0, because a step with learning rate 0 is a step thrown away.
"""

from __future__ import annotations

import math

from ichigo.recipe.schema import Stage


def learning_rate(stage: Stage, step: int) -> float:
    """Learning rate of optimizer step ``step`` (from 0): the peak is reached at the last step of the warm-up."""
    if step < stage.warmup_steps:
        return stage.learning_rate * (step + 1) / stage.warmup_steps
    done = (step - stage.warmup_steps) / max(stage.steps - stage.warmup_steps, 1)
    factors = {
        "cosine": (1 + math.cos(math.pi * done)) / 2,
        "linear": 1 - done,
        "constant": 1.0,
        "wsd": min(1.0, (stage.steps - step) / (stage.decay * stage.steps)),
    }
    return stage.learning_rate * factors[stage.schedule]
