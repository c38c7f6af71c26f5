"""Reads YAML by the core schema of YAML 1.2, with the line of every value.

PyYAML follows YAML 1.1, in which ``5e-5`` is text, ``no`` is false, ``010`` is 8 and the second of two equal keys wins
in silence. Here numbers are what they look like, only ``true`` and ``false`` are booleans, and a second key is a
finding.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from ichigo.recipe.schema import Finding, Place

_TAG = "tag:yaml.org,2002:"
_PLAIN = {  # YAML 1.2.2, section 10.3.2
    "null": r"(?:null|Null|NULL|~|)",
    "bool": r"(?:true|True|TRUE|false|False|FALSE)",
    "int": r"(?:[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)",
    "float": r"(?:[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))",
}


class _Core(yaml.SafeLoader):
    """Composes nodes whose plain scalars are tagged by the core schema."""


_Core.yaml_implicit_resolvers = {}  # instead of those of YAML 1.1
for _kind, _pattern in _PLAIN.items():
    _Core.add_implicit_resolver(_TAG + _kind, re.compile(rf"{_pattern}\Z"), None)


@dataclass
class Document:
    """What a text holds: the value as JSON types, the line (from 1) on which each place begins, and what is wrong."""

    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)


def read(text: str) -> Document:
    """Read one YAML document; ``ValueError`` with line and column if ``text`` is not YAML at all."""
    try:
        node = yaml.compose(text, Loader=_Core)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    document = Document()
    if node is not None:
        document.value = _Reader(document).value(node, (), ())
    return document


class _Reader:
    def __init__(self, document: Document) -> None:
        self._lines, self._findings = document.lines, document.findings

    def value(self, node: yaml.Node, place: Place, above: tuple[yaml.Node, ...]) -> Any:
        """The value of ``node``; ``above`` are the nodes that it lies in, to notice an alias of one of them."""
        self._lines[place] = node.start_mark.line + 1
        if any(node is outer for outer in above):
            self._findings.append((place, "an alias that contains itself; write the value out"))
        elif isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, (*above, node))
        elif isinstance(node, yaml.SequenceNode):
            return [self.value(item, (*place, index), (*above, node)) for index, item in enumerate(node.value)]
        elif isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        return None

    def _mapping(self, node: yaml.MappingNode, place: Place, above: tuple[yaml.Node, ...]) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            key, line = str(key_node.value), key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                self._findings.append((place, f"line {line} has a list or a mapping as key; a key is a word"))
            elif key in first:
                lines = f"line {line}" if first[key] == line else f"lines {first[key]} and {line}"
                self._findings.append(((*place, key), f"the key is given twice, on {lines}; keep one"))
            else:
                first[key] = line
                mapping[key] = self.value(value_node, (*place, key), above)
                self._lines[(*place, key)] = line  # of the key, which a person looks for, not of a value below it
        return mapping

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        try:
            return _typed(node.tag.removeprefix(_TAG), node.value)
        except ValueError:
            self._findings.append((place, f"found {node.value!r} tagged {node.tag}; remove the tag"))
            return None


def _typed(kind: str, text: str) -> Any:
    if kind == "str":
        return text
    if kind not in _PLAIN or not re.fullmatch(_PLAIN[kind], text):
        raise ValueError(kind)
    if kind == "null":
        return None
    if kind == "bool":
        return text.lower() == "true"
    if kind == "int":
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
    return float(re.sub(r"\.(?=inf|nan)", "", text.lower()))
