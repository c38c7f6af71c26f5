"""Sound that came as text: the token strings of Ichigo's published data sets, read back into codes.

A *sound* is ``<|sound_start|>``, tokens and ``<|sound_end|>``, with nothing between them. A token is
``<|sound_0000|>`` … ``<|sound_0512|>``; from v0.5 on ``<|duration_NN|>`` (02 to 99) before one says how often it is
repeated. 25 tokens are a second.

What rows hold (Ichigo v0.2 to v0.5):

- ``text``: one sound, for pre-training; its words are unknown;
- ``conversations`` or ``messages``: turns of user and assistant as ``{role, content}`` or ``{from, value}``. The user's
  is one sound (a question whose words are unknown), one of the eight transcription prompts and a sound, or, in every
  turn, text. What the assistant says is text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ichigo.corpus.files import Files
from ichigo.corpus.lines import Described, Line, Maker, Record, Unit, check_text, described, shortened
from ichigo.corpus.rows import Row, SetAsideError, row_id
from ichigo.corpus.tables import JSON_LINES, PARQUET, Tables
from ichigo.corpus.texts import TextRow, text_id
from ichigo.hashing import sha256_json
from ichigo.language.contract import SOUND_CODES
from ichigo.language.layouts import TRANSCRIPTION_PROMPTS
from ichigo.recipe.schema import TokenStrings
from ichigo.speech.codes import SOUND_TOKENS_PER_SECOND

START, END = "<|sound_start|>", "<|sound_end|>"
OLD_TRANSCRIBE = "<|reserved_special_token_69|>"
"""How v0.2 asked for a transcript."""

CONVERSATIONS = "conversations"
"""What published sets call the column where others say ``messages``."""

_TOKEN = re.compile(r"<\|(sound|duration)_([0-9]+)\|>")
_MARK = re.compile(r"<\|(?:sound|duration)_")
_ROLES = {"user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant", "system": "system"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One question and its answer as they stand in the data."""

    user: str
    assistant: str


def parse_sound(text: str) -> tuple[int, ...]:
    """The codes of one sound; :class:`SetAsideError` as ``no_sound_start``, ``no_sound_end``, ``stray_text``,
    ``bad_token``, ``code_out_of_range``, ``bad_duration`` or ``no_sound``."""
    if not text.startswith(START):
        raise SetAsideError("no_sound_start", f"a sound begins with {START}, this with {shortened(text, 40)}")
    if not text.endswith(END):
        raise SetAsideError("no_sound_end", f"a sound ends with {END}, this with {shortened(text[-40:], 40)}")
    codes: list[int] = []
    at, stop, times = len(START), len(text) - len(END), 1
    while at < stop:
        kind, number, at = _token(text, at, stop)
        if kind == "duration":
            times = _times(number, times)
        else:
            codes += [_code(number)] * times
            times = 1
    if times != 1:
        raise SetAsideError("bad_duration", "a duration stands before the end mark; it belongs before a sound token")
    if not codes:
        raise SetAsideError("no_sound", "there is no sound token between the marks")
    return tuple(codes)


def exchanges(messages: Any) -> list[Exchange]:
    """The exchanges of a conversation: user and assistant in turn, from the user to the assistant.

    :class:`SetAsideError` as ``bad_conversation``, ``unknown_role``, ``system_message``, ``no_text`` or a reason of
    :func:`~ichigo.corpus.lines.check_text`.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str) or not messages:
        raise SetAsideError("bad_conversation", f"found {shortened(messages)}; expected a list of messages")
    said = [_message(message) for message in messages]
    if said[0][0] == "system":
        if said[0][1]:
            raise SetAsideError("system_message", "the layouts of training have no system message; remove it")
        said = said[1:]
    roles = [role for role, _ in said]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise SetAsideError("bad_conversation", f"roles are {', '.join(roles[:8])}; user and assistant take turns")
    if blank := next((role for role, content in said if not content), None):
        raise SetAsideError("no_text", f"a message of the {blank} is empty")
    return [Exchange(said[at][1], said[at + 1][1]) for at in range(0, len(said), 2)]


class SoundStrings:
    """A source of kind ``tokens``: JSON lines or Parquet."""

    def __init__(self, files: Files, settings: TokenStrings, max_seconds: float, label: str) -> None:
        self.label, self.place = label, files.place
        self._settings, self._max_seconds = settings, max_seconds
        columns = settings.columns
        told = (columns.answer, columns.speaker, columns.split, columns.language, columns.license)
        self._conversations = tuple(dict.fromkeys((columns.messages, CONVERSATIONS)))
        wanted = (*self._conversations, columns.text, *told)
        self._tables = Tables(files, (*PARQUET, *JSON_LINES), wanted, None)

    def units(self) -> list[Unit]:
        """Row groups and files."""
        return self._tables.units()

    def read(self, unit: Unit) -> Iterator[Line]:
        """Every row: a sound, an exchange or a conversation.

        One is set aside with a reason of :func:`parse_sound`, :func:`exchanges` or
        :func:`~ichigo.corpus.lines.described`, as ``too_long``, as ``mixed_turns`` (sound in some of its turns), as
        ``text_beside_sound`` (words that are no transcription prompt), or as ``sound_in_answer``.
        """
        return Maker(self.label, unit.name, self._line).lines(self._tables.records(unit))

    def digest(self) -> str:
        """SHA-256 over the content of the files."""
        return self._tables.digest()

    def _line(self, record: Record) -> Line:
        values = record.values
        assert not isinstance(values, SetAsideError)
        column = next((name for name in self._conversations if values.get(name) is not None), None)
        told = described(values, self._settings, wordless=True)
        texts: tuple[TextRow, ...] = ()
        if column is None:
            rows = [self._pretraining(values, told)]
        else:
            rows, texts = self._conversation(exchanges(values[column]), told)
        return Line(record.number, record.size, in_dialogue(rows), texts, told.split)

    def _pretraining(self, values: Mapping[str, Any], told: Described) -> Row:
        text = values.get(self._settings.columns.text)
        if not isinstance(text, str) or not text.strip():
            names = ", ".join((*self._conversations, self._settings.columns.text))
            raise SetAsideError("no_text", f"none of the columns {names} holds anything; name them in columns")
        return self._row(parse_sound(text.strip()), "", None, told)

    def _conversation(self, turns: Sequence[Exchange], told: Described) -> tuple[list[Row], tuple[TextRow, ...]]:
        with_sound = sum(bool(_MARK.search(turn.user)) for turn in turns)
        if any(_MARK.search(turn.assistant) for turn in turns):
            raise SetAsideError("sound_in_answer", "the assistant answers in sound tokens; only its text is trained on")
        if not with_sound:
            return [], written(turns, told)
        if with_sound < len(turns):
            reason = f"{with_sound} of {len(turns)} questions are sound; they must be all or none"
            raise SetAsideError("mixed_turns", reason)
        return [self._spoken(turn, told) for turn in turns], ()

    def _spoken(self, turn: Exchange, told: Described) -> Row:
        before, mark, rest = turn.user.partition(START)
        codes = parse_sound(mark + rest if mark else turn.user)
        if not before.strip():
            return self._row(codes, "", turn.assistant, told)
        if before.strip() in (*TRANSCRIPTION_PROMPTS, OLD_TRANSCRIBE):
            return self._row(codes, turn.assistant, None, told)
        raise SetAsideError(
            "text_beside_sound", f"{shortened(before)} is none of the eight transcription prompts; remove it"
        )

    def _row(self, codes: tuple[int, ...], text: str, answer: str | None, told: Described) -> Row:
        seconds = len(codes) / SOUND_TOKENS_PER_SECOND
        if seconds > self._max_seconds:
            raise SetAsideError("too_long", f"{seconds:.1f} s of sound, more than {self._max_seconds:g} s; split it")
        return Row(
            id=row_id(sha256_json([self._settings.tokenizer, codes]), text, answer),
            text=text,
            answer=answer,
            speaker=told.speaker,
            split=told.split or "train",
            language=told.language,
            license=told.license,
            seconds=seconds,
            audio=b"",
            origin="tokens",
            codes=codes,
            tokenizer=self._settings.tokenizer,
        )


def in_dialogue(rows: Sequence[Row]) -> tuple[Row, ...]:
    """The rows as turns of one conversation, if there are more than one; their ids tell the turns apart."""
    if len(rows) < 2:
        return tuple(rows)
    dialogue = sha256_json(["dialogue", *(row.id for row in rows)])[:16]
    return tuple(
        replace(row, id=row_id(row.id, row.text, row.answer, dialogue, turn), dialogue=dialogue, turn=turn)
        for turn, row in enumerate(rows)
    )


def written(turns: Sequence[Exchange], told: Described) -> tuple[TextRow, ...]:
    """The exchanges as rows of text."""
    parts = [part for turn in turns for part in (turn.user, turn.assistant)]
    dialogue = text_id(0, "dialogue", *parts) if len(turns) > 1 else ""
    return tuple(
        TextRow(
            id=text_id(0, dialogue, turn, said.user, said.assistant),
            text=said.user,
            answer=said.assistant,
            split=told.split or "train",
            dialogue=dialogue,
            turn=turn,
            language=told.language,
            license=told.license,
        )
        for turn, said in enumerate(turns)
    )


def _message(message: Any) -> tuple[str, str]:
    """Role and text."""
    if not isinstance(message, Mapping):
        raise SetAsideError("bad_conversation", f"a message is {shortened(message)}; expected role and content")
    role = message.get("role", message.get("from"))
    content = message.get("content", message.get("value"))
    if role not in _ROLES:
        raise SetAsideError("unknown_role", f"a role is {shortened(role)}; use {', '.join(_ROLES)}")
    if not isinstance(content, str):
        raise SetAsideError("bad_conversation", f"a message says {shortened(content)}; expected text")
    check_text("a message", content)
    return _ROLES[role], content.strip()


def _token(text: str, at: int, stop: int) -> tuple[str, str, int]:
    """Kind and number of the token at ``at``, and where it ends."""
    match = _TOKEN.match(text, at, stop)
    if match:
        return match[1], match[2], match.end()
    if text.startswith((START, END), at):
        raise SetAsideError("stray_text", "a mark stands inside a sound; a question is one sound")
    if text.startswith("<|", at):
        raise SetAsideError(
            "bad_token", f"{shortened(text[at : at + 24], 40)} is no sound token such as <|sound_0007|>"
        )
    raise SetAsideError("stray_text", f"{shortened(text[at : at + 40], 40)} stands inside a sound")


def _code(number: str) -> int:
    if len(number) != 4:
        raise SetAsideError("bad_token", f"<|sound_{shortened(number)[1:-1]}|> does not have four digits")
    if int(number) >= SOUND_CODES:
        raise SetAsideError(
            "code_out_of_range", f"code {number} is above {SOUND_CODES - 1}; these are another tokenizer's tokens"
        )
    return int(number)


def _times(number: str, before: int) -> int:
    if before != 1:
        raise SetAsideError("bad_duration", "two durations stand before one sound token")
    if len(number) != 2 or int(number) < 2:
        raise SetAsideError("bad_duration", f"<|duration_{number[:8]}|> is none of 02 to 99")
    return int(number)
