"""The recogniser that hears recordings by a tokenizer's encoder, and the cascade that reads what it heard."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ichigo.corpus.rows import Row
from ichigo.corpus.shards import write_shards
from ichigo.corpus.tokens import TokenRow, in_random_order, read_tokens, write_tokens
from ichigo.errors import TokenizerError
from ichigo.evaluation.heard import RECOGNISER, hearers
from ichigo.evaluation.items import EvalRow
from ichigo.speech.audio import write_flac
from ichigo.speech.hearing import HEARING_FILE, Hearing
from ichigo.speech.vq import WhisperVQ
from ichigo.steps.tokenize import transcripts
from tests.unit.model_folder import make_tokenizer, speech

TEXTS = ("one two", "three", "four one three", "two two four")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer fitted on words made of tones, with its recognisers."""
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder)
    return folder


def test_it_reads_words_in_recordings_that_the_fit_never_had(folder: Path) -> None:
    hearing, tokenizer = Hearing.open(folder), WhisperVQ.open(folder)
    waves = [speech(text, seed).waveform for seed, text in enumerate(TEXTS, start=900)]
    assert hearing.words(tokenizer, waves) == list(TEXTS)
    alone = [hearing.words(tokenizer, [wave])[0] for wave in waves]
    assert alone == list(TEXTS), "not in this company either"
    assert hearing.words(tokenizer, [np.zeros(600, np.float32)]) == [""]
    assert hearing.words(tokenizer, []) == []


def test_it_hears_by_its_own_tokenizer_alone(folder: Path, tmp_path: Path) -> None:
    make_tokenizer(tmp_path, seed=2)
    with pytest.raises(TokenizerError, match="open both from one folder"):
        Hearing.open(folder).words(WhisperVQ.open(tmp_path), [])
    shutil.copy(folder / HEARING_FILE, tmp_path)
    with pytest.raises(TokenizerError, match=r"hearing\.pt belongs to tokenizer"):
        Hearing.open(tmp_path)
    (tmp_path / HEARING_FILE).unlink()
    with pytest.raises(TokenizerError, match="only tokenizers that were fitted have one"):
        Hearing.open(tmp_path)


def row(at: int, text: str, split: str = "test", dialogue: str = "") -> Row:
    return Row(
        id=f"row-{at}",
        text=text,
        answer=None,
        speaker="v",
        split=split,  # type: ignore[arg-type]
        language="en",
        license="l",
        seconds=1.0,
        audio=write_flac(speech(text or "one", 800 + at).waveform),
        origin="spoken",
        dialogue=dialogue,
    )


def test_the_held_out_utterances_of_a_shard_are_heard(folder: Path, tmp_path: Path) -> None:
    asked = [row(at, text) for at, text in enumerate(TEXTS)]
    others = [row(10, "one", "train"), row(11, ""), row(12, "two", dialogue="d")]
    write_shards([*asked, *others], tmp_path, shards=1)
    heard = transcripts(tmp_path / "shard-00000.parquet", WhisperVQ.open(folder), folder)
    assert heard == {f"row-{at}": text for at, text in enumerate(TEXTS)}
    assert transcripts(tmp_path / "shard-00000.parquet", WhisperVQ.open(folder), tmp_path) == {}, "was not fitted"


def token_row(at: int, heard: str) -> TokenRow:
    codes = np.arange(at, at + 30, dtype=np.int16)
    return TokenRow(f"r{at}", codes, "said", None, "v", "test", "en", "l", 1.2, "spoken", heard=heard)


def test_a_cascade_finds_what_was_heard_by_the_tokens_of_the_recording(tmp_path: Path) -> None:
    rows = [token_row(1, "turn on"), token_row(2, "turn off"), token_row(3, "")]
    write_tokens(rows, tmp_path)
    kept = [EvalRow(one.id, one.codes, one.text, None, "v", heard=one.heard) for one in read_tokens(tmp_path)]
    found = hearers(kept)
    assert list(found) == [RECOGNISER]
    assert [found[RECOGNISER].words(one.codes) for one in kept] == ["turn on", "turn off", ""]
    assert found[RECOGNISER].words(np.array([9, 9], np.int16)) == ""
    assert hearers([replace(one, heard="") for one in kept]) == {}


def test_random_order_keeps_the_sounds_of_an_utterance_and_loses_their_order() -> None:
    before, other = token_row(1, ""), replace(token_row(1, ""), id="another")
    after = in_random_order(before)
    assert sorted(after.codes) == sorted(before.codes)
    assert after.codes.tolist() != before.codes.tolist() == list(range(1, 31))
    assert in_random_order(before).codes.tolist() == after.codes.tolist() != in_random_order(other).codes.tolist()
