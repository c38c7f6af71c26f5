"""Whisper's audio encoder with OpenAI's geometry and tensor names, read from and written to OpenAI's ``.pt`` files.

A ``.pt`` is ``{dims, model_state_dict}``; only the tensors under ``encoder.`` are read. Published files are float16;
everything here computes in float32, as ``whisper.load_model`` does.

The same tensors can also hear block by block: a *causal* encoder's vectors of one block depend on that block and those
before it. Attention sees them and nothing later (as GLM-4-Voice's tokenizer does), and the first convolution hears
zeros behind a block's last frame, as behind the end of a recording; the second, of stride 2, does not reach that far.
Whether an encoder is causal is not in its tensors but part of what a tokenizer is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ichigo.errors import TokenizerError
from ichigo.speech.weights import fill, positive_int, read_weights, section

POSITIONS = 1500
"""30 s at 50 Hz."""

_MELS = (80, 128)  # 128 since large-v3
_PREFIX = "encoder."


@dataclass(frozen=True)
class Dims:
    """The audio half of Whisper's dimensions, under OpenAI's names."""

    n_mels: int
    n_audio_ctx: int
    n_audio_state: int
    n_audio_head: int
    n_audio_layer: int

    @classmethod
    def checked(cls, values: Mapping[str, Any], source: str) -> Dims:
        """``values`` (``dims`` of a ``.pt``) as :class:`Dims`; raises :class:`TokenizerError` naming the field."""
        dims = cls(**{name: positive_int(values, name, f"{source}: dims") for name in cls.__dataclass_fields__})
        if dims.n_mels not in _MELS:
            raise TokenizerError(f"{source}: dims: n_mels is {dims.n_mels}; 80 and 128 are supported")
        if dims.n_audio_ctx != POSITIONS:
            raise TokenizerError(f"{source}: dims: n_audio_ctx is {dims.n_audio_ctx}; {POSITIONS} is supported")
        if dims.n_audio_state % dims.n_audio_head or dims.n_audio_state % 2 or dims.n_audio_state < 4:
            raise TokenizerError(
                f"{source}: dims: n_audio_state is {dims.n_audio_state} with n_audio_head {dims.n_audio_head}; "
                "an even width of at least 4 that the heads divide is needed"
            )
        return dims


class Past:
    """Keys and values ``(1, heads, positions, head_width)`` of what one attention has heard."""

    def __init__(self) -> None:
        self._heard: tuple[Tensor, Tensor] | None = None

    def extend(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """All keys and values, these last."""
        if self._heard is not None:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self._heard, (key, value), strict=True))
        self._heard = key, value
        return key, value


class Heard:
    """What a causal encoder keeps of the blocks of one window: 102 kB a second and layer at width 128 in float64.

    ``mel`` and ``conv`` are the last frame of each convolution's input, ``(1, channels, 1)``.
    """

    def __init__(self, encoder: WhisperEncoder) -> None:
        """Nothing heard yet; in the precision and on the device of ``encoder``."""
        weight = encoder.conv1.weight
        self.positions = 0
        self.mel = weight.new_zeros(1, encoder.dims.n_mels, 1)
        self.conv = weight.new_zeros(1, encoder.dims.n_audio_state, 1)
        self.past = [Past() for _ in range(encoder.dims.n_audio_layer)]


class Attention(nn.Module):
    """Multi-head self-attention; the key has no bias, as in Whisper."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past | None = None) -> Tensor:
        """``x`` ``(batch, positions, width)``; ``mask``: see :func:`visible`; ``past`` precedes ``x`` and grows."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        if past is not None:
            key, value = past.extend(key, value)
        heard = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        mixed: Tensor = self.out(heard.transpose(1, 2).flatten(2))
        return mixed


class Block(nn.Module):
    """Pre-norm transformer block with a GELU layer of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.attn = Attention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(self, x: Tensor, mask: Tensor | None, past: Past | None = None) -> Tensor:
        """``x`` ``(batch, positions, width)`` -> the same shape."""
        x = x + self.attn(self.attn_ln(x), mask, past)
        out: Tensor = x + self.mlp(self.mlp_ln(x))
        return out


class WhisperEncoder(nn.Module):
    """Mel in, one vector per 20 ms out.

    ``causal_block``: sound tokens (2 positions, 4 frames) per block of a causal encoder; 0 hears the whole recording.
    """

    def __init__(self, dims: Dims, causal_block: int = 0) -> None:
        super().__init__()
        self.dims, self.causal_block = dims, causal_block
        width = dims.n_audio_state
        self.conv1 = nn.Conv1d(dims.n_mels, width, kernel_size=3, padding=1)
        self.conv2 = nn.Conv1d(width, width, kernel_size=3, stride=2, padding=1)
        self.register_buffer("positional_embedding", sinusoids(dims.n_audio_ctx, width))
        self.blocks = nn.ModuleList(Block(width, dims.n_audio_head) for _ in range(dims.n_audio_layer))
        self.ln_post = nn.LayerNorm(width)

    def forward(self, mel: Tensor, lengths: Tensor | None = None) -> Tensor:
        """``mel`` ``(batch, n_mels, frames)``, ``frames`` even and at most 3000 -> ``(batch, frames // 2, width)``.

        ``lengths`` (int64 ``(batch,)``, even) are the true frames of each item. With them an item's vectors do not
        depend on what it is padded with or batched with: frames beyond its length are zeros to the first convolution,
        as at the edge of an item alone; the second, of stride 2, does not reach beyond an even length; and no position
        attends to them. Without them all frames count, as in OpenAI's encoder.
        """
        if lengths is not None:
            mel = mel * before(lengths, mel.shape[-1])[:, None]
        x = F.gelu(self.conv2(F.gelu(self._first_convolution(mel)))).transpose(1, 2)
        x = x + self.positional_embedding[: x.shape[1]]  # type: ignore[index]
        mask = None
        if lengths is not None or self.causal_block:
            lengths = torch.full((len(x),), 2 * x.shape[1], device=x.device) if lengths is None else lengths
            mask = visible(lengths // 2, x.shape[1], 2 * self.causal_block)
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.ln_post(x)
        return out

    def hear(self, mel: Tensor, heard: Heard) -> Tensor:
        """The next block of a causal encoder: ``(n_mels, frames)`` -> ``(frames // 2, width)``; ``heard`` grows by it.

        ``frames`` is ``4 causal_block``, or fewer for the window's last block. The vectors are those that
        :meth:`forward` gives for the whole window, up to the last bits of float32 sums.
        """
        frames = torch.cat([heard.mel, mel[None], torch.zeros_like(heard.mel)], dim=2)
        first = F.gelu(F.conv1d(frames, self.conv1.weight, self.conv1.bias))
        second = F.conv1d(torch.cat([heard.conv, first], dim=2), self.conv2.weight, self.conv2.bias, stride=2)
        x = F.gelu(second).transpose(1, 2)
        x = x + self.positional_embedding[heard.positions : heard.positions + x.shape[1]]  # type: ignore[index]
        heard.mel, heard.conv, heard.positions = mel[None, :, -1:], first[..., -1:], heard.positions + x.shape[1]
        for block, past in zip(self.blocks, heard.past, strict=True):
            x = block(x, None, past)
        out: Tensor = self.ln_post(x)[0]
        return out

    def _first_convolution(self, mel: Tensor) -> Tensor:
        """``(batch, n_mels, frames)`` -> ``(batch, width, frames)``; zeros lie behind every block."""
        if not self.causal_block:
            out: Tensor = self.conv1(mel)
            return out
        size = 4 * self.causal_block
        blocks = F.pad(mel, (1, -mel.shape[-1] % size)).unfold(2, size + 1, size)  # each with the frame before it
        blocks = F.pad(blocks, (0, 1)).transpose(1, 2)
        found = F.conv1d(blocks.flatten(0, 1), self.conv1.weight, self.conv1.bias)
        return found.reshape(*blocks.shape[:2], -1, size).transpose(1, 2).flatten(2)[..., : mel.shape[-1]]

    @classmethod
    def load(cls, path: Path, causal_block: int = 0) -> WhisperEncoder:
        """The encoder of OpenAI's ``.pt`` file ``path``, in eval mode, on the CPU.

        Raises :class:`TokenizerError` for an unsafe, damaged or incomplete file and for unknown dimensions.
        """
        content = read_weights(path)
        dims = Dims.checked(section(content, "dims", str(path)), str(path))
        tensors = section(content, "model_state_dict", str(path))
        own = {name.removeprefix(_PREFIX): value for name, value in tensors.items() if name.startswith(_PREFIX)}
        if dims.n_audio_layer > len(own):
            raise TokenizerError(f"{path}: dims: n_audio_layer is {dims.n_audio_layer}, the file has fewer tensors")
        with torch.device("meta"):
            encoder = cls(dims, causal_block)
        fill(encoder, own, str(path))
        return encoder

    def save(self, path: Path) -> None:
        """Writes a ``.pt`` that ``whisper.load_model(path)`` reads.

        The loader wants a decoder as well; the one written here has no block and a vocabulary of one.
        """
        tensors = {f"{_PREFIX}{name}": tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        dims = asdict(self.dims) | _EMPTY_DECODER_DIMS
        torch.save({"dims": dims, "model_state_dict": tensors | _empty_decoder()}, path)


def visible(lengths: Tensor, positions: int, block: int = 0) -> Tensor:
    """Who attends to whom: bool ``(batch, 1, 1 or positions, positions)``, True where a query may see a key.

    Every position of an item sees every position before the item's length; with ``block`` (in positions), only those
    of its own block and of earlier ones.
    """
    inside = before(lengths, positions)[:, None, None, :]
    if not block:
        return inside
    number = torch.arange(positions, device=lengths.device) // block
    return inside & (number[None, :] <= number[:, None])


def before(lengths: Tensor, size: int) -> Tensor:
    """bool ``(batch, size)``: True at the first ``lengths[i]`` places of row ``i``."""
    return torch.arange(size, device=lengths.device) < lengths[:, None]


def sinusoids(length: int, width: int) -> Tensor:
    """Whisper's position vectors ``(length, width)``: sines, then cosines, of wavelengths from 2 pi to 20 000 pi."""
    half = width // 2
    rates = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half))
    angles = torch.arange(length)[:, None] * rates[None, :]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


_EMPTY_DECODER_DIMS = {"n_vocab": 1, "n_text_ctx": 1, "n_text_state": 1, "n_text_head": 1, "n_text_layer": 0}


def _empty_decoder() -> dict[str, Tensor]:
    """The tensors that OpenAI's decoder has without any block."""
    names = ("token_embedding.weight", "positional_embedding")
    matrices = {f"decoder.{name}": torch.zeros(1, 1) for name in names}
    return matrices | {"decoder.ln.weight": torch.ones(1), "decoder.ln.bias": torch.zeros(1)}
