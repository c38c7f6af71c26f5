"""Drawing a stage's samples: exact quotas, seeds, sources, and refusal of held-out rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ichigo.errors import DataError
from ichigo.language.layouts import TRANSCRIPTION_PROMPTS, Sample
from ichigo.language.mixing import NOISE_ANSWERS, Pool, SpokenRow, TextPair, draw, quotas
from ichigo.recipe.schema import SampleType, Stage


def stage(mix: dict[SampleType, float], examples: int) -> Stage:
    return Stage(name="instruct", mix=mix, examples=examples, steps=1, sequence_length=512, learning_rate=1e-3)


def spoken(index: int, answered: bool = True) -> SpokenRow:
    codes = np.full(10 + index, index, dtype=np.int16)
    return SpokenRow(f"row-{index}", codes, f"said {index}", f"answer {index}" if answered else None)


POOL = Pool(
    spoken=tuple(spoken(index, answered=index < 6) for index in range(9)),
    texts=tuple(TextPair(f"text-{index}", f"question {index}", f"reply {index}") for index in range(5)),
)


def heard(sample: Sample) -> list[int]:
    """Which rows of POOL the user turns are."""
    return [int(turn.user[0]) for turn in sample.turns if not isinstance(turn.user, str)]


@pytest.mark.parametrize(
    ("mix", "examples", "expected"),
    [
        ({"speech": 0.7, "transcription": 0.2, "text": 0.1}, 200, [140, 40, 20]),
        ({"speech": 0.29, "transcription": 0.57, "text": 0.14}, 100, [29, 57, 14]),
        ({"speech": 0.5, "transcription": 0.3, "text": 0.2}, 7, [4, 2, 1]),  # 3.5, 2.1, 1.4
        ({"speech": 0.3, "transcription": 0.5, "text": 0.2}, 5, [2, 2, 1]),  # a tie: 0.3 is below 3/10 in binary
        ({"text": 0.4, "transcription": 0.3, "speech": 0.3}, 1, [0, 0, 1]),
        ({"speech": 1.0, "text": 0.0}, 3, [3, 0]),
    ],
)
def test_quotas_are_the_largest_remainder_of_the_decimal_shares(
    mix: dict[SampleType, float], examples: int, expected: list[int]
) -> None:
    assert list(quotas(mix, examples).values()) == expected


@pytest.mark.parametrize("examples", [1, 2, 3, 17, 99, 1000])
def test_quotas_add_up_and_stay_within_one_of_the_share(examples: int) -> None:
    mix: dict[SampleType, float] = {
        "speech": 0.33,
        "transcription": 0.33,
        "text": 0.17,
        "multi_turn": 0.12,
        "noise": 0.05,
    }
    counts = quotas(mix, examples)
    assert sum(counts.values()) == examples
    assert all(abs(counts[kind] - share * examples) < 1 for kind, share in mix.items())


def test_a_draw_holds_its_quota_of_every_kind_in_mixed_order() -> None:
    mix: dict[SampleType, float] = {"speech": 0.5, "transcription": 0.2, "text": 0.1, "multi_turn": 0.1, "noise": 0.1}
    drawn = draw(stage(mix, 100), POOL, 3)
    kinds = [sample.kind for sample in drawn.samples]
    assert Counter(kinds) == drawn.counts == {kind: round(share * 100) for kind, share in mix.items()}
    assert kinds != sorted(kinds)


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    config = stage({"speech": 0.5, "noise": 0.5}, 40)

    def fingerprint(seed: int) -> list[tuple[str, list[int], str]]:
        samples = draw(config, POOL, seed).samples
        return [(s.kind, np.asarray(s.turns[0].user).tolist(), s.turns[0].assistant) for s in samples]

    assert fingerprint(1) == fingerprint(1)
    assert fingerprint(1) != fingerprint(2)


def test_no_row_comes_twice_before_every_row_came_once() -> None:
    drawn = draw(stage({"sound": 1.0}, 9 * 2 + 4), POOL, 0)
    times = Counter(heard(sample)[0] for sample in drawn.samples)
    assert set(times) == set(range(9))
    assert sorted(times.values()) == [2] * 5 + [3] * 4


def test_passes_over_a_source_differ_in_order() -> None:
    """With one example fewer than two passes, the row left out is not always the same."""
    left_out = {min(Counter(heard(s)[0] for s in draw(stage({"sound": 1.0}, 17), POOL, seed).samples).items(),
                    key=lambda item: item[1])[0] for seed in range(12)}  # fmt: skip
    assert len(left_out) > 3


def test_rows_without_answers_feed_only_transcription_and_sound() -> None:
    mix: dict[SampleType, float] = {"speech": 0.25, "transcription": 0.25, "sound": 0.25, "multi_turn": 0.25}
    rows: dict[str, set[int]] = {}
    for sample in draw(stage(mix, 160), POOL, 5).samples:
        rows.setdefault(sample.kind, set()).update(heard(sample))
    everything, answered = set(range(9)), set(range(6))
    assert rows == {"speech": answered, "multi_turn": answered, "transcription": everything, "sound": everything}


def test_what_is_said_and_answered_belongs_to_the_row_that_is_heard() -> None:
    mix: dict[SampleType, float] = {"speech": 0.4, "transcription": 0.3, "multi_turn": 0.3}
    for sample in draw(stage(mix, 100), POOL, 6).samples:
        expected = "said" if sample.kind == "transcription" else "answer"
        assert [turn.assistant for turn in sample.turns] == [f"{expected} {row}" for row in heard(sample)]


def test_all_eight_transcription_prompts_are_used_also_for_one_row() -> None:
    drawn = draw(stage({"transcription": 1.0}, 80), Pool(spoken=(spoken(0),)), 0)
    assert {sample.prompt for sample in drawn.samples} == set(TRANSCRIPTION_PROMPTS)


def test_conversations_have_two_or_four_different_rows() -> None:
    drawn = draw(stage({"multi_turn": 1.0}, 300), POOL, 1)
    lengths = Counter(len(sample.turns) for sample in drawn.samples)
    assert set(lengths) == {2, 4}
    assert 8 <= lengths[4] <= 36  # 300 / 15 = 20 expected, standard deviation 4.3
    assert all(len(set(heard(sample))) == len(sample.turns) for sample in drawn.samples)


def test_noise_is_random_codes_of_real_lengths_with_a_refusal() -> None:
    samples = draw(stage({"noise": 1.0}, 90), POOL, 2).samples
    lengths = Counter(len(sample.turns[0].user) for sample in samples)
    assert lengths == {10 + index: 10 for index in range(9)}
    values = np.concatenate([np.asarray(sample.turns[0].user) for sample in samples])
    assert values.dtype == np.int16
    assert (values.min(), values.max()) == (0, 512)
    assert {sample.turns[0].assistant for sample in samples} == set(NOISE_ANSWERS)


def test_text_comes_from_the_text_pairs() -> None:
    samples = draw(stage({"text": 1.0}, 10), POOL, 2).samples
    pairs = Counter((sample.turns[0].user, sample.turns[0].assistant) for sample in samples)
    assert pairs == {(pair.text, pair.answer): 2 for pair in POOL.texts}


def test_changing_one_share_leaves_the_rows_of_another_kind() -> None:
    def said(mix: dict[SampleType, float]) -> list[int]:
        return sorted(heard(s)[0] for s in draw(stage(mix, 10), POOL, 4).samples if s.kind == "speech")

    assert said({"speech": 0.5, "text": 0.5}) == said({"speech": 0.5, "noise": 0.5})


@pytest.mark.parametrize(
    ("kind", "pool", "need"),
    [
        ("speech", Pool(spoken=(spoken(0, answered=False),)), "spoken training rows with an answer"),
        ("multi_turn", Pool(spoken=(spoken(0), spoken(1, answered=False))), "at least two spoken training rows"),
        ("text", Pool(spoken=(spoken(0),)), "sentences with an answer"),
        ("noise", Pool(texts=POOL.texts), "spoken training rows"),
        ("sound", Pool(), "spoken training rows"),
        ("transcription", Pool(), "spoken training rows"),
    ],
)
def test_a_kind_that_nothing_feeds_is_named_with_its_quota_and_need(kind: SampleType, pool: Pool, need: str) -> None:
    with pytest.raises(DataError, match=rf"stage instruct: mix\.{kind} asks for 4 samples .*{need}"):
        draw(stage({kind: 1.0}, 4), pool, 0)


def test_a_kind_with_share_zero_needs_no_source() -> None:
    assert draw(stage({"sound": 1.0, "text": 0.0}, 4), replace(POOL, texts=()), 0).counts == {"sound": 4, "text": 0}


@pytest.mark.parametrize("change", [{"text": " "}, {"answer": ""}, {"codes": np.zeros(0, dtype=np.int16)}])
def test_an_empty_row_is_refused_by_its_id(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="row row-3 "):
        draw(stage({"text": 1.0}, 4), replace(POOL, spoken=(spoken(2), replace(spoken(3), **change))), 0)


def test_a_held_out_row_in_the_pool_is_refused() -> None:
    leaked = replace(POOL, spoken=(*POOL.spoken, replace(spoken(9), split="test")))
    with pytest.raises(DataError, match=r"row-9 .* split 'test'"):
        draw(stage({"text": 1.0}, 4), leaked, 0)
    with pytest.raises(DataError, match="text-8"):
        draw(stage({"text": 1.0}, 4), replace(POOL, texts=(TextPair("text-8", "q", "a", split="test"),)), 0)
