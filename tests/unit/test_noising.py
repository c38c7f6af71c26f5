"""Replacement of sound tokens while training: how many, which, and none but those of questions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from ichigo.language.base import train_tokenizer, write_tokenizer
from ichigo.language.contract import TokenContract, contract_for
from ichigo.language.layouts import Codes, Ids, Layouts, Sample, Turn
from ichigo.language.noising import replace_sound_tokens


@pytest.fixture(scope="module")
def layouts(tmp_path_factory: pytest.TempPathFactory) -> Layouts:
    folder = tmp_path_factory.mktemp("noising")
    tokenizer = train_tokenizer(["turn on the light"], 300)
    write_tokenizer(tokenizer, folder)
    (folder / "config.json").write_text(json.dumps({"vocab_size": tokenizer.get_vocab_size()}))
    return Layouts.open(folder, contract_for(folder, "vq"))


def codes(count: int) -> Codes:
    return np.arange(count, dtype=np.int16) % 512


def laid_out(layouts: Layouts, *samples: Sample) -> Ids:
    return np.concatenate([layouts.example(sample).input_ids for sample in samples])


def changed(before: Ids, after: Ids) -> list[int]:
    return np.flatnonzero(before != after).tolist()


def is_sound(ids: Ids, contract: TokenContract) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    return np.asarray(ids >= contract.first_sound)


SPEECH = Sample("speech", (Turn(codes(300), "on"),))
TURNS = Sample("multi_turn", (Turn(codes(40), "a"), Turn(codes(50), "b"), Turn(codes(60), "c")))
MIXED = Sample("mixed", (Turn((codes(70), "the light"), "on"),))
SPEAK = Sample("speak", (Turn("the light", codes(80)),), "Say:")
SOUND = Sample("sound", (Turn(codes(90)),))


def test_every_sound_token_of_questions_can_change_and_nothing_else(layouts: Layouts) -> None:
    """In one packed sequence of all kinds, over many draws."""
    heard, unheard = (SPEECH, TURNS, MIXED), (SPEAK, SOUND)
    ids = laid_out(layouts, SOUND, SPEECH, SPEAK, TURNS, SOUND, MIXED)
    touched = {
        place for seed in range(40) for place in changed(ids, replace_sound_tokens(ids, layouts.contract, 0.5, seed))
    }
    assert len(touched) == sum(is_sound(laid_out(layouts, *heard), layouts.contract))
    assert is_sound(ids[sorted(touched)], layouts.contract).all()
    alone = laid_out(layouts, *unheard)
    assert not changed(alone, replace_sound_tokens(alone, layouts.contract, 1.0, 0))


def test_the_share_is_that_of_the_questions_sound_tokens(layouts: Layouts) -> None:
    ids = laid_out(layouts, *[SPEECH] * 20)
    counts = [len(changed(ids, replace_sound_tokens(ids, layouts.contract, 0.1, seed))) for seed in range(20)]
    assert np.mean(counts) == pytest.approx(0.1 * 6000 * 512 / 513, abs=20)  # standard error 5
    assert changed(ids, replace_sound_tokens(ids, layouts.contract, 0.0, 0)) == []


def test_new_tokens_are_spread_over_all_codes(layouts: Layouts) -> None:
    contract = layouts.contract
    ids = laid_out(layouts, *[SPEECH] * 20)
    noisy = replace_sound_tokens(ids, contract, 1.0, 0)
    values = noisy[is_sound(ids, contract)] - contract.first_sound
    assert (values.min(), values.max()) == (0, 512)
    assert np.bincount(values, minlength=513).max() < 40  # 11.7 expected of each


def test_a_key_fixes_the_draw_and_leaves_its_argument_alone(layouts: Layouts) -> None:
    ids = laid_out(layouts, SPEECH)
    before = ids.copy()
    first = replace_sound_tokens(ids, layouts.contract, 0.3, (7, 0, 5))
    np.testing.assert_array_equal(first, replace_sound_tokens(ids, layouts.contract, 0.3, (7, 0, 5)))
    assert changed(first, replace_sound_tokens(ids, layouts.contract, 0.3, (7, 1, 5)))
    np.testing.assert_array_equal(ids, before)
    assert first.dtype == np.int32
