"""The output matrix and the loss in one module, so that the logits never exist as a whole.

At 128 771 columns and 4096 tokens the fp32 logits would take 2.1 GB, and their gradient as much again. Only labelled
rows are multiplied, 256 at a time, and each chunk is computed again in the backward pass: measured at 134 000 columns
and 1024 rows, 478 MiB instead of 1456. Logits of a few MiB are kept instead. The weight is used in this module's
``forward`` alone, where ZeRO-3 gathers it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from ichigo.linear import product

CHUNK = 256
KEPT = 1 << 20  # logits; 4 MiB, and as much for their gradient


class LossHead(nn.Module):
    """Summed cross entropy of labelled rows; takes the place of ``lm_head`` and keeps its parameter's name."""

    def __init__(self, weight: nn.Parameter) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, hidden: Tensor, targets: Tensor) -> Tensor:
        """Sum of the negative log likelihoods, in nats, fp32.

        ``hidden``: (rows, width) of the weight's dtype; ``targets``: int64 (rows,). Without rows the sum is 0 and still
        has (zero) gradients, because every rank must run the backward pass of every micro-batch.
        """
        if hidden.shape[0] * self.weight.shape[0] <= KEPT:
            return self._chunk(hidden, targets)
        chunks = zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True)
        losses: list[Tensor] = [checkpoint(self._chunk, *chunk, use_reentrant=False) for chunk in chunks]
        return torch.stack(losses).sum()

    def _chunk(self, hidden: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(product(hidden, self.weight).float(), targets, reduction="sum")
