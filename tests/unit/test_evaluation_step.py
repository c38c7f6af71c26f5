"""The evaluate step's own part: from committed artifacts and rows of a corpus to a report."""

from __future__ import annotations

import shutil
from dataclasses import fields, replace
from pathlib import Path

import pytest

from ichigo.corpus.rows import Split
from ichigo.corpus.texts import TextRow
from ichigo.corpus.tokens import TokenRow
from ichigo.evaluation.items import EvalRow, EvalText
from ichigo.recipe.schema import Evaluation
from ichigo.steps.evaluate import Subject, examine
from ichigo.store import Artifact, Identity, Store
from ichigo.store.objects import MemoryObjects
from tests.unit.evaluation_support import codes, make_base, make_model

SETTINGS = Evaluation(items=8, max_new_tokens=4, batch=4)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    """A model, its base and a tokenizer without recogniser, in a store."""
    store, folder = Store(MemoryObjects()), tmp_path_factory.mktemp("parts")
    base = make_base(folder / "base")
    model = make_model(base, folder / "model")
    tokenizer = folder / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_text("{}")

    def committed(source: Path) -> Artifact:
        with store.write(Identity(source.name, {}, {}, "code"), parents={}) as draft:
            shutil.copytree(source, draft.folder, dirs_exist_ok=True)
        return draft.committed

    return Subject(committed(model), committed(base), committed(tokenizer))


def spoken(at: int, suite: str, split: Split = "test") -> TokenRow:
    return TokenRow(
        id=f"row-{at}",
        codes=codes(at),
        text="turn on the light",
        answer="good morning",
        speaker="v",
        split=split,
        language="en",
        license="l",
        seconds=0.8,
        origin="spoken",
        topic="device",
        suite=suite,
        word_ends=(5, 10, 15, 20),
    )


def test_a_world_is_compared_with_its_base_and_other_rows_are_not(subject: Subject) -> None:
    text = TextRow("t", "turn on the light", "good morning", "test", "device", "text_held_out")
    world = examine(subject, [spoken(1, "held_out"), spoken(2, "seen_voices")], [text], SETTINGS, 0).metrics
    for suite in ("spoken.held_out", "spoken.held_out.cascade", "text.held_out", "text.held_out.base", "mixed"):
        assert world[f"{suite}.items"] == 1, suite
    assert world["spoken.held_out.device.items"] == 1, "the topic arrived"
    assert world["speak.items"] == 0, "a tokenizer that was not fitted has no recogniser"
    plain = examine(subject, [spoken(1, "")], [], SETTINGS, 0).metrics
    assert plain["spoken_answers.items"] == 1
    assert "transcription.device" not in plain
    assert not any(name.startswith(("spoken.", "text.")) for name in plain)


def test_recordings_are_told_apart_from_synthetic_voices(subject: Subject) -> None:
    recording = replace(spoken(1, ""), origin="folder", answer=None, topic="")
    metrics = examine(subject, [recording, spoken(2, ""), spoken(3, "")], [], SETTINGS, 0).metrics
    assert (metrics["transcription.folder.items"], metrics["transcription.spoken.items"]) == (1, 2)
    assert {"transcription.folder", "transcription.folder.low", "transcription.folder.high"} <= metrics.keys()


def test_rows_have_every_field_that_an_evaluation_reads() -> None:
    """The step copies fields by name from the corpus's rows."""
    assert {field.name for field in fields(EvalRow)} <= {field.name for field in fields(TokenRow)}
    assert {field.name for field in fields(EvalText)} <= {field.name for field in fields(TextRow)}
