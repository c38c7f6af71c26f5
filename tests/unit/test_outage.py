"""How the timed outages are read off the times of steps."""

from __future__ import annotations

import pytest

from tests.outage.s3 import longer, longest_gap, save_seconds


def test_a_save_costs_what_the_gap_after_it_is_longer() -> None:
    """Steps of 50 ms; after every fifth 30 ms more, and once, for another reason, two seconds."""
    moment, times = 1_000_000, {}
    for step in range(20):
        times[step] = moment
        moment += 50 + (30 if (step + 1) % 5 == 0 else 0) + (2000 if step == 7 else 0)
    assert save_seconds(times, 5) == pytest.approx(0.03)


def test_only_gaps_that_meet_the_outage_count() -> None:
    times = {0: 0, 1: 5_000, 2: 5_100, 3: 7_100, 4: 7_200, 5: 20_000}
    assert longest_gap(times, 6_000, 7_150) == 2.0
    assert longest_gap(times, 5_050, 5_060) == 0.1


def test_steps_that_took_longer_are_named() -> None:
    def summary(**seconds: float) -> dict[str, list[dict[str, object]]]:
        return {"steps": [{"name": name, "seconds": value} for name, value in seconds.items()]}

    found = longer(summary(mix=3.0, pretrain=80.0), summary(mix=2.0, pretrain=20.0))
    assert found == ["pretrain took 60 s longer"]
