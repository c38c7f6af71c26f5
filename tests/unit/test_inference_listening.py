"""Hearing a question while it is said: the answer of the whole recording, and nothing but the end left to compute."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from ichigo.errors import ContractError, DataError, TokenizerError
from ichigo.inference.engine import Engine
from ichigo.inference.session import PIECE_SAMPLES, Reply, Session
from ichigo.language.layouts import Sample, Turn
from ichigo.speech.vq import WhisperVQ
from tests.unit.model_folder import make_model
from tests.unit.test_whisper_vq import sound
from tests.unit.test_whisper_vq_stream import causal, pieces

BLOCK, LIMIT = 12, 12


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def tokenizer() -> WhisperVQ:
    return causal(BLOCK)


@pytest.fixture(scope="module")
def engine(tokenizer: WhisperVQ, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    folder = tmp_path_factory.mktemp("listening") / "model"
    make_model(folder, tokenizer.identity())
    return Engine.open(folder)


@pytest.fixture(scope="module")
def session(engine: Engine, tokenizer: WhisperVQ) -> Session:
    return Session(engine, tokenizer)


@pytest.fixture
def went_in(engine: Engine) -> Iterator[list[int]]:
    """How many tokens went into the model at each of its passes."""
    passes: list[int] = []
    embedding: Any = engine._model.model.embed_tokens
    hook = embedding.register_forward_pre_hook(lambda _, inputs: passes.append(inputs[0].shape[1]))
    yield passes
    hook.remove()


def heard(session: Session, waveform: Any, history: Any = (), seed: int = 0) -> Reply:
    """The reply to a question that arrives in pieces of mixed sizes, the last of which ends it."""
    listening = session.listen(history, max_new_tokens=LIMIT)
    *before, last = [waveform[:0], *pieces(waveform, seed)]
    for piece in before:
        listening.feed(piece)
    return listening.finish(last)


def answer(reply: Reply) -> tuple[Any, ...]:
    codes: Any = reply.turn.user
    return codes.tolist(), reply.tokens, reply.text, reply.stopped, reply.seconds, reply.strays


def test_what_is_heard_in_pieces_is_answered_like_the_whole(session: Session) -> None:
    rng = np.random.default_rng(1)
    seconds = [0.05, 0.48, 0.4825, 0.96, *rng.uniform(0.05, 6, 8), 31.0]
    answers = set()
    for seed, length in enumerate(seconds):
        waveform = sound(length, seed)
        plain = session.ask(waveform, max_new_tokens=LIMIT)
        assert answer(heard(session, waveform, seed=seed)) == answer(plain), f"{length} s"
        answers.add(plain.tokens)
    assert len(answers) > len(seconds) // 2, "one answer to everything would hide mistakes"


def test_later_turns_too(session: Session) -> None:
    first = Turn(np.arange(40, dtype=np.int16), "light on")
    mute = Turn(np.arange(9, dtype=np.int16), "")
    waveform = sound(1.7, 4)
    plain = session.ask(waveform, [first, mute], max_new_tokens=LIMIT)
    assert answer(heard(session, waveform, [first, mute])) == answer(plain)
    assert plain.tokens != session.ask(waveform, max_new_tokens=LIMIT).tokens


def test_pieces_as_from_a_microphone(session: Session) -> None:
    for samples in (PIECE_SAMPLES // 2, PIECE_SAMPLES, 5 * PIECE_SAMPLES, 5 * PIECE_SAMPLES + 1):
        waveform = sound(1.0, 3)[:samples]
        shown: tuple[list[str], list[str]] = ([], [])
        reply = session.ask_while_spoken(waveform, max_new_tokens=LIMIT, listen=shown[0].append)
        assert answer(reply) == answer(session.ask(waveform, max_new_tokens=LIMIT, listen=shown[1].append))
        assert shown[0] == shown[1] != []


@pytest.mark.parametrize("seconds", [1.0, 10.0])
def test_at_the_end_of_speech_one_block_is_left(session: Session, went_in: list[int], seconds: float) -> None:
    waveform = sound(seconds, 2)
    listening = session.listen(max_new_tokens=1)
    for start in range(0, waveform.size, PIECE_SAMPLES):
        listening.feed(waveform[start : start + PIECE_SAMPLES])
    before = sum(went_in)
    listening.finish()
    prompt = session.engine.layouts.prompt_for(Sample("speech", (Turn(np.zeros(waveform.size // 640, np.int16)),)))
    after = len(prompt) - prompt.tolist().index(session.engine.contract.sound_end)
    assert sum(went_in) == len(prompt)
    assert sum(went_in) - before <= BLOCK + after


def test_only_what_is_streamed_is_computed_while_somebody_speaks(session: Session) -> None:
    waveform = sound(2.0, 1)
    assert session.ask(waveform, max_new_tokens=1).timings.while_spoken == 0
    assert session.ask_while_spoken(waveform, max_new_tokens=1).timings.while_spoken > 0


def test_a_tokenizer_of_whole_recordings_is_refused(engine: Engine, tokenizer: WhisperVQ) -> None:
    whole = Session(engine, tokenizer)
    whole._tokenizer = causal(0)
    with pytest.raises(TokenizerError, match=r"hears whole recordings and cannot stream; fit one with .*causal_block"):
        whole.listen()
    with pytest.raises(DataError, match="none was given"):
        Session(engine).listen()


def test_what_cannot_be_heard(session: Session) -> None:
    with pytest.raises(DataError, match="all spoken or all written"):
        session.listen([Turn("what is two", "light")])
    with pytest.raises(DataError, match="lasts 0 ms"):
        session.listen().finish()
    with pytest.raises(DataError, match="lasts 10 ms; one sound token takes 40 ms"):
        session.ask_while_spoken(np.zeros(160, dtype=np.float32))
    with pytest.raises(TokenizerError, match="NaN"):
        session.listen().feed(np.full(160, np.nan, dtype=np.float32))


def test_too_long_a_question_is_told_while_it_is_said(session: Session, went_in: list[int]) -> None:
    """Not only at its end: a microphone that was left open would fill memory first."""
    before = Turn(np.zeros(3990, dtype=np.int16), "light on")
    listening = session.listen([before], max_new_tokens=LIMIT)
    waveform = sound(4.0, 5)
    listening.feed(waveform[:16_000])
    with pytest.raises(DataError, match=r"the conversation takes 40\d\d.*speak for [0-2]\.\d s at most"):
        listening.feed(waveform[16_000:])
    assert sum(went_in) < session.engine.positions


def test_a_prompt_in_parts_is_the_prompt(engine: Engine) -> None:
    prompt = engine.layouts.prompt_for(Sample("speech", (Turn(np.arange(60, dtype=np.int16) % 16),)))
    whole = list(engine.begin(prompt, LIMIT))
    for cuts in ([1], [30], [7, 7, 50], list(range(1, len(prompt)))):
        prefill = engine.prefill()
        *parts, last = np.split(prompt, cuts)
        for part in parts:
            prefill.feed(part)
        assert len(prefill) == len(prompt) - len(last)
        assert list(prefill.begin(last, LIMIT)) == whole


def test_parts_are_checked_like_prompts(engine: Engine) -> None:
    prefill = engine.prefill()
    with pytest.raises(ContractError, match="holds id 99999"):
        prefill.feed([99999])
    prefill.feed([1] * 100)
    with pytest.raises(DataError, match="is empty"):
        prefill.begin([], 1)
    with pytest.raises(DataError, match=r"has 4096 tokens; with 1 new"):
        prefill.feed([1] * (engine.positions - 100))


def test_an_answer_can_be_given_a_length(engine: Engine) -> None:
    prompt = engine.layouts.prompt_for(Sample("text", (Turn("turn on the light"),)))
    assert len(list(engine.begin(prompt, 40))) < 40
    assert len(list(engine.begin(prompt, 40, stops=False))) == 40
