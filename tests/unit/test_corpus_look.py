"""Whether rows are new is decided by the data, and one known voice or answer is enough to refuse all of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ichigo.corpus.look import require_new
from ichigo.corpus.rows import Row
from ichigo.corpus.texts import TextRow
from ichigo.corpus.tokens import TokenRow, token_row
from ichigo.errors import DataError

LOOK = Row(
    id="a",
    text="say red",
    answer="red",
    speaker="en-us+f1",
    split="test",
    language="en",
    license="l",
    seconds=1.0,
    audio=b"",
    origin="world",
)


def spoken(text: str, answer: str | None, speaker: str) -> TokenRow:
    return token_row(replace(LOOK, text=text, answer=answer, speaker=speaker), np.zeros(3, np.int16))


def written(text: str, answer: str | None) -> TextRow:
    return TextRow("t", text, answer, "train")


SPOKEN = [spoken("say blue", "blue", "en+f2"), spoken("", None, "hum")]
WRITTEN = [written("say green", "green")]


def test_what_nobody_said_or_asked_is_new() -> None:
    require_new([LOOK], SPOKEN, WRITTEN)
    require_new([replace(LOOK, answer=None)], SPOKEN, WRITTEN)


@pytest.mark.parametrize(
    ("row", "text", "complaint"),
    [
        (spoken("say blue", "blue", "en-029+f1"), None, "has the voices f1"),
        (spoken("repeat after me red", "red", "en+f2"), None, "1 of the questions or their answers.* 'say red'"),
        (spoken("red", None, "en+f2"), None, "'say red'"),
        (None, written("repeat after me red", "red"), "'say red'"),
        (None, written("say red", None), "'say red'"),
    ],
    ids=["voice in another accent", "another phrasing", "its answer is said", "written", "written without answer"],
)
def test_what_is_known_in_any_form_is_refused(row: TokenRow | None, text: TextRow | None, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        require_new(
            [replace(LOOK, text="say pink", answer="pink"), LOOK],
            [*SPOKEN, *([row] if row else [])],
            [*WRITTEN, *([text] if text else [])],
        )
