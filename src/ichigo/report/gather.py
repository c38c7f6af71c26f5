"""Everything about one run that its report shows, from its summary, the store, and what the caller knows besides.

Whatever cannot be read is left out with its reason, because a report of a run that failed is wanted most of all.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any, TypeVar

from ichigo import __version__
from ichigo import recipe as recipes
from ichigo.recipe.schema import Recipe

if TYPE_CHECKING:
    from ichigo.evaluation.items import ItemResult
    from ichigo.report.clips import Clip
    from ichigo.store import Artifact, Store

STAGES: tuple[str, ...] = recipes.STAGE_ORDER
_PACKAGES = ("torch", "deepspeed", "transformers", "tokenizers", "numpy", "pyarrow", "mlflow", "kfp")

Curves = Mapping[str, Mapping[int, Mapping[str, float]]]
"""Stage -> step -> name (``loss``, …) -> value."""
Found = TypeVar("Found")


@dataclass(frozen=True)
class Known:
    """What the store does not say.

    Attributes:
        curves: of the stages, those of reused ones included.
        earlier: step -> seconds that the run took whose work was reused.
        estimates: step -> seconds that were foretold before the run.
        ledger: promotions of the registered model, oldest first: what -> text.
        recordings: show the sound of people as well.
    """

    curves: Curves = field(default_factory=dict)
    earlier: Mapping[str, float] = field(default_factory=dict)
    estimates: Mapping[str, float] = field(default_factory=dict)
    ledger: Sequence[Mapping[str, str]] = ()
    recordings: bool = False


@dataclass(frozen=True)
class Material:
    """One run: ``corpus`` is the corpus's ``summary.json``, ``survey`` its ``survey.json``; empty where there is
    none."""

    summary: Mapping[str, Any]
    recipe: Recipe
    known: Known
    corpus: Mapping[str, Any]
    survey: Mapping[str, Any]
    items: tuple[ItemResult, ...]
    clips: tuple[Clip, ...]
    software: tuple[str, ...]
    problems: tuple[str, ...]


def gather(summary: Mapping[str, Any], recipe: Recipe, store: Store, known: Known) -> Material:
    """Read what the report of a run shows; nothing that is missing raises."""
    problems: list[str] = []
    corpus, evaluation = (
        artifact_of(summary, "corpus", store, problems),
        artifact_of(summary, "evaluation", store, problems),
    )
    nothing: tuple[ItemResult, ...] = ()
    items = _attempt("the evaluation's items", lambda: items_of(evaluation) if evaluation else (), nothing, problems)
    return Material(
        summary,
        recipe,
        known,
        _json(corpus, "summary.json", problems),
        _json(corpus, "survey.json", problems),
        items,
        _attempt("the sound of questions", lambda: _clips(items, corpus, known), (), problems),
        software(),
        tuple(problems),
    )


def artifact_of(summary: Mapping[str, Any], kind: str, store: Store, problems: list[str]) -> Artifact | None:
    """The artifact of this kind that a step of the run made or reused, if there is one and it can be opened."""
    addresses = [step["artifact"] for step in summary["steps"] if (step["artifact"] or {}).get("kind") == kind]
    if not addresses:
        return None
    return _attempt(f"the {kind}", lambda: store.open_uri(addresses[0]["uri"]), None, problems)


def items_of(evaluation: Artifact) -> tuple[ItemResult, ...]:
    """Every item of an evaluation."""
    from ichigo.evaluation.items import Report

    with tempfile.TemporaryDirectory() as folder:
        return tuple(Report.read(evaluation.fetch(Path(folder))).items)


def software() -> tuple[str, ...]:
    """The versions that compute, as they are installed here."""
    found = [f"ichigo {__version__}", f"Python {python_version()}"]
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return tuple(found)


def _clips(items: Sequence[ItemResult], corpus: Artifact | None, known: Known) -> tuple[Clip, ...]:
    from ichigo.report.clips import clips

    return tuple(clips(items, corpus, recordings=known.recordings)) if items and corpus else ()


def _json(artifact: Artifact | None, name: str, problems: list[str]) -> Mapping[str, Any]:
    if artifact is None or all(file.path != name for file in artifact.files):
        return {}
    found: Mapping[str, Any] = _attempt(f"{name} of the corpus", lambda: artifact.read_json(name), {}, problems)
    return found


def _attempt(what: str, read: Callable[[], Found], otherwise: Found, problems: list[str]) -> Found:
    try:
        return read()
    except Exception as error:  # a report says what it lacks, and never fails
        problems.append(f"{what} cannot be read: {str(error) or type(error).__name__}")
        return otherwise
