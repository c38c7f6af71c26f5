"""``evaluate``: ask the trained model what it never met in training."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ichigo import recipe as recipes
from ichigo.steps.context import Step, open_step
from ichigo.steps.mix import text_rows, token_rows
from ichigo.store import Artifact, Draft

if TYPE_CHECKING:
    from ichigo.corpus.contamination import Asked, Training
    from ichigo.corpus.texts import TextRow
    from ichigo.corpus.tokens import TokenRow
    from ichigo.evaluation.items import EvalRow, EvalText
    from ichigo.evaluation.suites import Report
    from ichigo.recipe.schema import Evaluation

TEXTS_FILE = "texts.parquet"  # of a corpus that has written rows

_SMALL = 64 * 2**20
"""Bytes of a model whose matrices are too small to share: on cores that others use as well, two threads took 226 s for
what one does in 29 s (4,100 answers, width 128)."""


@dataclass(frozen=True)
class Subject:
    """A model and what it is judged with: the base it began with, its tokenizer."""

    model: Artifact
    base: Artifact
    tokenizer: Artifact


def main(run: str, *, model: str, base: str, tokenizer: str, corpus: str, tokens: list[str], evaluation: str) -> None:
    """Commit the evaluation report and write its reference to ``evaluation``."""
    with open_step("evaluate", run) as step:
        subject = Subject(step.open(model), step.open(base), step.open(tokenizer))
        shards, source = [step.open(path) for path in tokens], step.open(corpus)
        written = [source] if any(file.path == TEXTS_FILE for file in source.files) else []
        artifact = step.artifact(
            "evaluation",
            settings={"evaluation": recipes.identity(step.recipe.evaluation), "seed": step.recipe.seed},
            inputs={**vars(subject), **_numbered("corpus", written), **_numbered("tokens", shards)},
            digests={name: one.subset_digest(TEXTS_FILE) for name, one in _numbered("corpus", written).items()},
            build=lambda draft: _build(step, subject, written, shards, draft),
            modules=(__name__,),
        )
        artifact.reference.save(Path(evaluation))


def _numbered(name: str, artifacts: Sequence[Artifact]) -> dict[str, Artifact]:
    return {f"{name}-{number}": artifact for number, artifact in enumerate(artifacts)}


def _build(step: Step, subject: Subject, written: Sequence[Artifact], shards: Sequence[Artifact], draft: Draft) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folders = _fetched(subject, Path(scratch))
        rows = rows_of(folders, shards, written)
        report = judge(folders, rows, step.recipe.evaluation, step.recipe.seed, draft.folder, systems=_systems(subject))
    for note in report.notes:
        step.say(note)
    draft.facts["metrics"] = report.metrics
    step.log_metrics(report.metrics)


@dataclass(frozen=True)
class Folders:
    """A :class:`Subject` on this disk; ``tokenizer`` is None where none can be had."""

    model: Path
    base: Path
    tokenizer: Path | None


@dataclass(frozen=True)
class Rows:
    """What a run had: every row of its tokens, and the written ones of its corpus."""

    spoken: Sequence[TokenRow]
    written: Sequence[TextRow]


def rows_of(folders: Folders, shards: Sequence[Artifact], corpora: Sequence[Artifact]) -> Rows:
    """The rows in ``shards`` and in ``corpora`` with texts; :class:`~ichigo.errors.ContractError` for shards under
    another contract than the model's."""
    from ichigo.language.contract import TokenContract

    contract = TokenContract.load(folders.model)
    return Rows(token_rows(shards, contract), [row for corpus in corpora for row in text_rows(corpus)])


def judge(
    folders: Folders,
    rows: Rows,
    settings: Evaluation,
    seed: int,
    out: Path,
    *,
    systems: Mapping[str, str],
    only: Sequence[str] = (),
) -> Report:
    """Ask the model about the held-out ``rows``, compare what was asked with the rows of the training, and write the
    report, its items and what they share with training to ``out``.

    Raises what :func:`ichigo.evaluation.suites.evaluate` raises.
    """
    from ichigo.corpus.contamination import contamination, counts, write_matches

    tokens = [row for row in rows.spoken if row.split == "test"]
    texts = [row for row in rows.written if row.split == "test" and row.suite]
    report = ask(folders, tokens, texts, settings, seed, only=only, systems=systems)
    asked = _asked(report, tokens)
    matches = contamination(asked, _training(rows))
    report = replace(report, metrics=report.metrics | counts(matches, asked))
    report.write(out)
    write_matches(matches, out)
    return report


def _training(rows: Rows) -> Training:
    from ichigo.corpus.contamination import Training

    training = Training()
    for spoken in rows.spoken:
        if spoken.split == "train":
            training.add(spoken.id, spoken.text, spoken.codes)
    for written in rows.written:
        if written.split == "train":
            training.add(written.id, written.text)
    return training


def _asked(report: Report, rows: Sequence[TokenRow]) -> list[Asked]:
    """What the model was asked, as far as it can have stood in training: random sound tokens cannot."""
    from ichigo.corpus.contamination import Asked, sound_digest
    from ichigo.evaluation.items import MODEL

    sounds = {(row.dialogue or row.id, row.turn if row.dialogue else 0): sound_digest(row.codes) for row in rows}
    heard = ("speech", "transcription", "multi_turn", "noise")
    return [
        Asked(one.suite, one.id, one.turn, one.question, sounds.get(one.key, "") if one.kind in heard else "")
        for one in report.items
        if one.system == MODEL and one.suite != "refusal.random_codes"
    ]


def examine(
    subject: Subject, tokens: Sequence[TokenRow], texts: Sequence[TextRow], settings: Evaluation, seed: int
) -> Report:
    """Ask ``subject`` about held-out rows, see :func:`ask`."""
    with tempfile.TemporaryDirectory() as scratch:
        folders = _fetched(subject, Path(scratch))
        return ask(folders, tokens, texts, settings, seed, systems=_systems(subject))


def ask(
    folders: Folders,
    tokens: Sequence[TokenRow],
    texts: Sequence[TextRow],
    settings: Evaluation,
    seed: int,
    *,
    systems: Mapping[str, str],
    only: Sequence[str] = (),
) -> Report:
    """Ask a model about held-out rows.

    The base model and the recogniser, which imported tokenizers do not have, are opened for a world's suites alone.
    """
    from ichigo.evaluation.asking import open_text_engine
    from ichigo.evaluation.heard import hearers
    from ichigo.evaluation.items import EvalRow, EvalText
    from ichigo.evaluation.suites import evaluate
    from ichigo.inference.engine import Engine
    from ichigo.speech.lexicon import RECOGNISER_FILE, Recogniser

    spoken = [item(EvalRow, row) for row in tokens]
    written = [item(EvalText, row) for row in texts]
    of_world = bool(written) or any(row.suite for row in spoken)
    place = folders.tokenizer
    one_thread_if_small(sum(path.stat().st_size for path in folders.model.rglob("*") if path.is_file()))
    engine = Engine.open(folders.model)
    base = open_text_engine(folders.base, engine.contract) if of_world else None
    recogniser = Recogniser.open(place) if of_world and place and (place / RECOGNISER_FILE).is_file() else None
    return evaluate(
        engine,
        spoken,
        settings,
        seed,
        texts=written,
        base=base,
        recogniser=recogniser,
        hearers=hearers(spoken),
        only=only,
        systems=systems,
    )


def _fetched(subject: Subject, scratch: Path) -> Folders:
    model, base, tokenizer = (one.fetch(scratch / name) for name, one in vars(subject).items())
    return Folders(model, base, tokenizer)


def _systems(subject: Subject) -> dict[str, str]:
    """What each system is: its kind and its digest, which say the same wherever it lies."""
    return systems_of(*(f"{one.reference.kind} {one.digest}" for one in (subject.model, subject.base)))


def systems_of(model: str, base: str) -> dict[str, str]:
    """What the systems of an evaluation are, for its report."""
    cascade = "the model transcribes, the base answers"
    return {"model": model, "base": base, "cascade": cascade, "real_speech": "the tokenizer's recogniser"}


def one_thread_if_small(size: int) -> None:
    """Let this process compute on one core if a model of ``size`` bytes is too small to gain by more."""
    import torch

    if size < _SMALL:
        torch.set_num_threads(1)


Item = TypeVar("Item", "EvalRow", "EvalText")


def item(kind: type[Item], row: TokenRow | TextRow) -> Item:
    """What an evaluation knows of a row: the fields of the same names; where no suite names it, its topic is where it
    is from."""
    known = {field.name: getattr(row, field.name) for field in fields(kind)}
    return kind(**known if row.suite else {**known, "topic": getattr(row, "origin", "")})
