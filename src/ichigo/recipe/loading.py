"""From a file, a shipped name or stored JSON to a checked :class:`Recipe`, with single fields overridden.

A recipe that cannot be used is refused once, with a line for everything that is wrong with it: the field, where it was
given (a line of the file, or ``--set``), what was found and what is allowed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from ichigo.errors import RecipeError
from ichigo.recipe import yaml12
from ichigo.recipe.places import dotted, index_of, label, shown
from ichigo.recipe.problems import check
from ichigo.recipe.schema import Finding, LocalMark, Place, Recipe

_SHIPPED = files("ichigo.recipe") / "recipes"
_OVERRIDE = 0  # stands for a line of the file where a value came from --set


class Shipped(NamedTuple):
    """A recipe that comes with the package."""

    name: str
    description: str


def shipped() -> list[Shipped]:
    """The recipes that :func:`load` knows by name, in alphabetical order."""
    return [Shipped(name, yaml12.read(_shipped_text(name)).value["description"]) for name in _shipped_names()]


def load(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a shipped recipe by name, or any YAML file (UTF-8), and check all of it.

    Args:
        name_or_path: a name from :func:`shipped`, or a path.
        overrides: ``field=value`` with a dotted field (a stage by its name, other list items by index) and a YAML
            value: ``stages.instruct.steps=10``, ``data.folder=/x``, ``registry.rules=[]``. Later ones win.

    Raises:
        RecipeError: with every problem of the file and of the overrides.
    """
    title, text = _source(name_or_path)
    try:
        document = yaml12.read(text)
    except ValueError as error:
        raise RecipeError(f"{title} is not YAML", [str(error)]) from error
    tree, findings, lines = document.value, list(document.findings), dict(document.lines)
    if not isinstance(tree, dict):
        raise RecipeError(f"{title} is not a recipe", [f"found {shown(tree)}; expected sections: data, stages …"])
    for override in overrides:
        try:
            _override(tree, override, lines)
        except ValueError as error:
            findings.append(((), f"--set {override}: {error}"))
    recipe, wrong = check(tree)
    findings += wrong
    if recipe is None or findings:
        raise _refusal(title, findings, tree, lines)
    return recipe


def parse(json_text: str) -> Recipe:
    """The recipe that ``Recipe.model_dump_json()`` wrote; :class:`RecipeError` for anything else."""
    try:
        tree = json.loads(json_text)
    except ValueError as error:
        raise RecipeError("the stored recipe is not JSON", [str(error)]) from error
    recipe, findings = check(tree)
    if recipe is None:
        raise _refusal("the stored recipe", findings, tree, {})
    return recipe


def missing_places(recipe: Recipe) -> list[str]:
    """What must be named before this recipe can run on this machine: one line for each field, empty if none.

    A recipe says what to train wherever it is read; where its recordings and published models lie is given with a run.
    """
    return [
        f"{path} is not set ({meaning}); give --set {path}=…"
        for path, meaning in _unset(recipe)
        # sources may feed every mix; its own world or sentences do, the latter as the schema checks
        if not (path == "data.folder" and (recipe.data.sources or recipe.data.sentences or recipe.data.world))
    ]


def _unset(section: BaseModel, above: str = "") -> Iterator[tuple[str, str]]:
    for name, info in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            yield from _unset(value, f"{above}{name}.")
        elif value is None and any(isinstance(mark, LocalMark) for mark in info.metadata):
            yield f"{above}{name}", info.description or "a path"


def _shipped_names() -> list[str]:
    return sorted(entry.name.removesuffix(".yaml") for entry in _SHIPPED.iterdir() if entry.name.endswith(".yaml"))


def _shipped_text(name: str) -> str:
    return (_SHIPPED / f"{name}.yaml").read_text(encoding="utf-8")


def _source(name_or_path: str) -> tuple[str, str]:
    """How messages call the recipe, and its text."""
    names = _shipped_names()
    if name_or_path in names:
        return f"recipe {name_or_path}", _shipped_text(name_or_path)
    try:
        return name_or_path, Path(name_or_path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        close = get_close_matches(name_or_path, names, n=1)
        hint = f"did you mean {close[0]}?" if close else "give one of these names or the path of a YAML file"
        raise RecipeError(f"there is no recipe {name_or_path}", [f"shipped are {', '.join(names)}; {hint}"]) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise RecipeError(f"{name_or_path} cannot be read", [f"{reason}; give a YAML file in UTF-8"]) from error


def _override(tree: dict[str, Any], override: str, lines: dict[Place, int]) -> None:
    """Carry out one ``field=value``; ``ValueError`` says what is wrong with it."""
    field, equals, text = override.partition("=")
    parts = field.strip().split(".")
    if not equals or not all(parts):
        raise ValueError("expected field=value, as in stages.instruct.steps=10")
    value = yaml12.read(text)
    if value.findings:
        raise ValueError("; ".join(f"{dotted(place, value.value)}: {message}" for place, message in value.findings))
    place = _resolve(tree, parts)
    _put(tree, place, value.value)
    for inside in [known for known in lines if known[: len(place)] == place]:
        del lines[inside]
    lines[place] = _OVERRIDE


def _resolve(tree: Any, parts: list[str]) -> Place:
    place: Place = ()
    node = tree
    for part in parts:
        if isinstance(node, list):
            index = index_of(node, part)
            if index is None:
                known = ", ".join(label(node, known) for known in range(len(node))) or "none"
                raise ValueError(f"{dotted(place, tree)} has no item {part}; it has {known}")
            place, node = (*place, index), node[index]
        elif isinstance(node, dict) or node is None:
            place, node = (*place, part), (node or {}).get(part)
        else:
            raise ValueError(f"{dotted(place, tree)} is {shown(node)} and has no field {part}")
    return place


def _put(tree: Any, place: Place, value: Any) -> None:
    *above, last = place
    for part in above:
        if isinstance(tree, dict) and tree.get(str(part)) is None:
            tree[part] = {}
        tree = tree[part]
    tree[last] = value


def _refusal(title: str, findings: Sequence[Finding], tree: Any, lines: Mapping[Place, int]) -> RecipeError:
    """All findings in the order of the file, the first one at each place."""
    first = {(place, message if not place else ""): message for place, message in reversed(findings)}
    located = sorted((_line(place, lines), dotted(place, tree), message) for (place, _), message in first.items())
    count = f"{len(located)} problem{'s' if len(located) > 1 else ''}"
    return RecipeError(f"{title} cannot be used: {count}", [_rendered(*parts) for parts in located])


def _line(place: Place, lines: Mapping[Place, int]) -> int:
    """The line on which ``place``, or the section that should hold it, begins; -1 where there is none to name."""
    known = [place[:length] for length in range(len(place), 0, -1)]
    return next((lines[near] for near in known if near in lines), -1)


def _rendered(line: int, path: str, message: str) -> str:
    if not path:
        return message
    origin = {_OVERRIDE: " (--set)", -1: ""}.get(line, f" (line {line})")
    return f"{path}{origin}: {message}"
