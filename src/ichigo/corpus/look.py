"""Whether questions and voices are new to a model, held against the very rows that it was trained and judged on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ichigo.corpus.rows import Row
from ichigo.corpus.texts import TextRow
from ichigo.corpus.tokens import TokenRow
from ichigo.errors import DataError


def require_new(rows: Sequence[Row], spoken: Iterable[TokenRow], written: Iterable[TextRow]) -> None:
    """Raise :class:`DataError` if ``spoken`` has a variant of ``rows`` in any accent, or if it or ``written`` says one
    of their questions or answers, so that no other phrasing of a question is there either."""
    heard: set[str] = set()
    said: set[str | None] = set()
    for row in spoken:
        heard.add(_variant(row.speaker))
        said |= {row.text, row.answer}
    for text in written:
        said |= {text.text, text.answer}
    if known := sorted({_variant(row.speaker) for row in rows} & heard):
        raise DataError(f"the model's data has the voices {', '.join(known)}: its recipe reserved none of them")
    said.discard(None)  # of rows that ask nothing
    if asked := sorted(row.text for row in rows if {row.text, row.answer} & said):
        raise DataError(
            f"the model's data has {len(asked)} of the questions or their answers, the first is {asked[0]!r}: its "
            "recipe reserved no questions"
        )


def _variant(speaker: str) -> str:
    return speaker.partition("+")[2] or speaker
