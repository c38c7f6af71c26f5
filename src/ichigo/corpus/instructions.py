"""Instruction sets in writing: questions and answers through filters, and their questions spoken.

A row has ``messages`` (or ``conversations``) of user and assistant, or a question and an answer in columns of their own
(``text`` and ``answer``, ``instruction`` and ``output``, ``question``, ``prompt``, ``response``). Every question is
filtered (:mod:`ichigo.corpus.filters`) and compared with those before it (:mod:`ichigo.corpus.near`): what cannot be
spoken is set aside with its reason. What passes is text; with voices it is also spoken by espeak-ng, each conversation
by one voice, chosen with speed and pitch by a hash of seed and text.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from ichigo.corpus.files import Files
from ichigo.corpus.filters import check_question
from ichigo.corpus.lines import Described, Line, Maker, Record, Unit, check_text, described, shortened
from ichigo.corpus.near import NearTexts
from ichigo.corpus.rows import Row, SetAsideError, row_id, sound_digest
from ichigo.corpus.soundstrings import CONVERSATIONS, Exchange, exchanges, in_dialogue, written
from ichigo.corpus.tables import JSON_LINES, PARQUET, Tables
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Instructions
from ichigo.speech.audio import SAMPLE_RATE, write_flac
from ichigo.speech.synthesis import Request, Utterance, speak_blocks

_QUESTIONS = ("instruction", "question", "prompt")
_ANSWERS = ("output", "response", "completion")
_TOGETHER = 256  # lines spoken at a time: some 30 MB of speech


class QuestionsAndAnswers:
    """A source of kind ``instructions``: JSON lines or Parquet."""

    def __init__(
        self, files: Files, settings: Instructions, max_seconds: float, label: str, seed: int, *, speak: bool
    ) -> None:
        self.label, self.place = label, files.place
        self._settings, self._max_seconds, self._seed = settings, max_seconds, seed
        self._voices = settings.voices if speak else ()
        columns = settings.columns
        self._conversations = tuple(dict.fromkeys((columns.messages, CONVERSATIONS)))
        self._questions = tuple(dict.fromkeys((columns.text, *_QUESTIONS)))
        self._answers = tuple(dict.fromkeys((columns.answer, *_ANSWERS)))
        told = (columns.speaker, columns.split, columns.language, columns.license, "input")
        wanted = (*self._conversations, *self._questions, *self._answers, *told)
        self._tables = Tables(files, (*PARQUET, *JSON_LINES), wanted, None)
        self._near = NearTexts(settings.near_duplicates)

    def units(self) -> list[Unit]:
        """Row groups and files."""
        return self._tables.units()

    def read(self, unit: Unit) -> Iterator[Line]:
        """Every row as texts, and as spoken rows where there are voices.

        One is set aside with a reason of :func:`~ichigo.corpus.soundstrings.exchanges` or
        :func:`~ichigo.corpus.filters.check_question`, as ``near_duplicate`` of an earlier one, or, where it is spoken,
        as ``unspeakable`` (espeak-ng makes no sound of it) or ``too_long``.
        """
        maker = Maker(self.label, unit.name, self._line)
        records = self._tables.records(unit)
        if not self._voices:
            yield from maker.lines(records)
            return
        while some := list(islice(records, _TOGETHER)):
            yield from self._spoken(maker, some)

    def digest(self) -> str:
        """SHA-256 over the content of the files."""
        return self._tables.digest()

    def _line(self, record: Record) -> Line:
        values = record.values
        assert not isinstance(values, SetAsideError)
        turns = self._turns(values)
        told = described(values, self._settings, wordless=True)
        for turn in turns:
            check_question(turn.user, self._settings.words, self._settings.languages)
        questions = "\n".join(turn.user for turn in turns)
        if first := self._near.find(questions):
            raise SetAsideError("near_duplicate", f"nearly the same as {first}; keep one of the two")
        texts = written(turns, told)
        self._near.add(questions, f"{shortened(turns[0].user, 60)} on line {record.number}")
        return Line(record.number, record.size, texts=texts, split=told.split)

    def _turns(self, values: Mapping[str, Any]) -> list[Exchange]:
        column = next((name for name in self._conversations if values.get(name) is not None), None)
        if column is not None:
            return exchanges(values[column])
        question = _first(values, self._questions)
        if question == values.get("instruction") and isinstance(more := values.get("input"), str) and more.strip():
            question = f"{question}\n{more.strip()}"  # Alpaca's column of what the instruction is about
        return [Exchange(question, _first(values, self._answers))]

    def _spoken(self, maker: Maker, records: Sequence[Record]) -> Iterator[Line]:
        """The lines of some records with their questions spoken, one process for each."""
        lines = [maker.line(record) for record in records]
        blocks = [self._requests(line) for line in lines]
        heard = say([block for block in blocks if block], self._max_seconds)
        for record, line, block in zip(records, lines, blocks, strict=True):
            if not block:
                yield line
            elif isinstance(said := next(heard), SetAsideError):
                yield maker.set_aside(record, said)
            else:
                told = _told(line)
                rows = [_row(*parts, told) for parts in zip(line.texts, block, said, strict=True)]
                yield replace(line, rows=in_dialogue(rows))

    def _requests(self, line: Line) -> list[Request]:
        rng = random.Random(sha256_json([self._seed, "instructions", [text.id for text in line.texts]]))
        voice = rng.choice(self._voices)
        speed, pitch = rng.randint(*self._settings.words_per_minute), rng.randint(*self._settings.pitch)
        return [Request(" ".join(text.text.split()), voice, speed, pitch) for text in line.texts]


Said = list[tuple[str, float, bytes]]  # digest, seconds and FLAC of each question of a conversation


def say(blocks: Sequence[Sequence[Request]], max_seconds: float) -> Iterator[Said | SetAsideError]:
    """Every block spoken, or why it cannot be; where one of them cannot, all are tried alone."""
    try:
        said: list[Said | SetAsideError] = list(speak_blocks(blocks, 1, _sound)) if blocks else []
    except DataError:
        said = [_say_alone(block) for block in blocks]
    for found in said:
        longest = 0.0 if isinstance(found, SetAsideError) else max(seconds for _, seconds, _ in found)
        too_long = SetAsideError("too_long", f"{longest:.1f} s when spoken, more than {max_seconds:g} s")
        yield too_long if longest > max_seconds else found


def _say_alone(block: Sequence[Request]) -> Said | SetAsideError:
    try:
        return next(speak_blocks([block], 1, _sound))
    except DataError as error:
        return SetAsideError("unspeakable", str(error))


def _sound(utterance: Utterance) -> tuple[str, float, bytes]:
    waveform = utterance.waveform
    return sound_digest(waveform), waveform.size / SAMPLE_RATE, write_flac(waveform)


def _row(text: Any, request: Request, sound: tuple[str, float, bytes], told: Described) -> Row:
    digest, seconds, flac = sound
    return Row(
        id=row_id(digest, request.text, text.answer),
        text=request.text,
        answer=text.answer,
        speaker=request.voice,
        split=told.split or "train",
        language=request.voice.partition("+")[0].partition("-")[0],  # "en-us+f2" speaks "en"
        license=told.license,
        seconds=seconds,
        audio=flac,
        origin="instructions",
    )


def _told(line: Line) -> Described:
    first = line.texts[0]
    return Described(first.text, first.answer, "", first.language, first.license, line.split)


def _first(values: Mapping[str, Any], names: Sequence[str]) -> str:
    """The first of these columns that holds text."""
    for name in names:
        value = values.get(name)
        if isinstance(value, str) and value.strip():
            check_text(name, value)
            return value.strip()
    held = {name: shortened(values[name], 20) for name in names if name in values}
    raise SetAsideError("no_text", f"none of the columns {', '.join(names)} holds text ({held or 'all absent'})")
