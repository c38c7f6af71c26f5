"""Whisper's audio encoder with OpenAI's geometry and tensor names, read from and written to OpenAI's ``.pt`` files.

A ``.pt`` is ``{dims, model_state_dict}``; only the tensors under ``encoder.`` are read. Published files are float16;
everything here computes in float32, as ``whisper.load_model`` does.
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


class Attention(nn.Module):
    """Multi-head self-attention; the key has no bias, as in Whisper."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` ``(batch, positions, width)``; ``mask``: see :func:`visible`."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
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

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x`` ``(batch, positions, width)`` -> the same shape."""
        x = x + self.attn(self.attn_ln(x), mask)
        out: Tensor = x + self.mlp(self.mlp_ln(x))
        return out


class WhisperEncoder(nn.Module):
    """Mel in, one vector per 20 ms out."""

    def __init__(self, dims: Dims) -> None:
        super().__init__()
        self.dims = dims
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
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel)))).transpose(1, 2)
        x = x + self.positional_embedding[: x.shape[1]]  # type: ignore[index]
        mask = None if lengths is None else visible(lengths // 2, x.shape[1])
        for block in self.blocks:
            x = block(x, mask)
        out: Tensor = self.ln_post(x)
        return out

    @classmethod
    def load(cls, path: Path) -> WhisperEncoder:
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
            encoder = cls(dims)
        fill(encoder, own, str(path))
        return encoder

    def save(self, path: Path) -> None:
        """Writes a ``.pt`` that ``whisper.load_model(path)`` reads.

        The loader wants a decoder as well; the one written here has no block and a vocabulary of one.
        """
        tensors = {f"{_PREFIX}{name}": tensor.detach().cpu() for name, tensor in self.state_dict().items()}
        dims = asdict(self.dims) | _EMPTY_DECODER_DIMS
        torch.save({"dims": dims, "model_state_dict": tensors | _empty_decoder()}, path)


def visible(lengths: Tensor, positions: int) -> Tensor:
    """Who attends to whom: bool ``(batch, 1, 1 or positions, positions)``, True where a query may see a key.

    Every position of an item sees every position before the item's length.
    """
    return before(lengths, positions)[:, None, None, :]


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
