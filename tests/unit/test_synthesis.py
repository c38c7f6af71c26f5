"""Speaking text: the same request always gives the same sound, phones are where the sound is, bad requests say so."""

from __future__ import annotations

import sys
from itertools import pairwise

import numpy as np
import pytest

from ichigo.errors import DataError, StepError
from ichigo.speech.audio import SAMPLE_RATE
from ichigo.speech.synthesis import PAUSE, Espeak, Request, Utterance, speak_all, speak_blocks

# Breathy variants draw noise, and every voice carries its phase over: the two ways in which espeak-ng forgets itself.
REQUESTS = [
    Request(text, voice, speed, 50)
    for voice in ("en-us+f2", "en+m3", "en-us")
    for text, speed in (("What is the capital of France?", 170), ("Seven and nine. Stop!", 210))
]


def same(one: Utterance, other: Utterance) -> bool:
    return np.array_equal(one.waveform, other.waveform) and one.phones == other.phones


@pytest.fixture(scope="module")
def spoken() -> list[Utterance]:
    return speak_all(REQUESTS, processes=1)


def test_processes_order_and_company_change_no_sample(spoken: list[Utterance]) -> None:
    assert all(map(same, spoken, speak_all(REQUESTS, processes=2)))
    assert all(map(same, spoken, reversed(speak_all(REQUESTS[::-1], processes=1))))
    assert same(spoken[4], speak_all([REQUESTS[4]])[0])


def as_it_is(utterance: Utterance) -> Utterance:
    return utterance


def test_a_block_is_the_same_in_any_company_and_forgets_the_ones_before() -> None:
    mixed, other = [*REQUESTS, REQUESTS[0]], REQUESTS[::-1]
    first, alone, again = speak_blocks([mixed, REQUESTS[:1], mixed], 2, as_it_is)
    assert all(map(same, first, again))
    (after_another,) = list(speak_blocks([other, mixed], 1, as_it_is))[1:]
    assert all(map(same, first, after_another))
    assert same(first[0], alone[0])
    assert not same(first[0], first[-1]), "within a block a voice goes on where it stopped"


def length(utterance: Utterance) -> int:
    return utterance.waveform.size


def test_what_is_made_of_an_utterance_is_made_where_it_was_spoken(spoken: list[Utterance]) -> None:
    found = speak_blocks([[request] for request in REQUESTS], 2, length)
    assert [size for block in found for size in block] == [utterance.waveform.size for utterance in spoken]


def test_words_are_those_of_the_text_and_lie_where_they_are_spoken() -> None:
    texts = [
        "turn on the kitchen light",
        "Three. Stop now",
        "  don't go, to the café near Zürich  ",
        "twenty-one of 15",
    ]
    for text, utterance in zip(texts, speak_all([Request(text, "en-us+f2", 170, 50) for text in texts]), strict=True):
        words = utterance.words
        assert [word.text for word in words] == text.split()
        assert all(word.end_s > word.start_s for word in words)
        assert all(before.end_s <= after.start_s for before, after in pairwise(words))
        last = [phone for phone in utterance.phones if phone.symbol != PAUSE][-1]
        assert words[-1].end_s == pytest.approx(last.end_s)


def test_a_pause_belongs_to_no_word() -> None:
    (said,) = speak_all([Request("Three. Stop now", "en-us", 170, 50)])
    three, stop, _ = said.words
    assert stop.start_s - three.end_s > 0.2
    quiet = said.waveform[round((three.end_s + 0.08) * SAMPLE_RATE) : round((stop.start_s - 0.02) * SAMPLE_RATE)]
    assert np.abs(quiet).max() < 0.01 * np.abs(said.waveform).max()


def test_a_word_at_the_start_ends_where_it_ends_alone() -> None:
    """Spoken at one speed, a word is as long before a pause as by itself."""
    alone, followed = speak_all([Request("Three.", "en-us", 170, 50), Request("Three. Stop now", "en-us", 170, 50)])
    assert followed.words[0].end_s == pytest.approx(alone.words[0].end_s, abs=0.04)


def test_voice_speed_and_pitch_are_heard() -> None:
    low, high, fast, other = speak_all(
        [
            Request("one two three four", "en-us", 150, 10),
            Request("one two three four", "en-us", 150, 90),
            Request("one two three four", "en-us", 300, 10),
            Request("one two three four", "en-us+f2", 150, 10),
        ]
    )

    def fundamental(utterance: Utterance) -> float:
        """Hz, from the lag of 2.5 to 17 ms at which the sound repeats itself best; median over frames of 64 ms."""
        frames = utterance.waveform[: utterance.waveform.size // 1024 * 1024].reshape(-1, 1024)
        repetition = np.fft.irfft(np.abs(np.fft.rfft(frames, 2048, axis=1)) ** 2, axis=1)[:, 40:272]
        return float(np.median(SAMPLE_RATE / (40 + repetition.argmax(axis=1))))

    assert fundamental(high) > 1.3 * fundamental(low)
    assert fast.waveform.size < 0.75 * low.waveform.size
    assert not np.array_equal(other.waveform, low.waveform)


def test_phones_cover_the_sound_and_pauses_are_quiet(spoken: list[Utterance]) -> None:
    for utterance in spoken:
        phones = utterance.phones
        assert phones[0].start_s == 0
        assert phones[-1].end_s == pytest.approx(utterance.waveform.size / SAMPLE_RATE, abs=1 / SAMPLE_RATE)
        assert all(before.end_s == after.start_s for before, after in pairwise(phones))
        assert all(phone.end_s > phone.start_s for phone in phones)
        assert not {symbol for symbol in (phone.symbol for phone in phones) if symbol.startswith(("'", ","))}
    stop = spoken[1]  # two sentences with a pause of about 0.3 s between them
    pause = max((p for p in stop.phones if p.symbol == PAUSE), key=lambda p: p.end_s - p.start_s)
    inside = stop.waveform[round((pause.start_s + 0.1) * SAMPLE_RATE) : round(pause.end_s * SAMPLE_RATE)]
    assert inside.size > 0.05 * SAMPLE_RATE
    assert np.abs(inside).max() < 0.01 * np.abs(stop.waveform).max()


def test_the_phones_are_those_of_the_words() -> None:
    utterance = Espeak().speak("seven", "en-us", 160, 50)
    symbols = [phone.symbol for phone in utterance.phones if phone.symbol != PAUSE]
    assert [symbol[0] for symbol in symbols] == ["s", "E", "v", "@", "n"]
    assert utterance.waveform.dtype == np.float32
    assert 0.1 < np.abs(utterance.waveform).max() <= 1


@pytest.mark.parametrize(
    ("request_", "complaint"),
    [
        (Request("hello", "en-us+nosuch", 170, 50), "no variant 'nosuch'"),
        (Request("hello", "en-us+../../en_dict", 170, 50), "no variant"),
        (Request("hello", "klingonese+f2", 170, 50), "'klingonese\\+f2' is unknown"),
        (Request("hello", "en", 20, 50), "words_per_minute 20"),
        (Request("hello", "en", 170, 100), "pitch 100"),
        (Request("?!", "en", 170, 50), "at least one letter"),
        (Request("hel\0lo", "en", 170, 50), "NUL"),
    ],
)
def test_what_espeak_would_say_wrongly_is_refused(request_: Request, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        Espeak().speak(request_.text, request_.voice, request_.words_per_minute, request_.pitch)
    with pytest.raises(DataError, match=complaint):
        speak_all([*REQUESTS, request_, *REQUESTS], processes=2)


@pytest.mark.parametrize("count", [1, 5000])
def test_a_speech_process_that_dies_is_an_error_and_no_silence(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(StepError, match="ended early with code 1"):
        speak_all(REQUESTS[:1] * count, processes=1)


def test_nothing_to_say_is_nothing_said() -> None:
    assert speak_all([], processes=2) == []
