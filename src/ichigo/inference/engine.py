"""The generation engine: a model folder opened once, greedy answers with a cache, likelihoods of given tokens.

A model folder is a Hugging Face folder of a Llama (``config.json``, safetensors, ``tokenizer.json``) with its
``contract.json``; ``ichigo.language.checkpoint`` opens it without running its code or reading a pickle.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import DynamicCache, LlamaForCausalLM
from transformers.utils import logging

from ichigo.devices import best_device
from ichigo.errors import ContractError, DataError
from ichigo.language.checkpoint import load_model
from ichigo.language.contract import TokenContract
from ichigo.language.layouts import IGNORE, Example, Layouts
from ichigo.progress import Progress

Ids = Sequence[int] | npt.NDArray[Any]

_LOGIT_ROWS = 2048  # rows of logits alive at once in a loss: 1.0 GB in fp32 at 128,771 tokens


@dataclass(frozen=True)
class Generation:
    """One answer.

    Attributes:
        tokens: the generated ids without the stop id; sound tokens and specials included.
        stopped: ``eot`` if the model ended by a stop id of the contract, ``length`` if the limit did.
    """

    tokens: tuple[int, ...]
    stopped: Literal["eot", "length"]


@dataclass(frozen=True)
class Scored:
    """How likely a model finds a continuation.

    Attributes:
        log_likelihood: natural logarithm, the sum over the continuation's tokens; nan or -inf of a diverged model.
        tokens: of the continuation.
        greedy: whether each of them is what greedy generation would have chosen there.
    """

    log_likelihood: float
    tokens: int
    greedy: bool


class Engine:
    """A model ready to answer; :meth:`open` reads a folder.

    Attributes:
        contract: the ids that the model speaks.
        layouts: builds prompts with the model's own tokenizer.
    """

    def __init__(self, model: LlamaForCausalLM, layouts: Layouts) -> None:
        self.contract, self.layouts = layouts.contract, layouts
        self._model = model
        model.train(False)
        self._tokens = self.contract.first_sound + self.contract.sound_codes  # rows above have no token

    @classmethod
    def open(cls, folder: Path, contract: TokenContract | None = None) -> Engine:
        """Load a model folder in the precision it was saved in, on the GPU if there is one.

        Args:
            folder: the model folder.
            contract: what the caller's data was made under; None takes the folder's own word.

        Raises:
            ContractError: the folder has no contract or another, or its tokenizer or vocabulary is not the contract's.
            ModelError: not a Llama, no safetensors, or code or pickles in the folder.
        """
        contract = contract or TokenContract.load(folder)
        hub: Any = logging
        hub.disable_progress_bar()  # of reading weights, on the terminal of a person who asks
        model: Any = load_model(folder, contract)
        return cls(model.to(best_device()), Layouts.open(folder, contract))

    def decode(self, tokens: Ids) -> str:
        """The text of generated ids; sound tokens and specials are left out."""
        return self.layouts.answer_of(tokens)

    @property
    def positions(self) -> int:
        """Tokens that a prompt and its answer may have together."""
        return int(self._model.config.max_position_embeddings)

    @property
    def dtype(self) -> torch.dtype:
        """The precision of the weights, in which everything but the choice of a token is computed."""
        return self._model.dtype

    def stray_sound(self, tokens: Ids) -> bool:
        """Whether generated ids hold a sound token or a sound marker, which no text answer should."""
        return any(token >= self.contract.sound_start for token in tokens)

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Ids], max_new_tokens: int, batch: int, what: str = "generate"
    ) -> list[Generation]:
        """Greedy answers to ``prompts``, in their order.

        Batches hold prompts of similar length, padded on the left; a row that ended leaves its batch. An answer does
        not depend on its batch beyond the rounding of sums, which matters only where two logits agree to the last bits.

        Args:
            prompts: token ids, each through the assistant header (:meth:`Layouts.prompt_for`).
            max_new_tokens: limit per answer, the stop id included.
            batch: prompts at once.
            what: name on the progress line.

        Raises:
            DataError: an empty prompt, or one that does not leave room for its answer in the model's positions.
            ContractError: an id outside the vocabulary.
        """
        for number, prompt in enumerate(prompts):
            self._check_prompt(number, prompt, max_new_tokens)
        answers: dict[int, Generation] = {}
        progress = Progress(what, len(prompts), "prompts")
        for chosen in _batches([len(prompt) for prompt in prompts], batch):
            rows = _Rows([prompts[number] for number in chosen], max_new_tokens, self.contract.pad, self._model)
            answers.update(zip(chosen, self._answers(rows, max_new_tokens), strict=True))
            progress.advance(len(chosen))
        return [answers[number] for number in range(len(prompts))]

    def begin(self, prompt: Ids, max_new_tokens: int, *, stops: bool = True) -> Decoding:
        """Prefill one prompt; the result gives the answer's tokens one by one, those of :meth:`generate` alone.

        The prefill is complete on return, on a GPU as well, so that a caller can time it. Without ``stops`` the answer
        has ``max_new_tokens`` tokens whatever the model says. Raises what :meth:`generate` raises.
        """
        return self.prefill().begin(prompt, max_new_tokens, stops=stops)

    def prefill(self) -> Prefill:
        """A prompt whose tokens come one part after the other."""
        return Prefill(self, self._model)

    def loss(self, examples: Sequence[Example], batch: int, what: str = "loss") -> tuple[float, int]:
        """Sum of the negative log-likelihood (nats) over the labelled tokens of all ``examples``, and their count."""
        each = self.losses(examples, batch, what)
        return math.fsum(nats for nats, _ in each), sum(tokens for _, tokens in each)

    @torch.inference_mode()
    def losses(self, examples: Sequence[Example], batch: int, what: str = "loss") -> list[tuple[float, int]]:
        """Sum of the negative log-likelihood (nats) over labelled tokens, and their count, of each example.

        Args:
            examples: laid out by :class:`Layouts`; a label is the id at its own position, -100 = no loss.
            batch: examples at once, padded on the right, where a causal model does not see the padding.
            what: name on the progress line.
        """
        each: dict[int, tuple[float, int]] = {}
        progress = Progress(what, len(examples), "examples")
        for chosen in _batches([len(example.input_ids) for example in examples], batch):
            each.update(zip(chosen, self._batch_losses([examples[number] for number in chosen]), strict=True))
            progress.advance(len(chosen))
        return [each[number] for number in range(len(examples))]

    @torch.inference_mode()
    def score(self, pairs: Sequence[tuple[Ids, Ids]], batch: int, what: str = "score") -> list[Scored]:
        """The likelihood of each continuation after its context, in the order of ``pairs``.

        Args:
            pairs: token ids of context and continuation, each of at least one token.
            batch: pairs at once, padded on the right, where a causal model does not see the padding.
            what: name on the progress line.

        Raises:
            DataError: an empty context or continuation, or a pair longer than the model's positions.
            ContractError: an id outside the vocabulary.
        """
        for number, (context, continuation) in enumerate(pairs):
            if len(continuation) == 0:
                raise DataError(f"continuation {number} is empty; there is nothing to score")
            self._check_prompt(number, context, len(continuation))
            self._check_prompt(number, continuation, 0)
        scored: dict[int, Scored] = {}
        progress = Progress(what, len(pairs), "continuations")
        for chosen in _batches([len(context) + len(continuation) for context, continuation in pairs], batch):
            scored.update(zip(chosen, self._score([pairs[number] for number in chosen]), strict=True))
            progress.advance(len(chosen))
        return [scored[number] for number in range(len(pairs))]

    def _score(self, pairs: Sequence[tuple[Ids, Ids]]) -> list[Scored]:
        device, width = self._model.device, max(len(context) + len(said) for context, said in pairs)
        ids = torch.full((len(pairs), width), self.contract.pad)
        wanted = torch.zeros((len(pairs), width), dtype=torch.bool)  # the tokens of the continuations
        for row, (context, said) in enumerate(pairs):
            end = len(context) + len(said)
            ids[row, :end] = torch.cat([torch.as_tensor(context), torch.as_tensor(said)])
            wanted[row, len(context) : end] = True
        ids, wanted = ids.to(device), wanted.to(device)
        hidden = self._model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][wanted[:, 1:]]
        labels = ids[wanted]
        nats, greedy = [], []
        for rows, right in zip(torch.split(hidden, _LOGIT_ROWS), torch.split(labels, _LOGIT_ROWS), strict=True):
            logits = self._model.lm_head(rows).float()
            nats.append(-cross_entropy(logits, right, reduction="none").double())
            greedy.append(logits[:, : self._tokens].argmax(-1) == right)
        lengths = [len(said) for _, said in pairs]
        parts = zip(
            torch.split(torch.cat(nats), lengths), torch.split(torch.cat(greedy), lengths), lengths, strict=True
        )
        return [Scored(float(log.sum()), length, bool(first.all())) for log, first, length in parts]

    def _answers(self, rows: _Rows, max_new_tokens: int) -> list[Generation]:
        tokens: list[list[int]] = [[] for _ in rows.numbers]
        ended: set[int] = set()
        for _ in range(max_new_tokens):
            chosen = rows.logits()[:, : self._tokens].argmax(-1)
            going = []
            for place, (number, token) in enumerate(zip(rows.numbers, chosen.tolist(), strict=True)):
                if token in self.contract.stop_ids:
                    ended.add(number)
                else:
                    tokens[number].append(token)
                    going.append(place)
            if not going:
                break
            rows.advance(chosen, going)
        return [Generation(tuple(ids), "eot" if number in ended else "length") for number, ids in enumerate(tokens)]

    def _batch_losses(self, examples: Sequence[Example]) -> list[tuple[float, int]]:
        device, width = self._model.device, max(len(example.input_ids) for example in examples)
        ids = torch.full((len(examples), width), self.contract.pad)
        labels = torch.full((len(examples), width), IGNORE)
        for row, example in enumerate(examples):
            ids[row, : len(example.input_ids)] = torch.from_numpy(example.input_ids)
            labels[row, : len(example.labels)] = torch.from_numpy(example.labels)
        wanted = labels[:, 1:].to(device)  # the label of position t + 1 is what the output at t must say
        hidden = self._model.model(input_ids=ids.to(device), use_cache=False).last_hidden_state[:, :-1]
        counts = (wanted != IGNORE).sum(dim=1).tolist()
        hidden, wanted = hidden[wanted != IGNORE], wanted[wanted != IGNORE]
        pieces = zip(torch.split(hidden, _LOGIT_ROWS), torch.split(wanted, _LOGIT_ROWS), strict=True)
        nats = [cross_entropy(self._model.lm_head(row).float(), ids, reduction="none") for row, ids in pieces]
        rows = torch.split(torch.cat(nats).double() if nats else torch.empty(0), counts)
        return [(row.sum().item(), count) for row, count in zip(rows, counts, strict=True)]

    def _check_prompt(self, number: int, prompt: Ids, max_new_tokens: int, before: int = 0) -> None:
        """``before`` tokens of the prompt went in earlier."""
        if len(prompt) == 0:
            raise DataError(f"prompt {number} is empty; every prompt ends with the assistant header")
        strange = next((int(token) for token in prompt if not 0 <= token < self._tokens), None)
        if strange is not None:
            raise ContractError(f"prompt {number} holds id {strange}; the contract's ids are 0..{self._tokens - 1}")
        if before + len(prompt) + max_new_tokens > self.positions:
            raise DataError(
                f"prompt {number} has {before + len(prompt)} tokens; with {max_new_tokens} new ones it exceeds the "
                f"model's {self.positions} positions; shorten the recording or lower max_new_tokens"
            )


class Prefill:
    """A prompt that arrives in parts, made by :meth:`Engine.prefill`: each goes through the model when it comes.

    The keys and values that a part leaves in the cache are those of the whole prompt up to the rounding of sums, which
    matters only where two logits agree to the last bits. When the last part comes, only that part is left to compute.
    """

    def __init__(self, engine: Engine, model: LlamaForCausalLM) -> None:
        self._engine, self._model = engine, model
        self._cache = DynamicCache(config=model.config)

    def __len__(self) -> int:
        """Tokens that went in so far."""
        return int(self._cache.get_seq_length())

    @torch.inference_mode()
    def feed(self, ids: Ids) -> None:
        """Put the next ``ids`` of the prompt, or none, through the model.

        Raises:
            DataError: no room is left for a single new token in the model's positions.
            ContractError: an id outside the vocabulary.
        """
        if len(ids):
            self._engine._check_prompt(0, ids, 1, len(self))
            inputs = torch.as_tensor(ids, device=self._model.device, dtype=torch.long)[None]
            self._model.model(input_ids=inputs, past_key_values=self._cache, use_cache=True)

    def begin(self, ids: Ids, max_new_tokens: int, *, stops: bool = True) -> Decoding:
        """Put the last ``ids`` (at least one) through the model and answer, as :meth:`Engine.begin` does; once."""
        engine = self._engine
        engine._check_prompt(0, ids, max_new_tokens, len(self))
        rows = _Rows([ids], max_new_tokens, engine.contract.pad, self._model, self._cache)
        return Decoding(rows, max_new_tokens, engine._tokens, engine.contract.stop_ids if stops else ())


class Decoding(Iterator[int]):
    """One answer under way, made by :meth:`Engine.begin`: iterating gives its token ids as they are chosen.

    The first token only has to be picked from the logits of the prefill; every other costs a pass through the model.

    Attributes:
        stopped: how the answer ended, as in :class:`Generation`; None while it goes on.
    """

    @torch.inference_mode()
    def __init__(self, rows: _Rows, max_new_tokens: int, tokens: int, stop_ids: Sequence[int]) -> None:
        self.stopped: Literal["eot", "length"] | None = None
        self._rows, self._left, self._tokens, self._stop_ids = rows, max_new_tokens, tokens, stop_ids
        self._chosen: Tensor | None = None
        self._logits = rows.logits()
        if self._logits.is_cuda:
            torch.cuda.synchronize()

    @torch.inference_mode()
    def __next__(self) -> int:
        if self.stopped is None and not self._left:
            self.stopped = "length"
        if self.stopped is not None:
            raise StopIteration
        if self._chosen is not None:
            self._rows.advance(self._chosen, [0])
            self._logits = self._rows.logits()
        self._left -= 1
        self._chosen = self._logits[:, : self._tokens].argmax(-1)
        token = int(self._chosen)
        if token in self._stop_ids:
            self.stopped = "eot"
            raise StopIteration
        return token


class _Rows:
    """The rows of one batch that still generate: their next input, mask, positions and cache.

    ``numbers[r]`` is the place in the batch of the prompt that row r answers. The mask covers the whole way to the last
    new token from the start, so that a step takes a view of it.
    """

    def __init__(
        self,
        prompts: Sequence[Ids],
        max_new_tokens: int,
        pad: int,
        model: LlamaForCausalLM,
        cache: DynamicCache | None = None,
    ) -> None:
        """``cache`` holds what went in before; then ``prompts`` is one row, and what is left of it."""
        self._model, device = model, model.device
        self._cache = DynamicCache(config=model.config) if cache is None else cache
        before, longest = int(self._cache.get_seq_length()), max(len(prompt) for prompt in prompts)
        self.width = before + longest
        self.numbers = list(range(len(prompts)))
        ids = torch.full((len(prompts), longest), pad)
        mask = torch.ones((len(prompts), self.width + max_new_tokens), dtype=torch.long)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.as_tensor(prompt)
            mask[row, : longest - len(prompt)] = 0
        self._ids, self._mask = ids.to(device), mask.to(device)
        self._positions = (self._mask[:, : self.width].cumsum(-1) - 1).clamp(min=0)[:, before:]

    def logits(self) -> Tensor:
        """Logits (rows, vocabulary) after the last token of every row; the cache grows by the tokens that went in."""
        output = self._model(
            input_ids=self._ids,
            attention_mask=self._mask[:, : self.width],
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1]
        return logits

    def advance(self, chosen: Tensor, going: list[int]) -> None:
        """Make ``chosen`` (rows,) the next input and keep only the rows ``going``."""
        positions = self._positions[:, -1:] + 1
        if len(going) < len(self.numbers):
            keep = torch.tensor(going, device=chosen.device)
            self.numbers = [self.numbers[row] for row in going]
            self._cache.batch_select_indices(keep)
            self._mask, chosen, positions = self._mask[keep], chosen[keep], positions[keep]
        self._ids, self._positions = chosen[:, None], positions
        self.width += 1


def _batches(lengths: Sequence[int], batch: int) -> Iterator[list[int]]:
    """Places in ``lengths``, ``batch`` at a time, longest first: memory runs out at the start or not at all."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    for start in range(0, len(order), batch):
        yield order[start : start + batch]
