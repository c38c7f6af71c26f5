"""The written side of a corpus: questions and answers as text, in ``texts.parquet`` beside the shards.

It is what the text model is made from, what text replay draws on, and what the text suites ask. A world's training
texts are *draws*: what should be met more often stands there more often, each time under another id.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ichigo.corpus.rows import UNKNOWN_LANGUAGE, UNKNOWN_LICENSE, Row, Split
from ichigo.corpus.world import Conversation, World
from ichigo.errors import DataError
from ichigo.hashing import sha256_json
from ichigo.recipe.schema import Sentence

TEXTS_FILE = "texts.parquet"

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("text", pa.string()),
        ("answer", pa.string()),
        ("split", pa.string()),
        ("topic", pa.string()),
        ("suite", pa.string()),
        ("dialogue", pa.string()),
        ("turn", pa.int32()),
        ("language", pa.string()),
        ("license", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class TextRow:
    """One written turn; the rows of one ``dialogue`` follow ``turn``, and "" stands alone."""

    id: str  # 16 hexadecimal digits, see text_id
    text: str
    answer: str | None
    split: Split
    topic: str = ""
    suite: str = ""  # the evaluation suite that asks this test row
    dialogue: str = ""
    turn: int = 0  # from 0
    language: str = UNKNOWN_LANGUAGE
    license: str = UNKNOWN_LICENSE


def text_id(draw: int, *parts: str | int | None) -> str:
    """The id of the ``draw``-th (from 0) text with these ``parts``."""
    return sha256_json(["text", draw, *parts])[:16]


def texts_of(sentences: Iterable[Sentence], rows: Iterable[Row], world: World | None) -> list[TextRow]:
    """What is written in a corpus: each distinct text and answer of the sentences and of the training ``rows`` that
    have words, once, in the order of their first appearance, and the texts of the world."""
    own: dict[str, TextRow] = {}
    for item in sentences:
        said = _said(item.text, item.answer)
        own.setdefault(said.id, said)
    for row in rows:
        if row.split == "train" and row.text:
            said = _said(row.text, row.answer, row.language, row.license)
            own.setdefault(said.id, said)
    return [*own.values(), *(world_texts(world) if world else [])]


def _said(text: str, answer: str | None, language: str = UNKNOWN_LANGUAGE, license: str = UNKNOWN_LICENSE) -> TextRow:
    """A text on its own; what few names of languages and licences there are is shared by many rows."""
    own, language, license = text_id(0, text, answer), sys.intern(language), sys.intern(license)
    return TextRow(own, text, answer, "train", language=language, license=license)


def world_texts(world: World) -> list[TextRow]:
    """The written rows of ``world``: training draws, then each suite of text."""
    rows = _written(world.written_training(world.written), "train", "")
    for suite, conversations in world.written_suites().items():
        rows += _written(conversations, "test", suite)
    return rows


def _written(conversations: Iterable[Conversation], split: Split, suite: str) -> list[TextRow]:
    rows = []
    for number, conversation in enumerate(conversations):
        dialogue = text_id(number, suite, "dialogue") if len(conversation) > 1 else ""
        for turn, question in enumerate(conversation):
            identity = text_id(number, suite, turn, question.text, question.answer)
            rows.append(TextRow(identity, question.text, question.answer, split, question.topic, suite, dialogue, turn))
    return rows


def write_texts(rows: Iterable[TextRow], folder: Path) -> Path:
    """Write ``folder/texts.parquet``, the turns of a dialogue together, else by id; same rows, same bytes.

    Raises :class:`~ichigo.errors.DataError` for two rows of one id.
    """
    ordered = sorted(rows, key=lambda row: (row.dialogue or row.id, row.turn, row.id))
    if len({row.id for row in ordered}) < len(ordered):
        identity, count = Counter(row.id for row in ordered).most_common(1)[0]
        raise DataError(f"{count} texts have the id {identity}; give each its own")
    columns = {name: [getattr(row, name) for row in ordered] for name in _SCHEMA.names}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TEXTS_FILE
    pq.write_table(pa.table(columns, schema=_SCHEMA), path, compression="zstd")
    return path


def read_texts(path: Path) -> list[TextRow]:
    """The rows of ``texts.parquet``, or of that in the folder ``path``; :class:`~ichigo.errors.DataError` if none."""
    file = path / TEXTS_FILE if path.is_dir() else path
    try:
        rows = pq.read_table(file, schema=_SCHEMA).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{file}: no texts of a corpus ({error}); write them again with the corpus step") from None
    return [TextRow(**row) for row in rows]
