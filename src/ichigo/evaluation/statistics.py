"""Intervals and tests over items: numbers in, numbers out; numpy only, every draw seeded.

Items that belong together (the same fact asked by several voices, the recordings of one speaker) are resampled
together, because their outcomes are not independent; a Wilson interval over them would be too narrow.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from ichigo.evaluation.scorers import wilson_interval

DRAWS = 10_000
POWER = 0.8
"""With which a test of non-inferiority should succeed where nothing was lost (Cohen 1988's convention)."""

_Z_ONE_SIDED, _Z_POWER = NormalDist().inv_cdf(0.95), NormalDist().inv_cdf(POWER)  # 1.645 and 0.842
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


@dataclass(frozen=True)
class NonInferiority:
    """Whether a loss is smaller than a margin, in the unit of a share of the items.

    Attributes:
        bound: the one-sided 95 % upper bound of the loss.
        shown: whether ``bound`` is below the margin.
        power: the chance to show it with these items if in truth nothing was lost.
        items_needed: with how many such items that chance would be :data:`POWER`.
    """

    bound: float
    shown: bool
    power: float
    items_needed: int


def non_inferiority(lost: Sequence[int], clusters: Sequence[Hashable], margin: float, seed: int) -> NonInferiority:
    """The test that a second system is at most ``margin`` (a share of the items) worse than a first.

    ``bound`` is the larger of two: the score bound for paired shares (:func:`score_bound`), which stays honest where
    few pairs differ, and the 95 % quantile of the bootstrap over clusters, which knows that items of one cluster go
    together. The standard error behind ``power`` is likewise the larger of the cluster-robust one (Miller 2024,
    "Adding error bars to evals": root of the sum over clusters of squared summed deviations, over n) and of
    sqrt(d / n), d being Wilson's upper end of the share of discordant pairs. Then power = Phi(margin / se - 1.645), and
    n * ((1.645 + 0.842) * se / margin)^2 items are needed.

    Args:
        lost: per item 1 where the first alone is right, -1 where the second alone is, else 0.
        clusters: per item, what it belongs to.
        margin: above 0.
        seed: of the bootstrap.

    Raises:
        ValueError: no items, or lengths that differ.
    """
    count = len(lost)
    (upper,) = _bootstrap([float(one) for one in lost], [1.0] * count, clusters, seed, [0.95])
    bound = max(upper, score_bound(lost.count(1), lost.count(-1), count))
    error = max(_clustered_error(lost, clusters), math.sqrt(wilson_interval(count - lost.count(0), count)[1] / count))
    needed = math.ceil(count * ((_Z_ONE_SIDED + _Z_POWER) * error / margin) ** 2)
    return NonInferiority(bound, bound < margin, NormalDist().cdf(margin / error - _Z_ONE_SIDED), needed)


def score_bound(only_first: int, only_second: int, pairs: int) -> float:
    """One-sided 95 % upper bound of the difference of two paired shares, first minus second (Tango 1998).

    The largest difference D that the score test does not reject: with b and c discordant pairs of n, the b - c - nD is
    1.645 times sqrt(n(2q + D(1 - D))) below 0, where q, the share of pairs that only the second has right, is the
    likeliest one under D: q = (sqrt(B^2 - 4AC) - B) / 2A with A = 2n, B = (2n - b + c)D - b - c, C = -cD(1 - D).
    """
    low, high = (only_first - only_second) / pairs, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        linear = (2 * pairs - only_first + only_second) * middle - only_first - only_second
        root = math.sqrt(linear**2 + 8 * pairs * only_second * middle * (1 - middle))
        second = (root - linear) / (4 * pairs)
        error = math.sqrt(max(pairs * (2 * second + middle * (1 - middle)), 0.0))
        rejected = only_first - only_second - pairs * middle < -_Z_ONE_SIDED * error
        low, high = (low, middle) if rejected else (middle, high)
    return high


def _clustered_error(values: Sequence[float], clusters: Sequence[Hashable]) -> float:
    mean, sums = math.fsum(values) / len(values), defaultdict[Hashable, float](float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    return math.sqrt(math.fsum(one**2 for one in sums.values())) / len(values)


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
    low, high = _bootstrap(numerators, denominators, clusters, seed, [0.025, 0.975])
    return low, high


def _bootstrap(
    numerators: Sequence[float],
    denominators: Sequence[float],
    clusters: Sequence[Hashable],
    seed: int,
    quantiles: Sequence[float],
) -> list[float]:
    """Quantiles of the ratio over draws of whole clusters."""
    if not clusters or not len(numerators) == len(denominators) == len(clusters):
        raise ValueError(f"{len(numerators)} numerators, {len(denominators)} denominators, {len(clusters)} clusters")
    above, below = _sums(numerators, denominators, clusters)
    generator = np.random.default_rng(seed)
    ratios = []
    for start in range(0, DRAWS, _CHUNK):
        drawn = generator.integers(len(above), size=(min(_CHUNK, DRAWS - start), len(above)))
        ratios.append(above[drawn].sum(axis=1) / below[drawn].sum(axis=1))
    found: list[float] = np.quantile(np.concatenate(ratios), quantiles).tolist()
    return found


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
