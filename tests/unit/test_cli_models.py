"""What ``ichigo models`` prints of a registry, and the environment of other servers."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import replace

import pytest

from ichigo.cli.models import as_data, lines, number
from ichigo.registry.catalogue import Listed, Listing
from ichigo.registry.ledger import Entry
from ichigo.registry.lookup import Registered
from ichigo.registry.promotion import Drift
from ichigo.registry.transfer import servers

NOW = 2_000_000.0
ENTRY = Entry(
    1, "2026-11-22T10:00:00+00:00", "anna@host", "promote", "7", "champion", source="staging", previous="5",
    forced=True, reason="the fair", numbers={"wer": (0.125,)},
)  # fmt: skip
NUMBERS = {"spoken.exact_match": (0.861, 0.84, 0.88), "wer": (0.125,), "b": (1.0,), "c": (2.0,)}


def listed(version: str, age: float, aliases: tuple[str, ...] = (), verdict: str = "promote") -> Listed:
    return Listed(Registered("tiny", version, f"s3://b/{version}", "d"), aliases, verdict, NOW - age, NUMBERS)


LISTING = Listing(
    "tiny",
    (
        listed("7", 30.0, ("champion",)),
        listed("6", 3 * 86400.0, verdict="hold"),
        replace(listed("5", 7200.0), numbers={}),
    ),
    (ENTRY,),
    (Drift("champion", "6", "7"),),
)  # fmt: skip


def test_a_person_reads_alias_verdict_age_and_numbers() -> None:
    numbers = "spoken.exact_match 0.861 [0.84, 0.88], wer 0.125, b 1, 1 more"
    assert lines([LISTING], NOW, ledger=False) == [
        "tiny, ledger of 1 entry",
        f"     7  @champion   promote     30 s  {numbers}",
        f"     6              hold         3 d  {numbers}",
        "     5              promote      2 h  no numbers",
        f"  {LISTING.drift[0]}; `ichigo models tiny --repair` sets it right",
    ]


def test_the_ledger_says_who_did_what_instead_of_whom_and_why() -> None:
    assert lines([LISTING], NOW, ledger=True)[-1] == (
        "  entry 1 2026-11-22T10:00:00+00:00 anna@host put version 7 to champion, before it version 5, forced: the fair"
    )


def test_a_machine_reads_all_of_it() -> None:
    found = json.loads(json.dumps(as_data(LISTING)))
    assert found["versions"][0]["numbers"] == {name: list(values) for name, values in NUMBERS.items()}
    assert found["versions"][0]["uri"] == "s3://b/7"
    assert found["ledger"][0]["reason"] == "the fair"
    assert found["drift"] == [{"alias": "champion", "shown": "6", "holder": "7"}]


def test_a_number_has_its_interval_where_there_is_one() -> None:
    assert (number((0.5, 0.25, 0.75)), number((0.5,))) == ("0.5 [0.25, 0.75]", "0.5")


def test_variables_of_other_servers_hold_inside_and_are_gone_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever happens there, what follows must not be written with the other servers' keys."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ours")
    monkeypatch.setenv("ICHIGO_TO_AWS_ACCESS_KEY_ID", "theirs")
    monkeypatch.setenv("ICHIGO_TO_AWS_ENDPOINT_URL", "http://there")
    names = ("AWS_ACCESS_KEY_ID", "AWS_ENDPOINT_URL", "MLFLOW_TRACKING_URI")
    with suppress(RuntimeError), servers("sqlite:///there.db"):
        assert [os.environ[name] for name in names] == ["theirs", "http://there", "sqlite:///there.db"]
        raise RuntimeError
    assert [os.environ.get(name) for name in names] == ["ours", None, None]
