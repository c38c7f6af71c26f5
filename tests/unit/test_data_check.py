"""``ichigo data check``: what is in a source, what would be set aside, what it shares with evaluation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from ichigo.cli.main import main
from ichigo.corpus.survey import items_of
from ichigo.corpus.world import World
from ichigo.recipe import load
from ichigo.recipe.schema import World as Settings
from tests.unit.corpus_support import chat, json_file, parquet_file, sound, tokens


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = main(["data", "check", *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def report(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    found, out, _ = run(capsys, *arguments, "--json")
    assert found == status
    parsed: dict[str, Any] = json.loads(out)
    return parsed


def mixed(folder: Path) -> Path:
    """Six rows: two train, one test with the sound of another, one nearly the text of the test row, two broken."""
    same = "please turn on the small light in the kitchen beside the window that looks at our old garden and its trees"
    rows = [
        {"audio": sound(1), "text": "one", "speaker": "ann", "language": "en", "license": "CC0", "split": "train"},
        {"audio": sound(2, 0.3), "text": same, "speaker": "bob", "language": "en", "license": "CC0", "split": "train"},
        {"audio": sound(1), "text": same.replace("small ", ""), "speaker": "cy", "language": "de", "split": "test"},
        {"audio": sound(4), "text": same.replace("small ", ""), "speaker": "ann", "split": "train"},
        {"audio": b"junk", "text": "x"},
        {"audio": sound(5), "text": ""},
    ]
    return parquet_file(folder / "rows.parquet", rows)


def test_the_report_counts_all_that_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, str(mixed(tmp_path)))
    assert (found["lines"], found["kept"], found["rows"], found["fatal"]) == (6, 4, 4, [])
    assert found["set_aside"] == {"unreadable": 1, "no_text": 1}
    assert found["sources"]["source"]["lines"] == 6
    assert found["splits"] == {"train": 3, "test": 1}
    assert found["speakers"]["ann"] == {"rows": 2, "seconds": 0.2}
    assert {name: share["rows"] for name, share in found["languages"].items()} == {"en": 2, "de": 1, "und": 1}
    assert {name: share["rows"] for name, share in found["licenses"].items()} == {"CC0": 2, "unknown": 2}
    assert (found["seconds"], found["shortest"], found["typical"], found["longest"]) == (0.6, 0.1, 0.1, 0.3)
    assert (found["distinct_texts"], found["sound_tokens"]) == (3, 15)
    assert found["text_tokens"] == pytest.approx(sum(map(len, ["one", *["x" * 98] * 2, "x" * 104])) / 4, rel=0.05)
    first = found["examples"]["unreadable"][0]
    assert (first["line"], first["unit"]) == (5, "rows.parquet")


def test_training_rows_that_share_text_or_sound_with_test_rows_are_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overlap = report(capsys, str(mixed(tmp_path)))["overlap"]
    assert (overlap["items"], overlap["same_text"], overlap["near_text"], overlap["same_sound"]) == (1, 1, 1, 1)
    assert len(overlap["examples"]) == 2


def recipe(folder: Path, **data: Any) -> str:
    """A recipe of the world, with these data."""
    tree = yaml.safe_load(json.dumps(load("tiny").model_dump(mode="json")))
    tree["data"] = {"world": {"utterances": 50, "items": 5}, **data}
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    return str(path)


def test_a_recipe_brings_its_evaluation_items_and_its_limits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = items_of(World(Settings(utterances=50, items=5), load("tiny").seed))[0]
    rows = [{"audio": sound(1), "text": asked.upper() + "!"}, {"audio": sound(2, 2.0), "text": "too long"}]
    path = parquet_file(tmp_path / "rows.parquet", rows)
    assert report(capsys, str(path))["overlap"]["same_text"] == 0
    found = report(capsys, str(path), "--recipe", recipe(tmp_path, max_seconds=1.0, held_out_speakers=0.0))
    assert found["overlap"]["same_text"] == 1
    assert found["set_aside"] == {"too_long": 1}


def test_without_a_source_the_recipe_s_own_are_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    strings = json_file(tmp_path / "t.jsonl", [{"text": tokens(1, 2, 3)}, {"messages": chat("who is it", "me")}])
    sources = [
        {"kind": "parquet", "path": str(mixed(tmp_path))},
        {"kind": "tokens", "path": str(strings), "tokenizer": "published"},
    ]
    tree = yaml.safe_load(Path(recipe(tmp_path, sources=sources)).read_text())
    tree["tokenizer"] = {"kind": "import"}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    found = report(capsys, "--recipe", str(tmp_path / "recipe.yaml"))
    assert {label: one["rows"] for label, one in found["sources"].items()} == {"data.sources.0": 4, "data.sources.1": 1}
    assert (found["texts"], found["without_words"]) == (1, 1)


@pytest.mark.parametrize(
    ("break_it", "complaint"),
    [
        (lambda path: path.write_bytes(b"PAR1 no"), "rows.parquet: "),
        (lambda path: parquet_file(path, [{"audio": b"junk", "text": "x"}]), "none of 1 lines is usable"),
        (lambda path: parquet_file(path, [{"audio": sound(1), "words": "x"}]), "no_text x 1"),
    ],
)
def test_what_no_corpus_can_be_made_of_ends_with_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], break_it: Any, complaint: str
) -> None:
    break_it(path := mixed(tmp_path))
    assert complaint in " ".join(report(capsys, str(path), status=2)["fatal"])
    status, out, _ = run(capsys, str(path))
    assert status == 2
    assert "✗" in out


def test_one_broken_file_among_good_ones_is_fatal_and_the_others_are_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mixed(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but cut off")
    found = report(capsys, str(tmp_path), status=2)
    assert (found["rows"], found["lines"]) == (4, 7)
    assert "a.parquet" in found["fatal"][0]


def test_a_person_reads_the_same_as_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, str(mixed(tmp_path)))
    assert status == 0
    for part in (
        "6: 4 kept, 2 set aside",
        "3 train, 1 test",
        "ann 2",
        "CC0 2",
        "no_text",
        "rows.parquet:6",
        "✓ 4 of 6",
    ):
        assert part in out


def test_fields_of_the_source_can_be_given(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = parquet_file(tmp_path / "x.parquet", [{"clip": sound(1), "sentence": "hello"}])
    fields = ["--set", "columns.audio=clip", "--set", "columns.text=sentence", "--set", "language=en"]
    found = report(capsys, str(path), "--kind", "parquet", *fields)
    assert (found["rows"], list(found["languages"])) == (1, ["en"])


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give a SOURCE"),
        (["nowhere"], "no such file or folder"),
        (["."], "none of metadata.jsonl"),
        ([".", "--kind", "tar"], "kind: "),
        ([".", "--kind", "parquet", "--set", "columns.txt=a"], "columns.txt: "),
        ([".", "--kind", "parquet", "--set", "columns"], "expected field=value"),
    ],
)
def test_wrong_arguments_say_what_is_wrong(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    complaint: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert complaint in err
