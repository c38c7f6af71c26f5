"""Packed attention on a GPU: torch's kernel against the loop over segments, values and gradients."""

from __future__ import annotations

import pytest
import torch

from ichigo.training import attention


def attended(monkeypatch: pytest.MonkeyPatch, *, loop: bool) -> list[torch.Tensor]:
    """The output for four segments and the gradients of query, key and value, in bf16."""
    torch.manual_seed(0)
    shapes = [(1, 4, 96, 32), (1, 2, 96, 32), (1, 2, 96, 32)]
    query, key, value = (torch.randn(shape, device="cuda").bfloat16().requires_grad_() for shape in shapes)
    bounds = torch.tensor([0, 5, 40, 41, 96], dtype=torch.int32, device="cuda")
    with monkeypatch.context() as patch:
        if loop:
            patch.setattr(attention, "kernel", lambda device, dtype: None)
        found, _ = attention.segment_attention(
            torch.nn.Module(), query, key, value, None, scaling=0.2, cu_seq_lens_q=bounds, max_length_q=55
        )
    gradients = torch.autograd.grad(found, [query, key, value], torch.ones_like(found))
    return [found, *gradients]


def test_the_kernel_gives_what_the_loop_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert attention.kernel("cuda", torch.bfloat16) is not None
    for kernel, loop in zip(attended(monkeypatch, loop=False), attended(monkeypatch, loop=True), strict=True):
        torch.testing.assert_close(kernel, loop, rtol=2e-2, atol=2e-2)
