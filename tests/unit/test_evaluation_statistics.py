"""Intervals and paired tests against their definitions, the normal approximation, and what must not matter."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from ichigo.evaluation.scorers import wilson_interval
from ichigo.evaluation.statistics import bootstrap_ratio, clustered_rate_interval, mcnemar_exact


def test_mcnemar_counts_the_coin_tosses_that_are_as_uneven() -> None:
    """By definition: every discordant pair falls to either side alike, and all ways for them to fall are counted."""
    for pairs in range(11):
        sides = [sum(tosses) for tosses in product((0, 1), repeat=pairs)]
        for first in range(pairs + 1):
            uneven = sum(abs(2 * side - pairs) >= abs(2 * first - pairs) for side in sides)
            assert mcnemar_exact(first, pairs - first) == uneven / len(sides), (first, pairs)


def test_mcnemar_by_hand() -> None:
    assert mcnemar_exact(0, 5) == 2 / 32
    assert mcnemar_exact(1, 7) == 2 * (1 + 8) / 256
    assert mcnemar_exact(3, 3) == mcnemar_exact(0, 0) == 1.0
    assert mcnemar_exact(15, 9) == pytest.approx(0.3075, abs=1e-4)  # scipy's binomtest(15, 24)
    assert mcnemar_exact(2000, 2400) < 1e-8, "large counts stay finite"


def test_a_bootstrap_of_independent_items_is_the_normal_interval() -> None:
    rng = random.Random(3)
    right = [rng.random() < 0.8 for _ in range(600)]
    rate = sum(right) / 600
    low, high = bootstrap_ratio([float(one) for one in right], [1.0] * 600, range(600), seed=1)
    reach = 1.96 * math.sqrt(rate * (1 - rate) / 600)
    assert (low, high) == pytest.approx((rate - reach, rate + reach), abs=0.003)


def test_copies_inside_a_cluster_add_no_certainty() -> None:
    """Ten answers that always agree are one answer: the interval must not shrink by the root of ten."""
    right = [at % 3 > 0 for at in range(60)]
    once = clustered_rate_interval(right, range(60), seed=5)
    copied = clustered_rate_interval([one for one in right for _ in range(10)], [at // 10 for at in range(600)], seed=5)
    assert copied == pytest.approx(once)
    independent = clustered_rate_interval([one for one in right for _ in range(10)], range(600), seed=5)
    width, narrow = once[1] - once[0], independent[1] - independent[0]
    assert width / narrow == pytest.approx(math.sqrt(10), rel=0.1)


def test_a_ratio_weighs_utterances_by_their_words() -> None:
    """One utterance of 99 words without an error beside one of a single wrong word: 0 %, 1 % or 100 % when redrawn."""
    assert bootstrap_ratio([0, 1], [99, 1], ["long", "short"], seed=1) == (0.0, 1.0)
    low, high = bootstrap_ratio([0, 1] * 200, [99, 1] * 200, range(400), seed=1)
    assert low < 0.01 < high < 0.02


def test_intervals_hang_on_the_seed_and_not_on_the_order_of_items() -> None:
    rng = random.Random(8)
    errors, clusters = [float(rng.randrange(4)) for _ in range(80)], [f"fact {rng.randrange(12)}" for _ in range(80)]
    order = rng.sample(range(80), 80)
    found = bootstrap_ratio(errors, [3.0] * 80, clusters, seed=2)
    moved = bootstrap_ratio([errors[at] for at in order], [3.0] * 80, [clusters[at] for at in order], seed=2)
    assert moved == found
    assert bootstrap_ratio(errors, [3.0] * 80, clusters, seed=3) != found


@pytest.mark.parametrize("right", [True, False])
def test_where_every_item_agrees_each_cluster_is_a_trial_of_wilson(right: bool) -> None:
    """A bootstrap would give no width at all to eight facts that all went well."""
    found = clustered_rate_interval([right] * 40, [at % 8 for at in range(40)], seed=1)
    assert found == wilson_interval(8 if right else 0, 8)


def test_nothing_has_no_interval() -> None:
    with pytest.raises(ValueError, match="0 clusters"):
        bootstrap_ratio([], [], [], seed=1)
