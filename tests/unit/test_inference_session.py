"""Asking: what a reply says is what the engine gives for the right prompt, and a wrong question is told why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from transformers import LlamaConfig

from ichigo.errors import ContractError, DataError, TokenizerError
from ichigo.inference.engine import Engine
from ichigo.inference.session import Session, TextPieces, Timings, medians
from ichigo.language.layouts import SPEAK_PROMPTS, Sample, Turn
from ichigo.speech.vq import WhisperVQ
from tests.unit.model_folder import make_both, make_tokenizer, speech

LIMIT = 16


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A model and its speech tokenizer."""
    return make_both(tmp_path_factory.mktemp("session"))


@pytest.fixture(scope="module")
def tokenizer(folders: tuple[Path, Path]) -> WhisperVQ:
    return WhisperVQ.open(folders[1])


@pytest.fixture(scope="module")
def session(folders: tuple[Path, Path]) -> Session:
    return Session.open(*folders)


class Scripted(torch.nn.Module):
    """In the place of a model: says ``script`` whatever it hears, and remembers what went in."""

    def __init__(self, script: Sequence[int], rows: int) -> None:
        super().__init__()
        self.config = LlamaConfig(hidden_size=8, num_attention_heads=1, num_hidden_layers=1)
        self.device = torch.device("cpu")
        self._script, self._rows = iter(script), rows
        self.heard: list[list[int]] = []

    def forward(self, input_ids: torch.Tensor, **_: Any) -> SimpleNamespace:
        self.heard.append(input_ids[0].tolist())
        logits = torch.zeros(1, 1, self._rows)
        logits[0, 0, next(self._script)] = 1
        return SimpleNamespace(logits=logits)


def scripted(session: Session, script: Sequence[int]) -> tuple[Session, Scripted]:
    model = Scripted(script, session.engine.contract.vocabulary)
    opened: Any = model
    return Session(Engine(opened, session.engine.layouts)), model


def ids_of(session: Session, text: str) -> list[int]:
    """The ids of ``text``, cut out of a prompt."""
    contract = session.engine.contract
    prompt: list[int] = session.engine.layouts.prompt_for(Sample("text", (Turn(text),))).tolist()
    return prompt[prompt.index(contract.end_header) + 2 : prompt.index(contract.eot)]


def question(text: str = "one two", seed: int = 5) -> npt.NDArray[np.float32]:
    return speech(text, seed).waveform


def test_a_spoken_question_is_the_tokens_of_its_waveform(session: Session, tokenizer: WhisperVQ) -> None:
    waveform = question()
    codes = tokenizer.encode([waveform])[0]
    prompt = session.engine.layouts.prompt_for(Sample("speech", (Turn(codes),)))
    reply = session.ask(waveform, max_new_tokens=LIMIT)
    (expected,) = session.engine.generate([prompt], LIMIT, 1)
    assert (reply.tokens, reply.stopped) == (expected.tokens, expected.stopped)
    assert reply.text == session.engine.decode(expected.tokens)
    assert reply.sound_tokens == len(codes) == waveform.size // 640
    assert reply.seconds == waveform.size / 16_000


def test_a_written_question_needs_no_tokenizer(session: Session) -> None:
    reply = Session(session.engine).ask("turn on the light", max_new_tokens=LIMIT)
    prompt = session.engine.layouts.prompt_for(Sample("text", (Turn("turn on the light"),)))
    assert reply.tokens == session.engine.generate([prompt], LIMIT, 1)[0].tokens
    assert (reply.sound_tokens, reply.seconds) == (0, 0.0)


@pytest.mark.parametrize("spoken", [True, False])
def test_a_later_turn_is_asked_after_what_was_said(session: Session, tokenizer: WhisperVQ, spoken: bool) -> None:
    other, model = scripted(session, [*ids_of(session, "light on"), session.engine.contract.eot] * 2)
    if spoken:
        other = Session(other.engine, tokenizer)
    first, second = (question("one"), question("two")) if spoken else ("what is two", "plus two")
    earlier = other.ask(first)
    assert other.ask(second, [earlier.turn]).text == earlier.text == "light on"
    heard = [tokenizer.encode([asked])[0] if isinstance(asked, np.ndarray) else asked for asked in (first, second)]
    sample = Sample("multi_turn" if spoken else "text", (Turn(heard[0], "light on"), Turn(heard[1])))
    prompts = [ids for ids in model.heard if len(ids) > 1]
    assert prompts[1] == session.engine.layouts.prompt_for(sample).tolist()


def test_a_turn_without_an_answer_is_left_out(session: Session) -> None:
    """A model that is not trained yet often says nothing; no training example has such a turn."""
    script = [session.engine.contract.eot, *ids_of(session, "light"), session.engine.contract.eot]
    other, model = scripted(session, script)
    mute = other.ask("what is two")
    assert mute.text == ""
    assert other.ask("plus two", [mute.turn]).text == "light"
    assert model.heard[1] == session.engine.layouts.prompt_for(Sample("text", (Turn("plus two"),))).tolist()


def test_pieces_add_up_to_the_answer_and_never_hold_half_a_character(session: Session) -> None:
    text = "light → naïve 光 on"
    other, _ = scripted(session, [*ids_of(session, text), session.engine.contract.eot])
    pieces: list[str] = []
    reply = other.ask("what", listen=pieces.append)
    assert "".join(pieces) == reply.text == text
    assert len(pieces) > 5
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)


def test_pieces_of_sound_tokens_are_silent(session: Session) -> None:
    contract = session.engine.contract
    pieces = TextPieces(session.engine.decode)
    assert [pieces.feed(token) for token in (contract.sound_start, contract.first_sound + 3)] == ["", ""]


def test_sound_tokens_in_an_answer_are_counted_and_left_out(session: Session) -> None:
    contract = session.engine.contract
    script = [contract.sound_start, *ids_of(session, "light"), contract.first_sound + 5, contract.end_of_text]
    reply = scripted(session, script)[0].ask("what")
    assert (reply.text, reply.strays, reply.stopped) == ("light", 2, "eot")


def test_an_answer_without_an_end_is_cut_at_the_limit(session: Session) -> None:
    token = ids_of(session, "light")[0]
    reply = scripted(session, [token] * 9)[0].ask("what", max_new_tokens=5)
    assert (reply.tokens, reply.stopped) == ((token,) * 5, "length")


def test_the_time_to_the_first_token_is_the_sum_of_its_parts(session: Session) -> None:
    times = session.ask(question(), max_new_tokens=LIMIT).timings
    assert times.to_first_token == pytest.approx(times.tokenise + times.prefill + times.first_token)
    assert min(times.tokenise, times.prefill, times.first_token) > 0
    assert times.total >= times.to_first_token


def test_medians_are_taken_part_by_part() -> None:
    rows = [Timings(1, 5, 0, 6, 10), Timings(2, 1, 0, 3, 30), Timings(9, 3, 3, 15, 20)]
    assert medians(rows) == Timings(2, 3, 0, 6, 20)


def test_the_longest_question_is_named_and_fits(session: Session) -> None:
    """4,096 positions less the frame of a turn and the answer; one token more is refused."""
    around = len(session.engine.layouts.prompt_for(Sample("speech", (Turn(np.zeros(1, np.int16)),)))) - 1
    room = 4096 - around - 2
    longest = np.tile(question("one two three four"), 200)[: 640 * room + 639]
    reply = session.ask(longest, max_new_tokens=2)
    assert reply.sound_tokens == room
    with pytest.raises(DataError, match=rf"lasts {room / 25 + 0.04:.1f} s.*{room / 25:.1f} s at most"):
        session.ask(np.append(longest, np.float32(0)), max_new_tokens=2)


def test_a_long_conversation_leaves_less_room(session: Session) -> None:
    before = Turn(np.zeros(4020, dtype=np.int16), "light on")
    with pytest.raises(DataError, match=r"the conversation takes 40\d\d.*speak for [01]\.\d s at most"):
        session.ask(question("one two three four"), [before], max_new_tokens=2)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (np.zeros(160, dtype=np.float32), DataError, "lasts 10 ms; one sound token takes 40 ms"),
        (np.zeros(0, dtype=np.float32), DataError, "lasts 0 ms"),
        (np.full(16_000, np.nan, dtype=np.float32), TokenizerError, "NaN"),
        ("", DataError, "no word"),
        (" ?! ", DataError, "no word"),
    ],
    ids=["10 ms", "no samples", "NaN", "empty", "signs only"],
)
def test_what_cannot_be_asked(session: Session, asked: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        session.ask(asked)


def test_a_conversation_is_of_one_kind(session: Session) -> None:
    with pytest.raises(DataError, match="all spoken or all written"):
        session.ask("what is two", [Turn(np.array([1, 2], dtype=np.int16), "light")])


def test_speech_needs_a_tokenizer(session: Session) -> None:
    with pytest.raises(DataError, match="none was given"):
        Session(session.engine).ask(question())


def test_silence_and_characters_it_never_met_are_legal(session: Session) -> None:
    assert session.ask(np.zeros(16_000, dtype=np.float32), max_new_tokens=LIMIT).sound_tokens == 25
    assert session.ask("wie spät ist es 今", max_new_tokens=LIMIT).turn.user == "wie spät ist es 今"


def test_another_tokenizer_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    other = make_tokenizer(tmp_path / "other", seed=2)
    with pytest.raises(ContractError, match=other):
        Session.open(folders[0], tmp_path / "other")


def test_spoken_codes_are_those_between_the_markers(session: Session) -> None:
    contract = session.engine.contract
    sound = [contract.first_sound + code for code in (7, 512, 0)]
    script = [contract.sound_start, *sound, contract.sound_end, contract.eot]
    other, model = scripted(session, script)
    spoken = other.speak(" turn on the light ")
    assert spoken.codes.tolist() == [7, 512, 0]
    assert spoken.ended
    prompt = session.engine.layouts.prompt_for(Sample("speak", (Turn("turn on the light"),), SPEAK_PROMPTS[0]))
    assert model.heard[0] == prompt.tolist()


def test_endless_speech_is_cut_at_the_limit(session: Session) -> None:
    contract = session.engine.contract
    script = [contract.sound_start, *[contract.first_sound] * 100]
    spoken = scripted(session, script)[0].speak("light", max_seconds=1.0)
    assert 25 <= len(spoken.codes) <= 26
    assert not spoken.ended


def test_speech_of_no_word_is_refused(session: Session) -> None:
    with pytest.raises(DataError, match="no word"):
        session.speak("...")
