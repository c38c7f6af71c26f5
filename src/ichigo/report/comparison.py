"""Several runs side by side, as data: what differs in their recipes, data, steps and results.

The first run is what the others are compared with.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ichigo import recipe as recipes
from ichigo.errors import UserError
from ichigo.evaluation import table
from ichigo.evaluation.items import ItemResult
from ichigo.recipe.schema import Recipe
from ichigo.report.gather import Curves
from ichigo.report.pairing import Difference, Pair, Refusal, adjusted, difference, paired, suites

if TYPE_CHECKING:
    from ichigo.store import Artifact

_DIGITS = 12  # of a digest, for a person
_NUMBERS = (
    "rows",
    "seconds",
    "train_seconds",
    "test_seconds",
    "splits",
    "origins",
    "languages",
    "licenses",
    "rejected",
)
"""Of a corpus's summary; its speakers are compared by name."""


@dataclass(frozen=True)
class Side:
    """One run: ``name`` is what a person calls it, ``artifacts`` are those of its steps, ``corpus`` the corpus's
    ``summary.json`` (empty where there is none)."""

    name: str
    summary: Mapping[str, Any]
    recipe: Recipe
    artifacts: Mapping[str, Artifact]
    corpus: Mapping[str, Any]
    items: tuple[ItemResult, ...]
    curves: Curves

    @property
    def metrics(self) -> Mapping[str, float]:
        """What its evaluation measured."""
        found: Mapping[str, float] = self.summary["evaluation"]
        return found


@dataclass(frozen=True)
class Step:
    """A step of both: whether its bytes are the same, and what differs in what it was made from."""

    name: str
    same: bool
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Against:
    """One run compared with the first.

    Attributes:
        recipe: fields that differ, ``field: first -> this``.
        data: numbers of the corpus that differ, likewise; empty where both have the same corpus.
        steps: those that both have an artifact of.
        differences: of every suite with the same items.
        refused: of every suite whose items differ.
        items: of every suite, the pairs of which one alone is right.
    """

    name: str
    recipe: tuple[str, ...]
    data: tuple[str, ...]
    steps: tuple[Step, ...]
    differences: tuple[Difference, ...]
    refused: tuple[Refusal, ...]
    items: Mapping[str, tuple[Pair, ...]]


@dataclass(frozen=True)
class Comparison:
    """The first run, and every other one against it."""

    sides: tuple[Side, ...]
    others: tuple[Against, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What the runs are called."""
        return tuple(side.name for side in self.sides)


def compare(sides: Sequence[Side]) -> Comparison:
    """Compare every run with the first; p-values are Holm's over all tests that this makes.

    Raises:
        UserError: fewer than two runs, or one twice.
    """
    names = [side.name for side in sides]
    if len(names) < 2 or len(set(names)) < len(names):
        raise UserError(f"{', '.join(names) or 'nothing'}: name two or more different runs to compare")
    first, others = sides[0], sides[1:]
    pairings = {side.name: _pairings(first, side) for side in others}
    found = {
        f"{name} {suite}": difference(suite, pairs, first.metrics, first.recipe.seed)
        for name, own in pairings.items()
        for suite, pairs in own.items()
        if not isinstance(pairs, Refusal)
    }
    known = adjusted(found)
    return Comparison(tuple(sides), tuple(_against(first, side, pairings[side.name], known) for side in others))


def _pairings(first: Side, second: Side) -> dict[str, list[Pair] | Refusal]:
    """Every suite that either was asked."""
    before, after = suites(first.items), suites(second.items)
    return {name: paired(name, before.get(name, {}), after.get(name, {})) for name in sorted({*before, *after})}


def _against(
    first: Side, side: Side, pairings: Mapping[str, list[Pair] | Refusal], known: Mapping[str, Difference]
) -> Against:
    pairs = {suite: found for suite, found in pairings.items() if not isinstance(found, Refusal)}
    return Against(
        side.name,
        tuple(recipes.differences(recipes.identity(first.recipe), recipes.identity(side.recipe))),
        tuple(_data(first.corpus, side.corpus)),
        tuple(_steps(first, side)),
        tuple(known[f"{side.name} {suite}"] for suite in pairs),
        tuple(found for found in pairings.values() if isinstance(found, Refusal)),
        {suite: tuple(pair for pair in found if pair[0].right != pair[1].right) for suite, found in pairs.items()},
    )


def _data(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    if not (first and second):
        return []
    numbers = [{name: corpus[name] for name in _NUMBERS} for corpus in (first, second)]
    lines = recipes.differences(*numbers)
    before, after = (set(corpus["speakers"]) for corpus in (first, second))
    sides = (("only in the first", before - after), ("only in this one", after - before))
    lines += [f"voices {what}: {', '.join(sorted(voices)[:8])} ({len(voices)})" for what, voices in sides if voices]
    return lines


def _steps(first: Side, second: Side) -> list[Step]:
    steps = []
    for name, artifact in first.artifacts.items():
        other = second.artifacts.get(name)
        if other is not None:
            changes = recipes.differences(_made_from(artifact), _made_from(other))
            steps.append(Step(name, artifact.digest == other.digest, tuple(changes)))
    return steps


def _made_from(artifact: Artifact) -> dict[str, Any]:
    identity = artifact.identity
    inputs = {name: digest[:_DIGITS] for name, digest in identity.inputs.items()}
    plain = {"settings": identity.settings, "inputs": inputs, "code": identity.code[:_DIGITS]}
    found: dict[str, Any] = json.loads(json.dumps(plain))
    return found


def measures(comparison: Comparison) -> list[table.Row]:
    """The measures of the table that any of the runs has; of those of different recipes without bars."""
    names = {side.summary["recipe"] for side in comparison.sides}
    return table.rows([side.metrics for side in comparison.sides], names.pop() if len(names) == 1 else "")


def as_data(comparison: Comparison) -> dict[str, Any]:
    """All of it as JSON types, the items where one alone is right among it."""
    return {
        "runs": [
            {
                "name": side.name,
                "run_key": side.summary["run_key"],
                "fingerprint": side.summary["fingerprint"],
                "status": side.summary["status"],
                "verdict": side.summary["gate"]["verdict"],
                "metrics": dict(side.metrics),
            }
            for side in comparison.sides
        ],
        "first": comparison.names[0],
        "others": [_other(other) for other in comparison.others],
    }


def _other(other: Against) -> dict[str, Any]:
    return {
        "name": other.name,
        "recipe": list(other.recipe),
        "data": list(other.data),
        "steps": [asdict(step) for step in other.steps],
        "differences": [asdict(one) for one in other.differences],
        "refused": [asdict(one) | {"why": str(one)} for one in other.refused],
        "items": [_pair(pair) for pairs in other.items.values() for pair in pairs],
    }


def _pair(pair: Pair) -> dict[str, Any]:
    first, second = pair
    shared = ("suite", "id", "turn", "question", "reference")
    answers = {"first": first.hypothesis, "second": second.hypothesis}
    outcomes = {"first_outcome": first.outcome, "second_outcome": second.outcome}
    return {name: getattr(first, name) for name in shared} | answers | outcomes
