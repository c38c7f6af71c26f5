"""What is measured between stages, and what the recipe's bounds make of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ichigo import recipe as recipes
from ichigo.errors import ProbeError, StepError
from ichigo.evaluation import diagnosis
from ichigo.evaluation.items import EvalRow, EvalText
from ichigo.evaluation.probes import Chosen, choose, measure
from ichigo.inference.engine import Engine
from ichigo.language.contract import contract_for
from ichigo.language.layouts import IGNORE, Example, Layouts
from ichigo.language.mixing import NOISE_ANSWERS
from ichigo.recipe.schema import Evaluation, Probes, Stage, StageName
from ichigo.steps.probe import Looked, probe
from ichigo.steps.records import Records, RunRecord
from ichigo.store import Artifact, Identity, Store
from ichigo.store.objects import MemoryObjects
from ichigo.training.launch import began_and_ended
from tests.unit.evaluation_support import Scripted, codes, make_base, make_model, says

SETTINGS = Evaluation(items=8, max_new_tokens=12, batch=4)

# Found after each stage of runs that went well: tiny with seed 1, and smoke, which trains for a minute in all.
GOOD: dict[str, dict[StageName, dict[str, float]]] = {
    "tiny": {
        "pretrain": {"loss_fall": 0.59, "below_entropy": 2.957, "sound_gain": 5.0705, "text_rise": 1.2753},
        "instruct": {
            **{"loss_fall": 0.772, "below_entropy": 4.946, "sound_gain": 4.3581},
            **{"answer_gain": 5.3615, "text_rise": 0.0035, "false_refusals": 0.0},
        },
        "enhance": {
            **{"loss_fall": 0.485, "below_entropy": 4.799, "sound_gain": 4.2365},
            **{"answer_gain": 5.1855, "text_rise": 0.0067, "false_refusals": 0.0104},
        },
    },
    "smoke": {
        "pretrain": {"loss_fall": 0.27, "below_entropy": 1.2, "sound_gain": 1.0, "text_rise": 3.4},
        "instruct": {
            **{"loss_fall": 0.44, "below_entropy": 2.0, "sound_gain": 1.25},
            **{"answer_gain": 0.145, "text_rise": -3.0, "false_refusals": 0.0},
        },
        "enhance": {
            **{"loss_fall": 0.18, "below_entropy": 2.0, "sound_gain": 1.3},
            **{"answer_gain": 0.25, "text_rise": -4.0, "false_refusals": 0.0},
        },
    },
}


def stage_of(name: StageName, recipe: str = "tiny") -> Stage:
    return recipes.load(recipe).stage(name)


def found(measured: dict[str, float], stage: Stage, limits: Probes | None = None) -> list[str]:
    """The bounds that are not kept."""
    return [check.name for check in diagnosis.checks(measured, limits or Probes(), stage) if not check.kept]


@pytest.mark.parametrize("recipe", GOOD)
@pytest.mark.parametrize("name", recipes.STAGE_ORDER)
def test_good_runs_go_on(recipe: str, name: StageName) -> None:
    assert found(GOOD[recipe][name], stage_of(name, recipe)) == []


@pytest.mark.parametrize(
    ("name", "seen", "broken", "meaning"),
    [
        ("pretrain", {"sound_gain": 0.02}, "sound_gain", diagnosis.DEAF),
        ("instruct", {"answer_gain": -0.01}, "answer_gain", diagnosis.DEAF),
        ("instruct", {"text_rise": 4.1}, "text_rise", diagnosis.FORGETS),
        ("enhance", {"false_refusals": 0.5}, "false_refusals", diagnosis.REFUSES),
        ("enhance", {"loss_fall": 0.0}, "loss_fall", diagnosis.IDLE),
        ("pretrain", {"below_entropy": -0.03}, "below_entropy", diagnosis.IDLE),
        ("enhance", {"text_rise": math.nan}, "text_rise", diagnosis.FORGETS),
    ],
)
def test_each_failure_is_named(name: StageName, seen: dict[str, float], broken: str, meaning: str) -> None:
    stage = stage_of(name)
    checks = [check for check in diagnosis.checks(GOOD["tiny"][name] | seen, Probes(), stage) if not check.kept]
    assert [check.name for check in checks] == [broken]
    assert diagnosis.diagnosis(checks) == meaning
    said = diagnosis.reason(name, checks)
    assert f"stage {name}" in said
    assert f"probes.{broken}" in said
    assert "What to change: " in said


def test_text_that_is_forgotten_while_only_sound_is_learned_is_no_failure() -> None:
    lost = {"text_rise": 9.0}
    assert found(lost, stage_of("pretrain")) == []
    with_text = stage_of("pretrain").model_copy(update={"mix": {"sound": 0.9, "text": 0.1}})
    assert found(lost, with_text) == ["text_rise"]


def test_a_bound_can_be_moved_or_switched_off() -> None:
    lost, stage = {"text_rise": 0.7}, stage_of("instruct")
    assert found(lost, stage) == ["text_rise"]
    assert found(lost, stage, Probes(text_rise=0.8)) == []
    assert found(lost, stage, Probes(text_rise=None)) == []


def test_two_failures_with_one_cause_are_one_diagnosis() -> None:
    measured = GOOD["tiny"]["instruct"] | {"sound_gain": 0.0, "answer_gain": 0.0, "text_rise": 3.0}
    broken = [check for check in diagnosis.checks(measured, Probes(), stage_of("instruct")) if not check.kept]
    assert diagnosis.diagnosis(broken) == f"{diagnosis.DEAF} and {diagnosis.FORGETS}"


def test_the_curve_is_read_at_both_ends() -> None:
    assert began_and_ended([4.0, 3.0, 2.0]) == {"loss_began": 4.0, "loss_ended": 2.0}
    curve = began_and_ended([float(loss) for loss in range(100, 0, -1)])
    assert curve == {"loss_began": 95.5, "loss_ended": 5.5}
    assert diagnosis.curve(4.0, 3.0, 5.0) == {"loss_fall": 0.25, "below_entropy": 2.0}
    assert diagnosis.curve(0.0, 0.0, 5.0)["loss_fall"] == 0.0


def test_losses_that_are_no_numbers_stop_the_run() -> None:
    assert diagnosis.not_finite("enhance", {"text_rise": 0.1, "sound_gain": 4.0}) == ""
    said = diagnosis.not_finite("enhance", {"text_rise": math.nan, "sound_gain": 4.0, "answer_own": math.inf})
    assert "text_rise nan, answer_own inf" in said
    assert "learning_rate" in said


class Counting(Scripted):
    """Expects sound codes to rise by one: a nat for each token that does not follow from the one before."""

    def loss(self, examples: Sequence[Example], batch: int, what: str = "loss") -> tuple[float, int]:
        missed = sum(int((np.diff(example.input_ids[1:-1]) != 1).sum()) for example in examples)
        return float(missed), sum(int((example.labels != IGNORE).sum()) for example in examples)


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Layouts:
    base = make_base(tmp_path_factory.mktemp("probes") / "base")
    return Layouts.open(base, contract_for(base, "a" * 64))


def row(at: int, **changes: Any) -> EvalRow:
    ascending = np.arange(at, at + 20, dtype=np.int16)
    plain = EvalRow(f"row-{at}", ascending, "turn on the light", f"answer {at % 3}", "v", "device", "held_out")
    return replace(plain, **changes)


class TestMeasuring:
    """:mod:`ichigo.evaluation.probes`."""

    def test_speech_is_compared_with_its_own_tokens_in_random_order(self, layouts: Layouts) -> None:
        engine = Counting(layouts, says(layouts, "fine"))
        chosen = choose([row(at) for at in range(6)], [], items=4, seed=1)
        seen = measure(engine, engine, chosen, SETTINGS, 1, answers=False)
        assert seen["sound_items"] == 4
        assert seen["sound_real"] < 0.2 < 0.7 < seen["sound_shuffled"]
        assert seen["sound_gain"] == pytest.approx(seen["sound_shuffled"] - seen["sound_real"])
        assert "answer_gain" not in seen
        assert "false_refusals" not in seen

    def test_answers_are_compared_with_those_to_other_questions(self, layouts: Layouts) -> None:
        """Of questions with one answer none is another's opposite: nothing can be compared."""

        class Hears(Scripted):
            def loss(self, examples: Sequence[Example], batch: int, what: str = "loss") -> tuple[float, int]:
                wrong = [one for one in examples if not self.fits(one)]
                return float(len(wrong)), len(examples)

            def fits(self, example: Example) -> bool:
                sound = example.input_ids[example.input_ids >= self.contract.first_sound]
                said = self.layouts.answer_of(example.labels[example.labels != IGNORE])
                return not len(sound) or said == f"answer {(sound[0] - self.contract.first_sound) % 3}"

        rows = [row(at) for at in range(9)]
        engine, deaf = Hears(layouts, says(layouts, "fine")), Scripted(layouts, says(layouts, "fine"))
        chosen = choose(rows, [], items=9, seed=1)
        assert measure(engine, deaf, replace(chosen, speech=()), SETTINGS, 1, answers=True)["answer_gain"] == 1.0
        assert measure(deaf, deaf, chosen, SETTINGS, 1, answers=True)["answer_gain"] == 0.0
        alike = choose([replace(one, answer="the same") for one in rows], [], items=9, seed=1)
        assert "answer_gain" not in measure(deaf, deaf, alike, SETTINGS, 1, answers=True)

    def test_text_is_compared_with_the_model_that_training_began_with(self, layouts: Layouts) -> None:
        now, before = (Scripted(layouts, says(layouts, "fine"), nats) for nats in (2.0, 0.5))
        chosen = Chosen((), (), (("a", "b"), ("c", "d")), ())
        seen = measure(now, before, chosen, SETTINGS, 1, answers=True)
        assert seen == {"text_model": 2.0, "text_base": 0.5, "text_rise": 1.5, "text_items": 2.0}

    @pytest.mark.parametrize(("answer", "share"), [("no idea sir", 1.0), ("answer one", 0.0)])
    def test_a_refusal_is_what_the_corpus_says_to_noise(self, layouts: Layouts, answer: str, share: float) -> None:
        noise = row(50, text="", answer="No idea, sir!", suite="noise_known")
        chosen = choose([noise, *(row(at) for at in range(5))], [], items=5, seed=1)
        assert chosen.refusals == ("No idea, sir!",)
        engine = Scripted(layouts, says(layouts, answer))
        seen = measure(engine, engine, replace(chosen, speech=()), SETTINGS, 1, answers=True)
        assert (seen["false_refusals"], seen["refusal_items"]) == (share, 5.0)

    def test_the_sample_is_clean_and_the_same_in_any_order(self) -> None:
        hard = [row(30, suite="facts"), row(31, suite="odd_voices"), row(32, dialogue="d"), row(33, codes=codes(1, 0))]
        published = row(41, text="", answer="no refusal", suite="", topic="tokens")
        rows = [*(row(at) for at in range(10)), *hard, row(40, answer=None), published, row(42, text="", answer=None)]
        texts = [EvalText("t", "one plus one", "two", suite="text_held_out"), EvalText("u", "and", "so", dialogue="d")]
        chosen = choose(rows, texts, items=20, seed=1)
        assert {one.id for one in chosen.speech} == {f"row-{at}" for at in (*range(10), 40, 41)}
        assert {one.id for one in chosen.questions} == {f"row-{at}" for at in (*range(10), 41)}
        assert chosen.written == (("one plus one", "two"),)
        assert chosen.refusals == NOISE_ANSWERS
        few, again = choose(rows, [], 3, 1), choose(rows[::-1], [], 3, 1)
        assert [one.id for one in few.speech] == [one.id for one in again.speech]
        assert set(few.written) <= {(one.text, one.answer) for one in rows}
        assert [one.id for one in choose(rows, [], 3, 2).speech] != [one.id for one in few.speech]


class Tree:
    """MLflow's runs in memory."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.tags: dict[str, str] = {}

    def open_step(self, name: str, run_key: str) -> str:
        return name

    def reopen_step(self, run: str) -> None:
        pass

    def log_inputs(self, run: str, inputs: object) -> None:
        pass

    def log_metrics(self, run: str, metrics: dict[str, float]) -> None:
        self.metrics |= metrics

    def set_tags(self, run: str, tags: dict[str, str]) -> None:
        self.tags |= tags


class TestStep:
    """:mod:`ichigo.steps.probe` on a model with random weights, which hears nothing yet."""

    @pytest.fixture
    def looked(self, tmp_path: Path) -> Looked:
        from ichigo.corpus.tokens import TokenRow, write_tokens
        from ichigo.language.contract import TokenContract

        base = make_base(tmp_path / "base")
        model = make_model(base, tmp_path / "model")
        rows = [
            TokenRow(f"r{at}", codes(at), "turn on", f"answer {at}", "v", "test", "en", "l", 0.8, "spoken")
            for at in range(4)
        ]
        write_tokens(rows, tmp_path / "tokens")
        TokenContract.load(model).save(tmp_path / "tokens")
        self.store = Store(MemoryObjects())
        curve = {"loss_began": 7.0, "loss_ended": 5.0}
        return Looked(
            self.committed(model, curve),
            self.committed(base),
            self.committed(tmp_path / "tokens", name="corpus"),
            [self.committed(tmp_path / "tokens")],
            self.committed(base, {"instruct.label_entropy": 6.0}, name="mix"),
        )

    def committed(self, folder: Path, facts: dict[str, float] | None = None, name: str = "") -> Artifact:
        with self.store.write(Identity(name or folder.name, {}, {}, "code"), parents={}) as draft:
            for file in folder.iterdir():
                (draft.folder / file.name).write_bytes(file.read_bytes())
            draft.facts.update(facts or {})
        return draft.committed

    def step(self, *overrides: str) -> Any:
        from ichigo.steps.context import Step

        recipe = recipes.load("tiny", ["evaluation.max_new_tokens=4", "probes.text_rise=null", *overrides])
        step = Step("probe-instruct", Records(self.store, "run"), RunRecord("run", "", "", ""), recipe)
        step._tree = Tree()  # type: ignore[assignment]
        return step

    def test_a_bad_model_stops_the_run_and_says_why_everywhere(self, looked: Looked) -> None:
        step = self.step()
        with pytest.raises(
            ProbeError, match=r"sound tokens are not used.*sound_gain .* at least 0\.5: NOT kept"
        ) as caught:
            probe(step, "instruct", looked)
        assert caught.value.exit_code == StepError.exit_code
        assert step.record.facts["diagnosis"] == step.tree.tags["ichigo.diagnosis"] == diagnosis.DEAF
        assert step.tree.metrics["sound_gain"] == pytest.approx(step.record.facts["sound_gain"], abs=1e-6)
        assert step.record.facts["loss_fall"] == pytest.approx(2 / 7)
        assert step.record.facts["below_entropy"] == 1.0
        assert step.record.facts["sound_items"] == 4

    def test_other_bounds_judge_without_measuring_again(self, looked: Looked, monkeypatch: pytest.MonkeyPatch) -> None:
        off = ("probes.sound_gain=null", "probes.answer_gain=null")
        probe(self.step(*off), "instruct", looked)
        monkeypatch.setattr(Engine, "open", SimpleNamespace())  # cannot be called
        again = self.step("probes.sound_gain=-1", "probes.answer_gain=null")
        probe(again, "instruct", looked)
        assert again.record.status == "reused"
        assert again.tree.metrics == {}
        with pytest.raises(ProbeError, match="the stage did not learn"):
            probe(self.step(*off, "probes.below_entropy=2"), "instruct", looked)

    @pytest.mark.parametrize("override", ["probes.enabled=false", "stages.instruct.enabled=false"])
    def test_nothing_is_measured_of_what_is_not_to_be_judged(self, looked: Looked, override: str) -> None:
        step = self.step(override)
        before = set(self.store.objects.list(""))
        probe(step, "instruct", looked)
        assert step.record.status == "skipped"
        assert step.record.artifact["uri"] == looked.model.reference.uri
        assert set(self.store.objects.list("")) == before
