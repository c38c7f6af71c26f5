"""Sound tokens while somebody speaks: the tokens that the whole recording gives, one block after the other.

Only a causal tokenizer can do this (``tokenizer.causal_block``). A block is heard once, 2.5 ms after its end; earlier
blocks are remembered as the encoder's keys and values, so a block costs the same compute but for attention to at most
30 s. After 30 s a new window starts, as it does for whole recordings.

Streams compute in float64, which decides ties for whole recordings (see :mod:`ichigo.speech.vq`), so no block is ever
heard again; at width 128 with 3 layers that is 117 times real time on one core, 4 to 7 ms for a block of 0.48 s.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ichigo.errors import TokenizerError
from ichigo.speech.codes import WINDOW_SAMPLES
from ichigo.speech.mel import CausalMel
from ichigo.speech.vq import WhisperVQ, check_audio, full_precision
from ichigo.speech.whisper import Heard


class Stream:
    """One utterance after the other, in pieces of any size.

    What :meth:`feed` and :meth:`finish` return, in a row, is ``tokenizer.encode([everything])[0]``, token for token.
    Raises :class:`TokenizerError` for a tokenizer that hears whole recordings.
    """

    def __init__(self, tokenizer: WhisperVQ) -> None:
        if not tokenizer.causal_block:
            raise TokenizerError(
                "this tokenizer hears whole recordings and cannot stream; fit one with tokenizer.causal_block above 0"
            )
        self._tokenizer = tokenizer
        self._window = _Window(tokenizer)
        self._room = WINDOW_SAMPLES

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.int16]:
        """Tokens of the blocks that ``samples`` (floating point ``(n,)``, 16 kHz, any ``n``) complete; often none.

        Raises :class:`TokenizerError` for audio that is not one-dimensional, not floating point or not finite.
        """
        if samples.size:
            check_audio(samples, 0)
        found = [_NONE]
        with full_precision(self._tokenizer.device):
            while samples.size:
                piece, samples = samples[: self._room], samples[self._room :]
                self._room -= piece.size
                found.append(self._window.feed(piece))
                if not self._room:
                    found.append(self.finish())
        return np.concatenate(found)

    def finish(self) -> NDArray[np.int16]:
        """Tokens of the rest, without the last 40 ms if incomplete; then the next utterance may begin."""
        with full_precision(self._tokenizer.device):
            rest = self._window.finish()
        self._window, self._room = _Window(self._tokenizer), WINDOW_SAMPLES
        return rest


_NONE = np.empty(0, np.int16)


class _Window:
    """At most 30 s that are heard together."""

    def __init__(self, tokenizer: WhisperVQ) -> None:
        self._encoder, self._bottleneck = tokenizer.in_double()
        self._mel = CausalMel(tokenizer.encoder.dims.n_mels, tokenizer.causal_block)
        self._heard = Heard(self._encoder)

    def feed(self, samples: NDArray[np.float32]) -> NDArray[np.int16]:
        return self._tokens(self._mel.feed(samples))

    def finish(self) -> NDArray[np.int16]:
        return self._tokens(self._mel.finish())

    def _tokens(self, blocks: Iterable[Tensor]) -> NDArray[np.int16]:
        return np.concatenate([_NONE, *(self._hear(block) for block in blocks)])

    def _hear(self, block: Tensor) -> NDArray[np.int16]:
        vectors = self._encoder.hear(block.to(self._encoder.conv1.weight), self._heard)
        codes: NDArray[np.int16] = self._bottleneck(vectors[None])[0].cpu().numpy().astype(np.int16)
        return codes
