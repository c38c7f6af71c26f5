"""``ichigo speak``: what is read back is what the tokens say, and errors are counted against what was asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ichigo.cli.main import main
from ichigo.cli.speak import describe, read_back
from ichigo.errors import TokenizerError
from ichigo.language.contract import TokenContract
from ichigo.speech.lexicon import RECOGNISER_FILE
from ichigo.speech.vq import WhisperVQ
from tests.unit.model_folder import make_both, speech


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its speech tokenizer."""
    torch.set_num_threads(1)
    return make_both(tmp_path_factory.mktemp("speak"))


def test_tokens_are_read_back_as_what_was_said(folders: tuple[Path, Path]) -> None:
    said, asked = "three one four two", "three four four"
    codes = WhisperVQ.open(folders[1]).encode([speech(said, seed=77).waveform])[0]
    right, wrong = read_back(said, codes, folders[1]), read_back(asked, codes, folders[1])
    assert right["words"] == wrong["words"] == said
    assert (right["word_errors"], right["words_asked"]) == (0, 4)
    assert (wrong["word_errors"], wrong["words_asked"]) == (2, 3)
    assert (right["codes"], right["seconds"]) == (codes.tolist(), len(codes) / 25)
    assert set(right["phones"]) <= set("aeiou")


def test_the_report_shows_every_part(folders: tuple[Path, Path]) -> None:
    codes = WhisperVQ.open(folders[1]).encode([speech("two one").waveform])[0]
    shown = describe({"ended": False, **read_back("two two", codes, folders[1])})
    assert f"{len(codes)} sound tokens, {len(codes) / 25:.2f} s, cut off" in shown
    assert "words    two one" in shown
    assert "errors   1 of 2 words" in shown


def test_the_verb_speaks_with_a_model(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    named = ["--model", str(folders[0]), "--tokenizer", str(folders[1])]
    assert main(["speak", "one two", "--seconds", "1", "--json", *named]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["text"] == "one two"
    assert len(report["codes"]) <= 27
    assert all(0 <= code < TokenContract.load(folders[0]).sound_codes for code in report["codes"])


def test_a_text_without_a_word_is_refused(folders: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["speak", "?!", "--model", str(folders[0]), "--tokenizer", str(folders[1])]) == 2
    assert "no word" in capsys.readouterr().err


def test_a_tokenizer_without_a_lexicon_is_named(folders: tuple[Path, Path], tmp_path: Path) -> None:
    for path in folders[1].iterdir():
        if path.name != RECOGNISER_FILE:
            (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(TokenizerError, match="only tokenizers that were fitted"):
        read_back("one", [1, 2, 3], tmp_path)
