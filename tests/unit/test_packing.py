"""Packing: every example once, borders, fill, files, and refusal of data of another contract."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ichigo.errors import ContractError, DataError, IntegrityError
from ichigo.language.contract import TokenContract
from ichigo.language.layouts import Example
from ichigo.language.packing import Packed, pack

CONTRACT = TokenContract(
    bos=0, end_of_text=1, eot=2, start_header=3, end_header=4, pad=5, sound_start=6, sound_end=7, first_sound=8,
    sound_codes=513, text_vocabulary=6, vocabulary=5000, text_tokenizer="t", speech_tokenizer="s",
)  # fmt: skip


def example(number: int, length: int) -> Example:
    """Ids that say which example they are from; about half of the labels carry loss."""
    ids = np.full(length, number, dtype=np.int32)
    labels = np.where(np.arange(length) > length // 2, ids, np.int32(-100))
    return Example(ids, labels.astype(np.int32))


def examples(count: int, longest: int) -> list[Example]:
    lengths = np.random.default_rng(0).integers(1, longest + 1, size=count)
    return [example(index, int(length)) for index, length in enumerate(lengths)]


def members(packed: Packed, index: int) -> list[int]:
    """The numbers of the examples in one sequence, by their first tokens."""
    sequence = packed.sequence(index)
    return [int(sequence.input_ids[start]) for start in sequence.cu_seqlens[:-1]]


@pytest.mark.parametrize("packing", [True, False])
def test_every_example_lies_whole_in_exactly_one_sequence(packing: bool) -> None:
    rows = examples(300, 64)
    packed = pack(rows, 64, packing)
    found = [number for index in range(len(packed)) for number in members(packed, index)]
    assert sorted(found) == list(range(300))
    for place, number in enumerate(found):
        span = slice(packed.example_offsets[place], packed.example_offsets[place + 1])
        np.testing.assert_array_equal(packed.input_ids[span], rows[number].input_ids)
        np.testing.assert_array_equal(packed.labels[span], rows[number].labels)


def test_no_sequence_is_longer_than_allowed_and_packing_fills_them() -> None:
    rows = examples(300, 32)
    packed, alone = pack(rows, 64, True), pack(rows, 64, False)
    assert all(len(packed.sequence(index).input_ids) <= 64 for index in range(len(packed)))
    tokens = sum(len(row.input_ids) for row in rows)
    assert len(alone) == 300
    assert len(packed) <= -(-tokens // 64) * 1.04  # of the floor that no packing can beat
    assert packed.fill.share == tokens / (64 * len(packed))


def test_each_example_goes_where_it_leaves_least_room() -> None:
    rows = [example(number, length) for number, length in enumerate((3, 8, 4, 2, 3, 6))]
    packed = pack(rows, 10, True)
    assert [members(packed, index) for index in range(len(packed))] == [[0, 2, 4], [1, 3], [5]]


def test_short_and_long_kinds_stay_mixed_in_every_sequence() -> None:
    generator = np.random.default_rng(0)
    short = generator.random(2000) < 0.15  # of 25 tokens, the others of about 60
    rows = [example(index, 25 if is_short else int(generator.integers(45, 75))) for index, is_short in enumerate(short)]
    packed = pack(rows, 640, True)
    shares = [np.mean(short[members(packed, index)]) for index in range(len(packed) - 2)]
    assert np.std(shares) < 0.15  # 0.10 by chance; 0.22 if they were packed longest first
    assert packed.fill.share > 0.97


def test_a_sequence_marks_its_borders_for_attention_and_positions() -> None:
    packed = pack([example(0, 3), example(1, 5)], 8, True)
    sequence = packed.sequence(0)
    assert sequence.input_ids.tolist() == [0, 0, 0, 1, 1, 1, 1, 1]
    assert sequence.cu_seqlens.tolist() == [0, 3, 8]
    assert sequence.position_ids.tolist() == [0, 1, 2, 0, 1, 2, 3, 4]
    assert {array.dtype for array in sequence} == {np.dtype(np.int32)}
    assert (sequence.labels[sequence.cu_seqlens[:-1]] == -100).all()


def test_fill_counts_labelled_tokens() -> None:
    assert pack([example(0, 4), example(1, 2)], 8, True).fill == (1, 2, 6, 1, 0.75)


def test_packing_is_deterministic_also_on_disk(tmp_path: Path) -> None:
    for name in ("a", "b"):
        pack(examples(100, 32), 32, True).save(tmp_path / name, CONTRACT)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert len(files) == 6
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_saved_data_is_mapped_not_read_and_equal(tmp_path: Path) -> None:
    packed = pack(examples(100, 32), 32, True)
    packed.save(tmp_path / "packed", CONTRACT)
    loaded = Packed.load(tmp_path / "packed", CONTRACT)
    assert isinstance(loaded.input_ids, np.memmap)
    assert (len(loaded), loaded.fill) == (len(packed), packed.fill)
    for index in (0, len(packed) - 1):
        for mine, theirs in zip(packed.sequence(index), loaded.sequence(index), strict=True):
            np.testing.assert_array_equal(mine, theirs)


def test_data_of_another_contract_does_not_load(tmp_path: Path) -> None:
    pack(examples(10, 32), 32, True).save(tmp_path, CONTRACT)
    with pytest.raises(ContractError, match="speech_tokenizer: expected other, found s"):
        Packed.load(tmp_path, replace(CONTRACT, speech_tokenizer="other"))
    with pytest.raises(ContractError, match="eot: expected 9, found 2"):
        Packed.load(tmp_path, replace(CONTRACT, eot=9))


def test_ids_beyond_the_vocabulary_are_not_saved(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"ids 0\.\.5000"):
        pack([example(0, 3), example(5000, 3)], 8, True).save(tmp_path, CONTRACT)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["cut", "missing", "swapped"])
def test_damaged_files_are_found_on_loading(tmp_path: Path, damage: str) -> None:
    pack(examples(10, 32), 32, True).save(tmp_path, CONTRACT)
    labels = tmp_path / "labels.npy"
    if damage == "cut":
        labels.write_bytes(labels.read_bytes()[:-8])
    elif damage == "missing":
        labels.unlink()
    else:
        np.save(labels, np.full(3, -100, dtype=np.int32))
    with pytest.raises(IntegrityError):
        Packed.load(tmp_path, CONTRACT)


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(DataError, match="no example"):
        pack([], 8, True)
    with pytest.raises(DataError, match="example 1 has 9 tokens; sequence_length is 8"):
        pack([example(0, 8), example(1, 9)], 8, True)
    leaking = Example(np.array([4, 5], dtype=np.int32), np.array([4, 5], dtype=np.int32))
    with pytest.raises(DataError, match="label on its first token"):
        pack([leaking], 8, True)
