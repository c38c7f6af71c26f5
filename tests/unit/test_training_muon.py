"""Muon against its definition, and AdamW for what is no matrix."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ichigo.training.muon import ITERATIONS, MOMENTUM, Muon, matrices_of, orthogonal

RATE, DECAY = 1e-2, 0.1


@pytest.mark.parametrize("shape", [(24, 24), (24, 60), (60, 24)])
def test_an_update_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape)
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    assert values.max() > 4 * values.min()
    levelled = u.T @ orthogonal(matrix) @ vt.T
    torch.testing.assert_close(levelled, levelled.diagonal().diag(), rtol=0, atol=1e-4)
    assert levelled.diagonal().min() > 0.5
    assert levelled.diagonal().max() < 1.3


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(1)
    return [nn.Parameter(torch.randn(shape)) for shape in [(8, 20), (20, 8), (30, 8), (8,)]]


def gradients(step: int) -> list[Tensor]:
    torch.manual_seed(10 + step)
    return [torch.randn_like(parameter) for parameter in parameters()]


def take(optimizer: torch.optim.Optimizer, trained: list[nn.Parameter], only: slice) -> None:
    """Three steps on the gradients of those parameters."""
    for step in range(3):
        for parameter, gradient in zip(trained[only], gradients(step)[only], strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()
        optimizer.zero_grad()


def naive(weight: Tensor, steps: list[Tensor]) -> Tensor:
    """Three updates of one matrix, in float64 and in the words of the two sources."""
    weight, momentum = weight.double(), torch.zeros_like(weight, dtype=torch.float64)
    for gradient in steps:
        momentum = MOMENTUM * momentum + (1 - MOMENTUM) * gradient
        x = (1 - MOMENTUM) * gradient + MOMENTUM * momentum
        x = x / torch.linalg.matrix_norm(x)
        for _ in range(ITERATIONS):
            x = 3.4445 * x - 4.7750 * (x @ x.T @ x) + 2.0315 * (x @ x.T @ x @ x.T @ x)
        spread = 0.2 * max(weight.shape) ** 0.5
        weight = weight - RATE * (spread * x + DECAY * weight)
    return weight


def test_matrices_take_the_steps_of_the_definition_and_the_others_those_of_adamw() -> None:
    ours, plain = parameters(), parameters()
    take(Muon(ours[:2], ours[2:], lr=RATE, weight_decay=DECAY), ours, slice(None))
    take(torch.optim.AdamW(plain[2:], lr=RATE, weight_decay=DECAY), plain, slice(2, None))
    for index in range(2):
        expected = naive(plain[index].detach(), [gradients(step)[index] for step in range(3)])
        torch.testing.assert_close(ours[index].detach().double(), expected, rtol=1e-4, atol=1e-5)
    for found, expected in zip(ours[2:], plain[2:], strict=True):
        assert torch.equal(found, expected)


def test_only_the_hidden_layers_matrices_are_muon_s() -> None:
    from transformers.models.llama.configuration_llama import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    matrices, others = ([names[id(parameter)] for parameter in part] for part in matrices_of(model))
    assert len(matrices) == 2 * 7
    assert all("proj" in name for name in matrices)
    assert sorted(matrices + others) == sorted(names.values())
