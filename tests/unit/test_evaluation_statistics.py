"""Intervals and paired tests against their definitions, the normal approximation, and what must not matter."""

from __future__ import annotations

import math
import random
from itertools import product

import pytest

from ichigo.evaluation.group import mean_interval, student_quantile
from ichigo.evaluation.scorers import wilson_interval
from ichigo.evaluation.statistics import (
    bootstrap_ratio,
    clustered_rate_interval,
    holm,
    mcnemar_exact,
    non_inferiority,
    score_bound,
)


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


def closed_testing(values: list[float]) -> list[float]:
    """Holm by the principle it rests on: a hypothesis falls when every set with it falls to Bonferroni."""
    places = range(len(values))
    sets = [[at for at in places if mask >> at & 1] for mask in range(1, 2 ** len(values))]
    bonferroni = [min(1.0, len(chosen) * min(values[at] for at in chosen)) for chosen in sets]
    return [max(p for chosen, p in zip(sets, bonferroni, strict=True) if at in chosen) for at in places]


def test_holm_is_closed_testing_by_bonferroni() -> None:
    rng = random.Random(4)
    for size in (1, 2, 5, 7):
        values = [rng.choice([rng.random(), rng.random() / 50, 1.0]) for _ in range(size)]
        found = holm({str(at): value for at, value in enumerate(values)})
        assert [found[str(at)] for at in range(size)] == pytest.approx(closed_testing(values))
    assert holm({}) == {}
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02}  # Holm's worked example as statsmodels' documentation has it
    )


def by_brute_force(only_first: int, only_second: int, pairs: int) -> float:
    """The largest difference that the score test keeps, its nuisance share found by maximising the likelihood."""
    optimize = pytest.importorskip("scipy.optimize")
    both = pairs - only_first - only_second

    def statistic(lost: float) -> float:
        def unlikely(second: float) -> float:
            cells = ((only_first, second + lost), (only_second, second), (both, 1 - 2 * second - lost))
            return -sum(count * math.log(share) for count, share in cells if count)

        bounds = (max(0.0, -lost) + 1e-13, (1 - lost) / 2 - 1e-13)
        second = optimize.minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
        spread = math.sqrt(pairs * (2 * second + lost * (1 - lost)))
        return float((only_first - only_second - pairs * lost) / spread + 1.6448536269514722)

    return float(optimize.brentq(statistic, (only_first - only_second) / pairs + 1e-9, 1 - 1e-6))


@pytest.mark.parametrize("counts", [(5, 3, 60), (0, 0, 100), (2, 0, 50), (0, 4, 80), (40, 38, 600), (1, 1, 10)])
def test_the_bound_of_a_loss_is_where_the_score_test_stops_rejecting(counts: tuple[int, int, int]) -> None:
    assert score_bound(*counts) == pytest.approx(by_brute_force(*counts), abs=1e-6)


def test_a_bound_is_exceeded_one_time_in_twenty() -> None:
    """400 samples of 300 pairs whose true loss is 4 points: the bound lies below the truth in about 5 % of them."""
    rng, below = random.Random(11), 0
    for _ in range(400):
        drawn = rng.choices((1, -1, 0), (0.07, 0.03, 0.90), k=300)
        below += score_bound(drawn.count(1), drawn.count(-1), 300) < 0.04
    assert below / 400 == pytest.approx(0.05, abs=0.025)


def test_no_loss_is_shown_with_enough_items_and_only_then() -> None:
    few, many = [0] * 30, [1, -1] * 20 + [0] * 960
    assert not non_inferiority(few, range(30), 0.05, seed=1).shown, "30 items without a difference prove little"
    enough = non_inferiority(many, range(1000), 0.05, seed=1)
    assert enough.shown
    assert enough.bound == pytest.approx(score_bound(20, 20, 1000), abs=0.002)
    assert not non_inferiority([1] * 60 + [0] * 940, range(1000), 0.05, seed=1).shown, "6 points are lost"


def test_power_is_how_often_the_test_succeeds_and_the_items_needed_have_it() -> None:
    """Of samples with a tenth of pairs discordant and no true loss, as many succeed as is stated, or more: the stated
    number takes the upper end of the discordance."""
    rng = random.Random(2)

    def sample(count: int) -> list[int]:
        return rng.choices((1, -1, 0), (0.05, 0.05, 0.90), k=count)

    stated = [non_inferiority(sample(200), range(200), 0.05, seed=at) for at in range(30)]
    power = sum(one.power for one in stated) / len(stated)
    kept = sum(score_bound(drawn.count(1), drawn.count(-1), 200) < 0.05 for drawn in (sample(200) for _ in range(600)))
    assert 0.45 < power < kept / 600 + 0.03
    assert kept / 600 < power + 0.2
    needed = stated[0].items_needed
    wider = non_inferiority((sample(200) * 20)[:needed], range(needed), 0.05, seed=1)
    assert wider.power > 0.75


def test_copies_of_items_lend_no_power() -> None:
    """Ten voices of a fact that always agree are one witness."""
    facts = [1, -1, 0, 0, 0, 0] * 10
    alone = non_inferiority(facts, range(60), 0.1, seed=3)
    copied = non_inferiority([one for one in facts for _ in range(10)], [at // 10 for at in range(600)], 0.1, seed=3)
    assert copied.bound > score_bound(100, 100, 600) * 1.5
    assert copied.power < 0.7
    assert not copied.shown
    assert not alone.shown


def test_the_mean_of_runs_has_student_s_interval() -> None:
    stats = pytest.importorskip("scipy.stats")
    for degrees in (1, 2, 3, 4, 5, 9, 30):
        assert student_quantile(degrees) == pytest.approx(stats.t.ppf(0.975, degrees), rel=1e-9)
    values = [0.91, 0.88, 0.93, 0.90]
    expected = stats.t.interval(0.95, 3, loc=sum(values) / 4, scale=stats.sem(values))
    assert mean_interval(values) == pytest.approx((0.905, *expected))
    assert mean_interval([0.5]) == (0.5, -math.inf, math.inf)
    with pytest.raises(ValueError, match="no runs"):
        mean_interval([])
