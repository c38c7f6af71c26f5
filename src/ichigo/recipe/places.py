"""Dotted names of places in nested data: ``stages.instruct.steps``, ``data.sentences.3.answer``.

A list item that carries a ``name`` of its own among its neighbours is called by it, every other by its index from 0.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ichigo.recipe.schema import Place

_SHOWN = 60  # characters of a value in a message


def label(items: Sequence[Any], index: int) -> str:
    """What the item at ``index`` is called: its ``name`` if no neighbour has the same, else the index."""
    names = [_name(item) for item in items]
    name = names[index] if index < len(names) else None
    return name if name is not None and names.count(name) == 1 else str(index)


def index_of(items: Sequence[Any], part: str) -> int | None:
    """The index of the item that :func:`label` or its number calls ``part``; None if there is none."""
    if part.isdecimal() and int(part) < len(items):
        return int(part)
    return next((index for index in range(len(items)) if label(items, index) == part), None)


def dotted(place: Place, tree: Any) -> str:
    """The name of ``place`` in ``tree``, which need not reach that far."""
    parts = []
    for part in place:
        parts.append(label(tree, part) if isinstance(part, int) and isinstance(tree, list) else str(part))
        tree = _child(tree, part)
    return ".".join(parts)


def shown(value: Any) -> str:
    """``value`` as JSON on one line, shortened to 60 characters."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


def _name(item: Any) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def _child(tree: Any, part: str | int) -> Any:
    if isinstance(tree, dict):
        return tree.get(part)
    return tree[part] if isinstance(tree, list) and isinstance(part, int) and part < len(tree) else None
