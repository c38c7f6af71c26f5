"""A causal tokenizer: blocks that no later sound changes, and streams that give the offline tokens, all of them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ichigo.errors import TokenizerError
from ichigo.speech.codes import SAMPLES_PER_TOKEN, WINDOW_SAMPLES, token_count
from ichigo.speech.mel import causal_log_mel, log_mel
from ichigo.speech.stream import Stream
from ichigo.speech.vq import Bottleneck, WhisperVQ
from ichigo.speech.whisper import Dims, WhisperEncoder
from tests.unit.test_whisper_vq import sound

CODES, DIM = 256, 16
LOOK_AHEAD = 40  # samples of a block's last frame beyond the block


def causal(block: int, seed: int = 0) -> WhisperVQ:
    """Random weights whose codes are directions that sound takes, so that hundreds of them are used."""
    torch.manual_seed(seed)
    dims = Dims(n_mels=80, n_audio_ctx=1500, n_audio_state=32, n_audio_head=2, n_audio_layer=2)
    encoder, bottleneck = WhisperEncoder(dims, block), Bottleneck(32, 128, CODES + 1, DIM)
    with torch.no_grad():
        for name, tensor in encoder.state_dict().items():  # else the position, not the sound, decides
            tensor *= 0.05 if name == "positional_embedding" else 4 if "conv" in name or "attn.out" in name else 1
        taken = bottleneck.directions(encoder(causal_log_mel(sound(11, 99), 80, block or 25)[None]))[0]
    bottleneck.codebook.copy_(taken[torch.linspace(0, len(taken) - 1, CODES + 1).long()])
    config = {"codebook_dim": DIM, "vq_codes": CODES, "q_depth": 1, "n_head": 2, "head_width": 16, "ffn_mult": 4}
    geometry = {"use_cosine_sim": True, "downsample": 2}
    tunables = {"mask_embs": True, "downsample_mean": True, "downsample_conv": False}
    return WhisperVQ(encoder, bottleneck, "exact", config | geometry, tunables, {})


def pieces(samples: NDArray[np.float32], seed: int) -> Iterator[NDArray[np.float32]]:
    """Chunks of mixed sizes: single samples, 10 ms, a block and a bit, many seconds."""
    rng = np.random.default_rng(seed)
    while samples.size:
        size = int(rng.choice([0, 1, 37, 160, 1000, 7717, 30_000, 600_000]))
        yield samples[:size]
        samples = samples[size:]


def streamed(tokenizer: WhisperVQ, samples: NDArray[np.float32], seed: int) -> list[int]:
    stream = Stream(tokenizer)
    found = [stream.feed(piece) for piece in pieces(samples, seed)]
    return [int(code) for part in (*found, stream.finish()) for code in part]


@pytest.mark.parametrize("block", [1, 5, 12, 25])
def test_a_stream_gives_the_offline_tokens_whatever_the_pieces(block: int) -> None:
    tokenizer = causal(block)
    rng = np.random.default_rng(block)
    seconds = [0.02, 0.05, 0.48, 0.4825, 0.96, *rng.uniform(0.05, 5, 12), 30.0, 35.0 + rng.uniform(-2, 2)]
    used = set()
    for seed, length in enumerate(seconds):
        wave = sound(length, seed)
        (offline,) = tokenizer.encode([wave])
        assert streamed(tokenizer, wave, seed) == offline.tolist(), f"{length} s"
        used.update(offline.tolist())
    assert len(used) > 100, "few codes would hide mistakes"


def test_ties_are_decided_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ichigo.speech.vq.NEAR", 0.05)  # float64 then decides half of the tokens
    tokenizer = causal(12)
    waves = [sound(length, seed) for seed, length in enumerate([0.3, 1.7, 4.1])]
    for seed, (wave, offline) in enumerate(zip(waves, tokenizer.encode(waves), strict=True)):
        assert streamed(tokenizer, wave, seed) == offline.tolist()


def test_a_block_is_said_as_soon_as_it_was_heard() -> None:
    tokenizer, wave = causal(12), sound(3, 1)
    block = 12 * SAMPLES_PER_TOKEN
    stream = Stream(tokenizer)
    assert stream.feed(wave[: block + LOOK_AHEAD - 1]).size == 0
    assert stream.feed(wave[block + LOOK_AHEAD - 1 : block + LOOK_AHEAD]).size == 12
    assert stream.feed(wave[block + LOOK_AHEAD : 5 * block]).size == 36
    assert stream.finish().size == 12


def test_what_comes_later_changes_no_token_before() -> None:
    tokenizer = causal(12)
    quiet, loud = sound(2, 2), sound(2, 3)
    loud[16_000:] = 20 * loud[16_000:]  # the loudest value hangs on what comes later, too
    mixed = np.concatenate([quiet[:16_000], loud[16_000:]])
    heard = (16_000 - LOOK_AHEAD) // (12 * SAMPLES_PER_TOKEN) * 12
    before, after = (tokenizer.encode([wave])[0][:heard].tolist() for wave in (quiet, mixed))
    assert before == after
    assert len(before) == 24
    whole = causal(0)
    assert whole.encode([quiet])[0][:heard].tolist() != whole.encode([mixed])[0][:heard].tolist()


def test_tokens_depend_on_earlier_blocks() -> None:
    tokenizer, wave = causal(12), sound(2, 4)
    (tokens,) = tokenizer.encode([wave])
    other = wave.copy()
    other[:7680] = sound(0.48, 5)
    assert tokenizer.encode([other])[0][24:].tolist() != tokens[24:].tolist()


def test_no_block_is_heard_twice() -> None:
    """Counted: positions that go through the encoder's blocks."""
    tokenizer, seen = causal(12), []
    for encoder in (tokenizer.encoder, tokenizer.in_double()[0]):
        encoder.blocks[0].register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].shape[1]))
    stream, wave = Stream(tokenizer), sound(20, 6)
    for start in range(0, wave.size, 1600):
        stream.feed(wave[start : start + 1600])
    assert seen == [24] * 41


def test_streams_of_one_tokenizer_do_not_hear_each_other() -> None:
    tokenizer, waves = causal(12), [sound(2, 7), sound(2, 8)]
    streams = [Stream(tokenizer), Stream(tokenizer)]
    found: list[list[int]] = [[], []]
    for start in range(0, 32_000, 4000):
        for row, stream, wave in zip(found, streams, waves, strict=True):
            row.extend(stream.feed(wave[start : start + 4000]).tolist())
    for row, stream, offline in zip(found, streams, tokenizer.encode(waves), strict=True):
        assert row + stream.finish().tolist() == offline.tolist()


def test_after_finish_the_next_utterance_begins() -> None:
    tokenizer, wave = causal(12), sound(1.3, 9)
    stream = Stream(tokenizer)
    first = [*stream.feed(wave), *stream.finish()]
    assert [*stream.feed(wave), *stream.finish()] == first
    assert stream.finish().size == 0


def test_a_window_ends_after_30_s() -> None:
    tokenizer, wave = causal(12), sound(31, 10)
    stream = Stream(tokenizer)
    assert stream.feed(wave[:WINDOW_SAMPLES]).size == token_count(WINDOW_SAMPLES)
    rest = tokenizer.encode([wave[WINDOW_SAMPLES:]])[0].tolist()
    assert [*stream.feed(wave[WINDOW_SAMPLES:]), *stream.finish()] == rest


@pytest.mark.parametrize(
    "samples", [np.array([0.0, np.nan], np.float32), np.zeros((2, 2), np.float32), np.zeros(4, np.int16)]
)
def test_unusable_sound_is_refused(samples: NDArray[np.float32]) -> None:
    with pytest.raises(TokenizerError, match="audio 0"):
        Stream(causal(12)).feed(samples)


def test_a_tokenizer_that_hears_whole_recordings_cannot_stream() -> None:
    with pytest.raises(TokenizerError, match=r"tokenizer\.causal_block"):
        Stream(causal(0))


def test_the_block_is_part_of_the_tokenizer(tmp_path: Path) -> None:
    tokenizer, wave = causal(12), sound(2, 11)
    tokenizer.save(tmp_path)
    opened = WhisperVQ.open(tmp_path)
    assert opened.causal_block == 12
    assert opened.encode([wave])[0].tolist() == tokenizer.encode([wave])[0].tolist()
    assert len({causal(block).identity() for block in (0, 5, 12)}) == 3
    assert causal(5).encode([wave])[0].tolist() != tokenizer.encode([wave])[0].tolist()
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"causal_block":12', '"causal_block":5'))
    with pytest.raises(TokenizerError, match="identity"):
        WhisperVQ.open(tmp_path)


def test_blocks_and_the_padding_of_published_weights_exclude_each_other() -> None:
    tokenizer = causal(12)
    with pytest.raises(TokenizerError, match="'whisper30'"):
        WhisperVQ(tokenizer.encoder, tokenizer.bottleneck, "whisper30", {}, {}, {})


def test_the_causal_mel_is_whispers_above_its_floor() -> None:
    wave = sound(2.4, 12)
    wave[9600:] *= 1e-3
    ours, whispers = causal_log_mel(wave, 80, 12), log_mel(wave)
    loud = int(torch.argmax(whispers.max(0).values)) // 48 * 48 + 48  # from the next block on the floors are equal
    np.testing.assert_allclose(ours[:, loud:].numpy(), whispers[:, loud : ours.shape[1]].numpy(), atol=1e-4)
    assert float((ours - whispers[:, : ours.shape[1]]).min()) >= -1 - 1e-4
