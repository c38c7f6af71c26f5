"""Instruction sets: what cannot be spoken is set aside with its reason, and what can is spoken as it is written."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ichigo.corpus.filters import language_of
from ichigo.corpus.instructions import say
from ichigo.corpus.near import NearTexts, shingles
from ichigo.corpus.rows import SetAsideError
from ichigo.corpus.sources import open_source
from ichigo.recipe.schema import Data, Instructions
from ichigo.speech.audio import read_audio
from ichigo.speech.synthesis import Request
from tests.unit.corpus_support import Read, chat, json_file, parquet_file

GOOD = "what is the capital of france"
REFUSED = {
    "too_few_words": "why",
    "too_many_words": " ".join(["word"] * 21),
    "code": "what does `print(x)` do in python",
    "url": "please read www.example.org and tell me more",
    "table": "add these | a | b |\n| 1 | 2 |\n|---|---|\nand say why",
    "long_number": "what is the square root of 123456789",
    "symbols": "what does x ^^ y mean in this text",
    "no_letters": "12 + 34 = ?",
    "other_language": "was ist die Hauptstadt von Frankreich und wo ist sie",
}
CODE = (
    "explain this: for (int i = 0; i < n; i++) { sum += i; }",
    "fix the tag <div class=x> for me please",
    "```\nx = 1\n``` what does it do",
)


def instructions(folder: Path, questions: list[str], **settings: Any) -> Instructions:
    rows = [{"instruction": question, "output": f"answer {place}"} for place, question in enumerate(questions)]
    path = json_file(folder / "rows.jsonl", rows)
    return Instructions(kind="instructions", path=str(path), **{"words": (2, 20), **settings})


@pytest.mark.parametrize("reason", REFUSED)
def test_a_question_that_nobody_can_say_is_set_aside(tmp_path: Path, reason: str) -> None:
    read = Read([instructions(tmp_path, [GOOD, REFUSED[reason], "how many legs does a spider have"])])
    assert [text.text for text in read.texts] == [GOOD, "how many legs does a spider have"]
    assert [(entry.line, entry.reason) for entry in read.rejected] == [(2, reason)]


@pytest.mark.parametrize("question", CODE)
def test_code_is_code_in_any_dress(tmp_path: Path, question: str) -> None:
    assert list(Read([instructions(tmp_path, [GOOD, question])]).reasons) in (["code"], ["symbols"])


@pytest.mark.parametrize(
    "question",
    [
        "What's 12 times 7, and why?",
        "Who won the World Cup in 1998 - and where?",
        "Is it O.K. to eat 3.5 apples (or more) a day?",
        'What does "carpe diem" mean?',
        "Tell me about e.g. dogs; cats & birds.",
        "Summarise: the cost rose by 5% to $1,200.",
    ],
)
def test_ordinary_questions_pass(tmp_path: Path, question: str) -> None:
    read = Read([instructions(tmp_path, [question])])
    assert [text.text for text in read.texts] == [question]


def test_answers_may_hold_code(tmp_path: Path) -> None:
    path = json_file(tmp_path / "x.jsonl", [{"question": GOOD, "response": "```\nprint(1)\n```"}])
    assert [text.answer for text in Read([Instructions(kind="instructions", path=str(path))]).texts] == [
        "```\nprint(1)\n```"
    ]


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("what is the capital of france and where is it", "en"),
        ("wie spät ist es und was ist mit dem Zug", "de"),
        ("quelle est la capitale de la France", "fr"),
        ("cuál es la capital de España y por qué", "es"),
        ("qual é a capital de Portugal e por que não", "pt"),
        ("столица Франции", "ru"),
        ("これはなんですか", "ja"),
        ("Beethoven", "und"),
    ],
)
def test_languages_are_told_by_their_commonest_words(text: str, language: str) -> None:
    assert language_of(text) == language


def test_every_shape_of_rows_is_read(tmp_path: Path) -> None:
    lines: list[dict[str, Any]] = [
        {"messages": chat("who are you", "me")},
        {"conversations": [{"from": "human", "value": "where is it"}, {"from": "gpt", "value": "here"}]},
        {"instruction": "sort these words", "input": "pear apple", "output": "apple pear"},
        {"prompt": "is it late", "completion": "no"},
        {"text": "do you hear me", "answer": "yes", "language": "en", "license": "CC0"},
        {"messages": chat("my name is anna", "hello anna", "what is my name", "anna")},
        {"instruction": "say nothing to me", "output": None},
    ]
    for path in (json_file(tmp_path / "x.jsonl", lines), parquet_file(tmp_path / "x.parquet", lines)):
        read = Read([Instructions(kind="instructions", path=str(path))])
        assert read.reasons == {"no_text": 1}
        assert [(text.text, text.answer) for text in read.texts] == [
            ("who are you", "me"),
            ("where is it", "here"),
            ("sort these words\npear apple", "apple pear"),
            ("is it late", "no"),
            ("do you hear me", "yes"),
            ("my name is anna", "hello anna"),
            ("what is my name", "anna"),
        ]
        assert (read.texts[4].language, read.texts[4].license) == ("en", "CC0")
        assert [text.turn for text in read.texts[5:]] == [0, 1]


def test_near_duplicates_are_found_and_others_are_not(tmp_path: Path) -> None:
    long = "please tell me in a few simple words how the heart of a grown blue whale pumps blood through its body"
    questions = [long, long.replace("grown ", "") + "?", long.upper() + " now", "how does the heart of a whale work"]
    read = Read([instructions(tmp_path, questions, words=(1, 60))])
    assert read.reasons == {"near_duplicate": 2}
    assert "on line 1" in read.rejected[0].detail
    assert len(read.texts) == 2


def test_estimated_similarity_follows_the_true_one() -> None:
    """Pairs of texts by their true Jaccard similarity: all of the near ones are found and none of the far ones."""
    words = [f"w{number}" for number in range(4000)]
    found: dict[str, int] = {"near": 0, "far": 0}
    for pair in range(100):
        own = words[pair * 40 : pair * 40 + 40]
        near, far = [*own[:-2], "x", "y"], [*own[:20], *(f"z{place}" for place in range(20))]
        index = NearTexts(0.8)
        index.add(" ".join(own), "own")
        for name, other in (("near", near), ("far", far)):
            found[name] += index.find(" ".join(other)) == "own"
    whole, changed = shingles(" ".join(words[:40])), shingles(" ".join([*words[:38], "x", "y"]))
    assert len(whole & changed) / len(whole | changed) == pytest.approx(0.9, abs=0.01)
    assert found["near"] >= 98
    assert found["far"] == 0


def test_the_first_near_text_is_found_among_thousands_and_they_take_less_than_a_kilobyte_each() -> None:
    def text(number: int, *more: str) -> str:
        return " ".join([*(f"w{number * 31 + place}" for place in range(30)), *more])

    names = [str(number) for number in range(2000)]
    index = NearTexts(0.8)
    tracemalloc.start()
    for number in range(2000):
        index.add(text(number), names[number])
    size = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert size / 2000 < 1000
    index.add(text(7), "a later one")
    asked = range(0, 2000, 40)
    assert [index.find(text(number, "x")) for number in asked] == [names[number] for number in asked]
    assert index.find(text(7, "x")) == names[7]
    assert index.find(text(5000)) is None


def test_questions_are_spoken_and_the_same_seed_speaks_the_same(tmp_path: Path) -> None:
    settings = instructions(tmp_path, ["what is the capital of france", "how many legs does a spider have"])
    spoken = settings.model_copy(update={"voices": ("en-us+f2", "en-gb+m3"), "license": "MIT"})
    read, again = Read([spoken]), Read([spoken])
    assert read.rows == again.rows
    assert [row.text for row in read.rows] == [text.text for text in read.texts]
    for row in read.rows:
        assert row.speaker in ("en-us+f2", "en-gb+m3")
        assert (row.language, row.license, row.origin) == ("en", "MIT", "instructions")
        assert read_audio(row.audio).size / 16000 == pytest.approx(row.seconds)
        assert 1.0 < row.seconds < 5.0
    assert not Read([settings]).rows


def test_what_espeak_cannot_say_is_set_aside_and_the_rest_is_said() -> None:
    blocks = [[Request(text, "en-us+f2", 170, 50)] for text in ("turn it on", "!!!", "turn it off")]
    on, broken, off = say(blocks, 30.0)
    assert isinstance(broken, SetAsideError)
    assert broken.reason == "unspeakable"
    assert [[on], [off]] == [list(say([block], 30.0)) for block in (blocks[0], blocks[2])]


def test_a_question_that_takes_too_long_to_say_is_set_aside(tmp_path: Path) -> None:
    settings = instructions(tmp_path, ["turn it on", " ".join(["antidisestablishmentarianism"] * 12)])
    read = Read([settings.model_copy(update={"voices": ("en-us+f2",), "languages": ()})], max_seconds=5.0)
    assert (len(read.rows), read.reasons) == (1, {"too_long": 1})


def test_a_check_does_not_speak(tmp_path: Path) -> None:
    settings = instructions(tmp_path, ["turn it on please"]).model_copy(update={"voices": ("nobody+nothing",)})
    source = open_source(settings, Data(), "source", speak=False)
    (line,) = source.read(source.units()[0])
    assert (len(line.rows), len(line.texts)) == (0, 1)
