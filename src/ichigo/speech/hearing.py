"""A recogniser of recordings that owes nothing to a language model: the phones that a tokenizer's encoder hears before
it quantises, and the words of the lexicon that they spell best.

Its head on the encoder is learned by the fit itself, from its first step, frame by frame (there are times of phones, so
nothing has to be aligned); it costs no step of its own. On held-out utterances of three tokenizers of the recipe
``tiny`` it read 4.6, 5.0 and 3.7 % of the words wrong, the reader of sound tokens 7.9, 9.0 and 8.7 %
(:mod:`ichigo.speech.lexicon`): it hears what quantisation loses.

A :class:`Hearing` lies beside the tokenizer that it was fitted with, as ``hearing.pt``; its words are those of
``lexicon.json`` there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ichigo.errors import TokenizerError
from ichigo.speech.codes import token_count
from ichigo.speech.lexicon import Lexicon, Recogniser, likelihoods
from ichigo.speech.vq import WhisperVQ, check_audio, exact_batch, full_precision, window_mel, windows
from ichigo.speech.weights import fill, positive_int, read_weights, section

HEARING_FILE = "hearing.pt"
_BATCH = 16  # windows that go through the encoder together


class Ear(nn.Module):
    """Encoder vectors ``(..., width)`` to phone logits ``(..., phones)``; ``frequency``: see
    :class:`~ichigo.speech.lexicon.Reader`."""

    frequency: Tensor

    def __init__(self, width: int, phones: int) -> None:
        super().__init__()
        self.head = nn.Linear(width, phones)
        self.register_buffer("frequency", torch.full((phones,), 1 / phones))

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor, frequency: Tensor) -> Ear:
        """An ear with these weights: ``(phones, width)``, ``(phones,)`` and ``(phones,)``."""
        with torch.device("meta"):  # draws no random numbers
            ear = cls(weight.shape[1], weight.shape[0])
        tensors = {"head.weight": weight, "head.bias": bias, "frequency": frequency}
        ear.load_state_dict({name: tensor.detach().clone() for name, tensor in tensors.items()}, assign=True)
        ear.requires_grad_(False).eval()
        return ear

    def forward(self, vectors: Tensor) -> Tensor:
        """One linear layer."""
        logits: Tensor = self.head(vectors)
        return logits


@dataclass(eq=False)
class Hearing:
    """Waveforms in, words out; made by :func:`ichigo.speech.fit.fit` or :meth:`open`.

    ``tokenizer`` is the identity of the only tokenizer whose encoder it understands.
    """

    ear: Ear
    lexicon: Lexicon
    tokenizer: str

    def words(self, tokenizer: WhisperVQ, waveforms: Sequence[NDArray[np.float32]]) -> list[str]:
        """The words of each waveform (float32 ``(samples,)``, 16 kHz, mono), lower case, separated by spaces.

        Windows of 30 s are heard on their own; silence is "". Raises :class:`TokenizerError` for another tokenizer, for
        audio that :meth:`WhisperVQ.encode` refuses, and for a lexicon without words.
        """
        if tokenizer.identity() != self.tokenizer:
            raise TokenizerError(
                f"this recogniser hears by tokenizer {self.tokenizer}, given was {tokenizer.identity()}; open both "
                "from one folder"
            )
        for index, waveform in enumerate(waveforms):
            check_audio(waveform, index)
        pieces = [(index, piece) for index, waveform in enumerate(waveforms) for piece in windows(waveform)]
        said: list[list[str]] = [[] for _ in waveforms]
        waiting = iter(pieces)
        with full_precision(tokenizer.device):
            while batch := list(islice(waiting, _BATCH)):
                texts = self._texts(tokenizer, [piece for _, piece in batch])
                for (index, _), text in zip(batch, texts, strict=True):
                    said[index].append(text)
        return [" ".join(filter(None, texts)) for texts in said]

    def _texts(self, tokenizer: WhisperVQ, pieces: Sequence[NDArray[np.float32]]) -> list[str]:
        """The words of windows of 40 ms to 30 s, one batch."""
        mels = [window_mel(piece, tokenizer.encoder.dims.n_mels, tokenizer.causal_block) for piece in pieces]
        mel, lengths = exact_batch(mels)
        vectors = tokenizer.encoder(mel.to(tokenizer.device), lengths.to(tokenizer.device)).cpu()
        heard = likelihoods(self.ear(vectors), self.ear.frequency)
        return [self.lexicon.text(row[: 2 * token_count(piece.size)]) for row, piece in zip(heard, pieces, strict=True)]

    def save(self, folder: Path) -> None:
        """Writes ``hearing.pt`` into the tokenizer's ``folder``."""
        phones, width = self.ear.head.weight.shape
        state = {name: tensor.cpu() for name, tensor in self.ear.state_dict().items()}
        content = {"sizes": {"width": width, "phones": phones}, "tokenizer": self.tokenizer, "state_dict": state}
        torch.save(content, folder / HEARING_FILE)

    @classmethod
    def open(cls, folder: Path) -> Hearing:
        """Reads what :meth:`save` wrote, with the tokenizer and its :class:`~ichigo.speech.lexicon.Recogniser` beside.

        Raises :class:`TokenizerError` for files that are missing, damaged or of another tokenizer; imported tokenizers
        have none.
        """
        source = str(folder / HEARING_FILE)
        if not (folder / HEARING_FILE).is_file():
            raise TokenizerError(f"{folder}: no {HEARING_FILE}; only tokenizers that were fitted have one")
        content, reader = read_weights(folder / HEARING_FILE), Recogniser.open(folder)
        if content.get("tokenizer") != reader.tokenizer:
            raise TokenizerError(
                f"{source} belongs to tokenizer {content.get('tokenizer')}, the folder to {reader.tokenizer}; "
                "restore the folder"
            )
        sizes = section(content, "sizes", source)
        with torch.device("meta"):
            ear = Ear(*(positive_int(sizes, name, source) for name in ("width", "phones")))
        fill(ear, section(content, "state_dict", source), source)
        return cls(ear, reader.lexicon, reader.tokenizer)
