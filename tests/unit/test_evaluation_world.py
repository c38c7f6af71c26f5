"""The suites of a world: what exactly is asked of whom, and what is counted, with answers that are scripted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ichigo.errors import ContractError, DataError
from ichigo.evaluation import look, table
from ichigo.evaluation.asking import Examiner, open_text_engine
from ichigo.evaluation.heard import RECOGNISER
from ichigo.evaluation.scorers import wilson_interval
from ichigo.evaluation.statistics import mcnemar_exact
from ichigo.evaluation.suites import EvalRow, EvalText, ItemResult, Report, evaluate
from ichigo.evaluation.world import ask_again
from ichigo.inference.engine import Engine, Generation
from ichigo.language.layouts import SPEAK_PROMPTS, TRANSCRIPTION_PROMPTS, Codes, Layouts, Part, Sample, Turn
from ichigo.recipe.schema import Evaluation, SampleType
from tests.unit.evaluation_support import Answer, Prompt, Scripted, codes, ids, make_base, make_model, says, words

SETTINGS = Evaluation(items=64, max_new_tokens=16, batch=4)
REFUSAL = "sorry i did not catch that"
TOPICS = ("device", "repeat", "timer")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base and the model that was made from it."""
    folder = tmp_path_factory.mktemp("models")
    base = make_base(folder / "base")
    return base, make_model(base, folder / "model")


@pytest.fixture(scope="module")
def layouts(folders: tuple[Path, Path]) -> Layouts:
    return Engine.open(folders[1]).layouts


def rows(suite: str, count: int, first: int = 0) -> list[EvalRow]:
    """Questions of four words and 20 codes, answered by as many words; topics go round."""
    return [
        EvalRow(
            id=f"{suite}-{at:03d}",
            codes=codes(1000 * first + at),
            text=f"ask for thing {at}",
            answer=f"here is thing {at}",
            speaker="v",
            topic=TOPICS[at % 3],
            suite=suite,
            word_ends=(4, 9, 15, 20),
        )
        for at in range(count)
    ]


def noise(suite: str, count: int, first: int) -> list[EvalRow]:
    return [replace(row, text="", answer=REFUSAL, topic="noise", word_ends=()) for row in rows(suite, count, first)]


def dialogue(suite: str, name: str, said: Sequence[tuple[str, str]], first: int) -> list[EvalRow]:
    """A conversation of (text, answer) turns, one row each."""
    return [
        EvalRow(f"{name}-{at}", codes(first + at), text, answer, "v", "memory", suite, name, at)
        for at, (text, answer) in enumerate(said)
    ]


MEMORY = (("my name is anna", "hello anna"), ("turn on the fan", "turning on the fan"), ("what is my name", "anna"))


def world() -> list[EvalRow]:
    """Some rows of every suite."""
    spoken = [*rows("held_out", 9, 1), *rows("seen_voices", 6, 2), *rows("odd_voices", 5, 8), *rows("facts", 6, 3)]
    strange = [*noise("noise_known", 3, 4), *noise("noise_new", 2, 5)]
    recall = [*dialogue("recall_seen", "one", MEMORY, 600), *dialogue("recall_new", "two", MEMORY[::2], 700)]
    return [*spoken, *strange, *recall]


def texts(count: int = 4) -> list[EvalText]:
    return [
        EvalText(f"{suite}-{at}", f"write about {suite} {at}", f"wrote {at}", "device", suite)
        for suite in ("text_held_out", "text_facts")
        for at in range(count)
    ]


class Ears:
    """Knows what the codes of rows say."""

    def __init__(self, known: Sequence[EvalRow]) -> None:
        self._text = {row.codes.tobytes(): row.text for row in known}

    def words(self, codes: Codes) -> str:
        return self._text.get(np.asarray(codes, np.int16).tobytes(), "nothing known")


def asked(layouts: Layouts, kind: SampleType, *turns: tuple[Part | tuple[Part, ...], str], prompt: str = "") -> Prompt:
    """The prompt for a sample: (user, earlier answer) per turn, the last answer being asked for."""
    return ids(layouts.prompt_for(Sample(kind, tuple(Turn(user, answer) for user, answer in turns), prompt)))


def knowledge(layouts: Layouts, items: Sequence[EvalRow], written: Sequence[EvalText]) -> dict[Prompt, Prompt]:
    """The right answer, as ids, to every prompt as training would lay it out."""
    known: dict[Prompt, Prompt] = {}
    for row in items:
        answer = words(layouts, row.answer or "")
        known[asked(layouts, "speech", (row.codes, ""))] = answer
        known[asked(layouts, "text", (row.text or "-", ""))] = answer
        for prompt in TRANSCRIPTION_PROMPTS:
            known[asked(layouts, "transcription", (row.codes, ""), prompt=prompt)] = words(layouts, row.text)
        for prompt in SPEAK_PROMPTS if row.text else ():
            sound = (layouts.contract.sound_start, *layouts.contract.sound_ids(row.codes), layouts.contract.sound_end)
            known[asked(layouts, "speak", (row.text, ""), prompt=prompt)] = tuple(int(token) for token in sound)
        if row.word_ends:
            for user in ((row.codes[:9], _last(row.text)), (_first(row.text), row.codes[9:])):
                known[asked(layouts, "mixed", (user, ""))] = answer
    for one in written:
        known[asked(layouts, "text", (one.text, ""))] = words(layouts, one.answer or "")
    for name in ("one", "two"):
        turns = sorted((row for row in items if row.dialogue == name), key=lambda row: row.turn)
        for at in range(len(turns)):
            history = [(row.codes, row.answer or "") for row in turns[:at]]
            last = asked(layouts, "multi_turn", *history, (turns[at].codes, ""))
            known[last] = words(layouts, turns[at].answer or "")
    return known


def _first(text: str) -> str:
    return " ".join(text.split()[:2])


def _last(text: str) -> str:
    return " ".join(text.split()[2:])


def answers(layouts: Layouts, known: Mapping[Prompt, Prompt]) -> Answer:
    """What is known, and a refusal to anything else."""
    other = words(layouts, REFUSAL)
    return lambda prompt: Generation(known.get(prompt, other), "eot")


def examined(
    layouts: Layouts,
    items: Sequence[EvalRow],
    model: Mapping[Prompt, Prompt],
    base: Mapping[Prompt, Prompt] | None = None,
    written: Sequence[EvalText] = (),
) -> Report:
    """The report on a model that knows ``model``, beside a base that knows ``base``."""
    text_model = Scripted(layouts, answers(layouts, base)) if base is not None else None
    scripted = Scripted(layouts, answers(layouts, model))
    ears = Ears(items)
    hearers = {RECOGNISER: ears}
    return evaluate(scripted, items, SETTINGS, 0, texts=written, base=text_model, recogniser=ears, hearers=hearers)


def test_a_model_that_knows_everything_gets_everything(layouts: Layouts) -> None:
    """Only prompts exactly as training lays them out are answered right, by the model and by its base."""
    items, written = world(), texts()
    known = knowledge(layouts, items, written)
    metrics = examined(layouts, items, known, known, written).metrics
    counts = {
        **{"spoken.held_out": 9, "spoken.seen_voices": 6, "spoken.odd_voices": 5, "spoken.facts": 6},
        **{"transcription.held_out_voices": 9, "transcription.seen_voices": 6, "transcription.facts": 6},
        **{"spoken.held_out.cascade": 9, "spoken.seen_voices.cascade": 6, "spoken.facts.cascade": 6},
        **{"text.held_out": 4, "text.facts": 4, "text.held_out.base": 4, "text.facts.base": 4},
        **{"refusal.noise_known": 3, "refusal.noise_new": 2, "refusal.random_codes": 9},
        **{"recall.seen": 1, "recall.new": 1, "mixed": 9, "speak": 6},
    }
    for suite, count in counts.items():
        assert metrics[f"{suite}.items"] == count, suite
        assert metrics[f"{suite}.exact_match"] == 1.0, suite
    assert metrics["refusal.false_refusals.items"] == 21
    for name in ("refusal.false_refusals.rate", "text.held_out.lost_points", "text.facts.lost_points"):
        assert metrics[name] == 0.0, name
    for name in ("transcription.held_out_voices.wer", "transcription.facts.cer", "speak.wer", "speak.real_wer"):
        assert metrics[name] == 0.0, name
    assert metrics["spoken.facts.cascade.p"] == metrics["text.facts.lost_points.p"] == 1.0
    assert metrics["loss.items"] == 18, "the held-out questions and their transcripts"


def test_every_measure_of_the_table_is_measured(layouts: Layouts) -> None:
    """A metric misspelt in bars.yaml would never be shown and never be missed."""
    items, written = world(), texts()
    known = knowledge(layouts, items, written)
    metrics = examined(layouts, items, known, known, written).metrics
    elsewhere = ("run.", "tokenizer.", "transcription.folder")  # human recordings: a test of their own
    missing = [name for name in table.known() if name not in metrics and not name.startswith(elsewhere)]
    assert missing == []


def test_a_world_without_rows_of_a_suite_measures_nothing_there(layouts: Layouts) -> None:
    items = rows("seen_voices", 4, 2)
    metrics = examined(layouts, items, knowledge(layouts, items, ())).metrics
    for suite in ("spoken.held_out", "spoken.facts", "transcription.facts", "text.held_out", "recall.new", "mixed"):
        found = {name: value for name, value in metrics.items() if name.startswith(f"{suite}.")}
        assert found == {f"{suite}.items": 0.0, f"{suite}.set_aside": 0.0}
    assert metrics["refusal.random_codes.items"] == metrics["refusal.noise_new.items"] == 0
    assert not any("cascade" in name or "lost_points" in name or ".base" in name for name in metrics), "no base model"
    assert "spoken_answers.items" not in metrics, "no row belongs to the suites of any corpus"


def test_plain_rows_beside_a_world_are_asked_as_ever(layouts: Layouts) -> None:
    plain = [replace(row, suite="") for row in rows("plain", 3, 8)]
    metrics = examined(layouts, [*rows("held_out", 2, 1), *plain], {}).metrics
    assert (metrics["spoken_answers.items"], metrics["spoken.held_out.items"]) == (3, 2)


def test_topics_and_everything_but_repeating(layouts: Layouts) -> None:
    """9 rows, topics device, repeat, timer in turn; wrong on both repeat rows 1 and 4 and on device row 0."""
    items = rows("held_out", 9, 1)
    known = knowledge(layouts, items, ())
    for at in (0, 1, 4):
        del known[asked(layouts, "speech", (items[at].codes, ""))]
    metrics = examined(layouts, items, known).metrics
    prefix = "spoken.held_out"
    assert metrics[f"{prefix}.exact_match"] == pytest.approx(6 / 9)
    assert metrics[f"{prefix}.repeat"] == pytest.approx(1 / 3)
    assert metrics[f"{prefix}.repeat.items"] == 3
    assert metrics[f"{prefix}.device"] == pytest.approx(2 / 3)
    assert metrics[f"{prefix}.without_repeat"] == pytest.approx(5 / 6)
    low, high = wilson_interval(5, 6)
    assert (metrics[f"{prefix}.without_repeat.low"], metrics[f"{prefix}.without_repeat.high"]) == (low, high)


def test_refusals_are_counted_where_there_was_something_to_hear(layouts: Layouts) -> None:
    items = [*rows("held_out", 6, 1), *rows("facts", 4, 3), *noise("noise_known", 4, 4)]
    known = knowledge(layouts, items, ())
    del known[asked(layouts, "speech", (items[2].codes, ""))]  # what is not known is refused
    known[asked(layouts, "speech", (items[10].codes, ""))] = words(layouts, "turning on the fan")
    metrics = examined(layouts, items, known).metrics
    assert (metrics["refusal.false_refusals.rate"], metrics["refusal.false_refusals.items"]) == (0.1, 10)
    assert metrics["refusal.noise_known.exact_match"] == 0.75


def test_random_codes_are_as_long_as_speech_and_nothing_that_was_said(layouts: Layouts) -> None:
    items = [*rows("held_out", 5, 1), *noise("noise_new", 1, 4)]
    items[0] = replace(items[0], codes=codes(77, 33))
    model = Scripted(layouts, says(layouts, REFUSAL))
    report = evaluate(model, items, SETTINGS, 0)
    prompts = [prompt for prompt in model.prompts if len(prompt) == len(asked(layouts, "noise", (codes(0, 33), "")))]
    speech = asked(layouts, "speech", (items[0].codes, ""))
    assert len([prompt for prompt in prompts if prompt != speech]) == 1
    again = Scripted(layouts, says(layouts, REFUSAL))
    assert evaluate(again, items[::-1], SETTINGS, 0).metrics == report.metrics
    assert sorted(again.prompts) == sorted(model.prompts)


def test_the_base_answers_what_the_model_understood(layouts: Layouts) -> None:
    """A cascade: item 0 misheard, item 1 not heard at all, item 2 heard well though answered wrong directly."""
    items = rows("held_out", 5, 1)
    known, base = knowledge(layouts, items, ()), knowledge(layouts, items, ())
    for at, heard in ((0, "ask for thing 3"), (1, "")):
        for prompt in TRANSCRIPTION_PROMPTS:
            known[asked(layouts, "transcription", (items[at].codes, ""), prompt=prompt)] = words(layouts, heard)
    del known[asked(layouts, "speech", (items[2].codes, ""))]
    text_model = Scripted(layouts, answers(layouts, base))
    report = evaluate(Scripted(layouts, answers(layouts, known)), items, SETTINGS, 0, base=text_model)
    transcripts = ["ask for thing 3", "ask for thing 2", "ask for thing 3", "ask for thing 4"]
    assert sorted(text_model.prompts) == sorted(asked(layouts, "text", (text, "")) for text in transcripts)
    found = {item.id: item for item in report.items if (item.suite, item.system) == ("spoken.held_out", "cascade")}
    assert [found[row.id].outcome for row in items] == ["wrong", "empty", "right", "right", "right"]
    assert found["held_out-000"].hypothesis == "here is thing 3"
    metrics = report.metrics
    assert metrics["spoken.held_out.cascade.exact_match"] == pytest.approx(3 / 5)
    assert metrics["spoken.held_out.cascade.mute_rate"] == pytest.approx(1 / 5)
    assert (metrics["spoken.held_out.cascade.only_direct"], metrics["spoken.held_out.cascade.only_cascade"]) == (2, 1)
    assert metrics["spoken.held_out.cascade.p"] == mcnemar_exact(2, 1)
    assert metrics["transcription.held_out_voices.wer"] == pytest.approx((1 + 4) / 20)


def test_voices_of_one_fact_are_no_independent_witnesses(layouts: Layouts) -> None:
    """Six facts by eight voices; all voices of a fact agree. Four facts are known, one more to the cascade."""
    items = [
        replace(row, id=f"fact-{fact}-{voice}", text=f"what is fact {fact}", answer=f"fact {fact} it is")
        for voice in range(8)
        for fact, row in enumerate(rows("facts", 6, 10 + voice))
    ]
    known, base = knowledge(layouts, items, ()), knowledge(layouts, items, ())
    for row in items:
        if row.text[-1] in "45":
            del known[asked(layouts, "speech", (row.codes, ""))]
        if row.text[-1] == "5":
            base.pop(asked(layouts, "text", (row.text, "")), None)
    metrics = examined(layouts, items, known, base).metrics
    assert (metrics["spoken.facts.items"], metrics["spoken.facts.facts"]) == (48, 6)
    assert metrics["spoken.facts.exact_match"] == pytest.approx(4 / 6)
    low, high = wilson_interval(32, 48)
    assert metrics["spoken.facts.exact_match.low"] < low - 0.1
    assert metrics["spoken.facts.exact_match.high"] > high + 0.1
    assert metrics["spoken.facts.timer.high"] - metrics["spoken.facts.timer.low"] > 0.5, "two facts, one known"
    assert (metrics["spoken.facts.cascade.only_direct"], metrics["spoken.facts.cascade.only_cascade"]) == (0, 1)
    assert metrics["spoken.facts.cascade.p"] == 1.0, "one fact proves nothing, however many voices ask for it"


def test_lost_points_are_paired_and_signed(layouts: Layouts) -> None:
    """Of four texts the base knows 0, 1, 2 and the model 0, 3; of the facts the model alone knows one."""
    written = texts()
    everything = knowledge(layouts, (), written)
    prompts = {text.id: asked(layouts, "text", (text.text, "")) for text in written}

    def only(*names: str) -> dict[Prompt, Prompt]:
        return {prompts[name]: everything[prompts[name]] for name in names}

    base = only("text_held_out-0", "text_held_out-1", "text_held_out-2")
    model = only("text_held_out-0", "text_held_out-3", "text_facts-1")
    metrics = examined(layouts, (), model, base, written).metrics
    assert metrics["text.held_out.lost_points"] == 25.0
    assert metrics["text.held_out.lost_points.p"] == mcnemar_exact(2, 1)
    assert (metrics["text.held_out.base.exact_match"], metrics["text.held_out.exact_match"]) == (0.75, 0.5)
    assert metrics["text.held_out.lost_points.low"] < 0 < metrics["text.held_out.lost_points.high"]
    assert metrics["text.facts.lost_points"] == -25.0, "a gain"


def test_a_conversation_goes_on_from_what_the_model_said(layouts: Layouts) -> None:
    """Its wrong second answer stands in the prompt of the third turn, and only the last turn is the suite's score."""
    items = [*dialogue("recall_seen", "one", MEMORY, 600), *dialogue("recall_seen", "two", MEMORY[::2], 700)]
    one, two = items[:3], items[3:]
    first = asked(layouts, "multi_turn", (one[0].codes, ""))
    second = asked(layouts, "multi_turn", (one[0].codes, "hello anna"), (one[1].codes, ""))
    third = asked(layouts, "multi_turn", (one[0].codes, "hello anna"), (one[1].codes, "what fan"), (one[2].codes, ""))
    known = {first: "hello anna", second: "what fan", third: "anna"}
    known[asked(layouts, "multi_turn", (two[0].codes, ""))] = "hello anna"
    model = Scripted(layouts, answers(layouts, {prompt: words(layouts, text) for prompt, text in known.items()}))
    report = evaluate(model, items, SETTINGS, 0)
    assert third in model.prompts
    assert len(model.prompts) == 5
    metrics = report.metrics
    assert (metrics["recall.seen.items"], metrics["recall.seen.exact_match"]) == (2, 0.5)
    assert (metrics["recall.seen.turn_1"], metrics["recall.seen.turn_2"], metrics["recall.seen.turn_3"]) == (1, 0, 1)
    assert metrics["recall.seen.turn_2.items"] == 2
    said = [(item.id, item.turn, item.hypothesis) for item in report.items]
    assert said == [
        ("one", 0, "hello anna"),
        ("one", 1, "what fan"),
        ("one", 2, "anna"),
        ("two", 0, "hello anna"),
        ("two", 1, REFUSAL),
    ]


def test_a_conversation_in_which_the_model_falls_silent_is_lost(layouts: Layouts) -> None:
    items = dialogue("recall_new", "one", MEMORY, 600)
    model = Scripted(layouts, lambda prompt: Generation((), "eot"))
    report = evaluate(model, items, SETTINGS, 0)
    assert len(model.prompts) == 1
    assert [item.outcome for item in report.items] == ["empty"] * 3
    assert report.metrics["recall.new.mute_rate"] == 1.0


def test_questions_are_mixed_in_both_orders_and_in_the_middle(layouts: Layouts) -> None:
    items = rows("held_out", 40, 1)
    items[0] = replace(items[0], word_ends=())  # where the words lie is not known
    model = Scripted(layouts, says(layouts, "here is thing 7"))
    report = evaluate(model, items, SETTINGS, 0)
    orders = {"speech_first": 0, "text_first": 0}
    for row in items[1:]:
        parts = {
            "speech_first": asked(layouts, "mixed", ((row.codes[:9], _last(row.text)), "")),
            "text_first": asked(layouts, "mixed", ((_first(row.text), row.codes[9:]), "")),
        }
        used = [name for name, prompt in parts.items() if prompt in model.prompts]
        assert len(used) == 1, row.id
        orders[used[0]] += 1
    metrics = report.metrics
    assert {name: metrics[f"mixed.{name}.items"] for name in orders} == orders
    assert min(orders.values()) > 10
    assert (metrics["mixed.items"], metrics["mixed.set_aside"]) == (39, 1)
    assert metrics["mixed.exact_match"] == pytest.approx(1 / 39)


def test_speech_is_judged_by_what_a_recogniser_hears_beside_real_speech(layouts: Layouts) -> None:
    """Row 0 is said as row 1 (one word of four wrong), row 2 not at all; the recogniser itself mishears row 3."""
    items = rows("seen_voices", 4, 2)
    known = knowledge(layouts, items, ())
    for prompt in SPEAK_PROMPTS:
        mine = asked(layouts, "speak", (items[0].text, ""), prompt=prompt)
        known[mine] = known[asked(layouts, "speak", (items[1].text, ""), prompt=prompt)]
        known[asked(layouts, "speak", (items[2].text, ""), prompt=prompt)] = words(layouts, "no sound at all")
    ears = Ears([*items[:3], replace(items[3], text="ask for anything 3")])
    report = evaluate(Scripted(layouts, answers(layouts, known)), items, SETTINGS, 0, recogniser=ears)
    assert report.metrics["speak.wer"] == pytest.approx((1 + 0 + 4 + 1) / 16)
    assert report.metrics["speak.real_wer"] == pytest.approx(1 / 16)
    said = [item for item in report.items if (item.suite, item.system) == ("speak", "model")]
    assert [item.outcome for item in said] == ["wrong", "right", "empty", "wrong"]
    assert report.metrics["speak.tokens_per_second"] == 25 * 3 / 4, (
        "three of four said at a person's pace, one not at all"
    )


@pytest.mark.parametrize(
    ("items", "written", "named"),
    [
        (rows("held_ot", 1), [], "'held_ot'"),
        ([], [EvalText("a", "b", "c", suite="facts")], "'facts'"),
        (dialogue("recall_new", "two", MEMORY, 5)[::2], [], "turns \\[0, 2\\]"),
    ],
)
def test_rows_that_no_suite_can_ask_are_refused(
    layouts: Layouts, items: list[EvalRow], written: list[EvalText], named: str
) -> None:
    with pytest.raises(DataError, match=named):
        examined(layouts, items, {}, None, written)


def test_a_base_model_is_asked_in_the_words_of_its_own_tokenizer(folders: tuple[Path, Path], tmp_path: Path) -> None:
    """Same ids as the expanded model's prompts, answers of the base's own weights, and no other tokenizer's base."""
    base, model = folders
    engine = Engine.open(model)
    text_engine = open_text_engine(base, engine.contract)
    sample = Sample("text", (Turn("turn on the light"),))
    assert ids(text_engine.layouts.prompt_for(sample)) == ids(engine.layouts.prompt_for(sample))
    prompt = [engine.layouts.prompt_for(sample)]
    (answer,), (expanded,) = text_engine.generate(prompt, 8, 1), engine.generate(prompt, 8, 1)
    assert all(token < engine.contract.text_vocabulary for token in answer.tokens)
    stop = next((at for at, token in enumerate(expanded.tokens) if token >= engine.contract.text_vocabulary), 8)
    assert answer.tokens[:stop] == expanded.tokens[:stop], "expansion left the text rows alone"
    other = make_base(tmp_path / "other", seed=9)
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text().replace("[", "[ ", 1))
    with pytest.raises(ContractError, match="text_tokenizer"):
        open_text_engine(other, engine.contract)


def test_real_models_give_the_same_report_in_any_order_and_batch(folders: tuple[Path, Path], tmp_path: Path) -> None:
    base, model = folders
    engine = Engine.open(model)
    text_engine = open_text_engine(base, engine.contract)
    items, written, reports = world(), texts(), []
    for batch, order in ((1, 1), (16, -1)):
        report = evaluate(
            engine,
            items[::order],
            Evaluation(items=5, max_new_tokens=4, batch=batch),
            2,
            texts=written[::order],
            base=text_engine,
            recogniser=Ears(items),
        )
        loss = report.metrics.pop("loss.held_out")  # a sum of floats, equal to rounding across batch sizes
        reports.append((report.metrics, [replace(item, nats=None) for item in report.items], pytest.approx(loss)))
    assert reports[0] == reports[1]
    (tmp_path / "out").mkdir()
    report.write(tmp_path / "out")
    assert Report.read(tmp_path / "out").items == report.items


def test_other_rows_are_measured_as_the_suite_measures_its_own(layouts: Layouts) -> None:
    """Right but for two rows; the same rows as a suite of the evaluation have the same numbers."""
    items = rows("held_out", 9, 1)
    known = knowledge(layouts, items, ())
    for at in (0, 4):
        del known[asked(layouts, "speech", (items[at].codes, ""))]
    expected = examined(layouts, items, known).metrics
    exam = Examiner(Scripted(layouts, answers(layouts, known)), SETTINGS, 0, refusals={REFUSAL})
    found = ask_again(exam, items)
    assert found["spoken.held_out.exact_match"] == pytest.approx(7 / 9)
    assert found["refusal.false_refusals.rate"] == pytest.approx(2 / 9), "what is unknown is answered with a refusal"
    assert found["spoken.held_out.refused_rate"] == pytest.approx(2 / 9)
    prefixes = ("spoken.held_out.", "transcription.held_out_voices.")
    assert {name: value for name, value in found.items() if name.startswith(prefixes)} == {
        name: value for name, value in expected.items() if name.startswith(prefixes) and f".{RECOGNISER}." not in name
    }
    assert {name for name in look.MEASURES if name in found} == set(look.MEASURES)


def test_items_say_what_was_asked(layouts: Layouts) -> None:
    items = rows("held_out", 2, 1)
    report = examined(layouts, items, knowledge(layouts, items, ()))
    first = next(item for item in report.items if item.suite == "spoken.held_out")
    tokens = len(words(layouts, "here is thing 0"))
    expected = ItemResult(
        suite="spoken.held_out",
        id="held_out-000",
        reference="here is thing 0",
        hypothesis="here is thing 0",
        outcome="right",
        tokens=tokens,
        question="ask for thing 0",
        topic="device",
        speaker="v",
        seconds=20 / 25,
        f1=1.0,
        nats=2.0 * (tokens + 1),
        nats_tokens=tokens + 1,
    )
    assert first == expected
