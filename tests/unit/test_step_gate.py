"""What the gate's step takes from an evaluation: its numbers, and which items they are of."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ichigo.evaluation.items import ItemResult, Report
from ichigo.recipe.schema import Evaluation
from ichigo.registry.gate import Evidence
from ichigo.steps.gate import asked, evidence
from ichigo.store import Identity, MemoryObjects, Store

SPOKEN, TEXT = "spoken.held_out", "text.held_out"


def item(suite: str, name: str, hypothesis: str = "yes", **changes: object) -> ItemResult:
    known = {"reference": "yes", "question": f"is it {name}", **changes}
    return ItemResult(suite=suite, id=name, hypothesis=hypothesis, outcome="right", tokens=3, **known)  # type: ignore[arg-type]


ITEMS = (item(SPOKEN, "a"), item(SPOKEN, "b"), item(TEXT, "a"))


def report(*items: ItemResult, **settings: int) -> Report:
    return Report({f"{SPOKEN}.exact_match": 0.5}, items, Evaluation(**settings), 1, "contract")


def test_the_same_questions_are_the_same_items_whatever_was_answered_in_whatever_order() -> None:
    other = tuple(replace(one, hypothesis="no", outcome="wrong", tokens=9) for one in reversed(ITEMS))
    assert asked(report(*ITEMS)) == asked(report(*other))
    assert set(asked(report(*ITEMS))) == {"", SPOKEN, TEXT}


@pytest.mark.parametrize(
    "changed",
    [{"id": "c"}, {"question": "is it not"}, {"reference": "no"}, {"turn": 1}],
    ids=["another item", "another question", "another answer expected", "another turn"],
)
def test_another_question_makes_other_items_of_its_suite_alone(changed: dict[str, object]) -> None:
    before = asked(report(*ITEMS))
    after = asked(report(replace(ITEMS[0], **changed), *ITEMS[1:]))  # type: ignore[arg-type]
    assert {suite for suite in before if before[suite] != after[suite]} == {"", SPOKEN}


def test_one_item_fewer_is_other_items() -> None:
    assert asked(report(*ITEMS))[SPOKEN] != asked(report(*ITEMS[1:]))[SPOKEN]


def test_a_longer_answer_allowed_is_another_question_and_a_larger_batch_is_not() -> None:
    before = asked(report(*ITEMS, batch=4))
    assert asked(report(*ITEMS, batch=8)) == before
    longer = asked(report(*ITEMS, batch=4, max_new_tokens=99))
    assert all(longer[suite] != before[suite] for suite in before)


def test_the_evidence_is_read_from_the_committed_evaluation() -> None:
    found, store = report(*ITEMS), Store(MemoryObjects())
    with store.write(Identity("evaluation", {}, {}, ""), parents={}) as draft:
        found.write(draft.folder)
    assert evidence(draft.committed) == Evidence(found.metrics, asked(found))
