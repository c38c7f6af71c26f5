"""A finished run in a store, as a pipeline leaves it: a corpus of synthetic sounds and two recordings, an evaluation,
step records and a summary. Nothing is trained."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from ichigo import recipe as recipes
from ichigo.corpus.rows import Rejected, Row
from ichigo.corpus.shards import Quarantine, write_shards
from ichigo.evaluation import measures
from ichigo.evaluation.items import ItemResult, Report
from ichigo.recipe.schema import Recipe
from ichigo.speech.audio import write_flac
from ichigo.steps.records import Records, RunRecord, StepRecord, save_recipe
from ichigo.steps.summary import summarise
from ichigo.store import Artifact, Identity, Store

BEGAN = 1_780_000_000.0  # seconds since the epoch
HOSTILE = "<script>alert('heard')</script>"
ENDLESS = "and on " * 1429  # 10,003 characters
SUITES = ("spoken_answers", "text_answers", "transcription")
ASKED = 12  # rows that are asked

Says = Callable[[str, int], str]
"""Suite and number of an item -> what the model answers."""


def usual(suite: str, number: int) -> str:
    """Right but for every third answer; one is a script, one never ends."""
    return {0: HOSTILE, 3: ENDLESS}.get(number, "no idea") if number % 3 == 0 else reference(suite, number)


def reference(suite: str, number: int) -> str:
    """What is expected."""
    return question(number) if suite == "transcription" else f"the answer is {number}"


def question(number: int) -> str:
    """What is asked."""
    return f"what is number {number}"


def rows() -> list[Row]:
    """Training rows, and :data:`ASKED` test rows, the last two of which are recordings of people."""
    return [_row(number, "test") for number in range(ASKED)] + [_row(number, "train") for number in range(20, 24)]


def _row(number: int, split: Any) -> Row:
    wave = 0.3 * np.sin(np.arange(16_000) * 2 * np.pi * (200 + 20 * number) / 16_000)
    person = number in (ASKED - 1, ASKED - 2)
    return Row(
        id=f"{number:016x}",
        text=question(number),
        answer=f"the answer is {number}",
        speaker="anna" if person else "en-us+m1",
        split=split,
        language="en",
        license="CC0-1.0",
        seconds=1.0,
        audio=write_flac(wave.astype(np.float32)),
        origin="folder" if person else "spoken",
    )


def results(says: Says = usual, asked: Sequence[int] = range(ASKED)) -> list[ItemResult]:
    """The items of every suite."""
    return [_result(suite, number, says(suite, number)) for suite in SUITES for number in asked]


def _result(suite: str, number: int, answer: str) -> ItemResult:
    outcome: Any = "right" if answer == reference(suite, number) else "degenerate" if answer == ENDLESS else "wrong"
    kind = "transcription" if suite == "transcription" else "speech"
    made = ItemResult(
        suite, f"{number:016x}", reference(suite, number), answer, outcome, 5, question(number), kind=kind
    )
    return made.scored()


def metrics_of(items: Sequence[ItemResult]) -> dict[str, float]:
    """What the evaluation measures on them."""
    found: dict[str, float] = {}
    for suite in SUITES:
        own = [item for item in items if item.suite == suite]
        found |= measures.transcripts(suite, own, 1) if suite == "transcription" else measures.answers(suite, own)
    return found


def finished_run(
    store: Store,
    folder: Path,
    key: str,
    *,
    items: Sequence[ItemResult] | None = None,
    recipe: Recipe | None = None,
    run: Mapping[str, Any] | None = None,
) -> Records:
    """Write a run that succeeded into ``store``; ``run`` changes the run's record. The summary is as the exit handler
    writes it, the report is not made."""
    known = recipe or recipes.load("smoke")
    judged = results() if items is None else list(items)
    uri, digest = save_recipe(store, known)
    record = RunRecord(key, uri, digest, recipes.fingerprint(known), started=BEGAN)
    record = replace(record, **(run or {}))
    records = Records(store, key)
    records.save_run(record)
    for step in _steps(store, folder, key, judged, known):
        records.save_step(step)
    records.save_summary(summarise(record, known, records.steps(), "succeeded", "", store.objects.uri))
    return records


def _steps(store: Store, folder: Path, key: str, items: Sequence[ItemResult], recipe: Recipe) -> list[StepRecord]:
    corpus, report = folder / key / "corpus", folder / key / "evaluation"
    line = Rejected(3, "a.wav", "too_long", f"{HOSTILE} is 40 s long", "data.folder", "metadata.jsonl")
    with Quarantine(corpus) as quarantine:
        quarantine.add(line)
    write_shards(rows(), corpus, 2, quarantine.counts)
    survey = {"sources": {}, "examples": {"too_long": [asdict(line)]}, "overlap": {"items": 0}}
    (corpus / "survey.json").write_text(json.dumps(survey))
    report.mkdir(parents=True)
    metrics = metrics_of(items)
    Report(metrics, tuple(items), recipe.evaluation, recipe.seed, "c" * 64).write(report)
    model = folder / key / "model"
    model.mkdir()
    (model / "weights").write_text(recipes.fingerprint(recipe))
    settings = {"seed": recipe.seed}
    rule = {"metric": "spoken_answers.exact_match", "found": 0.5, "bound": "at least 0.4", "kept": True, "worse": False}
    rule["line"] = "kept: spoken_answers.exact_match is 0.5, at least 0.4 asked; no incumbent"
    made: list[tuple[str, Any, dict[str, Any]]] = [
        ("prepare", _commit(store, "corpus", corpus, settings, key), {"rows": 16, "set_aside": 1}),
        ("pretrain", _commit(store, "model-pretrain", model, settings, key), {"steps": 80, "loss": 2.5}),
        ("evaluate", _commit(store, "evaluation", report, settings, key), {"metrics": metrics}),
        ("gate", None, {"verdict": "promote", "rules": [rule]}),
    ]
    return [_record(number, name, artifact, facts) for number, (name, artifact, facts) in enumerate(made)]


def _record(number: int, name: str, artifact: Artifact | None, facts: dict[str, Any]) -> StepRecord:
    begin = BEGAN + 10 * number
    at = None
    if artifact:
        at = {"kind": artifact.reference.kind, "uri": artifact.reference.uri, "digest": artifact.digest}
    reason = f"no {name} was made before" if artifact else ""
    times: dict[str, Any] = {
        "process_started": begin,
        "entered": begin + 1,
        "started": begin + 2,
        "finished": begin + 9,
    }
    return StepRecord(name, "done", reason, **times, peak_memory=2**30, artifact=at, facts=facts)


def _commit(store: Store, kind: str, folder: Path, settings: Mapping[str, Any], run: str) -> Artifact:
    with store.write(Identity(kind, {**settings, "run": run}, {}, "code"), parents={}, run=run) as draft:
        for path in folder.iterdir():
            (draft.folder / path.name).write_bytes(path.read_bytes())
    return draft.committed


def curve(steps: int, start: float) -> dict[int, dict[str, float]]:
    """A falling loss."""
    return {step: {"loss": start / (step + 1), "learning_rate": 1e-3, "grad_norm": 1.0} for step in range(steps)}
