"""Every number of a report follows from the rows beside it: by the module that says so, and by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ichigo.errors import DataError, UserError
from ichigo.evaluation.items import ItemResult
from ichigo.evaluation.measures import paired
from ichigo.evaluation.recount import main, metrics_of, notes_of, recount
from ichigo.evaluation.statistics import holm
from ichigo.evaluation.suites import EvalRow, EvalText, Report, evaluate
from ichigo.inference.engine import Generation
from ichigo.language.layouts import Layouts
from tests.unit.evaluation_support import Scripted, codes, says, words
from tests.unit.test_evaluation_world import (
    MEMORY,
    REFUSAL,
    SETTINGS,
    Ears,
    answers,
    asked,
    dialogue,
    examined,
    folders,
    knowledge,
    layouts,
    rows,
    texts,
    world,
)

__all__ = ["folders", "layouts"]  # fixtures

HOSTILE = "<script>alert('x')</script>\n\"|' \N{RIGHT-TO-LEFT OVERRIDE}\x00 ﬀ"


@pytest.fixture(scope="module")
def report(layouts: Layouts) -> Report:
    """A model and a base that know two thirds of a world each, not the same; a recogniser of its own; speakers."""
    items = [replace(row, speaker=f"voice-{at % 4}") for at, row in enumerate(world())]
    known, written = knowledge(layouts, items, texts()), texts()
    items.append(replace(rows("held_out", 1, 40)[0], id="silent", codes=codes(1, 0)))
    model = {prompt: said for at, (prompt, said) in enumerate(known.items()) if at % 3}
    base = {prompt: said for at, (prompt, said) in enumerate(known.items()) if at % 3 != 1}
    return evaluate(
        Scripted(layouts, answers(layouts, model)),
        items,
        SETTINGS,
        0,
        texts=written,
        base=Scripted(layouts, answers(layouts, base)),
        recogniser=Ears(items),
        hearers={"ctc": Ears(items[: len(items) // 2])},
        systems={"model": "a test"},
    )


def table(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "items.parquet").to_pylist()
    return rows


def test_every_metric_is_counted_again_from_the_file(report: Report, tmp_path: Path) -> None:
    """None is left over: what an evaluation of answers measures is in its rows."""
    report.write(tmp_path)
    assert recount(Report.read(tmp_path)) == report.metrics
    assert len(report.metrics) > 400
    assert main(str(tmp_path)) == 0


def test_a_number_that_is_not_that_of_the_rows_is_named(
    report: Report, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(report, metrics=report.metrics | {"speak.wer": 0.0125}).write(tmp_path)
    assert main(str(tmp_path)) == 1
    assert "speak.wer:" in capsys.readouterr().out


def test_a_reader_with_nothing_but_the_table_finds_the_numbers(report: Report, tmp_path: Path) -> None:
    """Sums of columns, with no code of ours."""
    report.write(tmp_path)
    found, metrics = table(tmp_path), report.metrics

    def of(suite: str, system: str = "model") -> list[dict[str, Any]]:
        chosen = [row for row in found if (row["suite"], row["system"]) == (suite, system)]
        return [row for row in chosen if row["outcome"] != "set_aside"]

    def share(some: list[dict[str, Any]], outcome: str = "right") -> float:
        return [row["outcome"] for row in some].count(outcome) / len(some)

    for suite, system in (("spoken.held_out", "model"), ("spoken.facts", "cascade"), ("text.facts", "base")):
        name = suite if system == "model" else f"{suite}.{system}"
        assert metrics[f"{name}.exact_match"] == pytest.approx(share(of(suite, system)))
        assert metrics[f"{name}.refused_rate"] == pytest.approx(share(of(suite, system), "refused"))
        assert metrics[f"{name}.items"] == len(of(suite, system))
        length = sum(row["tokens"] for row in of(suite, system)) / len(of(suite, system))
        assert metrics[f"{name}.answer_tokens"] == pytest.approx(length)
    read = of("transcription.held_out_voices")
    assert metrics["transcription.held_out_voices.wer"] == pytest.approx(
        sum(row["errors"] for row in read) / sum(row["units"] for row in read)
    )
    assert metrics["transcription.held_out_voices.cer"] == pytest.approx(
        sum(row["char_errors"] for row in read) / sum(row["char_units"] for row in read)
    )
    said, real = of("speak"), of("speak", "real_speech")
    assert metrics["speak.real_wer"] == pytest.approx(
        sum(row["errors"] for row in real) / sum(row["units"] for row in real)
    )
    pace = sum(row["tokens"] for row in said) / sum(row["seconds"] for row in said)
    assert metrics["speak.tokens_per_second"] == pytest.approx(pace)
    scored = [row for row in found if row["nats"] is not None]
    assert metrics["loss.held_out"] == pytest.approx(
        sum(row["nats"] for row in scored) / sum(row["nats_tokens"] for row in scored)
    )
    lost = share(of("text.held_out", "base")) - share(of("text.held_out"))
    assert metrics["text.held_out.lost_points"] == pytest.approx(100 * lost)
    clean = [row for name in ("held_out", "seen_voices", "facts") for row in of(f"spoken.{name}")]
    assert metrics["refusal.false_refusals.rate"] == pytest.approx(share(clean, "refused"))
    last = [row for row in of("recall.seen") if row["turn"] == 2]
    assert metrics["recall.seen.exact_match"] == pytest.approx(share(last))
    aside = [row for row in found if row["outcome"] == "set_aside" and row["suite"] == "spoken.held_out"]
    assert metrics["spoken.held_out.set_aside"] == 1
    assert [row["id"] for row in aside] == ["silent"]


def test_systems_stand_beside_each_other_on_the_same_items(report: Report) -> None:
    """The cascade of a recogniser that owes nothing to the model is a system of its own."""
    metrics = report.metrics
    keys = {
        system: [item.key for item in report.items if (item.suite, item.system) == ("spoken.held_out", system)]
        for system in ("model", "cascade", "cascade_ctc")
    }
    assert keys["model"] == keys["cascade"] == keys["cascade_ctc"]
    assert metrics["transcription.held_out_voices.ctc.wer"] == 0.0, "it knows these rows"
    assert metrics["spoken.facts.cascade_ctc.exact_match"] == 0.0, "and not those"
    asked_of = {item.system for item in report.items}
    assert asked_of == {"model", "base", "cascade", "cascade_ctc", "ctc", "real_speech"}


def test_all_tests_of_a_report_are_one_family(report: Report) -> None:
    family = {name: value for name, value in report.metrics.items() if name.endswith(".p")}
    assert len(family) > 8
    assert {f"{name}_holm": value for name, value in holm(family).items()}.items() <= report.metrics.items()


def test_the_same_report_has_the_same_bytes(report: Report, tmp_path: Path) -> None:
    written = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        report.write(tmp_path / name)
        written.append({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()})
    assert written[0] == written[1]
    assert written[0].keys() == {"evaluation.json", "items.parquet"}


def test_too_few_items_for_the_margin_are_said(report: Report) -> None:
    assert report.metrics["text.held_out.non_inferior"] == 0.0
    needed = report.metrics["text.held_out.items_needed"]
    (note,) = [note for note in report.notes if note.startswith("text.held_out:")]
    assert "4 items show a loss below 5 points with a power of" in note
    assert f"{needed:.0f} are needed for 80%" in note


def plain(at: int, **fields: Any) -> ItemResult:
    known = {"suite": "s", "id": f"{at}", "reference": "yes", "hypothesis": "no", "outcome": "wrong", "tokens": 1}
    return ItemResult(**{**known, **fields}).scored()


def test_a_metric_that_is_no_number_is_left_out() -> None:
    results = [plain(1, f1=0.0, nats=math.nan, nats_tokens=3)]
    metrics = metrics_of([replace(results[0], f1=math.nan)], ["s"], margin=5.0, seed=0)
    assert "loss.held_out" not in metrics
    assert "s.f1" not in metrics
    assert (metrics["s.items"], metrics["loss.tokens"]) == (1.0, 3.0)
    assert metrics_of([], ["s"], margin=5.0, seed=0) == {
        "s.items": 0.0,
        "s.set_aside": 0.0,
        "loss.items": 0.0,
        "loss.tokens": 0.0,
    }
    assert notes_of({}, 5.0) == []


def test_runs_with_different_items_are_not_paired() -> None:
    first = [plain(at) for at in range(6)]
    second = [replace(one, system="base") for one in first[1:]] + [plain(9, system="base")]
    with pytest.raises(DataError, match=r"model in s and base in s .*: 0 of the first, 9 of the second"):
        paired(first, second)
    other = [*first[:-1], replace(first[-1], reference="another answer")]
    with pytest.raises(DataError, match="5 of the first, 5 of the second"):
        paired(first, other)
    many = [plain(at) for at in range(20)]
    with pytest.raises(DataError, match="and 17 more of the first, none of the second"):
        paired(many, [])
    assert [(one.id, two.id) for one, two in paired(first, first[::-1])] == [(one.id, one.id) for one in first]


def test_hostile_and_endless_answers_come_back_as_they_were(layouts: Layouts, tmp_path: Path) -> None:
    """10,000 characters of one model, a loop of another, and text that would be markup elsewhere."""
    endless = "ask for thing " * 720
    items = rows("held_out", 3, 1)
    said = {0: endless, 1: "no " * 3400, 2: HOSTILE}
    known = {asked(layouts, "speech", (items[at].codes, "")): words(layouts, text.strip()) for at, text in said.items()}
    model = Scripted(layouts, lambda prompt: Generation(known.get(prompt, words(layouts, endless)), "length"))
    report = evaluate(model, items, SETTINGS, 0)
    report.write(tmp_path)
    back = Report.read(tmp_path)
    assert back == report
    spoken = [item for item in back.items if item.suite == "spoken.held_out"]
    assert [len(item.hypothesis) > 10_000 for item in spoken] == [True, True, False]
    assert {item.outcome for item in spoken} == {"degenerate"}
    assert back.metrics["transcription.held_out_voices.wer"] > 500, "thousands of words for four"
    assert json.loads((tmp_path / "evaluation.json").read_text())["metrics"] == report.metrics


def test_a_conversation_that_fills_the_model_is_lost_from_there_on(layouts: Layouts) -> None:
    items = dialogue("recall_new", "one", MEMORY, 600)
    model = Scripted(layouts, says(layouts, "on and on " * 40))
    model.positions = 250
    report = evaluate(model, items, SETTINGS, 0)
    assert [item.outcome for item in report.items] == ["degenerate"] * 3
    assert [item.tokens > 0 for item in report.items] == [True, False, False]
    assert report.metrics["recall.new.degenerate_rate"] == 1.0


def test_only_what_is_wanted_is_asked(layouts: Layouts) -> None:
    items, written = world(), texts()
    known = knowledge(layouts, items, written)

    def suites(*only: str, base: Mapping[Any, Any] | None = None) -> set[str]:
        text_model = Scripted(layouts, answers(layouts, base)) if base is not None else None
        model = Scripted(layouts, answers(layouts, known))
        report = evaluate(model, items, SETTINGS, 0, texts=written, base=text_model, only=only)
        assert {item.suite for item in report.items} == set(report.suites)
        return set(report.suites)

    assert suites("recall.*", "mixed") == {"recall.seen", "recall.new", "mixed"}
    assert suites("spoken.held_out") == {"spoken.held_out"}
    assert suites("spoken.held_out", base=known) == {"spoken.held_out", "transcription.held_out_voices"}
    whole = examined(layouts, items, known, known, written).metrics
    part = evaluate(Scripted(layouts, answers(layouts, known)), items, SETTINGS, 0, texts=written, only=["text.*"])
    shared = {name: value for name, value in part.metrics.items() if name.startswith("text.")}
    assert shared.items() <= whole.items(), "a suite asked alone measures the same"


def test_a_suite_that_there_is_not_is_named_with_those_that_there_are(layouts: Layouts) -> None:
    model = Scripted(layouts, says(layouts, REFUSAL))
    with pytest.raises(UserError, match=r"no suite is called spoken\.facs, x\*; .* have spoken\.held_out, "):
        evaluate(model, world(), SETTINGS, 0, only=["spoken.facs", "mixed", "x*"])
    plain_row = [EvalRow("a", codes(1), "good morning", None, "v")]
    with pytest.raises(UserError, match="have spoken_answers, text_answers, transcription"):
        evaluate(model, plain_row, SETTINGS, 0, only=["mixed"])
    assert model.prompts == [], "told before anything is asked"


def test_a_silent_model_is_right_nowhere(layouts: Layouts) -> None:
    items = [row for row in world() if row.suite != "recall_seen"]
    silent = Scripted(layouts, lambda prompt: Generation((), "eot"))
    written = [EvalText("t", "write", "wrote", "device", "text_held_out")]
    metrics = evaluate(silent, items, SETTINGS, 0, texts=written, base=silent, recogniser=Ears(items)).metrics
    for suite in ("spoken.held_out", "spoken.held_out.cascade", "text.held_out", "recall.new", "speak", "mixed"):
        assert (metrics[f"{suite}.exact_match"], metrics[f"{suite}.mute_rate"]) == (0.0, 1.0), suite
    assert metrics["transcription.held_out_voices.wer"] == metrics["speak.wer"] == 1.0
    assert metrics["speak.tokens_per_second"] == 0.0
    assert metrics["text.held_out.lost_points"] == 0.0


def test_speakers_are_resampled_whole_where_they_are_known() -> None:
    """Of ten speakers two are never understood: utterances alone would make this a fifth give or take little."""
    heard = [
        plain(at, kind="transcription", speaker=f"v{at % 10}", hypothesis="yes" if at % 10 < 8 else "no")
        for at in range(400)
    ]

    def width(results: list[ItemResult]) -> float:
        metrics = metrics_of(results, ["s"], margin=5.0, seed=1)
        assert metrics["s.wer"] == pytest.approx(0.2)
        return metrics["s.wer.high"] - metrics["s.wer.low"]

    known = width(heard)
    assert known > 0.4
    assert width([replace(one, speaker="") for one in heard]) == pytest.approx(
        2 * 1.96 * math.sqrt(0.16 / 400), rel=0.1
    )
    assert width([heard[0], *(replace(one, speaker="") for one in heard[1:])]) < known / 3, "one speaker is not known"
