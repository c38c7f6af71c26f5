"""What a person is told about a recipe that cannot be used, and what files and overrides mean."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from ichigo.errors import RecipeError
from ichigo.recipe import load, missing_places, parse, shipped

SMOKE = "smoke"


def problems(name_or_path: str | Path, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        load(str(name_or_path), overrides)
    return caught.value.problems


def the_problem(*overrides: str) -> str:
    (problem,) = problems(SMOKE, *overrides)
    return problem


def write(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(dedent(text), encoding="utf-8")
    return path


def edited(folder: Path, *edits: tuple[str, str]) -> Path:
    """The smoke recipe with every ``old`` replaced by ``new``."""
    text = (Path(sys.modules["ichigo.recipe"].__path__[0]) / "recipes" / "smoke.yaml").read_text(encoding="utf-8")
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return write(folder, text)


class TestEverythingAtOnce:
    def test_each_wrong_field_of_a_file_has_its_line(self, tmp_path: Path) -> None:
        path = edited(
            tmp_path,
            ("seed: 1", "seed: one"),
            ("max_new_tokens: 24", "max_new_tokns: 24"),
            ("zero: 1", "zero: 4"),
            ("text: 0.1}", "text: 0.2}"),
            ("alias: candidate", "alias: 7"),
        )
        lines = path.read_text(encoding="utf-8").splitlines()

        def line(text: str) -> int:
            return 1 + next(number for number, content in enumerate(lines) if text in content)

        assert problems(path) == [
            f'seed (line {line("seed:")}): found "one"; expected a whole number, at least 0',
            f"launch.zero (line {line('zero:')}): found 4; expected 0, 1, 2 or 3",
            f"stages.instruct.mix (line {line('text: 0.2')}): speech 0.7 + transcription 0.2 + text 0.2 = 1.1; "
            "the shares must add up to 1",
            f"evaluation.max_new_tokns (line {line('max_new_tokns')}): unknown key; did you mean max_new_tokens?",
            f"registry.alias (line {line('alias')}): found 7; expected text, not empty; put it in quotes: '7'",
        ]

    def test_what_spans_sections_is_reported_with_wrong_fields_of_other_sections(self) -> None:
        found = problems(
            SMOKE,
            "seed=-1",
            "data.voices=null",
            "stages.enhance.mix={text: 1}",
            "stages.instruct.steps=none",
            "registry.rules=[{metric: a}, {metric: 3}]",
            "stages.enhance.name=pretrain",
        )
        assert [problem.split(" (")[0] for problem in found] == [
            "registry.rules.0",  # no bound
            "registry.rules.1.metric",
            "seed",
            "stages.instruct.steps",
            "stages",
            "stages.0.mix.sound",
        ]

    def test_a_wrong_override_is_reported_with_the_wrong_file(self) -> None:
        assert problems(SMOKE, "seed=x", "steps") == [
            "--set steps: expected field=value, as in stages.instruct.steps=10",
            'seed (--set): found "x"; expected a whole number, at least 0',
        ]

    def test_the_message_shows_title_count_and_one_line_each(self) -> None:
        with pytest.raises(RecipeError) as caught:
            load(SMOKE, ["seed=-1", "launch.processes=0"])
        assert str(caught.value).splitlines() == [
            "recipe smoke cannot be used: 2 problems",
            "  - launch.processes (--set): found 0; expected a whole number, at least 1",
            "  - seed (--set): found -1; expected a whole number, at least 0",
        ]


class TestFields:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("stages.instruct.steps=0", "found 0; expected a whole number, at least 1"),
            ("stages.instruct.steps=1e3", "found 1000.0; expected a whole number, at least 1"),
            ("stages.instruct.steps='10'", 'found "10"; expected a whole number, at least 1'),
            ("stages.instruct.micro_batch=true", "found true; expected a whole number, at least 1"),
            ("stages.pretrain.learning_rate=0", "found 0; expected a number, above 0"),
            ("stages.pretrain.learning_rate=.nan", "found NaN; expected a number, above 0"),
            ("stages.pretrain.learning_rate=.inf", "found Infinity; expected a number, above 0"),
            ("stages.pretrain.gradient_clip=fast", 'found "fast"; expected a number, above 0, or null'),
            ("stages.pretrain.packing=yes", 'found "yes"; expected true or false'),
            ("stages.pretrain.schedule=step", 'found "step"; expected cosine, linear or constant'),
            ("stages.pretrain.mix.sond=0", "unknown key; did you mean sound?"),
            ("data.folders=/x", "unknown key; did you mean folder?"),
            ("data.sentences.1.anser=x", "unknown key; did you mean answer?"),
            ("evaluation.seed=8", "unknown key; known here: items, max_new_tokens, batch, margin"),
            ("evaluation=7", "found 7; expected a section with the keys items, max_new_tokens, batch, margin"),
            ("tokenizer.kind=fitt", 'found "fitt"; expected fit or import'),
            ("tokenizer.widht=3", "unknown key; did you mean width?"),
            ("registry.alias=7", "found 7; expected text, not empty; put it in quotes: '7'"),
            (
                "name=My Run",
                "found \"My Run\"; expected text of a-z, 0-9, '.' and '-', beginning with a letter or digit",
            ),
        ],
    )
    def test_a_wrong_value_is_answered_with_what_is_allowed(self, override: str, message: str) -> None:
        field = override.partition("=")[0]
        assert the_problem(override) == f"{field} (--set): {message}"

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("tokenizer={}", "tokenizer.kind (--set): missing; expected fit or import"),
            ("stages.1.name=instuct", 'stages.instuct.name (--set): found "instuct"; expected pretrain, instruct or'),
            ("base={kind: folder}", "base.name (--set): missing; expected text, not empty"),
            (
                "tokenizer.codes=513",
                "tokenizer.codes (--set): found 513; expected a whole number, at least 1, at most 512",
            ),
            ("evaluation={items: }", "evaluation.items (--set): found null; expected a whole number, at least 1"),
            ("stages.pretrain.betas=[0.9]", "stages.pretrain.betas.1 (--set): missing; expected a number, at least 0"),
            ("data.voices.pitch=[0, 100]", "data.voices.pitch.1 (--set): found 100; expected a whole number, at least"),
        ],
    )
    def test_a_wrong_part_of_a_value_is_named_by_its_own_path(self, override: str, problem: str) -> None:
        assert the_problem(override).startswith(problem)


class TestConsistency:
    @pytest.mark.parametrize(
        ("override", "message"),
        [
            (
                "stages.instruct.mix={speech: 0.7, transcription: 0.2, text: 0.05}",
                "speech 0.7 + transcription 0.2 + text 0.05 = 0.95; the shares must add up to 1",
            ),
            (
                "stages.instruct.mix={speech: 0.5, text: 0.50001}",
                "speech 0.5 + text 0.50001 = 1.00001; the shares must add up to 1",
            ),
            ("stages.instruct.warmup_steps=9999", "found 9999, more than the "),
            ("data.voices.held_out=[en+f3, en-us+m1]", "en-us+m1 is also in train; a held-out voice must not be heard"),
            ("data.voices.train=[en+f4, en+f4]", "en+f4 is listed more than once; list each once"),
            ("data.voices.words_per_minute=[200, 150]", "lowest 200 is above highest 150; give [lowest, highest]"),
            ("data.voices.takes=2912", "found 2912, but words_per_minute and pitch allow 2911 pairs"),
            ("data.voices.pitch=[90, 10]", "lowest 90 is above highest 10; give [lowest, highest]"),
            ("data.sentences=[{text: a, answer: x}, {text: a}]", "'a' is listed more than once; list each sentence"),
            ("base.heads=3", "found 3, which does not divide width 128; choose a divisor of 128"),
            ("base.heads=128", "a head of 128/128 = 1 is odd; rotary positions need an even one"),
            ("base.kv_heads=3", "found 3, which does not divide heads 4; choose a divisor of 4"),
            ("tokenizer.heads=3", "found 3, which does not divide width 128; choose a divisor of 128"),
        ],
    )
    def test_values_that_contradict_each_other(self, override: str, message: str) -> None:
        field = override.partition("=")[0]
        assert the_problem(override).startswith(f"{field} (--set): {message}")

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("data.sentences=[]", "data.voices: there are voices but no data.sentences for them to speak"),
            ("launch={precision: bf16, zero: 0}", "launch.precision: bf16 with zero 0 keeps no fp32 weights"),
            ("base={kind: init, width: 130}", "base.heads: found 4, which does not divide width 130"),
            ("registry.rules=[{metric: m}]", "registry.rules.0: m has no bound; give at_least, at_most or both"),
            (
                "stages.instruct.optimizer=muon",
                "stages.instruct.optimizer: muon needs whole matrices, and launch.zero is 1",
            ),
            (
                "registry.rules=[{metric: m, at_least: 2, at_most: 1}]",
                "registry.rules.0.at_most: found 1, below at_least 2: no value keeps both",
            ),
        ],
    )
    def test_what_a_value_contradicts_may_stand_elsewhere_or_be_a_default(self, override: str, problem: str) -> None:
        found = the_problem(override)
        assert re.sub(r" \((--set|line \d+)\)", "", found).startswith(problem)

    @pytest.mark.parametrize("names", [("instruct", "pretrain", "enhance"), ("pretrain", "instruct"), ()])
    def test_stages_are_exactly_the_three_in_their_order(self, names: tuple[str, ...]) -> None:
        stage = "mix: {sound: 1}, examples: 1, steps: 1, sequence_length: 8, learning_rate: 1e-3"
        stages = ", ".join(f"{{name: {name}, {stage}}}" for name in names)
        assert the_problem(f"stages=[{stages}]") == (
            f"stages (--set): found {', '.join(names) or 'no stages'}; expected exactly pretrain, instruct, enhance, "
            "in this order"
        )

    @pytest.mark.parametrize(
        ("overrides", "unfed"),
        [
            (
                ["data.voices=null"],
                [
                    "pretrain.mix.sound",
                    "instruct.mix.speech",
                    "instruct.mix.transcription",
                    "enhance.mix.multi_turn",
                    "enhance.mix.noise",
                ],
            ),
            (
                ["data.sentences=[{text: a}, {text: b}]"],
                ["instruct.mix.speech", "instruct.mix.text", "enhance.mix.multi_turn"],
            ),
            (["data.sentences=[{text: a, answer: x}, {text: b}]"], ["enhance.mix.multi_turn"]),
        ],
    )
    def test_mixes_that_the_sentences_cannot_feed(self, overrides: list[str], unfed: list[str]) -> None:
        found = problems(SMOKE, *overrides)
        assert [problem.split(" (")[0] for problem in found] == [f"stages.{place}" for place in unfed]
        assert all("the recipe has no data for it: add " in problem for problem in found)
        assert load(SMOKE, [*overrides, "data.folder=/recordings"]).data.folder == "/recordings"  # which may feed them

    def test_a_type_without_a_share_needs_no_data(self) -> None:
        text_only = [f"stages.{name}.mix={{text: 1, sound: 0}}" for name in ("pretrain", "instruct", "enhance")]
        assert load(SMOKE, ["data.voices=null", *text_only]).data.voices is None


class TestYaml:
    def test_numbers_and_words_mean_what_they_look_like(self) -> None:
        recipe = load(
            SMOKE,
            [
                "stages.instruct.learning_rate=5e-5",
                "stages.instruct.epsilon=1.E-9",
                "stages.instruct.weight_decay=+.5",
                "seed=010",
                "data.sentences.0.answer=no",
                "data.sentences.1.text=on",
                "data.sentences.2.answer=12:30",
                "data.sentences.3.answer=2024-05-01",
                "data.sentences.4.answer=~",
                "stages.instruct.packing=False",
                "evaluation.items=0x10",
            ],
        )
        stage, sentences = recipe.stage("instruct"), recipe.data.sentences
        assert (stage.learning_rate, stage.epsilon, stage.weight_decay) == (5e-5, 1e-9, 0.5)
        assert (recipe.seed, stage.packing, recipe.evaluation.items) == (10, False, 16)
        assert [sentences[0].answer, sentences[1].text, sentences[2].answer] == ["no", "on", "12:30"]
        assert [sentences[3].answer, sentences[4].answer] == ["2024-05-01", None]

    def test_a_key_given_twice_is_named_with_both_lines(self, tmp_path: Path) -> None:
        path = edited(tmp_path, ("seed: 1\n", "seed: 1\nseed: 2\n"), ("  zero: 1\n", "  zero: 1\n  zero: 2\n"))
        seed, zero = problems(path)
        first = 1 + path.read_text(encoding="utf-8").splitlines().index("seed: 1")
        assert seed == f"seed (line {first}): the key is given twice, on lines {first} and {first + 1}; keep one"
        assert zero.startswith("launch.zero (line ")

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("name: [x", "line 1, column 9: expected ',' or ']'"),
            ("a: 1\n\tb: 2", "line 2, column 1: found character"),
            ("", "found null; expected sections"),
            ("- name", 'found ["name"]; expected sections'),
            ("a: 1\n---\nb: 2", "line 2, column 1: but found another document"),
        ],
    )
    def test_a_text_that_is_no_recipe_at_all(self, tmp_path: Path, text: str, problem: str) -> None:
        (found,) = problems(write(tmp_path, text))
        assert found.startswith(problem)

    def test_foreign_tags_and_circular_aliases_are_refused(self, tmp_path: Path) -> None:
        path = edited(
            tmp_path,
            ("seed: 1\n", "seed: !!python/name:os.system ''\n"),
            ("rules: #", "rules: &r [*r]\n  old: #"),
            ("    - {metric", "    # - {metric"),
        )
        tagged, circular, _ = problems(path)
        assert tagged.endswith("found '' tagged tag:yaml.org,2002:python/name:os.system; remove the tag")
        assert circular.endswith("an alias that contains itself; write the value out")

    def test_an_alias_repeats_a_value(self, tmp_path: Path) -> None:
        path = edited(tmp_path, ("[150, 220]", "&pair [80, 90]"), ("pitch: [30, 70]", "pitch: *pair"))
        voices = load(str(path)).data.voices
        assert voices is not None
        assert voices.pitch == voices.words_per_minute == (80, 90)


class TestOverrides:
    def test_stages_by_name_items_by_index_sections_as_yaml(self) -> None:
        recipe = load(
            SMOKE,
            [
                "stages.instruct.steps=10",
                "stages.2.steps=11",
                "registry.rules.0.at_least=5",
                "data.folder=/x=y",
                "evaluation={items: 3}",
                "base={kind: folder, name: some/model}",
                "expand.noise=0.5",
            ],
        )
        assert [stage.steps for stage in recipe.stages][1:] == [10, 11]
        assert recipe.registry.rules[0].at_least == 5
        assert (recipe.data.folder, recipe.evaluation.items, recipe.evaluation.batch) == ("/x=y", 3, 16)
        assert (recipe.base.kind, recipe.expand.noise) == ("folder", 0.5)

    def test_a_section_that_the_file_leaves_out_can_be_set(self) -> None:
        recipe = load(SMOKE, ["data.voices=null", "data.voices.train=[en+f1]", "data.voices.held_out=[en+f2]"])
        assert recipe.data.voices is not None
        assert recipe.data.voices.train == ("en+f1",)

    def test_the_last_of_two_wins(self) -> None:
        assert load(SMOKE, ["seed=3", "seed=4"]).seed == 4

    @pytest.mark.parametrize(
        ("override", "problem"),
        [
            ("seed", "--set seed: expected field=value"),
            ("stages..steps=1", "--set stages..steps=1: expected field=value"),
            (
                "stages.tune.steps=1",
                "--set stages.tune.steps=1: stages has no item tune; it has pretrain, instruct, en",
            ),
            (
                "registry.rules.9.metric=m",
                "--set registry.rules.9.metric=m: registry.rules has no item 9; it has 0, 1,",
            ),
            ("seed.x=1", "--set seed.x=1: seed is 1 and has no field x"),
            ("seed=[1", "--set seed=[1: line 1, column 3: expected ',' or ']'"),
            ("launch={zero: 1, zero: 2}", "--set launch={zero: 1, zero: 2}: zero: the key is given twice"),
            ("sede=1", "sede (--set): unknown key; did you mean seed?"),
        ],
    )
    def test_an_override_that_leads_nowhere_says_where_it_stopped(self, override: str, problem: str) -> None:
        assert the_problem(override).startswith(problem)


class TestSources:
    def test_an_unknown_name_is_answered_with_the_known_ones(self) -> None:
        assert problems("smok") == [
            "shipped are digits, llama-3.1-8b, llama-3.2-1b-one-gpu, smoke, tiny; did you mean smoke?"
        ]

    def test_a_folder_or_foreign_bytes_cannot_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "latin.yaml").write_bytes(b"name: caf\xe9")
        assert "give a YAML file in UTF-8" in problems(tmp_path)[0]
        assert "give a YAML file in UTF-8" in problems(tmp_path / "latin.yaml")[0]

    @pytest.mark.parametrize("name", [name for name, _ in shipped()])
    def test_stored_json_gives_the_same_recipe(self, name: str) -> None:
        recipe = load(name, ["data.folder=/somewhere"])
        assert parse(recipe.model_dump_json()) == recipe

    def test_stored_json_is_checked_like_a_file(self) -> None:
        with pytest.raises(RecipeError, match="the stored recipe is not JSON"):
            parse("{")
        with pytest.raises(RecipeError, match=r"seed: found -1; expected a whole number, at least 0"):
            parse(load(SMOKE).model_dump_json().replace('"seed":1', '"seed":-1'))

    def test_neither_loading_nor_checking_imports_what_computes(self) -> None:
        code = (
            "import sys, ichigo.recipe as r; r.load('smoke'); "
            "print([m for m in ('numpy', 'torch', 'mlflow', 'kfp', 'boto3', 'transformers') if m in sys.modules])"
        )
        printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=_env())
        assert printed.stdout.strip() == "[]"


class TestMissingPlaces:
    def test_each_unset_place_says_what_to_give(self) -> None:
        recipe = load("llama-3.1-8b", ["tokenizer.whisper=/models/medium.pt"])
        assert missing_places(recipe) == [
            "data.folder is not set (the AudioFolder with metadata.jsonl: a path); give --set data.folder=…",
            "tokenizer.model is not set (whisperspeech's .model file: a path or s3://); give --set tokenizer.model=…",
            "base.model is not set (the Hugging Face folder: a path or s3://); give --set base.model=…",
        ]

    def test_following_the_lines_leaves_none(self) -> None:
        given = [f"{line.split()[0]}=/place" for line in missing_places(load("llama-3.1-8b"))]
        assert missing_places(load("llama-3.1-8b", given)) == []

    def test_own_sentences_need_no_folder(self) -> None:
        assert missing_places(load(SMOKE)) == []


def _env() -> dict[str, str]:
    """This process's import path, whichever way the package was made importable."""
    return {"PYTHONPATH": os.pathsep.join(sys.path)}
