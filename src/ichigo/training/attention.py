"""Attention inside packed sequences: each segment sees only itself.

Registered with transformers under :data:`NAME`. No mask is ever built: a dense block mask costs O(tokens^2) and turned
packing into a loss on CPU (0.90x of padding, against 2.53x for this loop over segments), and an ``attention_mask`` next
to packed ``position_ids`` would let the samples see each other without any warning. In 16 bit on CUDA one kernel of
torch does the same; where this torch has none that can, the loop serves there too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
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
    if attend := kernel(query.device.type, query.dtype):
        return _flash(attend, query, key, value, scaling, cu_seq_lens_q, max_length_q), None
    lengths = cu_seq_lens_q.diff().tolist()
    segments = [
        scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True, scale=scaling, enable_gqa=True)
        for q, k, v in zip(*(torch.split(tensor, lengths, dim=2) for tensor in (query, key, value)), strict=True)
    ]
    return torch.cat(segments, dim=2).transpose(1, 2).contiguous(), None


def kernel(device: str, dtype: torch.dtype) -> Callable[..., Any] | None:
    """torch's kernel for segments on a ``device`` of this type, or None: the loop serves.

    ``torch.nn.attention.varlen`` came with torch 2.10, with a flag for causality in the place of a window; 2.11 has the
    window, and later ones know grouped keys. It knows no dropout, and Llama trains without.
    """
    if device != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return None
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    known = inspect.signature(varlen_attn).parameters.keys()
    if not known >= {"scale", "window_size"}:
        return None
    return partial(varlen_attn, enable_gqa=True) if "enable_gqa" in known else partial(_ungrouped, varlen_attn)


def _ungrouped(attend: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, *rest: Any, **options: Any) -> Any:
    """``attend`` with every key and value repeated for each of the heads that share it."""
    k, v = (tensor.repeat_interleave(q.shape[1] // tensor.shape[1], dim=1) for tensor in (k, v))
    return attend(q, k, v, *rest, **options)


def _flash(
    attend: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, scaling: float | None, bounds: Tensor, longest: int
) -> Tensor:
    q, k, v = (tensor[0].transpose(0, 1) for tensor in (q, k, v))
    attended = attend(q, k, v, bounds, bounds, longest, longest, scale=scaling, window_size=(-1, 0))
    assert isinstance(attended, Tensor)  # a tuple only when asked for the log-sum-exp
    return attended.unsqueeze(0)


def _no_mask(*_: Any, **__: Any) -> None:
    return None


ALL_ATTENTION_FUNCTIONS.register(NAME, segment_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, _no_mask)
