"""Runs side by side: the same items are paired and tested, different items are refused by name."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ichigo import recipe as recipes
from ichigo.cli import compare as cli
from ichigo.errors import UserError
from ichigo.evaluation.items import ItemResult
from ichigo.evaluation.statistics import mcnemar_exact
from ichigo.report import differences, pairing
from ichigo.report.comparison import Comparison, Side, as_data, compare
from ichigo.report.pairing import Refusal
from ichigo.store import MemoryObjects, Store
from tests.unit.report_support import ASKED, HOSTILE, curve, finished_run, metrics_of, reference, results, usual
from tests.unit.test_report import Reader


def always_right(suite: str, number: int) -> str:
    return reference(suite, number)


def side(name: str, items: Sequence[ItemResult], **changes: Any) -> Side:
    """A run that only has a summary, items and curves."""
    summary = {
        **{
            "run_key": name,
            "fingerprint": name,
            "recipe": "smoke",
            "status": "succeeded",
            "evaluation": metrics_of(items),
        },
        **{"gate": {"verdict": "hold", "rules": []}, "model": None, "started": 1.78e9, "wall_seconds": 100.0},
    }
    made = Side(name, summary, recipes.load("smoke"), {}, {}, tuple(items), {"pretrain": curve(30, 5.0)})
    return replace(made, **changes)


def test_the_same_items_are_paired_and_tested() -> None:
    other = compare([side("a", results()), side("b", results(always_right))]).others[0]
    (found,) = [one for one in other.differences if one.suite == "spoken_answers"]
    wrong = sum(not item.right for item in results() if item.suite == "spoken_answers")
    assert wrong == ASKED // 3
    assert (found.items, found.first, found.second) == (ASKED, (ASKED - wrong) / ASKED, 1.0)
    assert (found.first_ahead, found.second_ahead) == (0, wrong)
    assert found.p == mcnemar_exact(0, wrong)
    assert found.points == pytest.approx(100 * wrong / ASKED)
    assert 0 < found.low < found.points < found.high <= 100
    assert [item[0].id for item in other.items["spoken_answers"]] == [f"{number:016x}" for number in range(0, ASKED, 3)]


def test_fewer_word_errors_count_as_better() -> None:
    """In the transcripts the second makes no error: its points fall, and its utterances are ahead."""
    other = compare([side("a", results()), side("b", results(always_right))]).others[0]
    (found,) = [one for one in other.differences if one.suite == "transcription"]
    assert (found.measure, found.second, found.first_ahead, found.second_ahead) == ("word errors", 0.0, 0, ASKED // 3)
    assert found.first == pytest.approx(metrics_of(results())["transcription.wer"])
    assert found.points == pytest.approx(-100 * found.first)
    assert differences.second_is_better(found)


def test_p_values_are_those_of_holm_over_every_test_of_the_comparison() -> None:
    sides = [side("a", results()), side("b", results(always_right)), side("c", results())]
    found = [one for other in compare(sides).others for one in other.differences]
    assert len(found) == 6
    smallest = min(one.p for one in found)
    assert min(one.adjusted for one in found) == pytest.approx(6 * smallest)
    assert all(one.adjusted >= one.p for one in found)


def test_facts_that_are_asked_several_times_count_once() -> None:
    """Ten voices ask one fact: ten answers, of which no test makes ten independent wins."""
    ids = [f"{number:016x}" for number in range(10)]
    asked = [ItemResult("spoken.facts", name, "seven", "seven", "right", 1, "how many days has a week") for name in ids]
    wrong = [replace(item, hypothesis="six", outcome="wrong") for item in asked]
    pairs = list(zip(wrong, asked, strict=True))
    by_item = pairing.difference("spoken.facts", pairs, {}, 1)
    by_fact = pairing.difference("spoken.facts", pairs, {"spoken.facts.facts": 1.0}, 1)
    assert (by_item.second_ahead, by_item.p) == (10, mcnemar_exact(0, 10))
    assert (by_fact.second_ahead, by_fact.p, by_fact.unit) == (1, 1.0, "fact")


def test_different_items_are_refused_by_name() -> None:
    fewer = [item for item in results() if item.suite != "spoken_answers" or item.id > f"{1:016x}"]
    other = compare([side("a", results()), side("b", fewer)]).others[0]
    (refused,) = other.refused
    assert refused.only_first == (f"{0:016x}", f"{1:016x}")
    assert refused.only_second == ()
    assert f"spoken_answers: not paired, only the first was asked 2 items ({0:016x}, {1:016x})" in str(refused)
    assert {one.suite for one in other.differences} == {"text_answers", "transcription"}


def test_the_same_id_with_another_question_or_reference_is_refused() -> None:
    """Ids are hashes of sounds and texts, but a made-up corpus may number its rows."""
    first, second = results(), results()
    second[1] = replace(second[1], reference="another")
    second[2] = replace(second[2], question="another")
    before, after = (pairing.suites(items)["spoken_answers"] for items in (first, second))
    refused = pairing.paired("spoken_answers", before, after)
    assert isinstance(refused, Refusal)
    assert refused.changed == (f"{1:016x}", f"{2:016x}")


def test_another_systems_answers_to_the_items_are_not_taken_for_the_models() -> None:
    def beside(own: Sequence[ItemResult]) -> list[ItemResult]:
        return [*own, *(replace(item, system="cascade", outcome="right") for item in own)]

    alone = compare([side("a", results()), side("b", results(always_right))])
    found = compare([side("a", beside(results())), side("b", beside(results(always_right)))])
    assert found.others[0].differences == alone.others[0].differences
    assert any(one.second_ahead for one in found.others[0].differences)


def test_a_suite_that_one_alone_was_asked_is_told() -> None:
    without = [item for item in results() if item.suite != "transcription"]
    (refused,) = compare([side("a", results()), side("b", without)]).others[0].refused
    assert (refused.suite, len(refused.only_first)) == ("transcription", ASKED)


def test_runs_without_items_are_compared_in_everything_else() -> None:
    found = compare([side("a", []), side("b", [], recipe=recipes.load("smoke", ["seed=2"]))])
    assert found.others[0].recipe == ("seed: 1 -> 2",)
    assert "B cannot be tested against A" in differences.plain(found)
    assert "B cannot be tested against A" in Reader(differences.rendered(found)).text


@pytest.mark.parametrize("names", [["a"], ["a", "b", "a"]])
def test_one_run_is_no_comparison(names: list[str]) -> None:
    with pytest.raises(UserError, match="two or more different runs"):
        compare([side(name, []) for name in names])


@pytest.fixture
def comparison() -> Comparison:
    return compare([side("a", results()), side(f"b {HOSTILE}", results(always_right)), side("c", results())])


def test_the_page_stands_alone_and_escapes_everything(comparison: Comparison) -> None:
    page = Reader(differences.rendered(comparison))
    assert page.open == []
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "img"})
    assert HOSTILE in page.text
    assert "A and C: " not in page.text  # nothing differs between these
    assert differences.rendered(comparison) == differences.rendered(comparison)


def test_curves_of_all_runs_share_one_pair_of_axes(comparison: Comparison) -> None:
    page = Reader(differences.rendered(comparison))
    charts = [svg for svg in page.of("svg") if svg.get("role") == "img"]
    assert [svg["aria-label"] for svg in charts] == ["A, B, C"] * 3
    assert len(page.of("polyline")) == 9


def test_the_data_hold_every_item_where_one_alone_is_right(comparison: Comparison) -> None:
    data = json.loads(json.dumps(as_data(comparison), allow_nan=False))
    assert data["first"] == "a"
    first = data["others"][0]
    assert len(first["items"]) == 3 * ASKED // 3
    assert {item["suite"] for item in first["items"]} == {"spoken_answers", "text_answers", "transcription"}
    assert all(item["second"] == item["reference"] and item["first_outcome"] != "right" for item in first["items"])
    assert data["others"][1]["items"] == []


class TestCommand:
    @pytest.fixture
    def store(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
        store = Store(MemoryObjects())
        monkeypatch.setattr(cli, "connected", lambda: store)
        monkeypatch.setattr(cli, "_registered", lambda name: False)
        finished_run(store, tmp_path, "smoke-1")
        again = recipes.load("smoke", ["seed=2"])
        finished_run(store, tmp_path, "smoke-2", items=results(always_right), recipe=again)
        return store

    def run(self, *arguments: str) -> int:
        import argparse

        parser = argparse.ArgumentParser()
        cli.arguments(parser)
        return cli.main(parser.parse_args(arguments))

    def test_it_prints_a_table_and_writes_page_and_data(
        self, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        page, data = tmp_path / "page.html", tmp_path / "data.json"
        assert self.run("smoke-1", "smoke-2", "--html", str(page), "--json", str(data)) == 0
        shown = capsys.readouterr().out
        for line in ("A  smoke-1  (promote)", "seed: 1 -> 2", "data: the same numbers", "settings.seed: 1 -> 2"):
            assert line in shown
        assert max(map(len, shown.splitlines())) < 160
        assert "smoke-2" in page.read_text()
        assert json.loads(data.read_text())["others"][0]["recipe"] == ["seed: 1 -> 2"]

    def test_steps_with_the_same_bytes_are_told_from_others(self, store: Store) -> None:
        sides = [cli.side(name, store) for name in ("smoke-1", "smoke-2")]
        steps = {step.name: step for step in compare(sides).others[0].steps}
        assert {name: step.same for name, step in steps.items()} == {
            "prepare": True,
            "pretrain": False,
            "evaluate": False,
        }
        assert "settings.seed: 1 -> 2" in steps["evaluate"].changes

    @pytest.mark.parametrize("name", ["smoke-3", "../etc", "latest"])
    def test_an_unknown_run_is_told_with_what_can_be_named(
        self, store: Store, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("ICHIGO_HOME", str(tmp_path / "empty"))
        with pytest.raises(UserError, match="a run's key, its folder"):
            self.run("smoke-1", name)

    def test_a_run_that_goes_on_is_not_compared(self, store: Store) -> None:
        assert isinstance(store.objects, MemoryObjects)
        store.objects.delete("runs/smoke-2/summary.json")
        with pytest.raises(UserError, match="has not ended"):
            self.run("smoke-1", "smoke-2")


def test_the_usual_run_is_wrong_now_and_then() -> None:
    """What the tests above count on."""
    assert usual("spoken_answers", 0) == HOSTILE
    assert usual("spoken_answers", 1) == reference("spoken_answers", 1)
