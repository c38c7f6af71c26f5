"""Sound tokens by the sound that they stand for, so that nothing is tokenised twice: not after a kill, not in a changed
corpus.

They lie in packs, Parquet files of some thousand rows, written while a shard is worked on and never changed::

    cache/tokens/<tokenizer>/<code>/<corpus>/<shard>/<number>-<digest>.parquet

``tokenizer`` is the identity of its weights and pad mode, ``code`` the digest of the sources that encode. A pack's name
carries the digest of its bytes; one that does not have it is left aside. A shard reads the packs of other corpora, and
its own from before a kill; those of its corpus's other shards hold none of its sounds and are not looked at.

Reading costs a request and a quarter of a megabyte per thousand cached rows. What was found waits in a SQLite file on
local disk, so that memory does not grow with the cache or the shard.
"""

from __future__ import annotations

import io
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.errors import PlatformError
from ichigo.hashing import sha256_bytes
from ichigo.store import NoSuchObject, Objects

ROOT = "cache/tokens/"

Codes = npt.NDArray[np.int16]

_SCHEMA = pa.schema([("sound", pa.binary(32)), ("codes", pa.list_(pa.int16()))])
_TRANSFERS = 8  # packs under way at once
_log = logging.getLogger(__name__)


class TokenCache:
    """The tokens of one tokenizer, for one shard of one corpus; a sound is the SHA-256 of a row's audio, 32 bytes."""

    def __init__(self, objects: Objects, *, tokenizer: str, code: str, corpus: str, shard: str, scratch: Path) -> None:
        """``tokenizer``, ``code`` and ``corpus`` are hexadecimal digests; ``scratch`` is a folder for a local file."""
        self._objects = objects
        self._all = f"{ROOT}{tokenizer[:32]}/{code[:16]}/"
        self._corpus = f"{self._all}{corpus[:16]}/"
        self._own = f"{self._corpus}{Path(shard).stem}/"
        self._found = sqlite3.connect(scratch / "found.sqlite", isolation_level=None)
        self._found.execute("PRAGMA journal_mode = OFF")  # nobody reads it after this process
        self._found.execute("PRAGMA synchronous = OFF")
        self._found.execute("CREATE TABLE found (sound BLOB PRIMARY KEY, codes BLOB) WITHOUT ROWID")

    def close(self) -> None:
        """Let go of the local file."""
        self._found.close()

    def look_up(self, sounds: Callable[[], Iterable[bytes]]) -> None:
        """Find what is cached of ``sounds``, which is called only if there are packs to look into."""
        keys = [key for key, _ in self._objects.list(self._all) if self._may_help(key)]
        if not keys:
            return
        with self._transaction():
            self._found.executemany("INSERT OR IGNORE INTO found (sound) VALUES (?)", ((sound,) for sound in sounds()))
        for pack in self._read(keys):
            with self._transaction():
                self._found.executemany("UPDATE found SET codes = ? WHERE sound = ?", pack)

    def get(self, sounds: Iterable[bytes]) -> dict[bytes, Codes]:
        """Those of ``sounds`` that were found: int16 (n,) each."""
        query = "SELECT codes FROM found WHERE sound = ? AND codes IS NOT NULL"
        rows = ((sound, self._found.execute(query, (sound,)).fetchone()) for sound in sounds)
        return {sound: np.frombuffer(row[0], np.int16) for sound, row in rows if row}

    def keep(self, number: int, tokens: Mapping[bytes, Codes]) -> None:
        """Write pack ``number`` of this shard and find its sounds from now on.

        While S3 does not answer nothing is written: a cache may lack anything.
        """
        data = _pack(tokens)
        with self._transaction():
            new = ((sound, codes.tobytes()) for sound, codes in tokens.items())
            self._found.executemany("INSERT OR REPLACE INTO found VALUES (?, ?)", new)
        try:
            self._objects.put(f"{self._own}{number:05d}-{sha256_bytes(data)[:32]}.parquet", data)
        except PlatformError as error:
            _log.warning("%d new token rows are not cached: %s", len(tokens), error)

    def _may_help(self, key: str) -> bool:
        return key.startswith(self._own) or not key.startswith(self._corpus)

    def _read(self, keys: Sequence[str]) -> Iterator[list[tuple[bytes, bytes]]]:
        with ThreadPoolExecutor(_TRANSFERS) as pool:
            for start in range(0, len(keys), _TRANSFERS):
                yield from pool.map(self._read_one, keys[start : start + _TRANSFERS])

    def _read_one(self, key: str) -> list[tuple[bytes, bytes]]:
        """(codes, sound) of every row of a pack, both as bytes; nothing of one that is gone or damaged."""
        try:
            data = self._objects.get(key)
        except NoSuchObject:
            return []
        if sha256_bytes(data)[:32] != key.rpartition("-")[2].removesuffix(".parquet"):
            _log.warning("%s/%s is damaged and not used; delete it", self._objects.uri, key)
            return []
        table = pq.read_table(io.BytesIO(data), schema=_SCHEMA)
        values = table.column("codes").to_pylist()
        codes = [np.asarray(own, np.int16).tobytes() for own in values]
        return list(zip(codes, table.column("sound").to_pylist(), strict=True))

    def _transaction(self) -> sqlite3.Connection:
        self._found.execute("BEGIN")
        return self._found  # as a context manager it commits


def _pack(tokens: Mapping[bytes, Codes]) -> bytes:
    """A pack's bytes, in the order of the sounds: same tokens, same bytes."""
    sounds = sorted(tokens)
    buffer = io.BytesIO()
    pq.write_table(pa.table([sounds, [tokens[sound] for sound in sounds]], schema=_SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()
