"""What the schema allows at a place, in words.

Reads pydantic's JSON schema of :class:`Recipe`, so the words cannot fall behind the types. JSON schema knows types,
ranges and lengths; the checks written as validators bring their own words.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from ichigo.recipe.schema import Place, Recipe

Schema = dict[str, Any]

_TYPES = {
    "integer": "a whole number",
    "number": "a number",
    "string": "text",
    "boolean": "true or false",
    "array": "a list",
    "object": "a section",
}
_BOUNDS = {
    "minimum": "at least {:g}",
    "exclusiveMinimum": "above {:g}",
    "maximum": "at most {:g}",
    "exclusiveMaximum": "below {:g}",
}


def walk(loc: Place) -> tuple[Place, Schema]:
    """The place that pydantic's ``loc`` means and the schema there; ``loc`` also names the kind of a union's member."""
    place: Place = ()
    schema = _resolved(_whole())
    for part in loc:
        kinds = _kinds(schema)
        if part in kinds:
            schema = _resolved({"$ref": kinds[str(part)]})
        else:
            place, schema = (*place, part), _resolved(_inside(schema, part))
    return place, schema


def expected(schema: Schema) -> str:
    """What a value under ``schema`` may be: ``a whole number, at least 1``."""
    words = _one(_resolved(schema))
    return f"{words}, or null" if {"type": "null"} in schema.get("anyOf", ()) else words


def keys(schema: Schema) -> list[str]:
    """The keys that a section or a mapping under ``schema`` knows."""
    return [*schema.get("properties", ()), *schema.get("propertyNames", {}).get("enum", ())]


def _one(schema: Schema) -> str:
    if kinds := _kinds(schema):
        return f"a section with the key kind: {_either(list(kinds))}"
    if "const" in schema or "enum" in schema:
        return _either(schema.get("enum", [schema.get("const")]))
    words = [_TYPES.get(schema.get("type", ""), "another value")]
    if schema.get("type") == "array":
        words = [_list(schema)]
    elif schema.get("type") == "object":
        words = [f"a section with the keys {', '.join(keys(schema))}"]
    words += [form.format(schema[key]) for key, form in _BOUNDS.items() if key in schema]
    if "pattern" in schema:  # every pattern of the schema has its characters as description
        words = [f"text of {schema['description']}, beginning with a letter or digit"]
    empty = schema.get("minLength") or schema.get("minProperties") or ("items" in schema and schema.get("minItems"))
    return ", ".join([*words, *(["not empty"] if empty else [])])


def _list(schema: Schema) -> str:
    items = [_one(_resolved(item)) for item in schema.get("prefixItems", [])]
    return f"a list of {len(items)}: {'; '.join(dict.fromkeys(items))}" if items else "a list"


def _either(values: list[Any]) -> str:
    *others, last = [str(value) for value in values]
    return f"{', '.join(others)} or {last}" if others else last


def _inside(schema: Schema, part: str | int) -> Schema:
    if isinstance(part, int):
        fixed = schema.get("prefixItems", ())
        inside = fixed[part] if part < len(fixed) else schema.get("items", {})
    else:
        inside = schema.get("properties", {}).get(part, schema.get("additionalProperties", {}))
    return inside if isinstance(inside, dict) else {}


def _resolved(schema: Schema) -> Schema:
    """``schema`` behind its reference, keeping the mark that null is allowed too."""
    if "$ref" in schema:
        return _resolved(_whole()["$defs"][schema["$ref"].rpartition("/")[2]])
    choices = [_resolved(choice) for choice in schema.get("anyOf", ()) if choice != {"type": "null"}]
    return {**choices[0], "anyOf": schema["anyOf"]} if choices else schema


def _kinds(schema: Schema) -> dict[str, str]:
    kinds: dict[str, str] = schema.get("discriminator", {}).get("mapping", {})
    return kinds


@cache
def _whole() -> Schema:
    return Recipe.model_json_schema()
