"""A small world spoken: voices, dialogues and noise keep to their sides, and one seed gives the same bytes."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ichigo.corpus.noise import KNOWN, NEW, noise, noise_rows
from ichigo.corpus.rows import Row
from ichigo.corpus.shards import iter_rows, write_shards
from ichigo.corpus.spoken import ACCENTS, speak_reserved, speak_world, world_variants
from ichigo.corpus.texts import world_texts
from ichigo.corpus.tokens import read_tokens, token_row, write_tokens
from ichigo.corpus.world import FACT_VOICES, REFUSAL, World
from ichigo.errors import DataError
from ichigo.hashing import sha256_file
from ichigo.recipe.schema import World as Settings
from ichigo.speech.audio import SAMPLE_RATE, read_audio
from ichigo.speech.codes import token_count
from ichigo.speech.synthesis import variants
from ichigo.speech.voices import formants, oddities, people

SETTINGS = Settings(utterances=200, items=20, text_only_facts=0.01, noise=16)
SUITES = {"held_out", "seen_voices", "odd_voices", "facts", "recall_seen", "recall_new"}


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return list(speak_world(World(SETTINGS, seed=5), processes=2))


def variant(row: Row) -> str:
    return row.speaker.partition("+")[2]


def test_held_out_variants_speak_only_in_the_suites_of_new_voices(rows: list[Row]) -> None:
    heard, unheard, reserved = map(set, world_variants(11, 5, seed=5))
    assert (len(heard), len(unheard), len(reserved)) == (57, 11, 5)
    assert {row.suite for row in rows if row.split == "test"} == SUITES
    for row in rows:
        expected = {"": heard, "seen_voices": heard, "odd_voices": set(oddities())}.get(row.suite, unheard)
        assert variant(row) in expected
    assert {row.speaker.partition("+")[0] for row in rows if row.split == "train"} == set(ACCENTS)
    assert len({row.speaker for row in rows if row.split == "train"}) > 100


def test_versions_of_one_voice_stay_together() -> None:
    for seed in range(20):
        heard, unheard, reserved = map(set, world_variants(11, 5, seed))
        assert len(heard | unheard | reserved) == len(heard) + len(unheard) + len(reserved) == 73
        assert (len(unheard), len(reserved)) == (11, 5)
        for family in ({"iven", "iven2", "iven3", "iven4"}, {"max", "RicishayMax", "RicishayMax2"}, {"Gene", "Gene2"}):
            assert family <= heard or family <= unheard or family <= reserved
    assert world_variants(11, 5, 0) != world_variants(11, 5, 1)
    assert set().union(*world_variants(11, 5, 0)) == set(people())


def test_reserving_voices_changes_none_that_is_held_out() -> None:
    for seed in range(20):
        heard, unheard, none = world_variants(11, 0, seed)
        fewer, same, reserved = world_variants(11, 5, seed)
        assert (none, unheard) == ([], same)
        assert sorted(fewer + reserved) == sorted(heard)


def test_a_look_is_heard_and_asked_nowhere_else(rows: list[Row]) -> None:
    """Reserved voices are in no row of any split, reserved questions in none in any phrasing, spoken or written."""
    world = World(SETTINGS, seed=5)
    look = list(speak_reserved(world, questions=40, voices=5, seed=8, processes=2))
    assert len(look) == 40
    assert {variant(row) for row in look} == set(world_variants(11, 5, seed=5)[2])
    assert {variant(row) for row in look}.isdisjoint(map(variant, rows))
    said = {text for row in rows for text in (row.text, row.answer)}
    said |= {text for written in world_texts(world) for text in (written.text, written.answer)}
    assert said.isdisjoint(text for row in look for text in (row.text, row.answer))
    assert {(row.split, row.suite, row.dialogue) for row in look} == {("test", "held_out", "")}


def test_a_look_is_one_of_its_seed() -> None:
    world = World(SETTINGS, seed=5)

    def look(seed: int) -> list[Row]:
        return list(speak_reserved(world, questions=12, voices=2, seed=seed, processes=2))

    one, other = look(1), look(2)
    assert one == look(1)
    assert {row.text for row in one} != {row.text for row in other}
    assert len({variant(row) for row in one}) == 2
    with pytest.raises(DataError, match=r"6 voices are asked for, data.world.reserved_voices is 5"):
        list(speak_reserved(world, questions=1, voices=6, seed=1, processes=1))


def test_more_voices_than_there_are_cannot_be_held_out() -> None:
    with pytest.raises(DataError, match="espeak-ng has 73 variants"):
        world_variants(68, 5, seed=0)


def test_people_have_formants_of_one_vocal_tract() -> None:
    assert {"m1", "f3", "steph", "klatt4"} <= set(people())
    odd = {"zac": "a giant's child", "kaukovalta": "no man is that tall", "Marco": "two tracts", "Lee": "F3 below F1"}
    assert odd.keys() <= set(oddities())
    assert set(people()) | set(oddities()) | {"whisper", "Demonic", "robosoft3"} <= variants()
    assert not set(people()) & set(oddities())
    assert formants("zac") == (145, 145, 145)
    assert formants("Lee") == (80, 80, 9)
    assert formants("john") == (100, 100, 100)


def test_rows_say_what_the_world_asked_for(rows: list[Row]) -> None:
    world = World(SETTINGS, seed=5)
    asked = {"": world.spoken_training(SETTINGS.utterances), **world.spoken_suites()}
    for suite, conversations in asked.items():
        expected = Counter((q.topic, q.text, q.answer, turn) for talk in conversations for turn, q in enumerate(talk))
        assert Counter((r.topic, r.text, r.answer, r.turn) for r in rows if r.suite == suite) == expected
    assert sum(row.split == "train" for row in rows) == SETTINGS.utterances
    assert len({row.id for row in rows}) == len(rows)


def test_a_dialogue_is_one_voice_and_whole(rows: list[Row]) -> None:
    dialogues = defaultdict(list)
    for row in rows:
        if row.dialogue:
            dialogues[row.dialogue].append(row)
    assert {len(found) for found in dialogues.values()} == {2, 3}
    for found in dialogues.values():
        assert [row.turn for row in found] == list(range(len(found)))
        assert len({(row.speaker, row.split, row.suite) for row in found}) == 1
        assert (found[0].topic, found[-1].topic) == ("memory", "memory")


def test_every_text_only_fact_is_asked_by_eight_voices(rows: list[Row]) -> None:
    voices = defaultdict(set)
    for row in rows:
        if row.suite == "facts":
            voices[row.answer].add(row.speaker)
    assert len(voices) >= 6
    assert min(map(len, voices.values())) >= FACT_VOICES


def test_words_follow_the_sound_and_become_token_counts(rows: list[Row], tmp_path: Path) -> None:
    tokens = []
    for row in rows[:60]:
        assert [word.text for word in row.words] == row.text.split()
        assert all(before.end_s <= after.start_s for before, after in pairwise(row.words))
        assert all(word.end_s > word.start_s for word in row.words)
        sounding = [phone.end_s for phone in row.phones if phone.symbol != "_"]
        assert row.words[-1].end_s == pytest.approx(sounding[-1])
        count = token_count(read_audio(row.audio).size)
        tokens.append(token_row(row, np.arange(count, dtype=np.int16)))
        ends = tokens[-1].word_ends
        assert len(ends) == len(row.text.split())
        assert list(ends) == sorted(ends)
        assert count - 6 <= ends[-1] <= count
        assert [end / 25 for end in ends[:-1]] == pytest.approx([word.end_s for word in row.words[:-1]], abs=0.021)
    write_tokens(tokens, tmp_path)
    found = {row.id: row for row in read_tokens(tmp_path)}
    for kept in tokens:
        read = found[kept.id]
        assert (read.topic, read.suite, read.dialogue, read.turn) == (kept.topic, kept.suite, kept.dialogue, kept.turn)
        assert (read.word_ends, read.codes.tolist()) == (kept.word_ends, kept.codes.tolist())


def test_one_seed_gives_the_same_bytes_whatever_the_processes(tmp_path: Path) -> None:
    small = SETTINGS.model_copy(update={"utterances": 24, "items": 2})

    def digests(processes: int) -> dict[str, str]:
        folder = tmp_path / f"{processes}"
        write_shards([*speak_world(World(small, 1), processes), *noise_rows(small, 1)], folder, 2)
        return {path.name: sha256_file(path) for path in folder.iterdir()}

    assert digests(1) == digests(2)


def test_dialogues_stay_in_one_shard_and_in_order(rows: list[Row], tmp_path: Path) -> None:
    shards = 3
    summary = write_shards(iter(rows), tmp_path, shards)
    found = [list(iter_rows(tmp_path / f"shard-{number:05d}.parquet")) for number in range(shards)]
    assert max(map(len, found)) - min(map(len, found)) <= 3
    homes = defaultdict(set)
    for number, own in enumerate(found):
        places = [(row.dialogue or row.id, row.turn) for row in own]
        assert places == sorted(places)
        for row in own:
            homes[row.dialogue or row.id].add(number)
    assert {len(home) for home in homes.values()} == {1}
    assert sorted((row for own in found for row in own), key=lambda row: row.id) == sorted(rows, key=lambda row: row.id)
    assert summary.suites == dict(Counter(row.suite for row in sorted(rows, key=lambda row: row.suite)))
    assert json.loads((tmp_path / "summary.json").read_text())["topics"]["memory"] > 0


def test_noise_keeps_its_new_kinds_from_training() -> None:
    found = list(noise_rows(SETTINGS, seed=0))
    kinds = {suite: {row.speaker for row in found if row.suite == suite} for suite in ("", "noise_known", "noise_new")}
    assert kinds == {"": set(KNOWN), "noise_known": set(KNOWN), "noise_new": {"chirp", "modulated"}}
    assert Counter((row.split, row.suite) for row in found) == {
        ("train", ""): 16, ("test", "noise_known"): 20, ("test", "noise_new"): 20,
    }  # fmt: skip
    assert {(row.text, row.answer, row.topic, row.phones) for row in found} == {("", REFUSAL, "noise", ())}
    assert len({row.id for row in found}) == len(found)
    assert {row.id for row in found}.isdisjoint(row.id for row in noise_rows(SETTINGS, seed=1))
    assert not list(noise_rows(SETTINGS.model_copy(update={"noise": 0}), seed=0))


@pytest.mark.parametrize("kind", [*KNOWN, *NEW])
def test_noise_is_loud_enough_to_hear_and_never_the_same(kind: str) -> None:
    sounds = [noise(kind, seed) for seed in range(8)]
    for sound in sounds:
        assert sound.dtype == np.float32
        assert 0.6 * SAMPLE_RATE <= sound.size <= 3 * SAMPLE_RATE
        assert 0.03 < np.abs(sound).max() < 0.9
    np.testing.assert_array_equal(noise(kind, 3), sounds[3])
    assert len({sound.size for sound in sounds}) > 4


def test_the_new_kinds_are_what_they_are_called() -> None:
    """A chirp has one frequency that moves; modulated noise has an envelope that moves 2 to 8 times a second."""

    def spectrum(sound: npt.NDArray[np.float32], start: float) -> npt.NDArray[np.float64]:
        piece = sound[round(start * sound.size) :][:1024].astype(np.float64)
        return np.abs(np.fft.rfft(piece * np.hanning(piece.size)))

    early, late = (spectrum(noise("chirp", 1), start).argmax() for start in (0.02, 0.8))
    assert abs(int(early) - int(late)) > 5
    sound = noise("modulated", 1)
    envelope = np.abs(sound[: sound.size // 160 * 160]).reshape(-1, 160).mean(axis=1)
    rates = np.abs(np.fft.rfft(envelope - envelope.mean()))
    peak = rates.argmax() / (envelope.size / 100)
    assert 1.5 < peak < 8.5
    assert rates.max() > 4 * np.median(rates)
