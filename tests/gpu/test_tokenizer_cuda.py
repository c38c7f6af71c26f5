"""The tokenizer on a GPU: the tokens of the CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ichigo.speech.stream import Stream
from ichigo.speech.vq import WhisperVQ
from tests.unit.test_whisper_vq import sound
from tests.unit.test_whisper_vq_stream import causal


@pytest.mark.parametrize("block", [0, 12])
def test_exact_tokens_are_those_of_the_cpu(block: int) -> None:
    waves = [sound(seconds, seed) for seed, seconds in enumerate([0.05, 1.3, 2.0, 7.7, 31.0])]
    here = causal(block).encode(waves)
    torch.backends.cudnn.allow_tf32 = True  # as it is by default
    there = causal(block).to("cuda")
    assert there.device.type == "cuda"
    assert [row.tolist() for row in there.encode(waves)] == [row.tolist() for row in here]
    assert there.identity() == causal(block).identity()


def test_a_tokenizer_is_opened_on_the_gpu(tmp_path: Path) -> None:
    causal(12).save(tmp_path)
    opened = WhisperVQ.open(tmp_path)
    assert opened.device.type == "cuda"
    wave = sound(3, 1)
    assert opened.encode([wave])[0].tolist() == causal(12).encode([wave])[0].tolist()


def test_a_stream_on_a_gpu_gives_the_tokens_of_the_cpu() -> None:
    wave = sound(3, 1)
    stream = Stream(causal(12).to("cuda"))
    found = [*stream.feed(wave[:20_001]), *stream.feed(wave[20_001:]), *stream.finish()]
    assert found == causal(12).encode([wave])[0].tolist()
