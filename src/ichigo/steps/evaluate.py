"""``evaluate``: ask the trained model what it never met in training."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ichigo import recipe as recipes
from ichigo.steps.context import Step, open_step
from ichigo.steps.mix import text_rows, token_rows
from ichigo.store import Artifact, Draft

if TYPE_CHECKING:
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
    from ichigo.language.contract import CONTRACT_FILE
    from ichigo.language.contract import TokenContract as Contract

    with tempfile.TemporaryDirectory() as scratch:
        contract = Contract.load(subject.model.fetch(Path(scratch), CONTRACT_FILE))
    tokens = [row for row in token_rows(shards, contract) if row.split == "test"]
    texts = [row for corpus in written for row in text_rows(corpus) if row.split == "test" and row.suite]
    report = examine(subject, tokens, texts, step.recipe.evaluation, step.recipe.seed)
    report.write(draft.folder)
    draft.facts["metrics"] = report.metrics
    step.log_metrics(report.metrics)


def examine(
    subject: Subject, tokens: Sequence[TokenRow], texts: Sequence[TextRow], settings: Evaluation, seed: int
) -> Report:
    """Ask ``subject`` about held-out rows.

    The base model and the recogniser, which imported tokenizers do not have, are opened for a world's suites alone.
    """
    from ichigo.evaluation.asking import open_text_engine
    from ichigo.evaluation.items import EvalRow, EvalText
    from ichigo.evaluation.suites import evaluate
    from ichigo.inference.engine import Engine
    from ichigo.speech.lexicon import RECOGNISER_FILE, Recogniser

    spoken = [item(EvalRow, row) for row in tokens]
    written = [item(EvalText, row) for row in texts]
    of_world = bool(written) or any(row.suite for row in spoken)
    hears = of_world and any(file.path == RECOGNISER_FILE for file in subject.tokenizer.files)
    one_thread_if_small(subject.model)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        engine = Engine.open(subject.model.fetch(folder / "model"))
        base = open_text_engine(subject.base.fetch(folder / "base"), engine.contract) if of_world else None
        recogniser = Recogniser.open(subject.tokenizer.fetch(folder / "tokenizer")) if hears else None
    return evaluate(engine, spoken, settings, seed, texts=written, base=base, recogniser=recogniser)


def one_thread_if_small(model: Artifact) -> None:
    """Let this process compute on one core if ``model`` is too small to gain by more."""
    import torch

    if model.reference.size < _SMALL:
        torch.set_num_threads(1)


Item = TypeVar("Item", "EvalRow", "EvalText")


def item(kind: type[Item], row: TokenRow | TextRow) -> Item:
    """What an evaluation knows of a row: the fields of the same names; where no suite names it, its topic is where it
    is from."""
    known = {field.name: getattr(row, field.name) for field in fields(kind)}
    return kind(**known if row.suite else {**known, "topic": getattr(row, "origin", "")})
