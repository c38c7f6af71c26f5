"""Questions to listen to: a dozen, taken from the corpus's shards by ranged reads, as FLAC in ``data:`` URIs.

Synthetic voices only, unless somebody asks for more: a person who lent a voice for training did not lend it to
everybody who is shown a report. A row's origin says which it is.
"""

from __future__ import annotations

import base64
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ichigo.hashing import sha256_json

if TYPE_CHECKING:
    from ichigo.evaluation.items import ItemResult
    from ichigo.store import Artifact

COUNT = 12
MOST_BYTES = 3 << 20
"""Of FLAC in one page: a hundred seconds of 16 kHz speech or more; 4 MiB as base64."""
SYNTHETIC = frozenset({"spoken", "world"})
"""Origins of rows whose voice is no person's."""

_KEYS = ["id", "dialogue", "turn", "origin", "speaker", "seconds"]
_UNHEARD = ("text", "speak", "mixed", "refusal.random_codes")
"""Suites that ask something else than the sound of the row whose id they give."""


@dataclass(frozen=True)
class Clip:
    """A question, how it was answered, and its sound; without sound (b""), ``silent`` says why."""

    item: ItemResult
    voice: str
    origin: str
    seconds: float
    audio: bytes = b""
    silent: str = ""

    @property
    def uri(self) -> str:
        """The sound as a ``data:`` URI."""
        return f"data:audio/flac;base64,{base64.b64encode(self.audio).decode()}"


Place = tuple[str, int, int]
"""Where a row lies: shard, row group, row in the group."""


@dataclass(frozen=True)
class _Row:
    """A row of the corpus without its sound."""

    place: Place
    voice: str
    origin: str
    seconds: float


Key = tuple[str, int]
"""A row's id, or its dialogue's, and its turn: what an item is known by."""


def clips(items: Iterable[ItemResult], corpus: Artifact, *, recordings: bool = False, count: int = COUNT) -> list[Clip]:
    """At most ``count`` spoken questions, wrong and right ones of every suite in turn; the same for the same items.

    Args:
        items: of an evaluation.
        corpus: the artifact whose shards hold the rows that were asked.
        recordings: take up the sound of people as well.
        count: how many.
    """
    found = dict(_places(corpus))
    chosen = chosen_of([item for item in items if _key(item) in found], count)
    rows = [found[_key(item)] for item in chosen]
    sound = _sounds(corpus, [row.place for row in rows if not _silence(row, recordings)])
    heard = [
        Clip(item, row.voice, row.origin, row.seconds, sound.get(row.place, b""), _silence(row, recordings))
        for item, row in zip(chosen, rows, strict=True)
    ]
    return list(_capped(heard))


def chosen_of(items: Sequence[ItemResult], count: int) -> list[ItemResult]:
    """``count`` items that the model heard, of every suite in turn, a wrong answer before a right one, by the hash of
    their ids."""
    from ichigo.evaluation.items import MODEL

    suites: defaultdict[str, list[ItemResult]] = defaultdict(list)
    own = [item for item in items if item.system == MODEL and not item.suite.startswith(_UNHEARD)]
    for item in sorted(own, key=lambda item: sha256_json([item.suite, item.id, item.turn])):
        suites[item.suite].append(item)
    queues = [_alternating(suites[name]) for name in sorted(suites)]
    taken: dict[Key, ItemResult] = {}
    while queues and len(taken) < count:
        queue = queues.pop(0)
        found = next((item for item in queue if _key(item) not in taken), None)
        if found is not None:
            taken[_key(found)] = found
            queues.append(queue)
    return list(taken.values())


def _alternating(items: Sequence[ItemResult]) -> Iterator[ItemResult]:
    sides = [iter([item for item in items if item.right is right]) for right in (False, True)]
    while sides:
        side = sides.pop(0)
        for item in side:
            yield item
            sides.append(side)
            break


def _key(item: ItemResult) -> Key:
    return item.id, item.turn


def _places(corpus: Artifact) -> Iterator[tuple[Key, _Row]]:
    """Every row of the corpus by its key."""
    import pyarrow.parquet as pq

    for shard in sorted(file.path for file in corpus.files if file.path.startswith("shard-")):
        with pq.ParquetFile(corpus.reader(shard), pre_buffer=False) as file:
            for group in range(file.num_row_groups):
                rows = file.read_row_group(group, columns=_KEYS).to_pylist()
                for number, row in enumerate(rows):
                    found = _Row((shard, group, number), row["speaker"], row["origin"], row["seconds"])
                    yield (row["dialogue"] or row["id"], row["turn"]), found


def _silence(row: _Row, recordings: bool) -> str:
    """Why the sound of a row is not shown, or nothing."""
    if row.origin in SYNTHETIC or recordings:
        return ""
    return f"a recording (origin {row.origin}): its sound is not put into reports unless asked for"


def _sounds(corpus: Artifact, places: Iterable[Place]) -> dict[Place, bytes]:
    """The sound at these places; a row group is read once (16 MiB of sound at most)."""
    import pyarrow.parquet as pq

    groups: defaultdict[tuple[str, int], list[Place]] = defaultdict(list)
    for place in places:
        groups[place[:2]].append(place)
    found: dict[Place, bytes] = {}
    for (shard, group), own in groups.items():
        with pq.ParquetFile(corpus.reader(shard), pre_buffer=False) as file:
            column = file.read_row_group(group, columns=["audio"]).column("audio")
        found |= {place: column[place[2]].as_py() for place in own}
    return found


def _capped(clips: Iterable[Clip]) -> Iterator[Clip]:
    """The clips, those beyond :data:`MOST_BYTES` without their sound."""
    held = 0
    for clip in clips:
        if clip.audio and held + len(clip.audio) > MOST_BYTES:
            yield replace(clip, audio=b"", silent=f"left out: this page holds {MOST_BYTES >> 20} MiB of sound at most")
            continue
        held += len(clip.audio)
        yield clip if clip.audio or clip.silent else replace(clip, silent="it came as sound tokens, without sound")
