"""Intervals and paired tests over items: numbers in, numbers out; numpy only, every draw seeded.

Items that belong together (the same fact asked by several voices) are resampled together, because their outcomes are
not independent; a Wilson interval over them would be too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence

import numpy as np

from ichigo.evaluation.scorers import wilson_interval

DRAWS = 10_000
_CHUNK = 500  # draws at once: 500 x 600 clusters x 8 bytes = 2.4 MB of indices


def mcnemar_exact(only_first: int, only_second: int) -> float:
    """Two-sided exact p of McNemar's test (1947): under no difference each discordant pair falls to either side alike.

    p = min(1, 2 · P(X <= min(b, c))) with X binomial of b + c trials at one half; 1 without discordant pairs.

    Args:
        only_first: items that only the first system has right.
        only_second: items that only the second has right.
    """
    pairs = only_first + only_second
    tail: int = sum(math.comb(pairs, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**pairs))


def holm(values: Mapping[str, float]) -> dict[str, float]:
    """P-values of a family of tests, adjusted so that the chance of any false alarm stays below the level (Holm 1979).

    Of m values in rising order the i-th (from 1) becomes max over j <= i of min(1, (m - j + 1) * p_j).
    """
    adjusted: dict[str, float] = {}
    highest = 0.0
    for at, name in enumerate(sorted(values, key=lambda name: (values[name], name))):
        highest = max(highest, min(1.0, (len(values) - at) * values[name]))
        adjusted[name] = highest
    return adjusted


def bootstrap_ratio(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[Hashable], seed: int
) -> tuple[float, float]:
    """95 % percentile interval of sum(numerators) / sum(denominators), whole clusters resampled (Efron 1979).

    A rate has denominators of 1, a word error rate reference words, a paired difference numerators in {-1, 0, 1}. With
    every cluster at the same ratio each draw gives that ratio: the interval has no width, and says only that nothing
    differed in what was seen.

    Args:
        numerators: per item.
        denominators: per item; every cluster's sum is above 0.
        clusters: per item, what it belongs to; the order of items does not matter.
        seed: of the draws.

    Raises:
        ValueError: no items, or lengths that differ.
    """
    if not clusters or not len(numerators) == len(denominators) == len(clusters):
        raise ValueError(f"{len(numerators)} numerators, {len(denominators)} denominators, {len(clusters)} clusters")
    above, below = _sums(numerators, denominators, clusters)
    generator = np.random.default_rng(seed)
    ratios = []
    for start in range(0, DRAWS, _CHUNK):
        drawn = generator.integers(len(above), size=(min(_CHUNK, DRAWS - start), len(above)))
        ratios.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    low, high = np.quantile(np.concatenate(ratios), [0.025, 0.975])
    return float(low), float(high)


def clustered_rate_interval(right: Sequence[bool], clusters: Sequence[Hashable], seed: int) -> tuple[float, float]:
    """95 % interval of a rate over items in clusters, both ends in [0, 1].

    The bootstrap over clusters; where every item has the same outcome it would have no width, so there Wilson's
    interval takes each cluster as one trial.
    """
    if len(set(right)) == 1:
        trials = len(set(clusters))
        return wilson_interval(trials if right[0] else 0, trials)
    return bootstrap_ratio([float(one) for one in right], [1.0] * len(right), clusters, seed)


def _sums(
    numerators: Sequence[float], denominators: Sequence[float], clusters: Sequence[Hashable]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums per cluster, float64 (clusters,) each, in the order of the clusters' names."""
    place = {cluster: at for at, cluster in enumerate(sorted(set(clusters), key=repr))}
    above, below = np.zeros(len(place)), np.zeros(len(place))
    for numerator, denominator, cluster in zip(numerators, denominators, clusters, strict=True):
        above[place[cluster]] += numerator
        below[place[cluster]] += denominator
    return above, below
