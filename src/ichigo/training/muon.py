"""Muon for the matrices of a model, AdamW for everything else.

Momentum orthogonalised by five steps of a quintic Newton-Schulz iteration (Jordan et al., 2024,
https://kellerjordan.github.io/posts/muon), scaled so that an update has the spread of AdamW's and both share one
learning rate (Liu et al., 2025, arXiv 2502.16982, section 2.2). It needs whole matrices, so no ZeRO stage that cuts
them. ``torch.optim.Muon`` iterates in bf16, which takes twice as long on CPUs without bf16 matrix units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ichigo.linear import product

MOMENTUM = 0.95
ITERATIONS = 5
_A, _B, _C = 3.4445, -4.7750, 2.0315  # the quintic of Jordan et al.: singular values end in about 0.7 .. 1.2
_ADAMW_SPREAD = 0.2  # root mean square of an AdamW update in units of the learning rate (arXiv 2502.16982)


class Muon(torch.optim.AdamW):
    """``matrices`` by Muon, ``others`` by AdamW with ``options``; weight decay is decoupled for both."""

    def __init__(self, matrices: Iterable[nn.Parameter], others: Iterable[nn.Parameter], **options: Any) -> None:
        super().__init__([{"params": list(matrices), "muon": True}, {"params": list(others), "muon": False}], **options)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the matrices and use their gradients up, so that AdamW passes them by."""
        for group in self.param_groups:
            if group["muon"]:
                for matrix in group["params"]:
                    self._update(matrix, group["lr"], group["weight_decay"])
                    matrix.grad = None
        return super().step(closure)

    def _update(self, matrix: nn.Parameter, rate: float, decay: float) -> None:
        gradient = matrix.grad
        if gradient is None:
            return
        state = self.state[matrix]
        momentum = state.setdefault("momentum", torch.zeros_like(gradient))
        state.setdefault(
            "step", torch.zeros(())
        )  # unused; AdamW's loading of a saved state asks every parameter for it
        momentum.lerp_(gradient, 1 - MOMENTUM)
        direction = orthogonal(gradient.lerp(momentum, MOMENTUM))
        matrix.mul_(1 - rate * decay)
        matrix.add_(direction, alpha=-rate * _ADAMW_SPREAD * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """About U V^T of ``matrix`` = U S V^T, of the same shape (rows, columns) and dtype."""
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    found: Tensor = matrix / (matrix.norm() + 1e-7)
    for _ in range(ITERATIONS):
        gram = product(found, found)
        found = _A * found + product(_B * gram + _C * product(gram, gram), found.mT)
    return found


def matrices_of(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Parameters for :class:`Muon`: the weights of hidden layers; then embedding, output matrix and norms."""
    hidden = {id(p) for name, p in module.named_parameters() if p.ndim == 2 and ".layers." in name}
    parameters = list(module.parameters())
    return [p for p in parameters if id(p) in hidden], [p for p in parameters if id(p) not in hidden]
