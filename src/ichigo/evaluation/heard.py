"""The cascade with a recogniser of its own: what :mod:`ichigo.speech.hearing` heard in each held-out recording.

It heard the recordings when they became sound tokens; here they are found again by these tokens. So it reads the very
sound that the model hears, by the same encoder, and nothing of the model's.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ichigo.evaluation.items import EvalRow
from ichigo.language.layouts import Codes

RECOGNISER = "recogniser"
"""The name of this hearer among those of :func:`ichigo.evaluation.suites.evaluate`."""


class Heard:
    """The words of recordings by their sound codes."""

    def __init__(self, rows: Iterable[EvalRow]) -> None:
        self._words = {_key(row.codes): row.heard for row in rows if row.heard}

    def __len__(self) -> int:
        return len(self._words)

    def words(self, codes: Codes) -> str:
        """What was heard in the recording with these ``codes``, int16 (n,); "" if nothing was."""
        return self._words.get(_key(codes), "")


def hearers(rows: Iterable[EvalRow]) -> dict[str, Heard]:
    """The recogniser by its name; nothing where no row was heard, as with imported tokenizers."""
    heard = Heard(rows)
    return {RECOGNISER: heard} if len(heard) else {}


def _key(codes: Codes) -> bytes:
    return np.ascontiguousarray(codes, np.int16).tobytes()
