"""Which sequences a rank reads at a step: a pure function of (seed, step, rank, world), with no state to save.

All sequences are shuffled once per epoch and laid end to end; step ``k`` takes the next ``world * accumulation *
micro_batch`` of them. Which sequences a step holds depends on that product alone, so one process with accumulation 2
trains on the same steps as two processes with accumulation 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DataOrder:
    """The order of ``sequences`` packed sequences for one shape of the optimizer step."""

    sequences: int
    seed: int
    world: int
    micro_batch: int
    accumulation: int

    def micro_batches(self, step: int, rank: int) -> list[list[int]]:
        """Sequence numbers that ``rank`` reads at ``step``: one list of ``micro_batch`` for each accumulation."""
        return [self._take(self._first(step, part, rank), self.micro_batch) for part in range(self.accumulation)]

    def whole_step(self, step: int) -> list[int]:
        """Sequence numbers of all ranks and micro-batches of ``step``, in their global order."""
        return self._take(self._first(step, 0, 0), self.world * self.accumulation * self.micro_batch)

    def _first(self, step: int, part: int, rank: int) -> int:
        return ((step * self.accumulation + part) * self.world + rank) * self.micro_batch

    def _take(self, first: int, count: int) -> list[int]:
        places = (divmod(place, self.sequences) for place in range(first, first + count))
        return [int(_shuffled(self.sequences, self.seed, epoch)[index]) for epoch, index in places]


@lru_cache(maxsize=2)  # a step touches the end of one epoch and the start of the next
def _shuffled(sequences: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng([seed, epoch]).permutation(sequences)
