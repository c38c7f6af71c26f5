"""The edit distance against its own definition and cases counted by hand."""

from __future__ import annotations

import random
from functools import cache

import pytest

from ichigo.edits import edit_distance


def naive_distance(left: str, right: str) -> int:
    """Levenshtein by its definition, no table."""

    @cache
    def cost(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        swap = cost(i - 1, j - 1) + (left[i - 1] != right[j - 1])
        return min(swap, cost(i - 1, j) + 1, cost(i, j - 1) + 1)

    return cost(len(left), len(right))


def test_edit_distance_equals_the_definition_on_random_strings() -> None:
    rng = random.Random(11)
    for _ in range(1500):
        left, right = ("".join(rng.choices("abc", k=rng.randrange(9))) for _ in range(2))
        assert edit_distance(left, right) == naive_distance(left, right), (left, right)


def test_edit_distance_is_a_metric() -> None:
    rng = random.Random(12)
    for _ in range(200):
        a, b, c = ([rng.randrange(5) for _ in range(rng.randrange(30))] for _ in range(3))
        assert edit_distance(a, b) == edit_distance(b, a)
        assert (edit_distance(a, b) == 0) == (a == b)
        assert edit_distance(a, c) <= edit_distance(a, b) + edit_distance(b, c)


@pytest.mark.parametrize(
    ("reference", "hypothesis", "distance"),
    [
        ("a b c", "a b c", 0),
        ("a b c", "a c", 1),
        ("a b c", "a x c d", 2),
        ("", "a b", 2),
        ("a b", "", 2),
        ("a b", "b a", 2),
    ],
)
def test_distances_of_words(reference: str, hypothesis: str, distance: int) -> None:
    assert edit_distance(reference.split(), hypothesis.split()) == distance
