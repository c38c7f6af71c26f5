"""The report of a run: stands alone, shows what happened, and is not moved by what people and models say."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ichigo import recipe as recipes
from ichigo.report import charts, markup
from ichigo.report.clips import MOST_BYTES, clips
from ichigo.report.gather import Known, gather
from ichigo.report.page import repeat, report, rivals
from ichigo.speech.audio import read_audio
from ichigo.steps import reporting
from ichigo.steps.records import Records, StepRecord
from ichigo.steps.summary import summarise
from ichigo.store import MemoryObjects, Store
from tests.unit.report_support import ASKED, BEGAN, ENDLESS, HOSTILE, curve, finished_run, results, rows

CURVES = {"pretrain": curve(80, 6.0)}


class Reader(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in {"meta", "br", "hr", "link", "col"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data if "style" not in self.open[-1:] else ""

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def store() -> Store:
    return Store(MemoryObjects())


@pytest.fixture
def records(store: Store, tmp_path: Path) -> Records:
    return finished_run(store, tmp_path, "smoke-1")


def page_of(records: Records, **known: Any) -> str:
    summary = records.summary()
    assert summary is not None
    known.setdefault("curves", CURVES)
    return report(gather(summary, recipes.load("smoke"), records.store, Known(**known)))


def test_the_page_loads_and_runs_nothing(records: Records) -> None:
    page = Reader(page_of(records))
    assert page.open == []
    assert {tag for tag, _ in page.elements}.isdisjoint({"script", "link", "iframe", "img", "object", "form", "base"})
    sources = [
        value or "" for _, attributes in page.elements for name, value in attributes.items() if name in ("src", "href")
    ]
    assert sources
    assert all(source.startswith(("data:audio/flac;base64,", "#")) for source in sources)
    assert [name for _, attributes in page.elements for name in attributes if name.startswith("on")] == []
    (policy,) = [meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    assert "url(" not in markup.STYLE.read_text()


def test_what_a_model_said_is_shown_and_does_nothing(records: Records) -> None:
    page = page_of(records)
    assert "<script" not in page.lower()
    assert HOSTILE in Reader(page).text
    assert f"a.wav: {HOSTILE} is 40 s long" in Reader(page).text


def test_an_answer_without_end_is_cut_and_its_length_is_told(records: Records) -> None:
    page = Reader(page_of(records))
    assert ENDLESS[: markup.LONGEST] in page.text
    assert ENDLESS[: markup.LONGEST + 10] not in page.text
    assert f"{len(ENDLESS):,} characters" in page.text


@pytest.mark.parametrize(
    "hostile", ["\x00\x1b[31m", "\ud800", '"><img src=x onerror=alert(1)>', "a\u202etxt", "' onclick='x"]
)
def test_no_text_breaks_out_of_its_place(hostile: str) -> None:
    shown = markup.tag("p", markup.said(hostile + "end"), title=hostile)
    shown.encode()
    page = Reader(shown)
    assert [tag for tag, _ in page.elements] == ["p", "bdi"]
    assert set(page.of("p")[0]) == {"title"}
    assert page.text.endswith("end")
    assert not re.search("[\x00\x1b]", shown)


def test_the_report_tells_the_chain_the_gate_and_the_results(records: Records) -> None:
    text = Reader(page_of(records)).text
    for told in (
        *("smoke-1", "promote", "no prepare was made before", "spoken_answers.exact_match is 0.5, at least 0.4 asked"),
        *("too long", "spoken answers: exact match", "Every number", "ichigo run smoke", "seed"),
    ):
        assert told in text, told
    assert "Left out" not in text


def test_equal_runs_give_equal_bytes(store: Store, records: Records, tmp_path: Path) -> None:
    assert page_of(records) == page_of(records)
    again = finished_run(Store(MemoryObjects()), tmp_path / "again", "smoke-1")
    attempt = re.compile(r"\d{8}-\d{6}-[0-9a-f]{8}")  # of an artifact's address: a time and a random number
    timeless = [
        re.sub(r"ended \S+ \S+ UTC|\d+ \w+ \d{2} s|[\d.]+%", "", attempt.sub("", page))
        for page in (page_of(records), page_of(again))
    ]
    assert re.sub(r"Took.*?Steps", "", timeless[0]) == re.sub(r"Took.*?Steps", "", timeless[1])


def test_a_step_that_was_reused_says_whose_work_it_took_and_what_that_spared(records: Records) -> None:
    summary = records.summary()
    assert summary is not None
    artifact = records.steps()[1].artifact
    reused = StepRecord("pretrain", "reused", "made by smoke-1", started=BEGAN, finished=BEGAN + 1, artifact=artifact)
    later = Records(records.store, "smoke-2")
    later.save_step(reused)
    run = records.run()
    assert run is not None
    summary = summarise(run, recipes.load("smoke"), later.steps(), "succeeded", "", records.store.objects.uri)
    spared = reporting.earlier(later, summary)
    assert spared == {"pretrain": 7.0}
    known = Known(earlier=spared)
    text = Reader(report(gather(summary, recipes.load("smoke"), records.store, known))).text
    assert "made by smoke-1 (7.0 s spared)" in text
    assert "1 reused, 7.0 s spared" in text


def test_estimates_and_the_ledger_stand_where_they_are_known(records: Records) -> None:
    assert "estimate" not in Reader(page_of(records)).text
    entry = {"when": "2026-11-22", "who": f"me {HOSTILE}", "what": "version 1 to champion"}
    page = Reader(page_of(records, estimates={"pretrain": 1800.0}, ledger=[entry]))
    assert "30 min 00 s" in page.text
    assert "version 1 to champion" in page.text
    assert page.of("script") == []


def test_the_report_of_a_failed_run_says_why_and_what_it_lacks(store: Store, records: Records) -> None:
    """Its corpus is gone: that is a line of the report and not its end."""
    run, steps = records.run(), records.steps()
    assert run is not None
    failed = StepRecord("pretrain", "failed", f"loss is nan {HOSTILE}", 5, started=BEGAN + 20, finished=BEGAN + 30)
    summary = summarise(
        run, recipes.load("smoke"), [steps[0], failed], "failed", "pretrain: loss is nan", "s3://memory/store"
    )
    assert isinstance(store.objects, MemoryObjects)
    for key in [key for key in store.objects.data if key.startswith("corpus/")]:
        store.objects.delete(key)
    page = report(gather(summary, recipes.load("smoke"), store, Known()))
    text = Reader(page).text
    assert "The run failed: pretrain: loss is nan" in text
    assert "the corpus cannot be read" in text
    assert f"loss is nan {HOSTILE}" in text
    assert "<script" not in page


def test_a_run_that_never_began_has_a_report(store: Store, records: Records) -> None:
    run = records.run()
    assert run is not None
    summary = summarise(run, recipes.load("smoke"), [], "failed", "begin: no such recipe", "s3://memory/store")
    assert "begin: no such recipe" in Reader(report(gather(summary, recipes.load("smoke"), store, Known()))).text


def test_the_exit_handler_outlives_a_report_that_cannot_be_made(
    records: Records, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = records.summary()
    assert summary is not None
    assert reporting.write(records, recipes.load("smoke"), summary, None) == records.report()
    broken = {**summary, "steps": None}
    assert reporting.write(records, recipes.load("smoke"), broken, None) is None
    assert "no report: TypeError" in capsys.readouterr().out


class TestClips:
    def test_synthetic_voices_alone_are_heard_unless_asked(self, records: Records) -> None:
        summary = records.summary()
        assert summary is not None
        corpus = records.store.open_uri(summary["steps"][0]["artifact"]["uri"])
        heard = [item for item in results() if item.suite == "spoken_answers"]
        found = clips(heard, corpus)
        assert len(found) == ASKED
        people = {f"{ASKED - 1:016x}", f"{ASKED - 2:016x}"}
        assert {clip.item.id for clip in found if not clip.audio} == people
        assert all("recording (origin folder)" in clip.silent for clip in found if not clip.audio)
        asked = clips(heard, corpus, recordings=True)
        assert all(clip.audio for clip in asked)

    def test_a_clip_is_the_very_sound_of_its_row(self, records: Records) -> None:
        summary = records.summary()
        assert summary is not None
        corpus = records.store.open_uri(summary["steps"][0]["artifact"]["uri"])
        sounds = {row.id: row.audio for row in rows()}
        for clip in clips(results(), corpus, recordings=True):
            data = base64.b64decode(clip.uri.removeprefix("data:audio/flac;base64,"))
            assert np.array_equal(read_audio(data), read_audio(sounds[clip.item.id]))

    def test_suites_and_outcomes_take_turns_whatever_the_order(self, records: Records) -> None:
        summary = records.summary()
        assert summary is not None
        corpus = records.store.open_uri(summary["steps"][0]["artifact"]["uri"])
        found = clips(results(), corpus, count=6)
        assert [clip.item.suite for clip in found] == ["spoken_answers", "transcription"] * 3
        assert [clip.item.right for clip in found] == [False, False, True, True, False, False]
        assert clips(results()[::-1], corpus, count=6) == found

    def test_what_another_system_answered_is_not_heard_as_the_models(self, records: Records) -> None:
        summary = records.summary()
        assert summary is not None
        corpus = records.store.open_uri(summary["steps"][0]["artifact"]["uri"])
        rivals_first = [*(replace(item, system="base", hypothesis="by the base") for item in results()), *results()]
        assert clips(rivals_first, corpus, count=6) == clips(results(), corpus, count=6)

    def test_a_page_holds_no_more_sound_than_it_may(self, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
        summary = records.summary()
        assert summary is not None
        corpus = records.store.open_uri(summary["steps"][0]["artifact"]["uri"])
        size = len(clips(results(), corpus)[0].audio)
        monkeypatch.setattr("ichigo.report.clips.MOST_BYTES", 3 * size)
        found = clips(results(), corpus)
        assert 3 * size < MOST_BYTES
        assert 0 < sum(len(clip.audio) for clip in found) <= 3 * size
        assert "left out" in found[-1].silent or "left out" in found[-3].silent


class TestCurves:
    def test_a_line_has_every_point_in_its_place(self) -> None:
        (line,) = re.findall(
            r'<polyline points="([^"]*)"', charts.curves([charts.Curve("loss", [(0, 1.0), (50, 0.5), (100, 0.0)])])
        )
        (x0, y0), (x1, y1), (x2, y2) = [tuple(map(float, point.split(","))) for point in line.split()]
        assert x1 - x0 == x2 - x1 > 100
        assert y1 - y0 == y2 - y1 > 60  # downwards

    def test_a_long_curve_is_drawn_by_means_of_neighbours(self) -> None:
        points = [(float(step), float(step % 2)) for step in range(30_000)]
        (line,) = re.findall(r'<polyline points="([^"]*)"', charts.curves([charts.Curve("x", points)]))
        heights = {point.split(",")[1] for point in line.split()}
        assert len(line.split()) <= 150
        assert len(heights) == 1

    def test_what_is_not_finite_is_left_out(self) -> None:
        assert charts.finite([(2, float("nan")), (1, 1.0), (3, float("inf"))]) == [(1, 1.0)]
        assert "no points" in charts.curves([charts.Curve("loss", [])])
        assert "polyline" in charts.curves([charts.Curve("flat", [(0, 0.0), (1, 0.0)])])


def test_other_systems_on_a_suite_s_items_stand_beside_it() -> None:
    names = ("a.b", "a.b.cascade", "a.b.base", "a.c", "a.d.cascade")
    assert rivals({f"{name}.exact_match": 0.5 for name in names}) == {"a.b": ["base", "cascade"]}


def test_a_changed_recipe_is_repeated_from_its_file() -> None:
    assert repeat(recipes.load("smoke"))[0] == "ichigo run smoke"
    assert repeat(recipes.load("smoke", ["seed=7"]))[0] == "ichigo run recipe.yaml"


def test_the_recipe_on_the_page_is_the_recipe(records: Records, tmp_path: Path) -> None:
    """Saved from the page, it loads and has the same fingerprint."""
    page = Reader(page_of(records)).text
    text = page[page.index("recipe.yaml (JSON is YAML)") + len("recipe.yaml (JSON is YAML)") :]
    path = tmp_path / "recipe.yaml"
    path.write_text(text[: text.index("\n}") + 2])
    assert recipes.fingerprint(recipes.load(str(path))) == recipes.fingerprint(recipes.load("smoke"))
