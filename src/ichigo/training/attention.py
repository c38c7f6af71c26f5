"""Attention inside packed sequences: each segment sees only itself.

Registered with transformers under :data:`NAME`. No mask is ever built: a dense block mask costs O(tokens^2) and turned
packing into a loss on CPU (0.90x of padding, against 2.53x for this loop over segments), and an ``attention_mask`` next
to packed ``position_ids`` would let the samples see each other without any warning.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

NAME = "ichigo_segments"


def segment_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    *,
    cu_seq_lens_q: Tensor,
    max_length_q: int,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention within the segments that ``cu_seq_lens_q`` bounds.

    ``query``: (1, heads, tokens, head_dim); ``key``, ``value``: (1, kv_heads, tokens, head_dim);
    ``cu_seq_lens_q``: int32 (segments + 1,), from 0 to tokens; ``max_length_q``: the longest segment.
    Returns (1, tokens, heads, head_dim) and no weights. ``ValueError`` when a mask is passed.
    """
    if attention_mask is not None:
        raise ValueError("packed sequences take no attention_mask: it would let the segments see each other")
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16):
        return _flash(query, key, value, scaling, cu_seq_lens_q, max_length_q), None
    lengths = cu_seq_lens_q.diff().tolist()
    segments = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(segments, dim=2).transpose(1, 2).contiguous(), None


def _flash(q: Tensor, k: Tensor, v: Tensor, scaling: float | None, bounds: Tensor, longest: int) -> Tensor:
    """The same in one kernel of torch (>= 2.10, CUDA, 16 bit); it knows no dropout, and Llama trains without."""
    from torch.nn.attention.varlen import varlen_attn

    q, k, v = (tensor[0].transpose(0, 1) for tensor in (q, k, v))
    attended = varlen_attn(
        q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0), enable_gqa=True
    )
    assert isinstance(attended, Tensor)  # a tuple only when asked for the log-sum-exp
    return attended.unsqueeze(0)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
