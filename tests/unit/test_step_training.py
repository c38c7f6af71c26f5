"""What the steps ``base`` and ``train`` do themselves: conversations of a corpus, and a stage that the recipe skips."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ichigo import recipe as recipes
from ichigo.corpus.texts import TextRow
from ichigo.errors import ContractError
from ichigo.language.contract import TokenContract
from ichigo.recipe.schema import StageName
from ichigo.steps.base import conversations_of
from ichigo.steps.context import Step
from ichigo.steps.expand import require_contract
from ichigo.steps.records import Records, RunRecord
from ichigo.steps.train import lineage_of, trained
from ichigo.store import Artifact, Identity, Store
from ichigo.store.objects import MemoryObjects


def committed(store: Store, kind: str) -> Artifact:
    with store.write(Identity(kind, {}, {}, "code"), parents={}) as draft:
        (draft.folder / "file").write_text(kind)
    return draft.committed


def test_a_skipped_stage_hands_its_start_on_and_says_so() -> None:
    store = Store(MemoryObjects())
    recipe = recipes.load("smoke", ["stages.pretrain.enabled=false"])
    step = Step("pretrain", Records(store, "run"), RunRecord("run", "", "", ""), recipe)
    start, data = committed(store, "expanded"), committed(store, "mix")
    before = set(store.objects.list(""))
    assert trained(step, "pretrain", start, data) is start
    assert set(store.objects.list("")) == before
    assert (step.record.status, step.record.reason) == ("skipped", "skipped by the recipe (enabled: false)")
    assert step.record.artifact == {"kind": "expanded", "uri": start.reference.uri, "digest": start.digest}


CONTRACT = TokenContract(0, 1, 2, 3, 4, 5, 6, 7, 8, 513, 521, 521, "text", "whispervq:ours")


def step_of(store: Store, name: StageName, *overrides: str) -> Step:
    """A step of a run whose recipe is ``smoke`` with overrides."""
    return Step(name, Records(store, "run"), RunRecord("run", "", "", ""), recipes.load("smoke", overrides))


class TestStartingElsewhere:
    """A run that goes on with a model of another one: ``ichigo run --from STEP --model …``."""

    @pytest.mark.parametrize(
        ("first", "skipped"),
        [("pretrain", 0), ("instruct", 1), ("enhance", 2), ("evaluate", 3)],
    )
    def test_the_stages_before_it_hand_the_model_on(self, first: str, skipped: int) -> None:
        store = Store(MemoryObjects())
        start, data = committed(store, "model-pretrain"), committed(store, "mix")
        for name in recipes.STAGE_ORDER[:skipped]:
            step = step_of(store, name, f"start={{step: {first}, model: {start.reference.uri}}}")
            assert trained(step, name, start, data) is start
            assert (step.record.status, step.record.reason) == ("skipped", f"skipped: the run starts at {first}")
        begin = recipes.load("smoke", [f"start={{step: {first}, model: s3://a/b}}"]).start
        assert begin
        assert [begin.skips(name) for name in recipes.STAGE_ORDER] == [True] * skipped + [False] * (3 - skipped)

    def test_a_model_of_another_contract_is_refused_before_any_stage(self) -> None:
        store = Store(MemoryObjects())
        ours, theirs = (with_contract(store, name) for name in ("whispervq:ours", "whispervq:theirs"))
        require_contract(ours, ours)
        with pytest.raises(ContractError, match="expected whispervq:ours, found whispervq:theirs") as caught:
            require_contract(theirs, ours)
        assert theirs.reference.uri in str(caught.value)


def with_contract(store: Store, tokenizer: str) -> Artifact:
    """An artifact that holds a contract with this speech tokenizer."""
    with store.write(Identity("model", {"tokenizer": tokenizer}, {}, "code"), parents={}) as draft:
        replace(CONTRACT, speech_tokenizer=tokenizer).save(draft.folder)
    return draft.committed


class TestLineage:
    """Which checkpoints may take each other's place."""

    def test_how_a_step_is_shared_out_makes_no_other_training(self) -> None:
        def lineage(*overrides: str) -> str:
            return lineage_of(recipes.load("smoke", overrides), "instruct", {"model": "m", "data": "d"})

        two = lineage("launch.processes=2", "launch.zero=1")
        assert lineage("launch.processes=1", "stages.instruct.accumulation=2", "launch.zero=2") == two
        assert lineage("launch.checkpoints.every=7", "launch.hang_seconds=9") == two
        assert lineage("launch.processes=1") != two
        assert lineage("stages.instruct.learning_rate=1e-4") != two
        assert lineage("seed=9") != two

    def test_other_inputs_are_another_training(self) -> None:
        recipe = recipes.load("smoke")
        found = {lineage_of(recipe, "instruct", {"model": model, "data": data}) for model in "ab" for data in "ab"}
        assert len(found) == 4


def test_the_base_reads_whole_conversations_of_the_training_split_in_the_order_of_their_turns() -> None:
    rows = [
        TextRow("a", "q a", "a a", "train"),
        TextRow("c", "second", "two", "train", dialogue="d", turn=1),
        TextRow("b", "first", "one", "train", dialogue="d", turn=0),
        TextRow("e", "said only", None, "train"),
        TextRow("t", "secret", "secret", "test"),
    ]
    assert conversations_of(rows) == [[("q a", "a a")], [("first", "one"), ("second", "two")]]
