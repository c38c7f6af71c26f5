"""Sources in a recipe: every wrong field at once, where they lie stays out of the identity, and tokens need their
tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from ichigo.engines.local import check_places
from ichigo.errors import RecipeError
from ichigo.recipe import fingerprint, identity, load, missing_places
from ichigo.steps.begin import parameters

SOURCE = "{kind: parquet, path: /data/x.parquet, language: en}"
BIG = ("llama-3.1-8b", "llama-3.2-1b-one-gpu")


def problems(*overrides: str, name: str = "smoke") -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(name, overrides)
    return [problem.replace(" (--set)", "") for problem in caught.value.problems]


def test_every_wrong_field_of_every_source_is_told_at_once() -> None:
    wrong = [
        "{kind: tar, path: x}",
        "{kind: parquet}",
        "{kind: folder, path: '', columns: {txt: a}}",
        "{kind: instructions, path: x, words: [5, 1], near_duplicates: 2, voices: [a, a], licence: MIT}",
        "{kind: tokens, path: x}",
        "{path: x}",
    ]
    found = problems(f"data.sources=[{', '.join(wrong)}]")
    assert found == [
        'data.sources.0.kind: found "tar"; expected folder, instructions, parquet, tokens or webdataset',
        "data.sources.1.path: missing; expected text, not empty",
        "data.sources.2.columns.txt: unknown key; did you mean text?",
        'data.sources.2.path: found ""; expected text, not empty',
        "data.sources.3.licence: unknown key; did you mean license?",
        "data.sources.3.near_duplicates: found 2; expected a number, above 0, at most 1",
        "data.sources.3.voices: a is listed more than once; list each once",
        "data.sources.3.words: lowest 5 is above highest 1; give [lowest, highest]",
        "data.sources.4.tokenizer: missing; expected text, not empty",
        "data.sources.5.kind: missing; expected folder, instructions, parquet, tokens or webdataset",
    ]


def test_token_strings_are_refused_by_a_recipe_that_fits_its_own_tokenizer() -> None:
    source = "data.sources=[{kind: tokens, path: /x, tokenizer: published}]"
    (problem,) = problems(source)
    assert problem.startswith("data.sources.0.tokenizer: found published, but the recipe fits a tokenizer of its own")
    assert len(problems(source, "seed=x")) == 2, "found beside what is wrong with other fields"
    assert load("llama-3.1-8b", [source]).data.sources[0].kind == "tokens"


def test_sources_may_feed_any_mix_and_stand_for_the_folder() -> None:
    recipe = load("smoke", [f"data.sources=[{SOURCE}]", "data.voices=null", "data.sentences=[]"])
    assert missing_places(recipe) == []
    for name in BIG:
        assert not [line for line in missing_places(load(name, [f"data.sources=[{SOURCE}]"])) if "data." in line]


def test_where_a_source_lies_is_no_part_of_the_identity_and_all_else_is() -> None:
    def digest(source: str) -> str:
        return fingerprint(load("smoke", [f"data.sources=[{source}]"]))

    assert digest(SOURCE) == digest(SOURCE.replace("/data/x.parquet", "s3://bucket/y"))
    changed = (
        "language: de",
        "language: en, license: MIT",
        "language: en, columns: {text: t}",
        "language: en, split: test",
    )
    assert len({digest(SOURCE), *(digest(SOURCE.replace("language: en", new)) for new in changed)}) == 5
    found: dict[str, Any] = identity(load("smoke", [f"data.sources=[{SOURCE}]"]))["data"]["sources"][0]
    assert "path" not in found


def test_a_source_is_logged_field_by_field() -> None:
    logged = dict(parameters(load("smoke", [f"data.sources=[{SOURCE}, {SOURCE}]"])))
    assert (logged["data.sources.0.kind"], logged["data.sources.1.language"]) == ("parquet", "en")


def test_a_path_that_does_not_exist_is_told_before_a_run(tmp_path: Any) -> None:
    (tmp_path / "a.parquet").touch()
    there = f"{{kind: parquet, path: '{tmp_path}/*.parquet'}}"
    check_places(load("smoke", [f"data.sources=[{there}, {{kind: parquet, path: 's3://bucket/x'}}]"]))
    with pytest.raises(RecipeError, match=r"data\.sources\.1\.path: /data/x\.parquet does not exist"):
        check_places(load("smoke", [f"data.sources=[{there}, {SOURCE}]"]))
