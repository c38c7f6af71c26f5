"""From one shard of recordings to rows of sound tokens, in its order, with a bounded part of it in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ichigo.corpus.rows import Row
from ichigo.corpus.shards import iter_rows
from ichigo.corpus.token_cache import Codes, TokenCache
from ichigo.corpus.tokens import TokenRow, token_row
from ichigo.errors import DataError
from ichigo.recipe.schema import PUBLISHED
from ichigo.speech.audio import read_audio

ROWS_TOGETHER = 1024
"""Enough for the tokenizer to find batches of like length; as many are lost at most when a process is killed."""

SECONDS_TOGETHER = 1800.0
"""115 MB of waveforms, however long each is."""


class Tokenizer(Protocol):
    """What :class:`ichigo.speech.vq.WhisperVQ` does here."""

    def identity(self) -> str:
        """The digest of everything that decides its tokens."""

    def encode(self, waveforms: Sequence[npt.NDArray[np.float32]]) -> list[Codes]:
        """Waveforms at 16 kHz to sound tokens."""


@dataclass
class Account:
    """What became of the rows of a shard: ``rows`` are ``cached`` + ``encoded`` + ``given``, which came as tokens."""

    rows: int = 0
    cached: int = 0
    encoded: int = 0
    given: int = 0
    sound_tokens: int = 0

    def count(self, given: int, encoded: int, codes: Sequence[Codes]) -> None:
        """Add a batch whose rows have these ``codes``."""
        self.rows += len(codes)
        self.given += given
        self.encoded += encoded
        self.cached += len(codes) - given - encoded
        self.sound_tokens += sum(map(len, codes))


class Tokenising:
    """The work on one shard: what ``cache`` has, and the rest encoded by ``tokenizer`` and cached.

    Rows are encoded in batches that depend on their places in the shard alone, so a killed process and its successor
    encode in the same company and give the same tokens also where a batch could decide between two equally near codes.
    """

    def __init__(self, tokenizer: Tokenizer, cache: TokenCache) -> None:
        self.account = Account()
        self._tokenizer, self._cache = tokenizer, cache
        self._own = tokenizer.identity()

    def rows(self, shard: Path) -> Iterator[TokenRow]:
        """The rows of ``shard`` with sound tokens, in its order.

        Raises :class:`~ichigo.errors.DataError` for a row that came as tokens of another tokenizer.
        """
        self._cache.look_up(lambda: (_sound(row) for row in iter_rows(shard, ["audio"])))
        batches, number = _batches(iter_rows(shard)), 0
        while batch := next(batches, None):
            yield from map(token_row, batch, self._codes(number, batch))
            number += 1
            del batch  # before the next is read: a batch of recordings is some 100 MB

    def _codes(self, number: int, batch: Sequence[Row]) -> list[Codes]:
        for row in batch:
            _require(row, self._own)
        sounds = [b"" if row.codes else _sound(row) for row in batch]
        heard = {sound: row for sound, row in zip(sounds, batch, strict=True) if sound}
        known = self._cache.get(heard)
        missing = {sound: row for sound, row in heard.items() if sound not in known}
        if missing:
            fresh = self._tokenizer.encode([read_audio(row.audio, row.id) for row in missing.values()])
            known |= (tokens := dict(zip(missing, fresh, strict=True)))
            self._cache.keep(number, tokens)
        codes = [known[s] if s else np.asarray(row.codes, np.int16) for s, row in zip(sounds, batch, strict=True)]
        self.account.count(given=sounds.count(b""), encoded=len(missing), codes=codes)
        return codes


def _require(row: Row, tokenizer: str) -> None:
    if row.codes and row.tokenizer not in (tokenizer, PUBLISHED):
        raise DataError(
            f"row {row.id} came as tokens of the tokenizer {row.tokenizer[:12]}…, this run hears with "
            f"{tokenizer[:12]}…; give the tokenizer that made them, or the recordings"
        )


def _sound(row: Row) -> bytes:
    return hashlib.sha256(row.audio).digest()


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """The rows in their order, cut where one more would pass :data:`ROWS_TOGETHER` or :data:`SECONDS_TOGETHER`."""
    batch: list[Row] = []
    seconds = 0.0
    for row in rows:
        if batch and (len(batch) == ROWS_TOGETHER or seconds + row.seconds > SECONDS_TOGETHER):
            yield batch
            batch, seconds = [], 0.0
        batch.append(row)
        seconds += row.seconds
    if batch:
        yield batch
