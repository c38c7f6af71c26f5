"""Multiple choice: the grammar that reads a reply, the five outcomes, and likelihoods against their definition."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from ichigo.errors import ContractError, DataError
from ichigo.evaluation.choices import (
    CHOICE_OUTCOMES,
    Likelihoods,
    by_likelihood,
    choice_metrics,
    choice_outcome,
    likelihood_metrics,
    read_choice,
)
from ichigo.inference.engine import Engine
from ichigo.language.layouts import Sample, Turn
from tests.unit.evaluation_support import make_base, make_model

OPTIONS = ("the moon", "the sun", "a comet", "the evening star")


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ("A", 0),
        ("b.", 1),
        ("(C)", 2),
        ("[d]", 3),
        ("Option B", 1),
        ("Answer: C", 2),
        ("**B**", 1),
        ("$\\boxed{D}$", 3),
        ("B) the sun", 1),
        ("B. the sun, because it shines", 1),
        ("(C) a comet", 2),
        ("The answer is B", 1),
        ("the correct answer is (d).", 3),
        ("The answer is: **B**.", 1),
        ("The answer to the question is C, a comet.", 2),
        ("The best option would be option B because it is bright", 1),
        ("I would choose option C.", 2),
        ("I'd go with A, the moon", 0),
        ("Well, D is the right answer.", 3),
        ("I think it is (b) after all", 1),
        ("It is the sun.", 1),
        ("THE EVENING STAR!", 3),
        ("the answer is a comet", 2),  # the article is no letter
        ("the evening star, I believe", 3),
    ],
)
def test_a_reply_that_names_one_option_is_read(reply: str, place: int) -> None:
    assert read_choice(reply, OPTIONS) == place


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "E",  # there are four options
        "the answer is A or B",
        "(A) or (B)",
        "the sun and the moon",
        "A dog barks",
        "the answer is a dog",
        "I have a plan b somewhere",
        "sunday",  # no part of a word is an option
        "x" * 10_000,
        "<script>alert(1)</script> & more",
    ],
)
def test_a_reply_that_names_none_or_two_is_not_guessed_for(reply: str) -> None:
    assert read_choice(reply, OPTIONS) is None


def test_unknown_words_of_options_are_never_found_in_a_reply() -> None:
    assert read_choice("it is what it is", ("", "", "", "")) is None
    assert read_choice("it is (b)", ("", "", "", "")) == 1


@pytest.mark.parametrize(
    ("reply", "stray", "stopped", "outcome"),
    [
        ("B", False, True, "right"),
        ("C", False, True, "wrong"),
        ("B. the sun, and furthermore", False, False, "right"),
        ("B", True, True, "degenerate"),
        ("B B B B B B", False, True, "degenerate"),
        ("and then it went on and", False, False, "degenerate"),
        ("I'm sorry, I cannot answer that.", False, True, "refused"),
        ("I don\N{RIGHT SINGLE QUOTATION MARK}t know", False, True, "refused"),
        ("Sorry, I cannot say; the answer is C.", False, True, "wrong"),  # it did answer
        ("hello there", False, True, "unparsable"),
        ("", False, True, "unparsable"),
    ],
)
def test_every_reply_has_one_of_five_outcomes(reply: str, stray: bool, stopped: bool, outcome: str) -> None:
    assert choice_outcome(reply, OPTIONS, 1, stray_sound=stray, stopped=stopped) == outcome


def test_the_shares_of_the_outcomes_add_up_and_zero_items_have_no_share() -> None:
    metrics = choice_metrics("x", ["right", "wrong", "right", "refused"])
    assert sum(metrics[f"x.choice.{name}"] for name in CHOICE_OUTCOMES) == pytest.approx(1)
    assert metrics["x.choice.right"] == 0.5
    assert metrics["x.choice.right.low"] < 0.5 < metrics["x.choice.right.high"]
    assert choice_metrics("x", []) == {"x.choice.items": 0.0}


def test_the_likelier_option_wins_and_a_longer_one_may_win_per_character() -> None:
    found = Likelihoods((-4.0, -6.0, -6.0), (2, 12, 12))
    assert (found.chosen, found.normalised) == (0, 1)  # -2, -0.5, -0.5: the first of equals
    assert Likelihoods((math.nan, -1.0), (1, 1)).chosen is None
    metrics = likelihood_metrics("x", [found, Likelihoods((math.nan, -1.0), (1, 1))], [0, 1])
    assert (metrics["x.likelihood.accuracy"], metrics["x.likelihood.accuracy_per_character"]) == (0.5, 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("choices")
    return make_model(make_base(root / "base"), root / "model")


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.open(folder)


def test_likelihoods_are_those_of_one_option_at_a_time_without_batch_or_padding(engine: Engine, folder: Path) -> None:
    """Against the definition: the sum of log-softmax at the option's tokens, the whole model's logits."""
    model = LlamaForCausalLM.from_pretrained(folder)
    questions = [("turn on the light", ("yes", "good morning", "no light")), ("good", ("morning", "the light"))]
    prompts = [engine.layouts.prompt_for(Sample("text", (Turn(text),))) for text, _ in questions]
    found = by_likelihood(engine, list(zip(prompts, [options for _, options in questions], strict=True)), batch=3)
    for prompt, (_, options), got in zip(prompts, questions, found, strict=True):
        for place, option in enumerate(options):
            said = engine.layouts.spell(option)
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt.tolist(), *said]])).logits[0].double().log_softmax(-1)
            wanted = sum(float(logits[len(prompt) - 1 + at, token]) for at, token in enumerate(said))
            assert got.log_likelihoods[place] == pytest.approx(wanted, rel=1e-5)
        assert got.characters == tuple(map(len, options))


def test_what_greedy_generation_says_is_greedy_and_what_it_does_not_say_is_not(engine: Engine) -> None:
    prompt = engine.layouts.prompt_for(Sample("text", (Turn("turn on the light"),)))
    said = list(engine.generate([prompt], 4, 1)[0].tokens)
    other = [*said[:-1], (said[-1] + 1) % 200]
    scored = engine.score([(prompt, said), (prompt, other)], 2)
    assert [one.greedy for one in scored] == [True, False]
    assert [one.tokens for one in scored] == [len(said)] * 2


def test_nothing_to_score_is_refused_with_the_question_named(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"question 1 has the options \['yes'\]"):
        by_likelihood(engine, [([1], ("yes", "no")), ([1], ("yes",))], 2)
    with pytest.raises(DataError, match="continuation 0 is empty"):
        engine.score([([1], [])], 1)
    with pytest.raises(DataError, match="prompt 0 is empty"):
        engine.score([([], [1])], 1)
    with pytest.raises(ContractError, match="holds id 10000000"):
        engine.score([([1], [10_000_000])], 1)
    with pytest.raises(DataError, match="exceeds the model's"):
        engine.score([([1] * engine.positions, [1])], 1)
