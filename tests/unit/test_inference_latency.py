"""The latency bench: every arm asks what it says, on speech of an exact length; what cannot be asked is said."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ichigo.cli.latency import seconds, table
from ichigo.cli.main import main
from ichigo.errors import DataError
from ichigo.inference.engine import Engine
from ichigo.inference.latency import PARTS, Bench, Latency, LeftOut, Row, Speech, Wait, join, joined_speech
from ichigo.inference.session import Session
from ichigo.language.layouts import Layouts, Sample, Turn
from ichigo.speech.synthesis import Utterance, Word
from ichigo.speech.vq import WhisperVQ
from tests.unit.model_folder import make_model
from tests.unit.test_inference_listening import _one_thread as _one_thread
from tests.unit.test_whisper_vq_stream import causal


@pytest.fixture(scope="module")
def tokenizer() -> WhisperVQ:
    return causal(12)


@pytest.fixture(scope="module")
def folders(tokenizer: WhisperVQ, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model, the base that it was made from (beside it, ``model-base``), and its speech tokenizer."""
    root = tmp_path_factory.mktemp("latency")
    tokenizer.save(root / "tokenizer")
    make_model(root / "model", tokenizer.identity())
    return root / "model", root / "tokenizer"


@pytest.fixture(scope="module")
def engine(folders: tuple[Path, Path]) -> Engine:
    return Engine.open(folders[0])


def utterance(text: str, spoken: float) -> Utterance:
    """A word in each third of a second, then silence up to ``spoken`` seconds."""
    words = tuple(Word(n / 3, (n + 1) / 3, word) for n, word in enumerate(text.split()))
    return Utterance(np.full(int(16_000 * spoken), 0.1, np.float32), (), words)


def test_speech_is_cut_to_the_sample_and_holds_the_words_that_end_in_it() -> None:
    said = [utterance("one two", 1.0), utterance("three", 0.5)]
    for samples, text in ((5_000, ""), (5_400, "one"), (16_000, "one two"), (21_500, "one two three")):
        speech = join(said, samples)
        assert (speech.waveform.size, speech.text) == (samples, text)
    assert join(said, 80_000).text.split()[:4] == ["one", "two", "three", "one"]


def test_sentences_of_espeak_fill_any_length() -> None:
    short, long = joined_speech(2), joined_speech(30)
    assert (short.seconds, long.seconds) == (2, 30)
    assert long.text.startswith(short.text)
    assert 4 <= len(short.text.split()) <= 10
    assert 60 <= len(long.text.split()) <= 120
    assert np.abs(long.waveform[-48_000:]).max() > 0.05, "spoken to its end"


class Noting(Engine):
    """An engine that notes the prompts it is begun with, and how many tokens are asked for."""

    def __init__(self, model: Any, layouts: Layouts) -> None:
        super().__init__(model, layouts)
        self.begun: list[tuple[list[int], int, bool]] = []

    def begin(self, prompt: Any, max_new_tokens: int, *, stops: bool = True) -> Any:
        self.begun.append(([int(token) for token in prompt], max_new_tokens, stops))
        return super().begin(prompt, max_new_tokens, stops=stops)


def test_each_arm_asks_its_own_prompt(engine: Engine, tokenizer: WhisperVQ) -> None:
    ours, base = (Noting(engine._model, engine.layouts) for _ in range(2))
    bench, speech = Bench(Session(ours, tokenizer), base), joined_speech(1.5)
    codes = tokenizer.encode([speech.waveform])[0]
    layouts = engine.layouts
    spoken = layouts.prompt_for(Sample("speech", (Turn(codes),))).tolist()
    written = layouts.prompt_for(Sample("text", (Turn(speech.text),))).tolist()

    waits = {arm: bench.wait(arm, speech) for arm in ("speech", "text", "cascade", "streaming")}
    transcribe = ours.begun[2]
    assert [prompt for prompt, *_ in ours.begun[:2]] == [spoken, written]
    assert base.begun == [(written, 1, True)]
    sound, at = engine.contract.sound_ids(codes).tolist(), transcribe[0].index(engine.contract.sound_start)
    assert transcribe[0][at + 1 : at + 1 + len(sound)] == sound
    answer = layouts.example(Sample("text", (Turn("a", speech.text),))).input_ids
    assert transcribe[1:] == (len(answer) - len(layouts.prompt_for(Sample("text", (Turn("a"),)))) - 1, False)
    assert set(waits["cascade"].parts) == set(PARTS)
    assert all(value > 0 for wait in waits.values() for value in wait.parts.values())
    assert [wait.while_spoken > 0 for wait in waits.values()] == [False, False, False, True]


def test_everything_is_asked_as_often_as_it_was_wanted(engine: Engine, tokenizer: WhisperVQ) -> None:
    speeches = [joined_speech(1), joined_speech(2)]
    found = Bench(Session(engine, tokenizer), engine).measure(speeches, 3)
    assert [(row.arm, row.seconds) for row in found.rows] == [
        (arm, length) for arm in ("speech", "streaming", "text", "cascade") for length in (1, 2)
    ]
    assert [len(row.waits) for row in found.rows] == [3] * 8
    assert found.left_out == ()
    assert [row.prompt for row in found.rows[:2]] == [row.prompt for row in found.rows[2:4]]
    assert found.rows[1].prompt - found.rows[0].prompt == 25
    assert found.growth(found.rows[2]) == 1


def test_what_cannot_be_asked_is_left_out_with_the_reason(engine: Engine) -> None:
    whole = Session(engine)
    whole._tokenizer = causal(0)
    silent = Speech(np.zeros(16_000, np.float32), "")
    found = Bench(whole).measure([silent, Speech(np.zeros(170 * 16_000, np.float32), "one two")], 1)
    assert [(one.arm, one.seconds) for one in found.left_out] == [
        ("streaming", None),
        ("cascade", None),
        ("speech", 170),
        ("text", 1),
    ]
    reasons = [one.reason for one in found.left_out]
    assert "hears whole recordings" in reasons[0]
    assert "--base" in reasons[1]
    assert "4250 sound tokens; of the model's 4096 positions" in reasons[2]
    assert "no word ends within 1 s" in reasons[3]
    assert [(row.arm, row.seconds) for row in found.rows] == [("speech", 1), ("text", 170)]
    with pytest.raises(DataError, match="no word"):
        Bench(whole, engine).wait("cascade", silent)


def test_a_base_in_another_precision_is_no_comparison(engine: Engine, tokenizer: WhisperVQ) -> None:
    half: Any = copy.deepcopy(engine._model)
    base = Engine(half.to(torch.bfloat16), engine.layouts)
    found = Bench(Session(engine, tokenizer), base).measure([joined_speech(1)], 1)
    assert [one.arm for one in found.left_out] == ["cascade"]
    assert "torch.bfloat16, the model in torch.float32" in found.left_out[0].reason


def test_percentiles_and_growth_are_those_of_the_waits() -> None:
    def row(seconds: float, totals: list[float]) -> Row:
        waits = [Wait({"tokenise": 1.0, "prefill": total - 1}, 500 * seconds) for total in totals]
        return Row("streaming", seconds, 9, waits)

    rows = row(10, [6.0, 12.0, 9.0]), row(1, [3.0] * 3)
    found = Latency(rows, (LeftOut("text", 30, "too long"), LeftOut("cascade", None, "no base")))
    assert rows[0].percentiles() == pytest.approx((9.0, 11.7, 11.94))
    assert rows[0].percentiles("transcribe") == (0, 0, 0)
    assert (found.growth(rows[0]), rows[0].keeps_up) == (3, 0.5)
    shown = "\n".join(table(found, {"repeat": 3, "dtype": "float32", "device": "cpu", "threads": 1}))
    assert all(part in shown for part in ("11.70", "11.94", "3.00", "text of 30 s: too long", "cascade: no base"))
    assert "while 10 s are said: 0.500 s" in shown


def test_the_verb_measures_a_model_folder(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    model, tokenizer = folders
    named = [str(model), "--tokenizer", str(tokenizer), "--base", f"{model}-base", "--seconds", "2,1", "--repeat", "2"]
    assert main(["latency", *named, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["repeat"], report["dtype"], report["piece_seconds"], report["left_out"]) == (2, "float32", 0.1, [])
    assert [(row["arm"], row["seconds"]) for row in report["rows"]][:2] == [("speech", 1), ("speech", 2)]
    assert len(report["rows"]) == 8
    for row in report["rows"]:
        spread = row["to_first_token"]
        assert 0 < spread["p50"] <= spread["p95"] <= spread["p99"]
    assert main(["latency", *named]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("speech", "streaming", "text", "cascade")) for line in lines) == 8


def test_lengths_are_read_in_rising_order() -> None:
    assert seconds("10,1,2.5,1") == (1, 2.5, 10)


@pytest.mark.parametrize("text", ["0", "-1,2", "601", "one"])
def test_lengths_that_nobody_can_say(text: str) -> None:
    with pytest.raises(SystemExit):
        main(["latency", "--seconds", text])
