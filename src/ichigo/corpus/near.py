"""Near-duplicates among texts: MinHash signatures and locality-sensitive hashing.

Broder, "On the resemblance and containment of documents" (1997): two sets agree in a share of their minima under random
permutations that estimates their Jaccard similarity. A text is the set of its words and of its pairs of neighbours, in
normalised form: taking a word from a question of 20 leaves a similarity of 0.9.
Signatures are cut into bands (Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets", section 3.4): only texts that
agree in a whole band are compared, which misses 1 pair of similarity 0.8 in 5000. 64 minima estimate a similarity of
0.9 with a standard error of 0.04. The permutations are multiply-shift hashes (Dietzfelbinger et al., 1997).
"""

from __future__ import annotations

import unicodedata
import zlib
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

_BANDS, _ROWS = 16, 4
_SIZE = _BANDS * _ROWS
_BLOCK = 256  # texts

Signature = npt.NDArray[np.uint32]
Keys = npt.NDArray[np.uint64]
Places = npt.NDArray[np.uint32]


def normalised(text: str) -> str:
    """Text as it is compared: NFKC, case folded, letters, digits and single spaces alone."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join("".join(char if char.isalnum() else " " for char in folded.replace("'", "")).split())


class NearTexts:
    """Texts that were added, and the nearest of them to another; some 450 bytes for each text."""

    def __init__(self, similarity: float) -> None:
        generator = np.random.default_rng(1)  # any fixed one: the same texts are near each other in every run
        self._factors = generator.integers(0, 1 << 64, _SIZE, dtype=np.uint64) | np.uint64(1)
        self._offsets = generator.integers(0, 1 << 64, _SIZE, dtype=np.uint64)
        self._mixers = generator.integers(0, 1 << 64, (_BANDS, _ROWS), dtype=np.uint64)
        self._similarity = similarity
        self._names: list[str] = []
        self._signatures: list[Signature] = []  # in blocks
        self._index = _Index()

    def find(self, text: str) -> str | None:
        """The name of an added text whose estimated similarity to ``text`` is high enough, the first such; or None."""
        return next(self.matches(text), None)

    def matches(self, text: str) -> Iterator[str]:
        """The names of all such texts, in the order in which they were added."""
        signature = self._signature(text)
        for place in sorted(self._index.find(self._bands(signature))):
            block, within = divmod(place, _BLOCK)
            if float(np.mean(self._signatures[block][within] == signature)) >= self._similarity:
                yield self._names[place]

    def add(self, text: str, name: str) -> None:
        """Remember ``text`` under ``name``."""
        signature, place = self._signature(text), len(self._names)
        if place % _BLOCK == 0:
            self._signatures.append(np.empty((_BLOCK, _SIZE), np.uint32))
        self._signatures[-1][place % _BLOCK] = signature
        self._index.add(self._bands(signature), place)
        self._names.append(name)

    def _signature(self, text: str) -> Signature:
        hashes = np.array([zlib.crc32(shingle.encode()) for shingle in shingles(text)], np.uint64)
        values = hashes[:, None] * self._factors + self._offsets  # modulo 2^64, of which the upper half is well mixed
        lowest: Signature = (values >> np.uint64(32)).min(axis=0).astype(np.uint32)
        return lowest

    def _bands(self, signature: Signature) -> Keys:
        """A key for each band: other bands get the same one by chance in 2^-64 of cases, and are compared then."""
        keys: Keys = (signature.reshape(_BANDS, _ROWS) * self._mixers).sum(axis=1, dtype=np.uint64)
        return keys


class _Index:
    """Places by key: some new ones in a dictionary, all others in sorted arrays of which each is longer than the next.

    A dictionary of all would take 4 kB a text.
    """

    def __init__(self) -> None:
        self._new: dict[int, list[int]] = {}
        self._count = 0
        self._sorted: list[tuple[Keys, Places]] = []

    def find(self, keys: Keys) -> set[int]:
        """The places of any of the keys."""
        found = {place for key in keys.tolist() for place in self._new.get(key, ())}
        for known, places in self._sorted:
            first, last = np.searchsorted(known, keys), np.searchsorted(known, keys, "right")
            for place in np.flatnonzero(last > first):
                found.update(places[first[place] : last[place]].tolist())
        return found

    def add(self, keys: Keys, place: int) -> None:
        """Remember a place under each of the keys."""
        for key in keys.tolist():
            self._new.setdefault(key, []).append(place)
        self._count += 1
        if self._count == _BLOCK:
            self._sort_in()

    def _sort_in(self) -> None:
        keys = np.repeat(np.array(list(self._new), np.uint64), [len(places) for places in self._new.values()])
        self._sorted.append(_ordered(keys, np.concatenate(list(self._new.values()))))
        self._new, self._count = {}, 0
        while len(self._sorted) > 1 and len(self._sorted[-2][0]) <= len(self._sorted[-1][0]):
            one, other = self._sorted.pop(), self._sorted.pop()
            keys, places = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
            self._sorted.append(_ordered(keys, places))


def _ordered(keys: Keys, places: npt.NDArray[Any]) -> tuple[Keys, Places]:
    order = np.argsort(keys)
    return keys[order], places[order].astype(np.uint32)


def shingles(text: str) -> set[str]:
    """The parts by which texts are compared; of a text without words, the text itself."""
    words = normalised(text).split()
    return {*words, *(f"{one} {other}" for one, other in pairwise(words))} or {text}
