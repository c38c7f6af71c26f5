"""What the evaluation tests share: a real engine on random weights, and engines whose answers are scripted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from ichigo.inference.engine import Engine, Generation, Ids
from ichigo.language.base import init_base
from ichigo.language.contract import contract_for
from ichigo.language.expand import expand
from ichigo.language.layouts import Example, Layouts, Sample, Turn
from ichigo.recipe.schema import Expand, InitBase

Prompt = tuple[int, ...]
Answer = Callable[[Prompt], Generation]


def make_base(folder: Path, seed: int = 1) -> Path:
    """A text model with random weights."""
    torch.set_num_threads(1)
    folder.mkdir(parents=True)
    settings = InitBase(kind="init", width=32, layers=1, heads=2, kv_heads=1, feed_forward=32, vocabulary=300)
    init_base(["turn on the light", "good morning", *(["seed"] * seed)], settings, seed=seed, folder=folder)
    return folder


def make_model(base: Path, folder: Path) -> Path:
    """The base with its vocabulary expanded, under a contract."""
    folder.mkdir(parents=True)
    expand(base, contract_for(base, "a" * 64), Expand(), seed=1, out_folder=folder)
    return folder


class Scripted(Engine):
    """An engine whose answers come from a function of the prompt instead of a model."""

    positions = 4096

    def __init__(self, layouts: Layouts, answer: Answer, nats: float = 2.0) -> None:
        self.contract, self.layouts = layouts.contract, layouts
        self._answer, self._nats = answer, nats
        self.prompts: list[Prompt] = []

    def generate(
        self, prompts: Sequence[Ids], max_new_tokens: int, batch: int, what: str = "generate"
    ) -> list[Generation]:
        asked = [ids(prompt) for prompt in prompts]
        self.prompts += asked
        return [self._answer(prompt) for prompt in asked]

    def losses(self, examples: Sequence[Example], batch: int, what: str = "loss") -> list[tuple[float, int]]:
        counts = [int((example.labels != -100).sum()) for example in examples]
        return [(self._nats * count, count) for count in counts]


def ids(prompt: Ids) -> Prompt:
    """Token ids as a key of a dictionary."""
    return tuple(int(token) for token in prompt)


def codes(seed: int, length: int = 20) -> npt.NDArray[np.int16]:
    """Random sound codes."""
    return np.random.default_rng(seed).integers(0, 512, length).astype(np.int16)


def words(layouts: Layouts, text: str) -> Prompt:
    """The ids of ``text`` as an answer, taken from the layout of a text sample."""
    if not text:
        return ()
    labels = layouts.example(Sample("text", (Turn("a", text),)), loss_on="answers").labels
    return tuple(int(token) for token in labels[labels != -100][:-1])


def says(layouts: Layouts, text: str) -> Answer:
    """Whatever is asked."""
    generation = Generation(words(layouts, text), "eot")
    return lambda prompt: generation
