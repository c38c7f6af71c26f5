"""Forced alignment: which frame of a recording is which phone, where it is known what was said.

The best path (Viterbi 1967) through the words in their order, each in one of its pronunciations; a phone lasts one
frame or more, and a pause may stand before, between and after the words. Unlike the search of
:class:`~ichigo.speech.lexicon.Lexicon` it does not doubt the words, so an encoder that recognises few of a stranger's
words still finds where they are.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Sayings = Sequence[Sequence[int]]
"""The pronunciations of one word, each a row of phone classes."""


def align(likelihoods: NDArray[np.float32], words: Sequence[Sayings], pause: int) -> NDArray[np.int64] | None:
    """The class of each frame, int64 ``(frames,)``, for log likelihoods ``(frames, classes)`` of sound that says
    ``words``; ``pause`` is the class of silence. None where the words have more phones than there are frames."""
    net = _Net(words, pause)
    scores = np.full(len(net.classes), -np.inf)
    scores[0] = 0.0
    links = np.empty((len(likelihoods), len(scores)), np.intp)
    for at, frame in enumerate(likelihoods[:, net.classes]):
        entering = scores[net.before]
        links[at] = np.take_along_axis(net.before, entering.argmax(1)[:, None], axis=1)[:, 0]
        scores = entering.max(1) + frame
    last = max(net.ends, key=lambda state: scores[state])
    return net.classes[_path(links, last)] if scores[last] > -np.inf else None


def _path(links: NDArray[np.intp], last: int) -> NDArray[np.intp]:
    """The state of each frame, going back from the ``last`` one."""
    states = np.empty(len(links), np.intp)
    for at in range(len(links) - 1, -1, -1):
        states[at], last = last, int(links[at, last])
    return states


class _Net:
    """All phones of all pronunciations as states; state 0 is the pause before the first word.

    ``classes``: int64 ``(states,)``; ``before``: ``(states, most)``, the states that each one is entered from, itself
    included and repeated to fill the row; ``ends``: the states in which everything has been said.
    """

    def __init__(self, words: Sequence[Sayings], pause: int) -> None:
        self._classes: list[int] = []
        self._before: list[list[int]] = []
        self.ends = [self._state(pause, [])]
        for sayings in words:
            ends = [self._row(said, self.ends) for said in sayings]
            self.ends = [*ends, self._state(pause, ends)]
        most = max(map(len, self._before))
        self.classes = np.array(self._classes, np.int64)
        self.before = np.array([row + row[:1] * (most - len(row)) for row in self._before], np.intp)

    def _state(self, phone: int, entered_from: Sequence[int]) -> int:
        self._classes.append(phone)
        self._before.append([len(self._before), *entered_from])
        return len(self._before) - 1

    def _row(self, said: Sequence[int], entered_from: Sequence[int]) -> int:
        """The states of one pronunciation; its last one."""
        for phone in said:
            entered_from = [self._state(phone, entered_from)]
        return entered_from[0]
