"""A fingerprint changes with every value that shapes a run and with nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ichigo.recipe import Recipe, differences, fingerprint, identity, load, parse, shipped
from ichigo.recipe.schema import Expand, Probes

CHECKPOINTS = ("every", "keep_last", "keep_every", "resume")
LOCAL = (
    *("data.folder", "tokenizer.model", "tokenizer.whisper", "base.model"),
    *("launch.hang_seconds", *(f"launch.checkpoints.{name}" for name in CHECKPOINTS)),
    *(f"probes.{name}" for name in Probes.model_fields),
)
"""Where things lie, and how a run is kept safe."""


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if children is None:
        yield path, value
    else:
        for key, item in children:
            yield from leaves(item, (*path, key))


def changed(value: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return 1.5 if value is None else value + "x"


def with_leaf(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    copy = json.loads(json.dumps(tree))
    node = copy
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    return copy


def rebuilt(recipe: Recipe, tree: dict[str, Any]) -> Recipe:
    """A recipe of these values without their checks, so that every leaf can be changed alone."""

    def build(model: Any, value: Any) -> Any:
        if hasattr(model, "model_fields_set"):
            return type(model).model_construct(**{key: build(getattr(model, key), item) for key, item in value.items()})
        if isinstance(model, tuple):
            return tuple(build(item, other) for item, other in zip(model, value, strict=True))
        return value

    built: Recipe = build(recipe, tree)
    return built


@pytest.mark.parametrize("name", [name for name, _ in shipped()])
def test_every_leaf_that_shapes_a_run_changes_the_fingerprint_and_is_named_as_the_difference(
    name: str,
) -> None:
    recipe = load(name)
    tree = recipe.model_dump(mode="json")
    before, digest = identity(recipe), fingerprint(recipe)
    found = list(leaves(tree))
    assert len(found) > 60
    for path, value in found:
        other = rebuilt(recipe, with_leaf(tree, path, changed(value)))
        is_local = ".".join(map(str, path)) in LOCAL
        assert (fingerprint(other) == digest) is is_local, path
        assert bool(differences(before, identity(other))) is not is_local, path


@pytest.mark.parametrize("name", [name for name, _ in shipped()])
def test_where_things_lie_is_no_part_of_the_identity(name: str) -> None:
    recipe = load(name)
    tree = identity(recipe)
    assert not [path for path, _ in leaves(tree) if ".".join(map(str, path)) in LOCAL]
    assert fingerprint(load(name, ["data.folder=/on/this/machine"])) == fingerprint(recipe)
    assert not differences(tree, identity(load(name, ["data.folder=/elsewhere"])))


def test_spelling_order_and_left_out_defaults_make_no_difference(tmp_path: Path) -> None:
    def stage(name: str, rest: str) -> str:
        return f"{{name: {name}, examples: 8, steps: 4, sequence_length: 64, {rest}}}"

    rest = "registry: {model_name: m}\ntokenizer: {kind: fit}\nbase: {kind: init}\ndata: {}\ndescription: d\nname: n\n"
    one = ["mix: {sound: 1}, learning_rate: 1e-3", "mix: {text: 0.5, noise: 0.5}, learning_rate: 2e-3, weight_decay: 0"]
    other = [
        "learning_rate: 0.001, mix: {sound: 1.0}, betas: [0.9, 0.999], warmup_steps: 0",
        "weight_decay: 0.0, mix: {noise: 5e-1, text: .5}, learning_rate: 0.2E-2, packing: true",
    ]
    names = ("pretrain", "instruct", "enhance")
    digests: list[str] = []
    for spelled, tail in ((one, ""), (other, "launch: {processes: 2}\nseed: 0\n")):
        stages = ", ".join(stage(name, fields) for name, fields in zip(names, [*spelled, spelled[1]], strict=True))
        path = tmp_path / f"{len(digests)}.yaml"
        path.write_text((rest if not tail else tail + rest) + f"stages: [{stages}]\n", encoding="utf-8")
        digests.append(fingerprint(load(str(path))))
    assert digests[0] == digests[1]


def test_a_section_has_the_same_fingerprint_in_every_recipe_and_after_storage() -> None:
    recipe = load("smoke")
    again = parse(json.dumps(dict(reversed(json.loads(recipe.model_dump_json()).items()))))
    assert fingerprint(again) == fingerprint(recipe)
    assert fingerprint(load("smoke", ["seed=9"]).data) == fingerprint(recipe.data)
    assert fingerprint(load("smoke", ["stages.enhance.steps=9"]).stage("pretrain")) == fingerprint(recipe.stages[0])


def test_the_digest_is_over_sorted_json_with_defaults_and_floats_as_floats() -> None:
    """Stored artifacts are found by it: another form would orphan all of them."""
    assert fingerprint(Expand(noise=1)) == hashlib.sha256(b'{"init":"mean_noise","noise":1.0}').hexdigest()


def test_differences_name_fields_as_a_person_writes_them() -> None:
    before = identity(load("smoke"))
    after = identity(
        load("smoke", ["stages.instruct.steps=20", "data.sentences.0.answer=ok", "base.width=64", "launch.zero=2"])
    )
    assert differences(before, after) == [
        'data.sentences.0.answer: "turning on the kitchen light" -> "ok"',
        "base.width: 128 -> 64",
        "launch.zero: 1 -> 2",
        f"stages.instruct.steps: {before['stages'][1]['steps']} -> 20",
    ]


@pytest.mark.parametrize(
    ("before", "after", "lines"),
    [
        ({"a": 1}, {"a": 1, "b": {"c": 2}}, ['b: absent -> {"c": 2}']),
        ({"a": [1, 2]}, {"a": [1]}, ["a.1: 2 -> absent"]),
        ({"a": {"b": 1}}, {"a": None}, ['a: {"b": 1} -> null']),
        ({"a": [1]}, {"a": {"0": 1}}, ['a: [1] -> {"0": 1}']),
        ({"a": 1}, {"a": 1.0}, ["a: 1 -> 1.0"]),
        ({"a": True}, {"a": 1}, ["a: true -> 1"]),
        ({"a": "x" * 99}, {"a": "y"}, [f'a: "{"x" * 58}… -> "y"']),
        ({"a": [{"name": "p", "n": 1}]}, {"a": [{"n": 2, "name": "p"}]}, ["a.p.n: 1 -> 2"]),
        ({"a": [{"name": "p"}, {"name": "p"}]}, {"a": [{"name": "p"}, {"name": "p"}]}, []),
    ],
)
def test_differences_of_any_nested_values(before: Any, after: Any, lines: list[str]) -> None:
    assert differences(before, after) == lines
