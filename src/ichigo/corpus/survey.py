"""What a source holds, in numbers: counted line by line, the same before a run and in the pipeline.

*Overlap* is what training rows share with what is asked in evaluation: the test rows of the same reading, and the
recipe's own items. Texts are compared as :func:`~ichigo.corpus.near.normalised` has them and as near-duplicates, sounds
by digest. It is reported and sets nothing aside: spoken digits have ten texts, whoever says them.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

from ichigo.corpus.lines import Line
from ichigo.corpus.near import NearTexts, normalised
from ichigo.corpus.rows import Rejected, Row
from ichigo.corpus.sources import Tally
from ichigo.corpus.world import World
from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND

CHARACTERS_PER_TOKEN = 4.0
"""Of English text under Llama-3's tokenizer, roughly; other languages have fewer."""

NEAR = 0.8
"""Jaccard similarity from which on two texts count as nearly the same."""

_EXAMPLES = 3


@dataclass
class Share:
    """Rows and seconds of one language, licence or speaker."""

    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Overlap:
    """Training rows that share something with evaluation items, and the first few of them."""

    items: int  # distinct texts that are asked
    same_text: int
    near_text: int  # beside those
    same_sound: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """What :class:`Survey` found; ``fatal`` says why no corpus can be made of this."""

    sources: Mapping[str, Mapping[str, Any]]
    lines: int
    kept: int
    set_aside: Mapping[str, int]
    examples: Mapping[str, tuple[Rejected, ...]]
    rows: int
    texts: int
    seconds: float
    shortest: float
    typical: float  # the median
    longest: float
    splits: Mapping[str, int]
    languages: Mapping[str, Share]
    licenses: Mapping[str, Share]
    speakers: Mapping[str, Share]
    distinct_texts: int
    without_words: int
    sound_tokens: int  # estimates, as the next
    text_tokens: int
    overlap: Overlap
    fatal: tuple[str, ...] = ()

    def plain(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


@dataclass
class Survey:
    """Counts lines; some 40 bytes a row stay in memory, and each distinct text."""

    set_aside: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[Rejected]] = field(default_factory=lambda: defaultdict(list))
    languages: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    licenses: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    speakers: dict[str, Share] = field(default_factory=lambda: defaultdict(Share))
    broken: list[str] = field(default_factory=list)
    # Of each row: length, id, whether it is a test row, the place of its text, and a digest of its sound.
    _seconds: array[float] = field(default_factory=lambda: array("d"))
    _ids: list[str] = field(default_factory=list)
    _test: bytearray = field(default_factory=bytearray)
    _at: array[int] = field(default_factory=lambda: array("q"))
    _sounds: array[int] = field(default_factory=lambda: array("Q"))
    _texts: dict[str, int] = field(default_factory=dict)  # normalised, by place
    _characters: int = 0
    _wordless: int = 0
    _written: int = 0

    def add(self, line: Line) -> None:
        """Take one line."""
        if line.rejected:
            self._reject(line.rejected)
        for row in line.rows:
            self._add_row(row)
        for text in line.texts:
            self._written += 1
            if not line.rows:
                self._characters += len(text.text) + len(text.answer or "")
                self._place(text.text)

    def watched(self, lines: Iterable[Line]) -> Iterator[Line]:
        """``lines``, each taken on its way."""
        for line in lines:
            self.add(line)
            yield line

    def report(
        self, tallies: Mapping[str, Tally], held_out: Collection[str], items: Iterable[str], fatal: Iterable[str] = ()
    ) -> Report:
        """All that was found; ``held_out`` are the rows that become test rows, ``items`` what else is asked."""
        test = [bool(told) or row in held_out for row, told in zip(self._ids, self._test, strict=True)]
        return Report(
            sources={label: _of(tally) for label, tally in tallies.items()},
            lines=sum(tally.lines for tally in tallies.values()),
            kept=sum(tally.kept for tally in tallies.values()),
            set_aside=dict(self.set_aside.most_common()),
            examples={reason: tuple(found) for reason, found in self.examples.items()},
            rows=len(self._ids),
            texts=self._written,
            seconds=round(sum(self._seconds), 3),
            shortest=round(min(self._seconds, default=0.0), 3),
            typical=round(median(self._seconds or [0.0]), 3),
            longest=round(max(self._seconds, default=0.0), 3),
            splits={"train": test.count(False), "test": test.count(True)},
            languages=_sorted(self.languages),
            licenses=_sorted(self.licenses),
            speakers=_sorted(self.speakers),
            distinct_texts=len(self._texts),
            without_words=self._wordless,
            sound_tokens=int(sum(self._seconds) * SOUND_TOKENS_PER_SECOND),
            text_tokens=round(self._characters / CHARACTERS_PER_TOKEN),
            overlap=self._overlap(test, items),
            fatal=(*fatal, *self.broken),
        )

    def _reject(self, rejected: Rejected) -> None:
        self.set_aside[rejected.reason] += 1
        if len(self.examples[rejected.reason]) < _EXAMPLES:
            self.examples[rejected.reason].append(rejected)
        if rejected.line == 0 or rejected.reason == "damaged_tar":
            self.broken.append(f"{rejected.source}: {rejected.unit}: {rejected.detail}")

    def _add_row(self, row: Row) -> None:
        sound = hashlib.blake2b(row.audio or repr(row.codes).encode(), digest_size=8).digest()
        self._ids.append(row.id)
        self._test.append(row.split == "test")
        self._at.append(self._place(row.text))
        self._sounds.append(int.from_bytes(sound, "big"))
        self._seconds.append(row.seconds)
        self._characters += len(row.text) + len(row.answer or "")
        self._wordless += not row.text
        for shares, key in ((self.languages, row.language), (self.licenses, row.license), (self.speakers, row.speaker)):
            shares[key].rows += 1
            shares[key].seconds += row.seconds

    def _place(self, text: str) -> int:
        """The place of a text among the distinct ones; -1 for one without words."""
        plain = normalised(text)
        return self._texts.setdefault(plain, len(self._texts)) if plain else -1

    def _overlap(self, test: list[bool], items: Iterable[str]) -> Overlap:
        known = list(self._texts)
        asked = {known[at] for at, held in zip(self._at, test, strict=True) if held and at >= 0}
        asked |= {plain for item in items if (plain := normalised(item))}
        near = NearTexts(NEAR)
        for text in sorted(asked):
            near.add(text, text)
        heard = {sound for sound, held in zip(self._sounds, test, strict=True) if held}
        uses = Counter(at for at, held in zip(self._at, test, strict=True) if not held and at >= 0)
        same = {place for place in uses if known[place] in asked}
        close = {place: found for place in uses.keys() - same if asked and (found := near.find(known[place]))}
        shown = [known[place] for place in sorted(same)] + [f"{known[at]} ~ {close[at]}" for at in sorted(close)]
        return Overlap(
            items=len(asked),
            same_text=sum(uses[place] for place in same),
            near_text=sum(uses[place] for place in close),
            same_sound=sum(sound in heard for sound, held in zip(self._sounds, test, strict=True) if not held),
            examples=tuple(shown[:_EXAMPLES]),
        )


def items_of(world: World | None) -> list[str]:
    """What a world's suites ask, spoken and written."""
    suites = [*world.spoken_suites().values(), *world.written_suites().values()] if world else []
    return [question.text for suite in suites for conversation in suite for question in conversation]


def _of(tally: Tally) -> dict[str, Any]:
    return {
        "lines": tally.lines,
        "kept": tally.kept,
        "rows": tally.rows,
        "texts": tally.texts,
        "set_aside": dict(tally.reasons.most_common()),
    }


def _sorted(shares: Mapping[str, Share]) -> dict[str, Share]:
    """The largest first."""
    ranked = sorted(shares.items(), key=lambda item: (-item[1].rows, item[0]))
    return {key: Share(share.rows, round(share.seconds, 3)) for key, share in ranked}
