"""MLflow's client during an outage: how long it asks, what it asks again, and what it tells a person."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, UNAUTHENTICATED

from ichigo.errors import PlatformError
from ichigo.tracking import patience
from ichigo.tracking.patience import Patient

SECONDS = 60.0
requests = pytest.importorskip("requests")  # comes with mlflow


class Clock:
    """Time that passes only in sleep."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(patience, "time", clock)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example")
    return clock


def silent() -> Exception:
    """What MLflow's client raises when nobody answers."""
    try:
        try:
            raise requests.exceptions.ConnectionError("Connection refused")
        except Exception as error:
            raise MlflowException(f"API request failed with exception {error}")  # noqa: B904
    except MlflowException as wrapped:
        return wrapped


class Server:
    """A client whose server answers from ``back`` on."""

    def __init__(self, clock: Clock, back: float) -> None:
        self._clock, self._back, self.calls = clock, back, 0

    def ask(self, word: str) -> str:
        self.calls += 1
        if self._clock.now < self._back:
            raise silent()
        return word.upper()


def test_a_call_outlasts_a_short_outage_and_says_so_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    server = Server(clock, clock.now + 22)
    assert Patient(server, SECONDS).ask(word="yes") == "YES"
    assert server.calls > 3
    assert capsys.readouterr().out.count("MLflow at http://mlflow.example does not answer") == 1


def test_a_long_outage_ends_in_the_address_the_cause_and_the_remedy(clock: Clock) -> None:
    began = clock.now
    with pytest.raises(
        PlatformError, match=r"http://mlflow\.example does not answer \(ConnectionError: Connection ref.*run again"
    ):
        Patient(Server(clock, float("inf")), SECONDS).ask("yes")
    assert SECONDS - 8 <= clock.now - began <= SECONDS


def test_an_outage_is_waited_out_once_and_not_for_every_call(clock: Clock) -> None:
    server = Server(clock, clock.now + 2 * SECONDS)
    patient = Patient(server, SECONDS)
    with pytest.raises(PlatformError):
        patient.ask("yes")
    with pytest.raises(PlatformError):
        patient.ask("yes")
    assert clock.now <= 1000.0 + SECONDS
    clock.now = server._back
    assert patient.ask("yes") == "YES"
    server._back = clock.now + 22  # a second outage has its own time
    assert patient.ask("yes") == "YES"


def answers(*errors: Exception) -> Callable[[], None]:
    waiting: Iterator[Exception] = iter(errors)

    def ask() -> None:
        raise next(waiting)

    return ask


class One:
    """A client with one method."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self.ask = ask


def test_an_error_that_is_the_answer_comes_through_at_once(clock: Clock) -> None:
    with pytest.raises(MlflowException, match="no such run"):
        Patient(One(answers(MlflowException("no such run", RESOURCE_DOES_NOT_EXIST))), SECONDS).ask()
    with pytest.raises(KeyError):
        Patient(One(answers(KeyError("a bug"))), SECONDS).ask()
    assert clock.now == 1000.0


def test_refused_credentials_are_not_asked_again_and_the_variables_are_named(clock: Clock) -> None:
    with pytest.raises(PlatformError, match=r"refuses the credentials; check MLFLOW_TRACKING_USERNAME"):
        Patient(One(answers(MlflowException("401", UNAUTHENTICATED))), SECONDS).ask()
    assert clock.now == 1000.0
