"""Suites: which rows are asked, what is counted, and a report that is the same wherever it is made."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from ichigo.errors import DataError
from ichigo.evaluation.recount import recount
from ichigo.evaluation.suites import EvalRow, ItemResult, Report, evaluate
from ichigo.inference.engine import Engine, Generation
from ichigo.language.layouts import TRANSCRIPTION_PROMPTS, Layouts, Sample, Turn
from ichigo.recipe.schema import Evaluation
from tests.unit.evaluation_support import Answer, Prompt, Scripted, codes, ids, make_base, make_model, says, words

SETTINGS = Evaluation(items=64, max_new_tokens=16, batch=4)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A real engine on a small random model; it knows nothing."""
    folder = tmp_path_factory.mktemp("models")
    return Engine.open(make_model(make_base(folder / "base"), folder / "model"))


def rows(count: int) -> list[EvalRow]:
    """Questions 0, 1, 2 ... in words and digits; every third is only a statement."""
    return [
        EvalRow(f"row-{at:03d}", codes(at), f"question {at}", f"answer {at}" if at % 3 else None, f"voice-{at % 2}")
        for at in range(count)
    ]


def perfect(layouts: Layouts, items: Sequence[EvalRow]) -> Answer:
    """Knows every row by the prompts that training would lay out for it."""
    known: dict[Prompt, str] = {}
    for row in items:
        for prompt in TRANSCRIPTION_PROMPTS:
            sample = Sample("transcription", (Turn(row.codes),), prompt)
            known[ids(layouts.prompt_for(sample))] = row.text
        if row.answer is not None:
            for user in (row.codes, row.text):
                kind = Sample("text" if isinstance(user, str) else "speech", (Turn(user),))
                known[ids(layouts.prompt_for(kind))] = row.answer
    return lambda prompt: Generation(words(layouts, known[prompt]), "eot")


def test_a_model_that_knows_everything_gets_everything(engine: Engine) -> None:
    """Only prompts exactly as training lays them out are answered."""
    items = rows(9)
    metrics = evaluate(Scripted(engine.layouts, perfect(engine.layouts, items)), items, SETTINGS, seed=0).metrics
    assert metrics["spoken_answers.items"] == metrics["text_answers.items"] == 6
    assert metrics["transcription.items"] == 9
    assert metrics["loss.items"] == 15
    for suite in ("spoken_answers", "text_answers", "transcription"):
        assert metrics[f"{suite}.exact_match"] == metrics[f"{suite}.exact_match.high"] == 1.0
        assert metrics[f"{suite}.mute_rate"] == metrics[f"{suite}.stray_sound_rate"] == 0.0
    assert metrics["spoken_answers.f1"] == metrics["text_answers.f1"] == 1.0
    assert metrics["transcription.wer"] == metrics["transcription.cer"] == 0.0
    assert metrics["loss.held_out"] == pytest.approx(2.0)
    expected = [row.text for row in items] + [row.answer for row in items if row.answer is not None]
    assert metrics["loss.tokens"] == sum(len(words(engine.layouts, text)) + 1 for text in expected), "and its end"


def test_wrong_answers_are_counted_by_their_kind(engine: Engine) -> None:
    contract, layouts = engine.contract, engine.layouts
    right = perfect(layouts, rows(10))
    sound = Generation((*words(layouts, "answer 2"), contract.first_sound), "eot")
    special = {
        1: lambda prompt: Generation((), "eot"),
        2: lambda prompt: sound,
        4: lambda prompt: Generation(words(layouts, "answer answer"), "length"),
        5: says(layouts, "answer 6"),
    }
    spoken = {ids(layouts.prompt_for(Sample("speech", (Turn(row.codes),)))): at for at, row in enumerate(rows(10))}

    def answer(prompt: Prompt) -> Generation:
        return special.get(spoken.get(prompt, 0), right)(prompt)

    report = evaluate(Scripted(layouts, answer), rows(10), SETTINGS, seed=0)
    outcomes = {item.id: item.outcome for item in report.items if item.suite == "spoken_answers"}
    assert outcomes == {
        "row-001": "empty",
        "row-002": "stray_sound",
        "row-004": "degenerate",
        "row-005": "wrong",
        "row-007": "right",
        "row-008": "right",
    }
    metrics = report.metrics
    for name, share in [("exact_match", 2), ("mute_rate", 1), ("stray_sound_rate", 1), ("degenerate_rate", 1)]:
        assert metrics[f"spoken_answers.{name}"] == pytest.approx(share / 6)
    # rows 7 and 8 in full, row 2 in full beside its sound, rows 4 and 5 share "answer" of two words, row 1 nothing
    assert metrics["spoken_answers.f1"] == pytest.approx((3 * 1.0 + 0.5 + 0.5) / 6)
    assert metrics["text_answers.exact_match"] == 1.0


def test_transcription_errors_add_up_over_the_corpus(engine: Engine) -> None:
    items = [
        EvalRow("a", codes(1), "yes", None, "v"),
        EvalRow("b", codes(2), "turn on the kitchen light please", None, "v"),
    ]
    metrics = evaluate(Scripted(engine.layouts, says(engine.layouts, "Yes!")), items, SETTINGS, seed=0).metrics
    assert metrics["transcription.wer"] == pytest.approx(6 / 7)
    # "yes" to the 32 characters of the other: e and s stand in it in that order, so 32 - 2 edits of 35 in all
    assert metrics["transcription.cer"] == pytest.approx(30 / 35)


def test_a_suite_without_items_measures_nothing(engine: Engine) -> None:
    items = [EvalRow("a", codes(1), "good morning", None, "v")]
    metrics = evaluate(Scripted(engine.layouts, says(engine.layouts, "good")), items, SETTINGS, seed=0).metrics
    assert {name for name in metrics if name.startswith("spoken_answers")} == {
        "spoken_answers.items",
        "spoken_answers.set_aside",
    }
    assert metrics["spoken_answers.items"] == metrics["text_answers.items"] == 0
    assert metrics["transcription.items"] == metrics["loss.items"] == 1
    nothing = evaluate(Scripted(engine.layouts, says(engine.layouts, "good")), [], SETTINGS, seed=0)
    assert set(nothing.metrics.values()) == {0.0}
    assert "loss.held_out" not in nothing.metrics


def test_rows_that_cannot_be_compared_are_set_aside_and_counted(engine: Engine) -> None:
    """A mute model must not be right on a row that expects no word."""
    items = [
        EvalRow("a", codes(1), "good morning", "?!", "v"),
        EvalRow("b", codes(2), "...", "hello", "v"),
        EvalRow("c", codes(3, 0), "silent", "hello", "v"),
    ]
    mute = Scripted(engine.layouts, lambda prompt: Generation((), "eot"))
    report = evaluate(mute, items, SETTINGS, seed=0)
    assert {(item.suite, item.id) for item in report.items} == {
        ("spoken_answers", "b"),
        ("text_answers", "b"),
        ("text_answers", "c"),
        ("transcription", "a"),
    }
    metrics = report.metrics
    assert (metrics["spoken_answers.set_aside"], metrics["transcription.set_aside"]) == (2, 2)
    assert metrics["spoken_answers.exact_match"] == 0.0
    assert metrics["spoken_answers.mute_rate"] == 1.0


def asked(engine: Engine, items: Sequence[EvalRow], count: int, seed: int) -> dict[str, list[str]]:
    settings = Evaluation(items=count, max_new_tokens=4, batch=4)
    report = evaluate(Scripted(engine.layouts, says(engine.layouts, "a")), items, settings, seed)
    found: dict[str, list[str]] = {}
    for item in report.items:
        found.setdefault(item.suite, []).append(item.id)
    return found


def test_the_choice_of_rows_hangs_on_seed_and_ids_alone(engine: Engine) -> None:
    items = rows(60)
    chosen = asked(engine, items, 10, seed=3)
    assert {len(ids) for ids in chosen.values()} == {10}
    assert asked(engine, items[::-1], 10, seed=3) == chosen
    assert asked(engine, items, 10, seed=4) != chosen
    assert set(asked(engine, items, 5, seed=3)["transcription"]) < set(chosen["transcription"])
    ids = [int(row_id[4:]) for row_id in chosen["transcription"]]
    assert ids != list(range(10)), "the first rows are one speaker's or one source's"


def test_a_question_that_many_voices_ask_is_asked_once_as_text(engine: Engine) -> None:
    items = [EvalRow(f"{at}", codes(at), "what is two plus two", "four", f"voice-{at}") for at in range(5)]
    scripted = Scripted(engine.layouts, says(engine.layouts, "four"))
    metrics = evaluate(scripted, items, SETTINGS, seed=0).metrics
    assert (metrics["spoken_answers.items"], metrics["text_answers.items"]) == (5, 1)
    text = ids(engine.layouts.prompt_for(Sample("text", (Turn("what is two plus two"),))))
    assert scripted.prompts.count(text) == 1


def test_two_rows_with_one_id_are_refused(engine: Engine) -> None:
    with pytest.raises(DataError, match="'row-001'"):
        evaluate(Scripted(engine.layouts, says(engine.layouts, "a")), [*rows(3), *rows(2)[1:]], SETTINGS, seed=0)


@pytest.mark.parametrize("nats", [math.nan, math.inf])
def test_a_diverged_model_has_no_loss(engine: Engine, nats: float, tmp_path: Path) -> None:
    scripted = Scripted(engine.layouts, says(engine.layouts, "a"), nats)
    report = evaluate(scripted, rows(3), SETTINGS, seed=0)
    assert "loss.held_out" not in report.metrics
    assert report.metrics["loss.tokens"] > 0
    assert any("loss.held_out is left out" in note for note in report.notes)
    report.write(tmp_path)
    assert recount(Report.read(tmp_path)) == report.metrics


def test_a_real_model_gives_the_same_report_in_any_batch_and_order(engine: Engine, tmp_path: Path) -> None:
    written: list[list[bytes]] = []
    for batch, asked_rows in ((1, rows(7)), (1, rows(7)[::-1]), (5, rows(7))):
        report = evaluate(engine, asked_rows, Evaluation(items=5, max_new_tokens=6, batch=batch), seed=2)
        loss = report.metrics.pop("loss.held_out")  # a sum of floats, equal to rounding across batch sizes
        assert loss == pytest.approx(math.log(engine.contract.vocabulary), rel=0.1), "random weights guess evenly"
        folder = tmp_path / str(len(written))
        folder.mkdir()
        items = tuple(replace(item, nats=None) for item in report.items)
        replace(report, settings=SETTINGS, items=items).write(folder)
        written.append([path.read_bytes() for path in sorted(folder.iterdir())])
    assert written[0] == written[1] == written[2]


def test_a_report_reads_back_as_it_was_written(engine: Engine, tmp_path: Path) -> None:
    odd = ItemResult("spoken_answers", "x", "line\u2028break", 'quote " newline \n', "wrong", 3)
    report = evaluate(Scripted(engine.layouts, says(engine.layouts, "a")), rows(4), SETTINGS, seed=0)
    report = replace(report, items=(*report.items, odd))
    report.write(tmp_path)
    assert Report.read(tmp_path) == report
    assert json.loads((tmp_path / "evaluation.json").read_text())["contract"] == engine.contract.digest


@pytest.mark.parametrize("damage", ["", "[]", '{"metrics": {}}'])
def test_a_damaged_report_is_named(engine: Engine, tmp_path: Path, damage: str) -> None:
    evaluate(Scripted(engine.layouts, says(engine.layouts, "a")), rows(2), SETTINGS, seed=0).write(tmp_path)
    (tmp_path / "evaluation.json").write_text(damage)
    with pytest.raises(DataError, match="evaluate the model again"):
        Report.read(tmp_path)
