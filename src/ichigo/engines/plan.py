"""The steps of a compiled pipeline in the order in which ``kfp.local`` runs them, read from its IR without KFP."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

Nodes = Mapping[str, Any]


def planned_steps(pipeline: Path) -> tuple[str, ...]:
    """The names of the steps; iterations that are known only while the pipeline runs share one name.

    A task of a loop over written items is called after its item (``tokenizer``, ``base``), any other after its one
    constant argument (``instruct``) or, without one, after its component (``mix``; ``tokenize`` for every shard).
    """
    body = yaml.load(pipeline.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    return tuple(_steps(body["root"]["dag"]["tasks"], body["components"]))


def _steps(tasks: Nodes, components: Nodes) -> Iterator[str]:
    for name in _in_order(tasks):
        task, component = tasks[name], components[tasks[name]["componentRef"]["name"]]
        items = task.get("parameterIterator", {}).get("items", {}).get("raw")
        if items:
            yield from json.loads(items)
        elif "dag" in component:
            yield from _steps(component["dag"]["tasks"], components)
        else:
            yield _constant(task) or re.sub(r"^comp-|-\d+$", "", task["componentRef"]["name"])


def _in_order(tasks: Nodes) -> list[str]:
    """kfp.local 2.17's own order: depth first through each task's dependencies, both sorted by name."""
    order: list[str] = []

    def visit(name: str) -> None:
        if name not in order:
            for before in sorted(tasks[name].get("dependentTasks", [])):
                visit(before)
            order.append(name)

    for name in sorted(tasks):
        visit(name)
    return order


def _constant(task: Nodes) -> str | None:
    values = [value.get("runtimeValue", {}).get("constant") for value in task["inputs"].get("parameters", {}).values()]
    return next((value for value in values if isinstance(value, str)), None)
