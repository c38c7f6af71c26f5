"""Drawing a stage's samples: exact quotas, seeds, sources, and refusal of held-out rows."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ichigo.errors import DataError
from ichigo.language.layouts import SPEAK_PROMPTS, TRANSCRIPTION_PROMPTS, Codes, Part, Sample
from ichigo.language.mixing import NOISE_ANSWERS, Pool, SpokenRow, TextPair, cuts, draw, quotas
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


def sounds(sample: Sample) -> list[Codes]:
    """The codes in the user's turns."""
    return [part for turn in sample.turns for part in turn.question if not isinstance(part, str)]


def heard(sample: Sample) -> list[int]:
    """Which rows of POOL the user turns are."""
    return [int(codes[0]) for codes in sounds(sample)]


def in_words(row: SpokenRow, text: str, *ends: int) -> SpokenRow:
    return replace(row, text=text, word_ends=ends)


def one_word(codes: Codes) -> Part:
    """The codes of a word whose every sound token is its number, spelt."""
    return " ".join(str(code) for code in dict.fromkeys(codes.tolist()))


SENTENCE = SpokenRow(
    "sentence", np.repeat(np.arange(4, dtype=np.int16), [3, 2, 4, 1]), "0 1 2 3", "four", word_ends=(3, 5, 9, 10)
)
"""Four words; those of the same name are three, two, four and one sound tokens long."""

DIALOGUES = tuple(
    replace(spoken(10 * dialogue + turn), dialogue=f"d{dialogue}", turn=turn)
    for dialogue, turns in enumerate((2, 3, 2))
    for turn in range(turns)
)
CHATS = tuple(replace(pair, dialogue="chat", turn=turn) for turn, pair in enumerate(POOL.texts[:2]))
NOISE = tuple(replace(spoken(100 + index), text="", answer="sorry, what?") for index in range(3))


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


def test_all_eight_kinds_hold_their_quota_whatever_feeds_them() -> None:
    mix: dict[SampleType, float] = {
        "speech": 0.31, "transcription": 0.17, "text": 0.13, "sound": 0.05, "multi_turn": 0.11, "noise": 0.07,
        "mixed": 0.09, "speak": 0.07,
    }  # fmt: skip
    for pool in (
        Pool((SENTENCE, spoken(1)), POOL.texts),
        Pool((*POOL.spoken, SENTENCE, *DIALOGUES), (*POOL.texts, *CHATS), NOISE),
    ):
        drawn = draw(stage(mix, 300), pool, 0)
        expected = {kind: round(share * 300) for kind, share in mix.items()}
        assert Counter(sample.kind for sample in drawn.samples) == drawn.counts == expected


def test_the_same_seed_draws_the_same_and_another_seed_does_not() -> None:
    config = stage({"speech": 0.5, "noise": 0.5}, 40)

    def fingerprint(seed: int) -> list[tuple[str, list[int], str]]:
        samples = draw(config, POOL, seed).samples
        return [(s.kind, sounds(s)[0].tolist(), str(s.turns[0].assistant)) for s in samples]

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
    lengths = Counter(len(sounds(sample)[0]) for sample in samples)
    assert lengths == {10 + index: 10 for index in range(9)}
    values = np.concatenate([sounds(sample)[0] for sample in samples])
    assert values.dtype == np.int16
    assert (values.min(), values.max()) == (0, 512)
    assert {sample.turns[0].assistant for sample in samples} == set(NOISE_ANSWERS)


def test_recorded_noise_is_every_second_noise_and_gives_the_refusal() -> None:
    samples = draw(stage({"noise": 1.0}, 31), replace(POOL, noise=NOISE), 2).samples
    recorded = Counter(heard(sample)[0] for sample in samples if len(set(sounds(sample)[0].tolist())) == 1)
    assert recorded == {100: 5, 101: 5, 102: 5}  # random codes of ten tokens and more are never all the same
    assert {sample.turns[0].assistant for sample in samples} == {"sorry, what?"}


def test_recorded_noise_is_heard_in_no_other_kind() -> None:
    mix: dict[SampleType, float] = {"speech": 0.3, "transcription": 0.3, "sound": 0.2, "multi_turn": 0.2}
    drawn = draw(stage(mix, 200), replace(POOL, noise=NOISE), 2)
    assert max(row for sample in drawn.samples for row in heard(sample)) < 9


def test_a_mixed_question_has_each_word_once_in_order_written_or_spoken() -> None:
    samples = draw(stage({"mixed": 1.0}, 300), Pool((SENTENCE,)), 0).samples
    asked = [tuple(part if isinstance(part, str) else one_word(part) for part in s.turns[0].question) for s in samples]
    assert set(asked) == {("0", "1 2 3"), ("0 1", "2 3"), ("0 1 2", "3")}
    written_first = [isinstance(sample.turns[0].question[0], str) for sample in samples]
    ways = Counter(zip(asked, written_first, strict=True))
    assert len(ways) == 6
    assert min(ways.values()) > 25  # 50 expected of each cut in each order, standard deviation 6.5
    assert {s.turns[0].assistant for s in samples} == {"four"}
    assert all(
        isinstance(first, str) != isinstance(second, str) for first, second in (s.turns[0].question for s in samples)
    )


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (SENTENCE, [1, 2, 3]),
        (in_words(SENTENCE, "0 1 2 3", 0, 5, 10, 10), [2]),  # no sound before the first cut, none after the third
        (in_words(SENTENCE, "0 1", 3, 5, 9, 10), []),  # the ends are not those of the words
        (in_words(SENTENCE, "0", 10), []),
        (in_words(SENTENCE, "0 1 2 3"), []),
    ],
)
def test_questions_are_cut_where_both_sides_have_words_and_sound(row: SpokenRow, expected: list[int]) -> None:
    assert cuts(row) == expected


def test_speak_says_a_spoken_row_s_text_in_its_codes_under_several_prompts() -> None:
    samples = draw(stage({"speak": 1.0}, 90), POOL, 0).samples
    assert {sample.prompt for sample in samples} == set(SPEAK_PROMPTS)
    said = Counter(
        (sample.turns[0].user, int(np.asarray(sample.turns[0].assistant, np.int16)[0])) for sample in samples
    )
    assert said == {(f"said {index}", index): 10 for index in range(9)}


def test_conversations_of_the_corpus_come_whole_in_the_order_of_their_turns() -> None:
    drawn = draw(stage({"multi_turn": 1.0}, 30), replace(POOL, spoken=(*POOL.spoken, *DIALOGUES[::-1])), 1)
    asked = Counter(tuple(heard(sample)) for sample in drawn.samples)
    assert asked == {(0, 1): 10, (10, 11, 12): 10, (20, 21): 10}
    assert all(
        turn.assistant == f"answer {row}" for s in drawn.samples for turn, row in zip(s.turns, heard(s), strict=True)
    )


def test_a_conversation_ends_before_a_turn_that_was_set_aside() -> None:
    gaps = tuple(row for row in DIALOGUES if int(row.codes[0]) not in (1, 12))
    drawn = draw(stage({"multi_turn": 1.0}, 20), Pool(gaps), 1)
    assert Counter(tuple(heard(sample)) for sample in drawn.samples) == {(10, 11): 10, (20, 21): 10}


def test_a_later_turn_is_never_asked_alone() -> None:
    cut = tuple(in_words(row, "what now", 5, len(row.codes)) for row in DIALOGUES)
    mix: dict[SampleType, float] = {"speech": 0.5, "mixed": 0.5}
    for sample in draw(stage(mix, 40), Pool(cut), 0).samples:
        assert heard(sample)[0] in (0, 10, 20)


def test_text_holds_written_conversations_whole_beside_single_pairs() -> None:
    samples = draw(stage({"text": 1.0}, 20), Pool(texts=(*CHATS[::-1], *POOL.texts[2:])), 2).samples
    asked = Counter(tuple(str(turn.user) for turn in sample.turns) for sample in samples)
    alone: list[tuple[str, ...]] = [("question 2",), ("question 3",), ("question 4",)]
    assert asked == dict.fromkeys([("question 0", "question 1"), *alone], 5)


def test_what_is_known_from_text_alone_is_never_heard_nor_said() -> None:
    fact = TextPair("fact", "what is the opposite of hot", "cold")
    pool = replace(POOL, spoken=(*POOL.spoken, SENTENCE, *DIALOGUES), texts=(*POOL.texts, fact), noise=NOISE)
    kinds: tuple[SampleType, ...] = (
        "speech",
        "transcription",
        "text",
        "sound",
        "multi_turn",
        "noise",
        "mixed",
        "speak",
    )
    samples = draw(stage(dict.fromkeys(kinds, 0.125), 800), pool, 0).samples
    with_it = {
        sample.kind
        for sample in samples
        for turn in sample.turns
        if any("opposite" in str(part) or "cold" in str(part) for part in (*turn.question, turn.assistant))
    }
    assert with_it == {"text"}
    spoken_texts = {row.text for row in pool.spoken}
    assert all(s.turns[0].user in spoken_texts for s in samples if s.kind == "speak")


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
        ("mixed", POOL, "two or more words and their ends"),
        ("speak", Pool(texts=POOL.texts), "spoken training rows"),
        ("multi_turn", Pool(DIALOGUES[:1]), "at least two spoken training rows"),
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


def test_noise_without_a_refusal_is_refused_by_its_id() -> None:
    with pytest.raises(DataError, match="row row-100 "):
        draw(stage({"text": 1.0}, 4), replace(POOL, noise=(replace(NOISE[0], answer=None),)), 0)


def test_a_held_out_row_in_the_pool_is_refused() -> None:
    with pytest.raises(DataError, match=r"row-100 .* split 'test'"):
        draw(stage({"text": 1.0}, 4), replace(POOL, noise=(replace(NOISE[0], split="test"),)), 0)
    leaked = replace(POOL, spoken=(*POOL.spoken, replace(spoken(9), split="test")))
    with pytest.raises(DataError, match=r"row-9 .* split 'test'"):
        draw(stage({"text": 1.0}, 4), leaked, 0)
    with pytest.raises(DataError, match="text-8"):
        draw(stage({"text": 1.0}, 4), replace(POOL, texts=(TextPair("text-8", "q", "a", split="test"),)), 0)
