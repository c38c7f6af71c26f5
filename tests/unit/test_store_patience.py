"""How long a service that has stopped answering is asked, on a clock that only sleeping moves."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ichigo.errors import PlatformError, UserError
from ichigo.store.patience import NoAnswer, Patience


class Clock:
    """Seconds that pass while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.pauses: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def patience(clock: Clock, seconds: float = 60.0, draw: float = 0.0) -> Patience:
    return Patience(seconds, lambda: clock.now, clock.sleep, lambda: draw)


def down_until(clock: Clock, end: float, cost: float = 0.0) -> Callable[[], float]:
    """A question that is answered, with the time, from ``end`` on, and takes ``cost`` seconds until it is not."""

    def ask() -> float:
        if clock.now < end:
            clock.now += cost
            raise NoAnswer("S3 does not answer.")
        return clock.now

    return ask


def test_an_outage_that_ends_in_time_is_not_noticed(clock: Clock) -> None:
    assert patience(clock).call(down_until(clock, 1055.0)) < 1060.0
    assert clock.pauses[:6] == [0.25, 0.5, 1.0, 2.0, 4.0, 5.0]  # doubled, up to five seconds
    assert max(clock.pauses) == 5.0


def test_an_outage_that_lasts_ends_in_an_error_at_the_time_that_was_set(clock: Clock) -> None:
    with pytest.raises(PlatformError, match=r"S3 does not answer\. It was asked for 60 s.*run again") as found:
        patience(clock).call(down_until(clock, 9e9))
    assert clock.now == 1060.0
    assert found.value.exit_code == 3


def test_clients_do_not_come_back_all_at_once(clock: Clock) -> None:
    other = Clock()
    for own, draw in ((clock, 0.0), (other, 0.9)):
        patience(own, draw=draw).call(down_until(own, 1010.0))
    assert other.pauses[:3] == pytest.approx([0.1375, 0.275, 0.55])
    assert clock.pauses[:3] == [0.25, 0.5, 1.0]


def test_one_outage_is_waited_for_once_and_not_by_every_call(clock: Clock) -> None:
    """Or a step with a hundred files would take two hours to say that S3 is gone."""
    shared = patience(clock)
    for _ in range(100):
        with pytest.raises(NoAnswer):
            shared.call(down_until(clock, 9e9))
    assert clock.now == 1060.0


def test_an_answer_ends_the_outage_and_the_next_one_has_the_whole_time_again(clock: Clock) -> None:
    shared = patience(clock)
    with pytest.raises(NoAnswer):
        shared.call(down_until(clock, 9e9))
    assert shared.call(lambda: "back") == "back"
    assert shared.call(down_until(clock, 1115.0)) >= 1115.0


def test_questions_that_take_long_to_fail_count_as_waiting(clock: Clock) -> None:
    with pytest.raises(NoAnswer):
        patience(clock).call(down_until(clock, 9e9, cost=20.0))
    assert clock.now <= 1000.0 + 20.0 + 60.0 + 20.0  # the clock begins at the first failure; the last question ends


def test_what_is_no_outage_is_not_asked_again(clock: Clock) -> None:
    def refuse() -> None:
        raise PlatformError("S3 refuses the credentials")

    with pytest.raises(PlatformError, match="refuses"):
        patience(clock).call(refuse)
    assert clock.pauses == []


def test_the_time_is_set_by_a_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Patience.configured().seconds == 75.0
    monkeypatch.setenv("ICHIGO_S3_PATIENCE", "1.5")
    assert Patience.configured().seconds == 1.5


@pytest.mark.parametrize("given", ["a minute", "-1", "inf", "nan"])
def test_a_time_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, given: str) -> None:
    monkeypatch.setenv("ICHIGO_S3_PATIENCE", given)
    with pytest.raises(UserError, match=r"ICHIGO_S3_PATIENCE is .*as 75"):
        Patience.configured()
