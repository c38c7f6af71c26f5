"""Fitting a tokenizer: it learns phones through its codes, repeats itself, and refuses what it cannot learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ichigo.errors import TokenizerError
from ichigo.recipe.schema import FitTokenizer
from ichigo.speech.fit import UNLABELLED, Fit, MovingCodebook, Spoken, fit, frame_labels, rate
from ichigo.speech.stream import Stream
from ichigo.speech.synthesis import PAUSE, Phone, Word
from ichigo.speech.vq import WhisperVQ

TONES = {"a": 300.0, "e": 700.0, "i": 1500.0, "o": 2600.0, "u": 4200.0}


def settings(**changes: Any) -> FitTokenizer:
    tiny = {"width": 32, "layers": 1, "heads": 2, "codes": 16, "codebook_dim": 8, "steps": 60, "batch": 4}
    return FitTokenizer(kind="fit", **(tiny | {"learning_rate": 4e-3} | changes))


def utterance(seed: int, phones: int = 8) -> Spoken:
    """Tones of 80 to 160 ms in a row, each a "phone", between two pauses, with a little noise."""
    rng = np.random.default_rng(seed)
    symbols = [PAUSE, *rng.choice(list(TONES), phones), PAUSE]
    lengths = rng.integers(1280, 2560, len(symbols))
    waves = [np.sin(2 * np.pi * TONES.get(s, 0) / 16_000 * np.arange(n)) for s, n in zip(symbols, lengths, strict=True)]
    wave = 0.3 * np.concatenate(waves) + 0.01 * rng.standard_normal(lengths.sum())
    ends = np.cumsum(lengths) / 16_000
    timed = [Phone(e - n / 16_000, e, str(s)) for s, n, e in zip(symbols, lengths, ends, strict=True)]
    return Spoken(wave.astype(np.float32), timed)


@pytest.fixture(scope="module")
def corpus() -> list[Spoken]:
    return [utterance(seed) for seed in range(30)]


@pytest.fixture(scope="module")
def fitted(corpus: list[Spoken]) -> Fit:
    return fit(corpus, settings(), seed=1)


def test_codes_tell_phones_apart(fitted: Fit) -> None:
    report = fitted.report
    assert report["frame_accuracy_tokens"] > report["majority_share"] + 0.3
    assert report["frame_accuracy_encoder"] > report["majority_share"] + 0.3
    assert 6 <= report["codes_used"] <= 16
    assert report["perplexity"] <= report["codes_used"]
    assert (report["utterances"], report["unlabelled"], report["phones"], report["steps"]) == (30, 0, 6, 60)


def test_a_causal_fit_learns_as_much_and_streams() -> None:
    causal = fit((utterance(seed) for seed in range(30)), settings(causal_block=4), seed=1)
    assert causal.report["frame_accuracy_tokens"] > causal.report["majority_share"] + 0.3
    assert causal.tokenizer.causal_block == 4
    wave = utterance(200).waveform
    stream = Stream(causal.tokenizer)
    found = [stream.feed(wave[start : start + 999]) for start in range(0, wave.size, 999)]
    assert np.concatenate([*found, stream.finish()]).tolist() == causal.tokenizer.encode([wave])[0].tolist()


def test_tokens_alone_name_the_phones_of_new_utterances(corpus: list[Spoken], fitted: Fit) -> None:
    tokenizer = fitted.tokenizer
    classes = {symbol: index for index, symbol in enumerate([PAUSE, *TONES])}

    def tokens_and_phones(spoken: list[Spoken]) -> tuple[NDArray[Any], NDArray[Any]]:
        tokens = tokenizer.encode([one.waveform for one in spoken])
        phones = [frame_labels(one.phones, 2 * len(row), classes)[::2] for row, one in zip(tokens, spoken, strict=True)]
        return np.concatenate(tokens), torch.cat(phones).numpy()

    seen = np.zeros((tokenizer.codes, len(classes)))
    np.add.at(seen, tokens_and_phones(corpus), 1)
    tokens, phones = tokens_and_phones([utterance(seed) for seed in range(200, 210)])
    right = float((seen.argmax(1)[tokens] == phones).mean())
    assert right > np.bincount(phones).max() / len(phones) + 0.3


def test_torch_is_left_as_it_was(corpus: list[Spoken]) -> None:
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(corpus, settings(steps=1), seed=3)
        assert torch.get_num_threads() == 2
        assert torch.equal(torch.random.get_rng_state(), before)
    finally:
        torch.set_num_threads(threads)


def test_the_same_inputs_give_the_same_files(corpus: list[Spoken], tmp_path: Path) -> None:
    first = fit(corpus, settings(steps=10), seed=3)
    torch.manual_seed(99)
    second = fit(corpus, settings(steps=10), seed=3)
    assert first.report == second.report
    first.save(tmp_path / "a")
    second.save(tmp_path / "b")
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
    assert fit(corpus, settings(steps=10), seed=4).tokenizer.identity() != first.tokenizer.identity()


def test_a_fitted_tokenizer_opens_as_it_was(corpus: list[Spoken], tmp_path: Path) -> None:
    fitted = fit(corpus, settings(steps=10), seed=5)
    fitted.tokenizer.save(tmp_path)
    opened = WhisperVQ.open(tmp_path)
    assert opened.pad == "exact"
    waveforms = [spoken.waveform for spoken in corpus[:3]]
    for ours, theirs in zip(opened.encode(waveforms), fitted.tokenizer.encode(waveforms), strict=True):
        assert ours.tolist() == theirs.tolist()
    json.dumps(fitted.report, allow_nan=False)


def test_codes_are_directions_and_the_mask_row_is_none(corpus: list[Spoken]) -> None:
    tokenizer = fit(corpus, settings(steps=10), seed=5).tokenizer
    codebook = tokenizer.bottleneck.codebook
    assert codebook.shape == (17, 8)
    assert codebook[:16].norm(dim=-1).numpy() == pytest.approx(np.ones(16), abs=1e-5)
    assert not codebook[16].any()
    moving_sums = tokenizer.decoding["rq.layers.0._codebook.embed_avg"][0]
    assert moving_sums[:16].norm(dim=-1).numpy() != pytest.approx(np.ones(16), abs=1e-3), "codes followed their vectors"


def test_recordings_without_phones_and_words_shape_the_codebook_only(corpus: list[Spoken]) -> None:
    recordings = [Spoken(utterance(seed).waveform) for seed in range(100, 110)]
    mixed = fit([*corpus, *recordings], settings(steps=10), seed=6)
    assert mixed.report["unlabelled"] == 10
    assert np.isfinite(mixed.report["frame_accuracy_tokens"])
    assert mixed.tokenizer.identity() != fit(corpus, settings(steps=10), seed=6).tokenizer.identity()


def word(said: str, seed: int, pitch: float, *, recorded: bool) -> Spoken:
    """Tones that are the letters of ``said``, ``pitch`` times as high; recorded, only the transcript is known."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1600, 3200, len(said) + 2)
    tones = [0.0, *(pitch * TONES[letter] for letter in said), 0.0]
    waves = [np.sin(2 * np.pi * tone / 16_000 * np.arange(n)) for tone, n in zip(tones, lengths, strict=True)]
    wave = (0.3 * np.concatenate(waves) + 0.01 * rng.standard_normal(lengths.sum())).astype(np.float32)
    if recorded:
        return Spoken(wave, text=said.upper() + ".")
    ends = np.cumsum(lengths) / 16_000
    phones = [Phone(e - n / 16_000, e, s) for s, n, e in zip([PAUSE, *said, PAUSE], lengths, ends, strict=True)]
    return Spoken(wave, phones, [Word(float(ends[0]), float(ends[-2]), said)])


VOCABULARY = ("aei", "iou", "uae", "oia", "eau")


def test_a_transcript_alone_teaches_a_voice_that_no_labels_cover() -> None:
    """A stranger's tones lie a fifth higher. Of 25 new words of his, a tokenizer that knew what he had said before read
    16, one that only heard him 9."""

    def words(seeds: range, pitch: float, *, recorded: bool) -> list[Spoken]:
        return [word(VOCABULARY[seed % 5], seed, pitch, recorded=recorded) for seed in seeds]

    known, stranger = words(range(30), 1.0, recorded=False), words(range(100, 130), 1.2, recorded=True)
    told = fit([*known, *stranger], settings(steps=150), seed=1)
    untold = fit([*known, *(Spoken(one.waveform) for one in stranger)], settings(steps=150), seed=1)
    assert (told.report["aligned"], untold.report["aligned"], untold.report["unlabelled"]) == (30, 0, 30)

    def read(fitted: Fit) -> int:
        said = words(range(200, 225), 1.2, recorded=True)
        codes = fitted.tokenizer.encode([one.waveform for one in said])
        return sum(
            fitted.recogniser.words(row) == one.text.lower().strip(".") for row, one in zip(codes, said, strict=True)
        )

    assert read(told) >= read(untold) + 5


@pytest.mark.parametrize(
    "text",
    ["xylophone", "aei xylophone", " ".join(["aei"] * 200)],
    ids=["unknown", "half known", "longer than the sound"],
)
def test_what_the_lexicon_cannot_say_leaves_a_recording_unlabelled(text: str) -> None:
    known = [word(VOCABULARY[seed % 5], seed, 1.0, recorded=False) for seed in range(10)]
    recording = word("aei", 50, 1.0, recorded=True)
    report = fit([*known, Spoken(recording.waveform, text=text), recording], settings(steps=4), seed=1).report
    assert (report["unlabelled"], report["aligned"]) == (2, 1)


def test_utterances_above_30_s_are_learned_in_windows() -> None:
    long = utterance(7, phones=270)
    assert long.waveform.size > 480_000
    fit([long, utterance(8)], settings(steps=2, batch=1), seed=0)


@pytest.mark.parametrize(
    ("count", "changes", "message"),
    [
        (10, {"codes": 512}, r"has \d+ sound tokens to learn from, tokenizer.codes is 512"),
        (1, {}, "1 utterances with phones"),
        (30, {"codebook_dim": 32}, "codebook_dim is 32"),
        (30, {"width": 33, "heads": 3}, "n_audio_state is 33"),
    ],
)
def test_a_fit_that_cannot_work_is_refused(corpus: list[Spoken], count: int, changes: Any, message: str) -> None:
    with pytest.raises(TokenizerError, match=message):
        fit(corpus[:count], settings(**changes), seed=0)


def test_damaged_audio_is_named(corpus: list[Spoken]) -> None:
    with pytest.raises(TokenizerError, match="audio 30: NaN"):
        fit([*corpus, Spoken(np.full(16_000, np.nan, np.float32))], settings(), seed=0)


def test_a_position_hears_the_phone_at_its_centre() -> None:
    classes = {PAUSE: 0, "a": 1, "b": 2}
    phones = [Phone(0.0, 0.05, "a"), Phone(0.05, 0.07, "b"), Phone(0.1, 9.0, "a")]  # a gap from 70 to 100 ms
    assert frame_labels(phones, 7, classes).tolist() == [1, 1, 1, 2, 0, 1, 1]
    assert frame_labels((), 3, classes).tolist() == [UNLABELLED] * 3


def unit(*degrees: float) -> torch.Tensor:
    """Unit vectors in the plane at these angles."""
    angles = torch.deg2rad(torch.tensor(degrees))
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def test_a_codebook_starts_in_the_middle_of_clusters() -> None:
    torch.manual_seed(0)
    codebook = MovingCodebook(unit(8, 10, 12, 118, 120, 122, 238, 240, 242), codes=3)
    near = (unit(10, 120, 240) @ codebook.rows.T).max(1).values
    assert near.numpy() == pytest.approx(np.ones(3), abs=1e-6)


def test_codes_follow_their_vectors_and_unused_ones_start_again() -> None:
    codebook = MovingCodebook(unit(0, 180), codes=2)
    moved = unit(20, 20, 20)
    first = codebook.nearest(unit(0))
    codebook.follow(moved, codebook.nearest(moved))
    assert 0.95 < float(codebook.rows[first] @ unit(20)[0]) < 0.999  # on its way, not there
    for _ in range(60):
        codebook.follow(moved, codebook.nearest(moved))
        assert float(codebook.uses.min()) >= 0.3, "a code that starts again has time to be used"
    assert (codebook.rows @ unit(20)[0]).numpy() == pytest.approx(np.ones(2), abs=1e-3)  # the code at 180 was unused


@pytest.mark.parametrize("steps", [1, 2, 7, 200, 5000])
def test_the_learning_rate_rises_stays_and_falls_to_two_percent(steps: int) -> None:
    rates = [rate(step, steps) for step in range(steps)]
    assert all(0 < value <= 1 for value in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    if steps >= 200:
        assert max(rates) == 1
        assert rates[-1] == pytest.approx(0.02, abs=0.01)
