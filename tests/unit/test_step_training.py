"""What the steps ``base`` and ``train`` do themselves: conversations of a corpus, and a stage that the recipe skips."""

from __future__ import annotations

from ichigo import recipe as recipes
from ichigo.corpus.texts import TextRow
from ichigo.steps.base import conversations_of
from ichigo.steps.context import Step
from ichigo.steps.records import Records, RunRecord
from ichigo.steps.train import trained
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


def test_the_base_reads_whole_conversations_of_the_training_split_in_the_order_of_their_turns() -> None:
    rows = [
        TextRow("a", "q a", "a a", "train"),
        TextRow("c", "second", "two", "train", dialogue="d", turn=1),
        TextRow("b", "first", "one", "train", dialogue="d", turn=0),
        TextRow("e", "said only", None, "train"),
        TextRow("t", "secret", "secret", "test"),
    ]
    assert conversations_of(rows) == [[("q a", "a a")], [("first", "one"), ("second", "two")]]
