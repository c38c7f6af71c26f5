"""The generated world in text, at its default size: what is kept from training is nowhere in it, in any form."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from itertools import chain

import pytest

from ichigo.corpus.texts import TextRow, world_texts
from ichigo.corpus.world import BY_SIZE, FACT_VOICES, NUMBERS, REFUSAL, Conversation, Question, World
from ichigo.errors import DataError
from ichigo.recipe.schema import World as Settings

COMBINED = ("device", "colour", "timer", "reminder", "shopping")
KNOWN = ("arithmetic", "compare", "count", "opposite", "capital", "animal")
SETTINGS = Settings()


@pytest.fixture(scope="module")
def world() -> World:
    return World(SETTINGS, seed=3)


@pytest.fixture(scope="module")
def spoken(world: World) -> list[Conversation]:
    return world.spoken_training(SETTINGS.utterances)


@pytest.fixture(scope="module")
def written(world: World) -> list[Conversation]:
    return world.written_training(world.written)


@pytest.fixture(scope="module")
def suites(world: World) -> dict[str, list[Conversation]]:
    return world.spoken_suites() | world.written_suites()


def turns(*parts: list[Conversation]) -> list[Question]:
    return [question for conversation in chain(*parts) for question in conversation]


def values(conversations: list[Conversation]) -> Counter[tuple[str, str]]:
    """``(question, value)`` of each conversation that asks for what was said."""
    recalled = [talk for talk in conversations if len(talk) > 1]
    return Counter((talk[-1].text, talk[-1].answer.split()[-1]) for talk in recalled)


def test_a_held_out_combination_is_nowhere_in_training(
    world: World, spoken: list[Conversation], written: list[Conversation], suites: dict[str, list[Conversation]]
) -> None:
    trained = turns(spoken, written)
    said = {text for question in trained for text in (question.text, question.answer)}
    everything = " | ".join(["", *said, ""])
    held_out = [*chain.from_iterable(world.questions(topic, "held_out") for topic in COMBINED)]
    held_out += turns(suites["held_out"])
    assert Counter(question.topic for question in held_out).keys() == {*COMBINED, "repeat"}
    for question in held_out:
        assert question.text not in said
        assert question.answer not in said
        if " " in question.answer:  # a single word is repeated on one side and part of sentences on both
            assert f" {question.answer} " not in everything


def test_what_is_reserved_is_asked_nowhere_in_any_phrasing(
    world: World, spoken: list[Conversation], written: list[Conversation], suites: dict[str, list[Conversation]]
) -> None:
    """Training and suites are one side here; an answer is the same in every phrasing of its question."""
    said = {text for question in turns(spoken, written, *suites.values()) for text in (question.text, question.answer)}
    listed = [*chain.from_iterable(world.questions(topic, "reserved") for topic in COMBINED)]
    look = turns(world.reserved(300, seed=1))
    assert said.isdisjoint(text for question in (*listed, *look) for text in (question.text, question.answer))
    assert {question.text for question in look if question.topic != "repeat"} <= {question.text for question in listed}
    assert {question.side for question in look} == {"reserved"}
    for topic in COMBINED:
        share = len(world.questions(topic, "reserved")) / len(world.questions(topic, "held_out"))
        assert 0.3 < share < 0.7, "a third of the combinations, half of what is left"


def test_a_look_asks_in_the_proportions_of_the_suite(world: World, suites: dict[str, list[Conversation]]) -> None:
    look = turns(world.reserved(300, seed=1))
    counts, asked = (Counter(question.topic for question in part) for part in (look, turns(suites["held_out"])))
    assert {topic: 2 * count for topic, count in counts.items()} == pytest.approx(asked, abs=5)
    lengths = Counter(len(question.answer.split()) for question in look if question.topic == "repeat")
    assert max(lengths.values()) - min(lengths.values()) <= 1, "one, two and three words, also where words are reserved"
    assert len({question.text for question in look}) > 0.9 * len(look)
    assert world.reserved(300, seed=1) != world.reserved(300, seed=2)


def test_a_world_that_holds_out_too_little_reserves_nothing() -> None:
    world = World(Settings(held_out=0.01), seed=0)
    assert len(turns(world.spoken_suites()["held_out"])) == Settings().items
    with pytest.raises(DataError, match=r"data\.world\.held_out is 0\.01: too few combinations of .*repeat"):
        world.reserved(10, seed=0)


def test_a_fact_known_from_text_is_written_and_never_spoken(
    world: World, spoken: list[Conversation], written: list[Conversation]
) -> None:
    def fact(answer: str) -> str | frozenset[str]:
        """The same for both orders and both directions of asking, where these are one fact."""
        return answer if "minus" in answer else frozenset(answer.split()) - {"bigger", "smaller"}

    heard = {fact(question.answer) for question in turns(spoken)}
    read = {question.text for question in turns(written)}
    for topic in KNOWN:
        only = world.questions(topic, "text_only")
        assert len(only) >= 0.1 * len(world.questions(topic, "train"))
        assert heard.isdisjoint(fact(question.answer) for question in only)
        assert {question.text for question in only} <= read


def test_the_words_of_a_text_only_fact_are_heard_in_other_questions(
    world: World, spoken: list[Conversation], suites: dict[str, list[Conversation]]
) -> None:
    heard = Counter(word for question in turns(spoken) for word in question.text.split())
    for question in turns(suites["facts"], suites["held_out"]):
        assert min(heard[word] for word in question.text.split()) >= 20, question.text


def test_no_statement_in_training_uses_a_new_value(
    world: World, spoken: list[Conversation], written: list[Conversation], suites: dict[str, list[Conversation]]
) -> None:
    statements = [q.text for q in turns(spoken, written) if q.topic == "memory" and q.answer.startswith("ok ")]
    assert len(statements) > 1000
    assert not {word for text in statements for word in text.split()} & world.new_values
    assert {value for _, value in values(suites["recall_new"])} == world.new_values
    assert values(suites["recall_seen"]).keys() <= values(spoken).keys() & values(written).keys()
    new = values(suites["recall_new"]).keys()
    assert len({question for question, _ in new}) == 8
    assert values(spoken).keys().isdisjoint(new)


def test_conversations_give_what_they_ask_for(suites: dict[str, list[Conversation]]) -> None:
    for suite in ("recall_seen", "recall_new"):
        lengths = Counter(map(len, suites[suite]))
        assert lengths.keys() == {2, 3}
        assert min(lengths.values()) > 200
        for told, *_, asked in suites[suite]:
            assert told.answer == f"ok {asked.answer}"
            assert told.text.split()[-1] == asked.answer.split()[-1]


def test_every_suite_has_its_items(world: World, suites: dict[str, list[Conversation]]) -> None:
    facts = sum(len(world.questions(topic, "text_only")) for topic in KNOWN)
    assert {name: len(asked) for name, asked in suites.items() if not name.endswith("facts")} == dict.fromkeys(
        ("held_out", "seen_voices", "odd_voices", "recall_seen", "recall_new", "text_held_out"), SETTINGS.items
    )
    assert len(suites["text_facts"]) == facts
    assert len(suites["facts"]) >= SETTINGS.items
    asked = Counter(question.answer for question in turns(suites["facts"]))
    assert asked.keys() == {question.answer for question in turns(suites["text_facts"])}
    assert min(asked.values()) >= FACT_VOICES
    assert suites["held_out"] == suites["seen_voices"] == suites["text_held_out"]
    assert len({question.text for question in turns(suites["held_out"])}) > 0.9 * SETTINGS.items


def test_training_has_the_asked_size_and_many_distinct_questions(
    world: World, spoken: list[Conversation], written: list[Conversation]
) -> None:
    assert (len(turns(spoken)), len(turns(written))) == (SETTINGS.utterances, 1.5 * SETTINGS.utterances)
    assert len({question.text for question in turns(spoken)}) > 9_500
    for found in (spoken, written):
        topics = Counter(question.topic for question in turns(found))
        assert topics.keys() == {*COMBINED, *KNOWN, "repeat", "memory"}
        assert topics["repeat"] > 0.14 * len(turns(found))
    times = Counter(question.text for question in turns(written))
    facts = [q for topic in KNOWN for q in (*world.questions(topic, "train"), *world.questions(topic, "text_only"))]
    assert min(times[question.text] for question in facts) > 4


def test_a_question_has_one_answer(spoken: list[Conversation], written: list[Conversation]) -> None:
    answers: dict[str, set[str]] = defaultdict(set)
    for question in turns(spoken, written):
        if question.topic != "memory":
            answers[question.text].add(question.answer)
    assert {len(found) for found in answers.values()} == {1}


def test_what_the_world_knows_is_true(world: World) -> None:
    value = {word: number for number, word in enumerate(NUMBERS)}
    both = [q for topic in ("arithmetic", "compare", "count") for q in world.questions(topic, "train")]
    for question in both:
        match question.answer.split():
            case [a, "plus", b, "is", c]:
                assert value[a] + value[b] == value[c]
            case [a, "minus", b, "is", c]:
                assert value[a] - value[b] == value[c]
            case ["after", a, "comes", b] | ["before", b, "comes", a]:
                assert value[a] + 1 == value[b]
            case ["of", "the", a, "and", "the", b, "the", found, "is", what]:
                assert found == (max if what == "bigger" else min)(a, b, key=BY_SIZE.index)
            case other:
                pytest.fail(f"{other} is no answer")
    assert len(both) > 400


def test_every_word_is_known_and_plain(
    world: World, spoken: list[Conversation], written: list[Conversation], suites: dict[str, list[Conversation]]
) -> None:
    plain = re.compile(r"[a-z]+( [a-z]+)*")
    trained = turns(spoken, written)
    texts = {text for q in [*trained, *turns(*suites.values())] for text in (q.text, q.answer)} | {REFUSAL}
    assert all(map(plain.fullmatch, texts))
    assert {word for text in texts for word in text.split()} <= world.words
    taught = {word for question in trained for text in (question.text, question.answer) for word in text.split()}
    asked = {word for q in turns(*suites.values()) for text in (q.text, q.answer) for word in text.split()}
    assert asked <= taught


def test_a_seed_is_a_world(world: World, spoken: list[Conversation]) -> None:
    again, other = World(SETTINGS, seed=3), World(SETTINGS, seed=4)
    assert again.spoken_training(SETTINGS.utterances) == spoken
    assert again.written_suites() == world.written_suites()
    assert other.new_values != world.new_values
    for topic in (*COMBINED, *KNOWN):
        assert other.questions(topic, "train") != world.questions(topic, "train")


def test_drawing_one_part_changes_no_other(world: World, spoken: list[Conversation]) -> None:
    fresh = World(SETTINGS, seed=3)
    fresh.written_training(100)
    fresh.spoken_suites()
    assert fresh.spoken_training(SETTINGS.utterances) == spoken


def test_too_little_held_out_is_refused() -> None:
    with pytest.raises(DataError, match=r"held_out is 0\.001"):
        World(Settings(held_out=0.001), seed=0)


def test_text_rows_are_the_written_world(world: World, written: list[Conversation]) -> None:
    rows = world_texts(world)
    assert len({row.id for row in rows}) == len(rows)
    found: dict[str, list[TextRow]] = defaultdict(list)
    for row in rows:
        if row.split == "train":
            assert row.suite == ""
            found[row.dialogue or row.id].append(row)
    assert [[(row.text, row.answer, row.turn) for row in own] for own in found.values()] == [
        [(question.text, question.answer, turn) for turn, question in enumerate(talk)] for talk in written
    ]
    assert {row.suite for row in rows if row.split == "test"} == {"text_held_out", "text_facts"}
