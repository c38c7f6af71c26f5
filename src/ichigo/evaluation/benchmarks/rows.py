"""Parquet files of published spoken benchmarks, told apart by their columns and named by their set.

==========  ===================================  =========================================================
shape       columns that must be there           sets, and how they are scored
==========  ===================================  =========================================================
VoiceBench  ``audio`` (struct of bytes and       ``choice``: openbookqa, mmsu, mmlu-pro (``reference`` is A to D);
            path), ``prompt`` (its words)        ``refusal``: advbench; ``judge``: any other
AudioBench  ``context`` (likewise), ``answer``   ``words``: sets of transcripts; ``match``: with ``choices``, of
                                                 which ``answer`` is one; ``judge``: any other
==========  ===================================  =========================================================

A set is named by the folder or the file it lies in (``openbookqa/test-00000-of-00001.parquet``), or by the caller.
``judge`` sets are asked, but their authors' score needs a hosted model and is left out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.errors import DataError

Benchmark = Literal["VoiceBench", "AudioBench"]
Scoring = Literal["choice", "refusal", "words", "match", "judge"]

CHOICE_SETS = ("openbookqa", "mmsu", "mmlu-pro")
REFUSAL_SETS = ("advbench",)
WORDS_SETS = ("librispeech", "common_voice", "peoples_speech", "gigaspeech", "earnings", "tedlium")

_SOUND: dict[Benchmark, str] = {"VoiceBench": "audio", "AudioBench": "context"}
_NEEDED: dict[Benchmark, tuple[str, str]] = {"VoiceBench": ("audio", "prompt"), "AudioBench": ("context", "answer")}
_READ = ("prompt", "reference", "instruction", "answer", "choices")
_OPTION = re.compile(r"(?<!\w)\(?([A-D])[.):]\s*(.+?)(?=\s*(?:(?<!\w)\(?[A-D][.):]\s|$))", re.DOTALL)


@dataclass(frozen=True, eq=False)
class BenchmarkRow:
    """One recording of a benchmark and what its authors tell about it.

    Attributes:
        id: the file and the row's number in it, counted from 0.
        audio: the bytes of a sound file.
        words: what is said in it, or asked about it; "" where the benchmark does not tell.
        reference: the expected answer; of ``choice`` the letter; "" where there is none.
        options: the words of the options of ``choice`` and ``match``, "" each where they are not told.
        answer: place of the right option.
    """

    id: str
    audio: bytes
    words: str
    reference: str
    options: tuple[str, ...] = ()
    answer: int = 0


@dataclass
class BenchmarkSet:
    """The rows of one set, and how many could not be used, by reason."""

    name: str
    benchmark: Benchmark
    scoring: Scoring
    rows: list[BenchmarkRow] = field(default_factory=list)
    set_aside: Counter[str] = field(default_factory=Counter)


class UnusableRow(Exception):
    """A row that is set aside, with the reason as its text."""


def read_set(file: BinaryIO, path: str, name: str | None = None) -> BenchmarkSet:
    """The rows of one Parquet file.

    Args:
        file: opened for reading and seeking.
        path: what errors call it; without ``name`` its parts name the set.
        name: the set.

    A row is set aside as ``no_audio``, ``no_words``, ``no_reference``, ``bad_reference`` or ``unreadable``.

    Raises:
        DataError: no Parquet file, columns of neither benchmark, or no rows.
    """
    try:
        table = pq.ParquetFile(file)
        benchmark = _benchmark(table.schema_arrow, path)
        scoring = _scoring(benchmark, name or set_name(path), table.schema_arrow.names)
        found = BenchmarkSet(name or set_name(path), benchmark, scoring)
        columns = [_SOUND[benchmark], *(column for column in _READ if column in table.schema_arrow.names)]
        for number, values in enumerate(_values(table, columns)):
            try:
                found.rows.append(_row(f"{path}:{number}", values, found))
            except UnusableRow as reason:
                found.set_aside[str(reason)] += 1
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: no readable Parquet file ({' '.join(str(error).split())}); copy it again") from error
    if not found.rows and not found.set_aside:
        raise DataError(f"{path}: the file has no rows; name a file with at least one")
    return found


def set_name(path: str) -> str:
    """The set that ``path`` names: the folder or file in it that is called like a known set, or else its folder."""
    parts = [part.removesuffix(".parquet").casefold() for part in path.split("/") if part]
    known = (*CHOICE_SETS, *REFUSAL_SETS, *WORDS_SETS)
    named = [part for part in reversed(parts) if part.startswith(known)]
    return named[0] if named else parts[-2] if len(parts) > 1 else parts[-1]


def options_in(words: str) -> tuple[str, ...]:
    """The words of options A to D as a question tells them ("... A. the sun B. the moon ..."); "" for what it does
    not."""
    told = {letter: text.strip(" .,;\n") for letter, text in _OPTION.findall(words)}
    return tuple(told.get(letter, "") for letter in "ABCD")


def _benchmark(schema: pa.Schema, path: str) -> Benchmark:
    for benchmark, needed in _NEEDED.items():
        if set(needed) <= set(schema.names):
            kind = schema.field(_SOUND[benchmark]).type
            if not (pa.types.is_struct(kind) and "bytes" in {part.name for part in kind}):
                raise DataError(f"{path}: {_SOUND[benchmark]} is {kind}; it must be a struct of bytes and path")
            return benchmark
    wanted = " or ".join(f"{', '.join(needed)} ({benchmark})" for benchmark, needed in _NEEDED.items())
    raise DataError(f"{path}: has the columns {', '.join(schema.names)}; a benchmark's file has {wanted}")


def _scoring(benchmark: Benchmark, name: str, columns: Sequence[str]) -> Scoring:
    if benchmark == "AudioBench":
        return "words" if name.startswith(WORDS_SETS) else "match" if "choices" in columns else "judge"
    return "choice" if name.startswith(CHOICE_SETS) else "refusal" if name.startswith(REFUSAL_SETS) else "judge"


def _values(table: pq.ParquetFile, columns: Sequence[str]) -> Iterator[dict[str, Any] | None]:
    """The rows one at a time, because one may hold a recording of many megabytes; None for one that is no text."""
    for batch in table.iter_batches(1, columns=list(columns)):
        try:
            yield {name: batch.column(name)[0].as_py() for name in batch.schema.names}
        except UnicodeDecodeError:
            yield None


def _row(name: str, values: dict[str, Any] | None, found: BenchmarkSet) -> BenchmarkRow:
    if values is None:
        raise UnusableRow("unreadable")
    sound = values[_SOUND[found.benchmark]]
    if not sound or not sound.get("bytes"):
        raise UnusableRow("no_audio")
    told = {
        column: str(values.get(column) or "").strip() for column in ("prompt", "reference", "instruction", "answer")
    }
    if found.benchmark == "AudioBench":
        return _of_audiobench(name, sound["bytes"], told, values.get("choices"), found.scoring)
    return _of_voicebench(name, sound["bytes"], told, found.scoring)


def _of_voicebench(name: str, audio: bytes, told: dict[str, str], scoring: Scoring) -> BenchmarkRow:
    if not told["prompt"]:
        raise UnusableRow("no_words")
    if scoring != "choice":
        return BenchmarkRow(name, audio, told["prompt"], told["reference"])
    if not told["reference"]:
        raise UnusableRow("no_reference")
    if (letter := told["reference"]) not in tuple("ABCD"):
        raise UnusableRow("bad_reference")
    return BenchmarkRow(name, audio, told["prompt"], letter, options_in(told["prompt"]), "ABCD".index(letter))


def _of_audiobench(name: str, audio: bytes, told: dict[str, str], choices: Any, scoring: Scoring) -> BenchmarkRow:
    if not told["answer"]:
        raise UnusableRow("no_reference")
    if scoring != "match":
        return BenchmarkRow(name, audio, told["instruction"], told["answer"])
    options = tuple(str(choice) for choice in choices or ())
    if told["answer"] not in options or len(options) < 2:
        raise UnusableRow("bad_reference")
    return BenchmarkRow(name, audio, told["instruction"], told["answer"], options, options.index(told["answer"]))
