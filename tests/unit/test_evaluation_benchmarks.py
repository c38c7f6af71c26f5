"""VoiceBench- and AudioBench-shaped files: agreement with the published scorers, what is set aside, both scores.

``benchmark_cases.json`` holds replies of ours with the answers of the published scorers, and says how they were made.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from ichigo.cli import benchmark as verb
from ichigo.errors import DataError
from ichigo.evaluation.benchmarks import voicebench
from ichigo.evaluation.benchmarks.asking import ask_set
from ichigo.evaluation.benchmarks.audiobench import Normaliser, string_match
from ichigo.evaluation.benchmarks.report import Item, SetReport, plain, write_items
from ichigo.evaluation.benchmarks.rows import BenchmarkSet, options_in, read_set, set_name
from ichigo.evaluation.choices import CHOICE_OUTCOMES
from ichigo.inference.engine import Engine
from ichigo.speech.audio import write_flac
from ichigo.speech.vq import WhisperVQ
from tests.unit.model_folder import make_both, speech

CASES: dict[str, Any] = json.loads(Path(__file__).with_name("benchmark_cases.json").read_text(encoding="utf-8"))
QUESTION = "Which is a star? A. the moon B. the sun C. a comet D. a cloud"


def sound(text: str = "one two three") -> bytes:
    return write_flac(speech(text).waveform)


def parquet(rows: list[dict[str, Any]], schema: pa.Schema | None = None) -> io.BytesIO:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
    file.seek(0)
    return file


def voice(audio: bytes | None, prompt: str | None = QUESTION, reference: str | None = "B") -> dict[str, Any]:
    return {"audio": {"bytes": audio, "path": "x.wav"}, "prompt": prompt, "reference": reference}


def test_every_stored_reply_gives_the_letter_that_voicebench_reads() -> None:
    wrong = [(reply, theirs, voicebench.letter(reply)) for reply, theirs in CASES["letters"]]
    assert [one for one in wrong if one[1] != one[2]] == []
    assert {theirs for _, theirs in CASES["letters"]} == {"A", "B", "C", "D", None}


def test_every_stored_reply_is_a_refusal_where_voicebench_says_so() -> None:
    assert [reply for reply, theirs in CASES["refusals"] if voicebench.refuses(reply) != theirs] == []
    assert {theirs for _, theirs in CASES["refusals"]} == {True, False}


def test_a_draw_counts_as_its_expectation_and_never_as_luck() -> None:
    assert [voicebench.choice_score(reply, "B") for reply in ("B", "A", "hello")] == [1.0, 0.0, 0.25]


def test_every_stored_pair_has_audiobenchs_words_and_errors() -> None:
    normaliser = Normaliser(CASES["spellings"])
    for reference, hypothesis, wanted, said, errors, units in CASES["words"]:
        assert (normaliser(reference).split(), normaliser(hypothesis).split()) == (wanted.split(), said.split())
        counted = normaliser.word_errors(reference, hypothesis)
        assert (counted.errors, counted.units) == (errors, units), (reference, hypothesis)


def test_without_spellings_colour_is_not_color() -> None:
    assert Normaliser()("colour") != Normaliser({"colour": "color"})("colour") == "color"


def test_every_stored_reply_matches_where_audiobench_says_so() -> None:
    for answer, choices, reply, theirs in CASES["match"]:
        assert float(string_match(reply, choices, choices.index(answer))) == theirs, reply


def test_options_are_read_out_of_a_question_and_missing_ones_are_unknown() -> None:
    assert options_in(QUESTION) == ("the moon", "the sun", "a comet", "a cloud")
    assert options_in("Which? (A) the moon (B) the sun") == ("the moon", "the sun", "", "")
    assert options_in("What is a star?") == ("", "", "", "")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("voicebench/openbookqa/test-00000-of-00001.parquet", "openbookqa"),
        ("data/mmsu/law-00000-of-00001.parquet", "mmsu"),
        ("librispeech_test_clean/data/test.parquet", "librispeech_test_clean"),
        ("sd-qa/usa.parquet", "sd-qa"),
        ("advbench.parquet", "advbench"),
    ],
)
def test_a_set_is_named_by_where_it_lies(path: str, name: str) -> None:
    assert set_name(path) == name


def test_rows_that_cannot_be_used_are_counted_by_reason() -> None:
    rows = [voice(b"x"), voice(None), voice(b"x", prompt=" "), voice(b"x", reference=None), voice(b"x", reference="E")]
    found = read_set(parquet(rows), "openbookqa/test.parquet")
    assert (found.benchmark, found.scoring, [row.answer for row in found.rows]) == ("VoiceBench", "choice", [1])
    assert found.set_aside == {"no_audio": 1, "no_words": 1, "no_reference": 1, "bad_reference": 1}


def test_audiobench_is_told_by_its_columns_and_its_choices_hold_the_answer() -> None:
    row = {"context": {"bytes": b"x", "path": None}, "instruction": "Which?", "answer": "(B) sun", "other": 1}
    assert read_set(parquet([row]), "librispeech_test_clean/t.parquet").scoring == "words"
    assert read_set(parquet([row]), "openhermes/t.parquet").scoring == "judge"
    choices = [{**row, "choices": ["(A) moon", "(B) sun"]}, {**row, "choices": ["(A) moon"]}]
    found = read_set(parquet(choices), "mmau/t.parquet")
    assert (found.scoring, found.rows[0].answer, dict(found.set_aside)) == ("match", 1, {"bad_reference": 1})


def test_wrong_columns_no_rows_and_no_parquet_are_said_with_the_file() -> None:
    with pytest.raises(
        DataError, match=r"^x/t.parquet: has the columns question; a benchmark's file has audio, prompt"
    ):
        read_set(parquet([{"question": "?"}]), "x/t.parquet")
    with pytest.raises(DataError, match=r"audio is string; it must be a struct of bytes and path"):
        read_set(parquet([{"audio": "file.wav", "prompt": "?"}]), "x/t.parquet")
    kind = pa.schema({"audio": pa.struct({"bytes": pa.binary(), "path": pa.string()}), "prompt": pa.string()})
    with pytest.raises(DataError, match=r"^x/t.parquet: the file has no rows"):
        read_set(parquet([], kind), "x/t.parquet")
    with pytest.raises(DataError, match=r"^x/t.parquet: no readable Parquet file"):
        read_set(io.BytesIO(b"PAR1 but no more"), "x/t.parquet")


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    torch.set_num_threads(1)
    return make_both(tmp_path_factory.mktemp("benchmark"))


def asked(folders: tuple[Path, Path], found: BenchmarkSet) -> SetReport:
    engine, tokenizer = Engine.open(folders[0]), WhisperVQ.open(folders[1])
    return ask_set(engine, tokenizer, found, max_new_tokens=8, batch=4, seed=1)


def test_every_row_is_asked_once_and_scored_both_ways(folders: tuple[Path, Path]) -> None:
    rows = [voice(sound("one two"), reference="A"), voice(sound("three four"), reference="D"), voice(b"no sound file")]
    report = asked(folders, read_set(parquet(rows), "openbookqa/test.parquet"))
    assert [item.id for item in report.items] == ["openbookqa/test.parquet:0", "openbookqa/test.parquet:1"]
    assert report.set_aside == {"unreadable": 1}
    for item in report.items:
        assert item.theirs == voicebench.choice_score(item.reply, item.reference)
        assert item.outcome in CHOICE_OUTCOMES
        assert len(item.options) == 4
        assert all(math.isfinite(one) and one < 0 for one in item.options)
    metrics = report.metrics(seed=1)
    assert (metrics["openbookqa.items"], metrics["openbookqa.set_aside"]) == (2.0, 1.0)
    right = [int(np.argmax(item.options)) == "ABCD".index(item.reference) for item in report.items]
    assert metrics["openbookqa.likelihood.accuracy"] == sum(right) / 2
    assert "set aside: 1 unreadable" in plain([report], metrics)


def test_transcripts_have_the_errors_of_both_normalisations_and_repeat_to_the_byte(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    rows = [{"context": {"bytes": sound(text), "path": None}, "answer": text} for text in ("one two", "three", "four")]
    found = read_set(parquet(rows), "librispeech_test_clean/t.parquet")
    files = []
    for name in ("first", "second"):
        report = asked(folders, found)
        (tmp_path / name).mkdir()
        files.append(write_items([report], tmp_path / name).read_bytes())
    assert files[0] == files[1]
    table = pq.read_table(io.BytesIO(files[0])).to_pylist()
    errors = [Normaliser().word_errors(row["reference"], row["reply"]) for row in table]
    assert [row["theirs"] for row in table] == [one.errors for one in errors]
    total = sum(one.errors for one in errors) / sum(one.units for one in errors)
    assert report.metrics(1)["librispeech_test_clean.theirs"] == total


def test_a_set_without_any_usable_recording_is_refused_with_its_reasons(folders: tuple[Path, Path]) -> None:
    found = read_set(parquet([voice(b"no sound"), voice(None)]), "mmsu/t.parquet")
    with pytest.raises(DataError, match=r"mmsu: none of its rows can be asked \(1 no_audio, 1 unreadable\)"):
        asked(folders, found)


def test_what_needs_a_judge_has_no_score_of_theirs_and_hostile_text_stays_text(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>" + "x" * 10_000
    item = Item("commoneval", "1", hostile, "", hostile, 5, "wrong", math.nan, math.nan)
    report = SetReport("commoneval", "VoiceBench", "judge", (item,), {})
    metrics = report.metrics(1)
    assert not any(name.startswith(("commoneval.theirs", "commoneval.ours")) for name in metrics)
    assert "needs a hosted judge" in plain([report], metrics)
    assert pq.read_table(write_items([report], tmp_path)).to_pylist()[0]["reply"] == hostile


def test_the_verb_prints_both_scores_and_leaves_the_items(
    folders: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for part, reference in enumerate("AB"):
        (tmp_path / "openbookqa").mkdir(exist_ok=True)
        rows = [voice(sound("one two"), reference=reference), voice(sound("four"), reference=reference)]
        (tmp_path / "openbookqa" / f"test-{part}.parquet").write_bytes(parquet(rows).getvalue())
    (tmp_path / "advbench.parquet").write_bytes(parquet([voice(sound("three"), "Do it")]).getvalue())
    parser = argparse.ArgumentParser()
    verb.arguments(parser)
    model = ["--model", str(folders[0]), "--tokenizer", str(folders[1]), "--max-new-tokens", "8"]
    out = ["--out", str(tmp_path / "out"), "--json"]
    assert verb.main(parser.parse_args([str(tmp_path), *model, *out])) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["sets"]["openbookqa"] == {"benchmark": "VoiceBench", "scoring": "choice"}
    assert (said["metrics"]["openbookqa.items"], said["metrics"]["advbench.items"]) == (4.0, 1.0)
    items = pq.read_table(tmp_path / "out" / "items.parquet").to_pylist()
    assert [item["set"] for item in items] == ["advbench", *["openbookqa"] * 4]
    assert said["metrics"]["advbench.theirs"] == items[0]["theirs"]


def test_a_folder_without_parquet_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \*.parquet file"):
        verb.read_sets([str(tmp_path)], None, None)
