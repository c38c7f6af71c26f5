"""Rows to tokens: each exactly once whatever happens between, and no sound encoded that the cache has."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from ichigo.corpus import tokenising
from ichigo.corpus.rows import Row, row_id, sound_digest
from ichigo.corpus.shards import write_shards
from ichigo.corpus.token_cache import ROOT, TokenCache
from ichigo.corpus.tokenising import Account, Tokenising
from ichigo.corpus.tokens import read_tokens, write_tokens
from ichigo.errors import DataError, PlatformError
from ichigo.hashing import sha256_bytes
from ichigo.speech.audio import write_flac
from ichigo.store import MemoryObjects, Objects
from tests.store_contract import Killed, Watched

Waves = Sequence[npt.NDArray[np.float32]]


class Tokenizer:
    """A stand-in whose tokens are a function of the sound, and that counts and may die."""

    def __init__(self, name: str = "one", dies_at: int = 0) -> None:
        self.name, self.dies_at, self.batches = name, dies_at, list[int]()

    def identity(self) -> str:
        return sha256_bytes(self.name.encode())

    def encode(self, waveforms: Waves) -> list[npt.NDArray[np.int16]]:
        self.batches.append(len(waveforms))
        if len(self.batches) == self.dies_at:
            raise Killed
        return [(np.abs(wave[:: len(wave) // 9]) * 500).astype(np.int16) for wave in waveforms]

    @property
    def encoded(self) -> int:
        return sum(self.batches)


@cache
def row(number: int) -> Row:
    """A recording of noise, of 0.1 to 0.3 s; every tenth is the one before it with other words."""
    random = np.random.default_rng(number - (number % 10 == 9))
    wave = random.uniform(-0.5, 0.5, 1600 + int(random.integers(3200))).astype(np.float32)
    text = f"row {number}"
    return Row(
        id=row_id(sound_digest(wave), text, None), text=text, answer=None, speaker=f"speaker {number % 7}",
        split="test" if number % 5 == 0 else "train", language="en", license="", seconds=len(wave) / 16000,
        audio=write_flac(wave), origin="folder",
    )  # fmt: skip


def rows(count: int, first: int = 0) -> list[Row]:
    return [row(number) for number in range(first, first + count)]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenising, "ROWS_TOGETHER", 8)


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    write_shards(rows(60), folder, 1)
    return folder / "shard-00000.parquet"


def run(
    objects: Objects, shard: Path, tokenizer: Tokenizer, to: Path, corpus: str = "c0ffee" * 8
) -> tuple[bytes, Account]:
    """Tokenise ``shard`` as the step does; the bytes of the tokens' file."""
    to.mkdir(parents=True, exist_ok=True)
    (to / "found.sqlite").unlink(missing_ok=True)
    keys = {"tokenizer": tokenizer.identity(), "code": "c0de" * 16, "corpus": corpus}
    with closing(TokenCache(objects, **keys, shard=shard.name, scratch=to)) as cache:
        work = Tokenising(tokenizer, cache)
        path = write_tokens(work.rows(shard), to)
    return path.read_bytes(), work.account


def test_every_row_has_its_tokens_once_and_in_the_order_of_the_shard(shard: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer()
    _, account = run(MemoryObjects(), shard, tokenizer, tmp_path / "to")
    found = read_tokens(tmp_path / "to")
    assert [row.id for row in found] == sorted(row.id for row in rows(60))
    expected = {row.id: row for row in rows(60)}
    assert all((row.text, row.speaker) == (expected[row.id].text, expected[row.id].speaker) for row in found)
    assert account == Account(60, account.cached, tokenizer.encoded, 0, sum(len(row.codes) for row in found))
    assert account.cached + account.encoded == 60


def test_a_kill_in_any_batch_costs_that_batch_alone_and_changes_no_byte(shard: Path, tmp_path: Path) -> None:
    whole, _ = run(MemoryObjects(), shard, undisturbed := Tokenizer(), tmp_path / "whole")
    assert len(undisturbed.batches) == 8
    for death in range(1, 9):
        objects, first, second = MemoryObjects(), Tokenizer(dies_at=death), Tokenizer()
        with pytest.raises(Killed):
            run(objects, shard, first, tmp_path / "to")
        data, account = run(objects, shard, second, tmp_path / "to")
        assert data == whole
        assert second.batches == undisturbed.batches[death - 1 :]  # in the same company
        assert account.encoded == second.encoded


def test_a_kill_at_any_write_of_the_cache_changes_no_byte(shard: Path, tmp_path: Path) -> None:
    whole, _ = run(MemoryObjects(), shard, Tokenizer(), tmp_path / "whole")
    for death in range(1, 9):
        objects = MemoryObjects()

        def die(number: int, death: int = death) -> None:
            if number == death:
                raise Killed

        with pytest.raises(Killed):
            run(Watched(objects, die), shard, Tokenizer(), tmp_path / "to")
        data, account = run(objects, shard, again := Tokenizer(), tmp_path / "to")
        assert (data, len(again.batches)) == (whole, 9 - death)
        assert account.rows == 60


def test_a_changed_corpus_encodes_its_new_sounds_alone(shard: Path, tmp_path: Path) -> None:
    objects = MemoryObjects()
    run(objects, shard, Tokenizer(), tmp_path / "old")
    changed = [*rows(55, first=5), *rows(7, first=60)]
    write_shards(changed, tmp_path / "changed", 2)
    tokenizer = Tokenizer()
    for number in range(2):
        part = tmp_path / "changed" / f"shard-0000{number}.parquet"
        run(objects, part, tokenizer, tmp_path / str(number), "beef" * 9)
    assert tokenizer.encoded == 7
    alone, _ = run(MemoryObjects(), tmp_path / "changed" / "shard-00000.parquet", Tokenizer(), tmp_path / "alone")
    assert (tmp_path / "0" / "tokens.parquet").read_bytes() == alone


def test_another_tokenizer_takes_nothing_from_the_cache(shard: Path, tmp_path: Path) -> None:
    objects = MemoryObjects()
    run(objects, shard, first := Tokenizer(), tmp_path / "to")
    run(objects, shard, second := Tokenizer("another"), tmp_path / "to", "beef" * 9)
    assert second.encoded == first.encoded


def test_the_other_shards_of_a_corpus_are_not_read(tmp_path: Path) -> None:
    """They hold none of its sounds; reading them would make the first run's work grow with the square of the shards."""
    write_shards(rows(64), tmp_path / "corpus", 4)
    objects, fetched = MemoryObjects(), list[str]()

    class Counted(Watched):
        def get(self, key: str) -> bytes:
            fetched.append(key)
            return super().get(key)

    for number in range(4):
        path = tmp_path / "corpus" / f"shard-0000{number}.parquet"
        run(Counted(objects, lambda _: None), path, Tokenizer(), tmp_path / "to")
    assert fetched == []


def test_a_damaged_or_vanished_pack_is_not_used(shard: Path, tmp_path: Path) -> None:
    objects = MemoryObjects()
    whole, _ = run(objects, shard, Tokenizer(), tmp_path / "to")
    keys = [key for key, _ in objects.list(ROOT)]
    objects.put(keys[2], objects.get(keys[3]))

    class Forgets(Watched):
        def get(self, key: str) -> bytes:
            if key == keys[4]:
                objects.delete(key)
            return super().get(key)

    data, account = run(Forgets(objects, lambda _: None), shard, again := Tokenizer(), tmp_path / "to")
    assert data == whole
    assert len(again.batches) == 2
    assert account.rows == 60


def test_a_store_that_takes_nothing_costs_the_cache_and_not_the_work(shard: Path, tmp_path: Path) -> None:
    """What is finished then is kept by the workplace; stopping here would throw a batch away."""

    def refuse(number: int) -> None:
        raise PlatformError("S3 does not answer")

    whole, _ = run(MemoryObjects(), shard, Tokenizer(), tmp_path / "whole")
    data, _ = run(Watched(MemoryObjects(), refuse), shard, Tokenizer(), tmp_path / "to")
    assert data == whole


def test_long_recordings_come_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokenising, "SECONDS_TOGETHER", 0.5)
    batches = list(tokenising._batches(rows(60)))
    assert [row.id for batch in batches for row in batch] == [row.id for row in rows(60)]
    assert all(sum(row.seconds for row in batch) <= 0.5 for batch in batches)
    assert max(map(len, batches)) < 8


def as_codes(row: Row, tokenizer: str) -> Row:
    return replace(row, audio=b"", codes=(5, 512, 0), tokenizer=tokenizer)


@pytest.mark.parametrize("tokenizer", ["published", Tokenizer().identity()])
def test_rows_that_came_as_tokens_keep_them(tmp_path: Path, tokenizer: str) -> None:
    mixed = [as_codes(row, tokenizer) if number % 3 == 0 else row for number, row in enumerate(rows(30))]
    write_shards(mixed, tmp_path / "corpus", 1)
    shard = tmp_path / "corpus" / "shard-00000.parquet"
    _, account = run(MemoryObjects(), shard, Tokenizer(), tmp_path / "to")
    found = {row.id: row.codes.tolist() for row in read_tokens(tmp_path / "to")}
    assert {row.id for row in mixed if row.codes} == {name for name, codes in found.items() if codes == [5, 512, 0]}
    assert (account.rows, account.given) == (30, 10)


def test_tokens_of_another_tokenizer_are_refused(tmp_path: Path) -> None:
    foreign = Tokenizer("another").identity()
    mixed = [as_codes(row, foreign) if number == 3 else row for number, row in enumerate(rows(12))]
    write_shards(mixed, tmp_path / "corpus", 1)
    with pytest.raises(DataError, match=f"{mixed[3].id} came as tokens of the tokenizer {foreign[:12]}"):
        run(MemoryObjects(), tmp_path / "corpus" / "shard-00000.parquet", Tokenizer(), tmp_path / "to")


def test_no_rows_give_a_file_without_rows(tmp_path: Path) -> None:
    write_tokens(iter(()), tmp_path)
    assert read_tokens(tmp_path) == []
