"""Several runs of one recipe, by seed or by speaker, as one group: the mean with its interval over runs.

The interval of a single run says how far its items can be trusted; this one says how far another run would lie from the
mean. It is Student's (1908): mean +- t * s / sqrt(k), with s the standard deviation of the k results over k - 1, and t
the 97.5 % quantile with k - 1 degrees of freedom (4.30 for three runs, 12.7 for two).
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the two ends of its 95 % interval; one value alone has an interval without ends (-inf, inf).

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no runs have no mean")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return mean, -math.inf, math.inf
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    reach = student_quantile(count - 1) * spread / math.sqrt(count)
    return mean, mean - reach, mean + reach


def student_quantile(degrees: int) -> float:
    """The 97.5 % quantile of Student's t, by bisection of :func:`_within`."""
    low, high = 0.0, 13.0  # 12.71 with one degree of freedom
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _within(middle, degrees) < 0.95 else (low, middle)
    return high


def _within(t: float, degrees: int) -> float:
    """P(-t < T < t) for whole degrees of freedom (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4)."""
    angle = math.atan(t / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for power in range(odd, degrees - 1, 2):
        total += term
        term *= (power + 1) / (power + 2) * cosine**2
    return 2 / math.pi * (angle + math.sin(angle) * total) if odd else math.sin(angle) * total
