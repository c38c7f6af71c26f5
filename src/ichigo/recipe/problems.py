"""Checks a tree of JSON values against the schema and says in words everything that is wrong with it.

pydantic finds the wrong fields; here its reports become findings: where, what was found, what is allowed.
"""

from __future__ import annotations

import json
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ichigo.recipe.outline import expected, keys, walk
from ichigo.recipe.places import shown
from ichigo.recipe.schema import (
    STAGE_ORDER,
    Data,
    Finding,
    FitTokenizer,
    Launch,
    Recipe,
    Rule,
    Section,
    Stage,
    cut,
    disorder,
    foreign,
    unbounded,
    unfed,
)

_Model = TypeVar("_Model", bound=Section)


def check(tree: Any) -> tuple[Recipe | None, list[Finding]]:
    """The recipe that ``tree`` describes and no finding, or None and every finding."""
    try:
        return Recipe.model_validate_json(json.dumps(tree)), []
    except ValidationError as error:
        details = error.errors(include_url=False)
    findings = [_finding(detail) for detail in details if not _counts_stages(detail)]
    spanned = any(detail["type"] == "inconsistent" for detail in details)  # then the whole recipe was looked at already
    return None, findings if spanned else [*findings, *_across(tree)]


def _across(tree: Any) -> list[Finding]:
    """What spans sections, as far as the sections that it spans are right by themselves."""
    if not isinstance(tree, dict):
        return []
    findings: list[Finding] = []
    stages, data = tree.get("stages"), _alone(Data, tree.get("data"))
    if isinstance(stages, list):
        findings += _order(stages)
        if data:
            findings += unfed(data, _sound(Stage, stages))
        if launch := _alone(Launch, tree.get("launch", {})):
            findings += cut(launch, _sound(Stage, stages))
    if data and (tokenizer := _alone(FitTokenizer, tree.get("tokenizer"))):
        findings += foreign(data, tokenizer)
    registry = tree.get("registry")
    rules = registry.get("rules") if isinstance(registry, dict) else None
    return [*findings, *unbounded(_sound(Rule, rules if isinstance(rules, list) else []))]


def _order(stages: list[Any]) -> list[Finding]:
    names = [str(stage.get("name", "?")) if isinstance(stage, dict) else "?" for stage in stages]
    misspelt = len(names) == len(STAGE_ORDER) and not set(names) <= set(STAGE_ORDER)
    return [] if misspelt else disorder(names)  # a misspelt name is a finding of its own


def _sound(model: type[_Model], items: list[Any]) -> dict[int, _Model]:
    return {index: section for index, item in enumerate(items) if (section := _alone(model, item))}


def _alone(model: type[_Model], value: Any) -> _Model | None:
    try:
        return model.model_validate_json(json.dumps(value))
    except ValidationError:
        return None


def _counts_stages(detail: ErrorDetails) -> bool:
    """Whether this only says that there are too few or too many stages, for which ``disorder`` has better words."""
    depth = {"too_long": 1, "missing": 2}.get(detail["type"])
    return detail["loc"][:1] == ("stages",) and len(detail["loc"]) == depth


def _finding(detail: ErrorDetails) -> Finding:
    """One line of pydantic's report as a finding."""
    loc, kind, found = detail["loc"], detail["type"], detail["input"]
    if kind == "inconsistent":
        return loc, detail["msg"]
    if kind == "extra_forbidden" or loc[-1:] == ("[key]",):
        *section, key = loc[:-1] if loc[-1] == "[key]" else loc
        place, schema = walk(tuple(section))
        return (*place, key), _unknown(str(key), keys(schema))
    place, schema = walk(loc)
    if kind == "value_error":
        return place, str(detail["ctx"]["error"])
    if kind.startswith("union_tag"):
        place, found = (*place, "kind"), detail["ctx"].get("tag")
        return place, _wrong(found, expected(schema).rpartition(": ")[2], missing=found is None)
    return place, _wrong(found, expected(schema), missing=kind == "missing")


def _wrong(found: Any, allowed: str, *, missing: bool) -> str:
    if missing:
        return f"missing; expected {allowed}"
    unquoted = allowed.startswith("text") and isinstance(found, int | float)
    return f"found {shown(found)}; expected {allowed}" + (f"; put it in quotes: '{shown(found)}'" if unquoted else "")


def _unknown(key: str, known: list[str]) -> str:
    close = get_close_matches(key, known, n=1)
    return f"unknown key; did you mean {close[0]}?" if close else f"unknown key; known here: {', '.join(known)}"
