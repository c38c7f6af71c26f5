"""``ichigo ask`` on a model folder: what a person gets for right and for wrong questions."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import soundfile
import torch

from ichigo.cli.main import main
from ichigo.speech.resample import resample
from tests.unit.model_folder import make_both, make_tokenizer, speech

Ask = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its speech tokenizer."""
    torch.set_num_threads(1)
    return make_both(tmp_path_factory.mktemp("ask"))


@pytest.fixture
def ask(
    folders: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Ask:
    """Run ``ichigo ask`` in an empty folder; returns exit status, output and errors."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str, model: bool = True) -> tuple[int, str, str]:
        named = ["--model", str(folders[0]), "--tokenizer", str(folders[1])] if model else []
        status = main(["ask", *arguments, "--max-new-tokens", "8", *named])
        return status, *capsys.readouterr()

    return run


def wav(samples: npt.NDArray[Any], rate: int = 16_000, **options: Any) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=options.pop("format", "WAV"), **options)
    return buffer.getvalue()


def voice(text: str = "one two") -> npt.NDArray[np.float32]:
    return speech(text, 5).waveform


def test_a_recording_gets_an_answer_with_its_costs(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "question.wav").write_bytes(wav(voice()))
    status, out, err = ask("question.wav")
    assert status == 0
    assert "question.wav\n> " in out
    assert f"{voice().size // 640} sound tokens from {voice().size / 16_000:.2f} s" in out
    assert "first token after" in out
    assert "asking" in err
    assert "hardly a sound" not in err


def test_json_is_all_of_standard_output(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes(wav(voice("one")))
    (tmp_path / "b.wav").write_bytes(wav(voice("two three")))
    _, out, err = ask("a.wav", "b.wav", "--repeat", "3", "--json")
    assert err.startswith("asking ")
    report = json.loads(out)
    assert [turn["question"] for turn in report["turns"]] == ["a.wav", "b.wav"]
    assert [turn["sound_tokens"] for turn in report["turns"]] == [
        voice("one").size // 640,
        voice("two three").size // 640,
    ]
    assert (report["repeat"], report["warm_up"], report["threads"]) == (3, True, 1)
    parts = {"tokenise", "prefill", "first_token", "to_first_token", "total", "while_spoken"}
    assert set(report["turns"][0]["milliseconds"]) == parts


def test_a_stream_is_refused_in_words_and_asked_as_a_whole(ask: Ask, tmp_path: Path) -> None:
    """The tokenizer here hears whole recordings, as the published one does."""
    (tmp_path / "question.wav").write_bytes(wav(voice()))
    plain, streamed = (ask("question.wav", "--json", *more) for more in ((), ("--stream",)))
    assert "hears whole recordings and cannot stream" in streamed[2]
    assert "plain mode" in streamed[2]
    assert json.loads(streamed[1])["turns"][0]["answer"] == json.loads(plain[1])["turns"][0]["answer"]
    assert json.loads(streamed[1])["turns"][0]["milliseconds"]["while_spoken"] == 0
    status, _, err = ask("--text", "hello", "--stream")
    assert status == 2
    assert "--stream" in err


def test_turns_of_a_conversation_depend_on_what_came_before(ask: Ask) -> None:
    questions = ("what is two", "turn on the light", "plus two", "light on two")
    together = json.loads(ask(*(part for text in questions for part in ("--text", text)), "--json")[1])["turns"]
    alone = [json.loads(ask("--text", text, "--json")[1])["turns"][0] for text in questions]
    assert together[0]["answer"] == alone[0]["answer"]
    assert [turn["answer"] for turn in together[1:]] != [turn["answer"] for turn in alone[1:]]


@pytest.mark.parametrize(("rate", "channels"), [(8_000, 1), (48_000, 2)])
def test_other_rates_and_channels_are_heard(ask: Ask, tmp_path: Path, rate: int, channels: int) -> None:
    samples = np.repeat(resample(voice(), 16_000, rate)[:, None], channels, axis=1)
    (tmp_path / "question.wav").write_bytes(wav(samples, rate))
    turn = json.loads(ask("question.wav", "--json")[1])["turns"][0]
    assert abs(turn["sound_tokens"] - voice().size // 640) <= 1


def test_espeak_asks(ask: Ask) -> None:
    status, out, err = ask("--say", "turn on the light", "--voice", "en-us+f2")
    assert status == 0, err
    assert "turn on the light\n> " in out
    assert "sound tokens from" in out


@pytest.mark.parametrize(
    "waveform", [np.zeros(16_000), np.eye(1, 32_000, 9_000)[0], np.zeros(1000)], ids=["silence", "click", "60 ms"]
)
def test_nothing_to_hear_is_answered_with_a_word_of_doubt(
    ask: Ask, tmp_path: Path, waveform: npt.NDArray[np.float64]
) -> None:
    (tmp_path / "question.wav").write_bytes(wav(waveform))
    status, out, err = ask("question.wav")
    assert status == 0
    assert "first token after" in out
    assert "question.wav: hardly a sound" in err


def two_hours() -> bytes:
    """A short FLAC file whose header promises two hours."""
    data = bytearray(wav(voice(), format="FLAC"))
    size = int.from_bytes(data[18:26], "big")  # STREAMINFO: 28 bits of format, then 36 of total samples
    data[18:26] = (size >> 36 << 36 | 2 * 3600 * 16_000).to_bytes(8, "big")
    return bytes(data)


NAN = np.where(np.arange(16_000) == 50, np.nan, 0.1).astype(np.float32)


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("none.wav", None, "no such file"),
        ("text.wav", b"What is two plus two?", "no sound file at all"),
        ("empty.wav", b"", "empty"),
        ("cut.wav", wav(voice())[:-5000], "cut off after"),
        ("nan.wav", wav(NAN, subtype="FLOAT"), "NaN"),
        ("short.wav", wav(np.full(160, 0.1)), "lasts 10 ms"),
        ("long.wav", wav(np.full(200 * 16_000, 0.1)), r"lasts 200.0 s, 5000 sound tokens.* s at most"),
        ("hours.flac", two_hours(), "7200.0 s, more than 3600 s"),
    ],
)
def test_a_file_that_cannot_be_asked_is_named_with_its_reason(
    ask: Ask, tmp_path: Path, name: str, data: bytes | None, message: str
) -> None:
    if data is not None:
        (tmp_path / name).write_bytes(data)
    status, out, err = ask(name)
    assert status == 2
    assert out == ""
    assert re.search(message, err), err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "one of the three"),
        (("a.wav", "--say", "hello"), "one of the three"),
        (("--say", "one", "--text", "two"), "one of the three"),
        (("--say", "?!"), "cannot be spoken"),
        (("--text", " ... "), "no word"),
        (("--say", "hello", "--voice", "martian"), "martian"),
        (("--say", "hello", "--voice", "en+nobody"), "nobody"),
        (("--say", "one", "--say", "..."), "cannot be spoken"),
    ],
)
def test_wrong_arguments_are_told(ask: Ask, arguments: tuple[str, ...], message: str) -> None:
    status, out, err = ask(*arguments)
    assert (status, out) == (2, "")
    assert message in err


def test_a_folder_needs_its_tokenizer_for_speech_and_not_for_text(ask: Ask, folders: tuple[Path, Path]) -> None:
    status, _, err = ask("--say", "hello", "--model", str(folders[0]), model=False)
    assert status == 2
    assert "--tokenizer" in err
    assert ask("--text", "hello", "--model", str(folders[0]), model=False)[0] == 0


def test_the_tokenizer_of_another_model_is_refused(ask: Ask, folders: tuple[Path, Path], tmp_path: Path) -> None:
    make_tokenizer(tmp_path / "other", seed=2)
    status, _, err = ask(
        "--say", "hello", "--model", str(folders[0]), "--tokenizer", str(tmp_path / "other"), model=False
    )
    assert status == 2
    assert "give the tokenizer of the model's own run" in err


def test_without_a_run_the_default_model_says_what_to_do(ask: Ask) -> None:
    status, _, err = ask("--text", "hello", model=False)
    assert status == 2
    assert "no run has ended here yet" in err


def test_a_folder_that_is_no_model_is_named(ask: Ask, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    status, _, err = ask("--text", "hello", "--model", str(tmp_path / "folder"), model=False)
    assert status == 2
    assert "no config.json" in err


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_broken_summary_is_named(ask: Ask, tmp_path: Path, content: str) -> None:
    (tmp_path / "summary.json").write_text(content)
    status, _, err = ask("--text", "hello", "--model", "summary.json", model=False)
    assert status == 2
    assert "summary.json is not the summary of a run" in err


def test_a_run_that_trained_nothing_is_named(ask: Ask, tmp_path: Path) -> None:
    steps = [
        {"name": "prepare", "artifact": {"kind": "corpus", "uri": "s3://x", "digest": ""}},
        {"name": "gate", "artifact": None},
    ]
    summary = {"model": None, "steps": steps, "run_key": "smoke-1", "status": "failed"}
    (tmp_path / "summary.json").write_text(json.dumps(summary))
    status, _, err = ask("--text", "hello", "--model", str(tmp_path), model=False)
    assert status == 2
    assert "smoke-1 failed and trained no model" in err
