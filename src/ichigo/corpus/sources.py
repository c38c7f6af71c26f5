"""All that a recipe's data names, opened behind one interface and read once, line by line.

:class:`Reading` goes through every unit of every source, sets aside what is in the corpus already, decides at the end
which rows are held out, and counts: lines read are lines kept and lines set aside, no more and no fewer.

How rows are split:

- Where any line of a source names a ``split``, or the source does, the author's word holds: ``test`` and ``validation``
  are held out, ``train`` and lines without a split are not.
- Speakers whose names are in ``leave_out`` are held out whole, whatever an author says; all others then learn.
- Of all other sources together ``held_out_speakers`` of the speakers are held out whole, chosen by a seeded hash of
  their names. Rows without a speaker, or all of one speaker's if there is no other, are held out one by one (a
  conversation whole), by a hash of their ids.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ichigo.corpus.audiofolder import METADATA, open_folder
from ichigo.corpus.files import LocalFiles, Opener, open_files
from ichigo.corpus.instructions import QuestionsAndAnswers
from ichigo.corpus.lines import Line, Settings, Source, Unit
from ichigo.corpus.parquetsound import ParquetSound
from ichigo.corpus.rows import Rejected, Row, held_out
from ichigo.corpus.soundstrings import CONVERSATIONS, SoundStrings
from ichigo.corpus.tables import JSON_LINES, PARQUET, Tables
from ichigo.corpus.texts import TextRow
from ichigo.corpus.webdataset import SUFFIXES, WebDataset
from ichigo.errors import DataError, IntegrityError
from ichigo.hashing import sha256_json
from ichigo.progress import Progress
from ichigo.recipe.schema import PUBLISHED, Data, Instructions, Recordings, TokenStrings
from ichigo.store.objects import open_objects

_KB = 1000


def settings_of(data: Data) -> dict[str, Settings]:
    """Every source of ``data`` by what the recipe calls it; ``data.folder`` is one of kind ``folder``."""
    folder = {"data.folder": Recordings(kind="folder", path=data.folder)} if data.folder else {}
    return {**folder, **{f"data.sources.{number}": source for number, source in enumerate(data.sources)}}


def open_source(
    settings: Settings, data: Data, label: str, seed: int = 0, opener: Opener = open_objects, *, speak: bool = True
) -> Source:
    """The source behind ``settings``; with ``speak`` off, the questions of instructions stay text.

    Raises :class:`~ichigo.errors.DataError` for a place where nothing lies.
    """
    try:
        files = open_files(settings.path, opener)
    except DataError as error:
        raise DataError(f"{label}: {error}") from None
    if isinstance(settings, TokenStrings):
        return SoundStrings(files, settings, data.max_seconds, label)
    if isinstance(settings, Instructions):
        return QuestionsAndAnswers(files, settings, data.max_seconds, label, seed, speak=speak)
    if settings.kind == "folder":
        return open_folder(files, settings, data.max_seconds, label)
    kind = ParquetSound if settings.kind == "parquet" else WebDataset
    return kind(files, settings, data.max_seconds, label)


def open_sources(data: Data, seed: int, opener: Opener = open_objects) -> list[Source]:
    """Every source of ``data``."""
    return [open_source(settings, data, label, seed, opener) for label, settings in settings_of(data).items()]


def sources_digest(sources: Sequence[Source]) -> str:
    """What the sources hold, in their order; "" if there are none."""
    return sha256_json([source.digest() for source in sources]) if sources else ""


def guess(place: str, opener: Opener = open_objects) -> Settings:
    """What ``place`` seems to hold, by its names and columns: a source with that kind and the columns' usual names.

    Raises :class:`~ichigo.errors.DataError` if it holds nothing that is known.
    """
    files = open_files(place, opener)
    names = [entry.name for entry in files.entries("")]
    if METADATA in names or (isinstance(files, LocalFiles) and Path(place).name == METADATA):
        return Recordings(kind="folder", path=place)
    if any(name.endswith(SUFFIXES) for name in names):
        return Recordings(kind="webdataset", path=place)
    tables = (*PARQUET, *JSON_LINES)
    if any(name.endswith(tables) for name in names):
        return _guess_table(place, Tables(files, tables, (), None))
    known = ", ".join((METADATA, *SUFFIXES, *tables))
    raise DataError(f"{place}: none of {known} in it; give recordings, token strings or instructions, or --kind")


def _guess_table(place: str, tables: Tables) -> Settings:
    columns = tables.columns()
    if "audio" in columns:
        return Recordings(kind="parquet", path=place)
    first = tables.first(("messages", CONVERSATIONS, "text"))
    if first is not None and "<|sound_" in first:
        return TokenStrings(kind="tokens", path=place, tokenizer=PUBLISHED)
    return Instructions(kind="instructions", path=place)


@dataclass
class Tally:
    """What became of the lines of one source."""

    lines: int = 0
    kept: int = 0
    rows: int = 0
    texts: int = 0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def set_aside(self) -> int:
        """Lines that gave neither rows nor texts."""
        return self.reasons.total()

    def add(self, line: Line) -> None:
        """Count one line."""
        self.lines += 1
        self.rows += len(line.rows)
        self.texts += len(line.texts)
        if line.rejected:
            self.reasons[line.rejected.reason] += 1
        else:
            self.kept += 1


class Reading:
    """One pass over all lines of all sources; :class:`~ichigo.errors.DataError` if one has nothing to read.

    Attributes:
        tallies: counts by the source's label, as far as :meth:`lines` got.
        size: bytes, of which each line takes its part.
    """

    def __init__(self, sources: Sequence[Source], data: Data, seed: int, set_aside: Callable[[Rejected], None]) -> None:
        self.tallies = {source.label: Tally() for source in sources}
        self._units = [(source, source.units()) for source in sources]
        self.size = sum(unit.size for _, own in self._units for unit in own)
        self._set_aside = set_aside
        self._splits = _Splits(data.held_out_speakers, data.leave_out, seed)
        self._first: dict[str, tuple[str, str, int]] = {}
        self._examples: dict[str, Rejected] = {}

    def lines(self) -> Iterator[Line]:
        """Every line, those that repeat an earlier one set aside as ``duplicate_row``.

        Raises :class:`~ichigo.errors.DataError` for a source without any usable line,
        :class:`~ichigo.errors.IntegrityError` if a unit gives another number of lines than its footer says.
        """
        for source, own in self._units:
            for unit in own:
                yield from self._unit(source, unit)
            tally = self.tallies[source.label]
            if own and not tally.kept + tally.reasons["duplicate_row"]:
                raise DataError(self._nothing_usable(source))

    def held_out(self) -> frozenset[str]:
        """Once all lines were read: ids of the rows that are held out although no author says so.

        Raises :class:`~ichigo.errors.DataError` if nobody is called as in ``leave_out``.
        """
        return self._splits.held_out()

    def _unit(self, source: Source, unit: Unit) -> Iterator[Line]:
        tally, read = self.tallies[source.label], 0
        for found in source.read(unit):
            line = self._new(found, source, unit)
            read += 1
            tally.add(line)
            if line.rejected:
                self._examples.setdefault(source.label, line.rejected)
                self._set_aside(line.rejected)
            self._splits.add(source.label, line)
            yield line
        if unit.lines not in (None, read):
            raise IntegrityError(f"{unit.name}: {read} lines were read of {unit.lines}; report this with the file")

    def _new(self, line: Line, source: Source, unit: Unit) -> Line:
        """``line``, or its repetition set aside."""
        parts: Sequence[Row | TextRow] = line.rows or line.texts
        if not parts:
            return line
        key = parts[0].dialogue or parts[0].id
        first = self._first.setdefault(key, here := (source.label, unit.name, line.number))
        if first == here:
            return line
        where = f"line {first[2]}" if first[:2] == here[:2] else f"line {first[2]} of {first[1]} ({first[0]})"
        what = "sound and text" if line.rows else "text"
        detail = f"the same {what} as on {where}; remove one of the two"
        rejected = Rejected(line.number, None, "duplicate_row", detail, source.label, unit.name)
        return Line(line.number, line.size, rejected=rejected)

    def _nothing_usable(self, source: Source) -> str:
        tally = self.tallies[source.label]
        if not tally.lines:
            return f"{source.label} {source.place}: it has no lines; write one row per line"
        reasons = ", ".join(f"{reason} x {count}" for reason, count in tally.reasons.most_common())
        first = self._examples[source.label]
        where = f"{first.unit}, line {first.line}" if first.line else first.unit
        found = f"none of {tally.lines} lines is usable ({reasons})"
        return f"{source.label} {source.place}: {found}; {where}: {first.detail}"


def reported(reading: Reading) -> Iterator[Line]:
    """The lines of ``reading``, printing progress."""
    progress, done = Progress("reading sources", max(reading.size // _KB, 1), "kB"), 0
    for number, line in enumerate(reading.lines(), start=1):
        done += line.size
        progress.advance(min(done // _KB, progress.total) - progress.done, f"{number} lines")
        yield line


class _Splits:
    """Who is held out where no author says it."""

    def __init__(self, share: float, leave_out: Sequence[str], seed: int) -> None:
        self._share, self._leave_out, self._seed = share, leave_out, seed
        self._rows: dict[str, list[str]] = {}  # by speaker, while some are left out by name
        self._open: dict[str, list[tuple[str, str, str]]] = {}  # by source: row, whom it stands or falls with, speaker
        self._told: set[str] = set()

    def add(self, source: str, line: Line) -> None:
        """Note the rows of a line, or that its source has an author's word."""
        for row in line.rows if self._leave_out else ():
            self._rows.setdefault(row.speaker, []).append(row.id)
        if line.split is not None:
            self._told.add(source)
            self._open.pop(source, None)
        if source not in self._told:
            own = self._open.setdefault(source, [])
            own += [(row.id, row.dialogue or row.id, sys.intern(row.speaker)) for row in line.rows]

    def held_out(self) -> frozenset[str]:
        """Ids of rows."""
        if self._leave_out:
            return self._left_out()
        rows = [row for own in self._open.values() for row in own]
        speakers = {speaker for _, _, speaker in rows if speaker}
        if len(speakers) < 2:
            speakers = set()  # one voice cannot be on both sides: go by row
        test = held_out(speakers, self._share, self._seed)
        alone = held_out((key for _, key, speaker in rows if speaker not in speakers), self._share, self._seed)
        return frozenset(row for row, key, speaker in rows if speaker in test or key in alone)

    def _left_out(self) -> frozenset[str]:
        if unknown := [name for name in self._leave_out if name not in self._rows]:
            known = ", ".join(sorted(self._rows.keys() - {""})) or "none, no line has a speaker"
            raise DataError(f"data.leave_out: nobody is called {', '.join(unknown)}; the speakers are {known}")
        return frozenset(row for name in self._leave_out for row in self._rows[name])


def check_counts(tallies: Iterable[Tally], rows: int, quarantined: int) -> None:
    """Hold what was written against what was read: :class:`~ichigo.errors.IntegrityError` where they differ.

    ``rows`` and ``quarantined`` are those that the written files hold.
    """
    total = list(tallies)
    read, kept = sum(one.lines for one in total), sum(one.kept for one in total)
    if read != kept + quarantined or rows != sum(one.rows for one in total):
        made = sum(one.rows for one in total)
        raise IntegrityError(
            f"{read} lines were read, {kept} gave rows and {quarantined} are in quarantine; {made} rows were made and "
            f"{rows} written; run the step again and report this"
        )
