"""How far one sequence is from another."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np


def edit_distance(reference: Sequence[Hashable], hypothesis: Sequence[Hashable]) -> int:
    """Least number of insertions, deletions and substitutions between two sequences (Levenshtein 1966).

    One numpy row per reference unit, O(len(reference) * len(hypothesis)) time, O(len(hypothesis)) memory. Insertions
    chain along a row; ``min over k <= j of best[k] + (j - k)`` is a running minimum of ``best - position``.
    """
    numbers: dict[Hashable, int] = {}
    given = np.array([numbers.setdefault(unit, len(numbers)) for unit in hypothesis], dtype=np.int64)
    position = np.arange(len(hypothesis) + 1)
    row = position
    for done, unit in enumerate(reference, start=1):
        substituted = row[:-1] + (given != numbers.get(unit, -1))
        best = np.concatenate(([done], np.minimum(substituted, row[1:] + 1)))
        row = np.minimum.accumulate(best - position) + position
    return int(row[-1])
