"""Which values make a section what it is, their digest, and which of them two identities do not share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from ichigo.hashing import canonical_json, sha256_json
from ichigo.recipe.places import label, shown
from ichigo.recipe.schema import LocalMark, OperationalMark


def identity(model: BaseModel) -> dict[str, Any]:
    """The values of ``model`` as JSON types, defaults included, without fields marked ``Local`` or ``Operational``."""
    return {
        name: _plain(getattr(model, name))
        for name, info in type(model).model_fields.items()
        if not any(isinstance(mark, LocalMark | OperationalMark) for mark in info.metadata)
    }


def fingerprint(model: BaseModel) -> str:
    """Hexadecimal SHA-256 over :func:`identity`: equal for equal values, however and wherever they were written."""
    return sha256_json(identity(model))


def differences(before: Any, after: Any) -> list[str]:
    """The fields in which two identities differ: ``stages.instruct.steps: 10 -> 20``; none if their digests agree."""
    return list(_differences(before, after, ""))


class _Absent:
    """Stands for a value that one side does not have."""


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return identity(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value


def _differences(before: Any, after: Any, path: str) -> Iterator[str]:
    left, right = _named(before), _named(after)
    if left is not None and right is not None and isinstance(before, dict) == isinstance(after, dict):
        for name in dict.fromkeys([*left, *right]):
            inner = f"{path}.{name}" if path else name
            yield from _differences(left.get(name, _Absent), right.get(name, _Absent), inner)
    elif before is _Absent or after is _Absent or canonical_json(before) != canonical_json(after):
        yield f"{path}: {_side(before)} -> {_side(after)}"


def _named(value: Any) -> dict[str, Any] | None:
    """The children of ``value`` by name; None for a leaf."""
    if isinstance(value, dict):
        return {str(key): item for key, item in value.items()}
    return {label(value, index): item for index, item in enumerate(value)} if isinstance(value, list) else None


def _side(value: Any) -> str:
    return "absent" if value is _Absent else shown(value)
