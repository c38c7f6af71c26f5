"""What evaluation items share with training rows: every kind once, near-duplicates against brute force, the table."""

from __future__ import annotations

import random
from pathlib import Path

from ichigo.corpus.contamination import (
    Asked,
    Training,
    contamination,
    counts,
    read_matches,
    sound_digest,
    write_matches,
)
from ichigo.corpus.near import normalised, shingles
from ichigo.corpus.survey import NEAR
from tests.unit.evaluation_support import codes

LONG = "please set a timer for {} minutes and then turn on the big light in the kitchen of the old house for me"


def trained() -> Training:
    training = Training()
    training.add("t2", "Turn on the light!", codes(1))
    training.add("t1", "turn on the light", codes(2))
    training.add("t3", LONG.format("ten"), codes(3))
    training.add("t4", LONG.format("two"))
    training.add("t5", "", codes(4))
    return training


def test_an_item_is_named_with_what_it_shares_and_the_first_row_that_has_it() -> None:
    items = [
        Asked("spoken.a", "same", 0, "turn on... the LIGHT", sound_digest(codes(9))),
        Asked("spoken.a", "sound", 0, "who said this", sound_digest(codes(3))),
        Asked("spoken.a", "new", 0, "what is my name", sound_digest(codes(8))),
        Asked("text.b", "near", 0, LONG.format("nine")),
        Asked("text.b", "exact", 1, LONG.format("ten")),
        Asked("refusal.c", "noise", 0, "", sound_digest(codes(4))),
        Asked("refusal.c", "silence", 0, ""),
    ]
    found = {(one.id, one.shared): (one.row, one.rows) for one in contamination(items, trained())}
    assert found == {
        ("same", "same_text"): ("t1", 2),
        ("sound", "same_sound"): ("t3", 1),
        ("near", "near_text"): ("t3", 2),
        ("exact", "same_text"): ("t3", 1),
        ("noise", "same_sound"): ("t5", 1),
    }
    metrics = counts(contamination(items, trained()), items)
    assert metrics["contamination.items"] == 7
    assert [metrics[f"contamination.{name}"] for name in ("same_text", "near_text", "same_sound")] == [2, 1, 2]
    assert metrics["contamination.spoken.a.same_text"] == metrics["contamination.text.b.near_text"] == 1
    assert metrics["contamination.refusal.c.near_text"] == 0


def test_near_texts_are_those_that_a_comparison_of_all_pairs_finds() -> None:
    """Questions of 20 words with up to four exchanged; similarities next to the limit may fall to either side."""
    rng = random.Random(6)
    vocabulary = [f"word{at}" for at in range(400)]

    def similarity(one: str, other: str) -> float:
        return len(shingles(one) & shingles(other)) / len(shingles(one) | shingles(other))

    texts = [" ".join(rng.choices(vocabulary, k=20)) for _ in range(60)]
    training, items = Training(), []
    for at, text in enumerate(texts):
        training.add(f"t{at:02d}", text)
        changed = text.split()
        for place in rng.sample(range(20), at % 5):
            changed[place] = rng.choice(vocabulary)
        items.append(Asked("s", f"{at:02d}", 0, " ".join(changed)))
    found = {one.id: one.shared for one in contamination(items, training)}
    for at, item in enumerate(items):
        if normalised(item.text) == texts[at]:
            assert found[item.id] == "same_text"
        elif abs(similar := similarity(item.text, texts[at]) - NEAR) > 0.12:
            assert (item.id in found) == (similar > 0), similar
    assert set(found.values()) == {"same_text", "near_text"}


def test_the_table_reads_back_and_has_the_same_bytes(tmp_path: Path) -> None:
    items = [Asked("s", "a", 2, "<script>turn on the light", ""), Asked("s", "b", 0, "Turn on the light", "")]
    matches = contamination(items, trained())
    first = write_matches(matches, tmp_path).read_bytes()
    assert read_matches(tmp_path) == matches
    assert write_matches(contamination(items[::-1], trained()), tmp_path).read_bytes() == first
    write_matches([], tmp_path)
    assert read_matches(tmp_path) == []
