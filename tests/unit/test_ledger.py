"""What follows from a ledger's entries: who holds which alias, and where a rollback leads."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from ichigo.errors import UserError
from ichigo.registry.ledger import Entry, champions, checked_reason, holders, new_entry
from ichigo.registry.promotion import standing


def put(version: str, target: str, source: str = "", previous: str = "") -> Entry:
    return replace(new_entry(1, "promote", version, target), source=source, previous=previous)


def back(version: str, previous: str) -> Entry:
    return replace(new_entry(1, "rollback", version, "champion"), previous=previous)


def test_a_version_moves_and_leaves_the_alias_that_it_had() -> None:
    way = [put("1", "candidate"), put("1", "staging", "candidate"), put("1", "champion", "staging")]
    assert [holders(way[:length]) for length in (1, 2, 3)] == [
        {"candidate": "1"},
        {"candidate": "", "staging": "1"},
        {"candidate": "", "staging": "", "champion": "1"},
    ]


def test_an_alias_that_somebody_else_took_meanwhile_stays_theirs() -> None:
    """Version 1 was candidate; 2 took its place before 1 went to staging by force."""
    assert holders([put("1", "candidate"), put("2", "candidate"), put("1", "staging", "candidate")]) == {
        "candidate": "2",
        "staging": "1",
    }


def test_an_alias_from_before_the_ledger_is_left_too() -> None:
    assert holders([put("7", "staging", "candidate")]) == {"candidate": "", "staging": "7"}


def test_a_rollback_leads_to_the_champion_before_and_then_to_the_one_before_that() -> None:
    written = [put("1", "champion"), put("2", "champion", previous="1"), put("4", "champion", previous="2")]
    assert champions(written) == ["1", "2", "4"]
    written.append(back("2", "4"))
    assert champions(written) == ["1", "2"]
    written.append(back("1", "2"))
    assert champions(written) == ["1"]
    written.append(put("5", "champion", previous="1"))
    assert champions(written) == ["1", "5"]
    assert holders(written)["champion"] == "5"


def test_a_version_stands_where_the_ledger_or_the_way_has_it_and_not_where_a_hand_put_it() -> None:
    """Promoting a version that somebody called ``demo`` must not take ``demo`` away."""
    held = {"demo": "1", "release": "1", "candidate": "2", "staging": "3", "champion": "3"}
    assert standing("1", held, []) == ""
    assert standing("1", held, [put("1", "release")]) == "release"
    assert standing("2", held, []) == "candidate"
    assert standing("3", held, []) == "champion"


def test_other_aliases_are_no_champions() -> None:
    assert champions([put("1", "candidate"), put("1", "staging", "candidate")]) == []


def test_a_champion_from_before_the_ledger_can_come_back() -> None:
    assert champions([put("4", "champion", previous="3")]) == ["3", "4"]


def test_an_entry_fits_into_a_parameter_whatever_was_measured() -> None:
    """MLflow cuts a parameter at 6,000 characters, and half an entry is no JSON."""
    numbers = {f"suite_{number}.exact_match": (0.123456, 0.1, 0.2) for number in range(400)}
    entry = replace(put("1", "staging"), reason="ü" * 1000, numbers=numbers)
    text = entry.text()
    body = json.loads(text)
    assert len(text) < 6000
    assert body["reason"] == "ü" * 1000
    assert len(body["numbers"]) + body["left_out"] == 400
    assert body["left_out"] < 400


def test_a_reason_is_one_line_that_cannot_move_a_terminal() -> None:
    assert checked_reason(" the\n<b>demo</b>\x1b[2J \t is on Monday ") == "the <b>demo</b> [2J is on Monday"
    with pytest.raises(UserError, match="has 1001 characters; 1000 are kept at most"):
        checked_reason("x" * 1001)


def test_two_entries_that_say_the_same_are_told_apart() -> None:
    assert put("1", "staging").text() != put("1", "staging").text()
