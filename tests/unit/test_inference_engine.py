"""The engine against a loop without cache, padding or batch, on a small random model."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from ichigo.errors import ContractError, DataError, ModelError
from ichigo.inference.engine import Engine, Generation
from ichigo.language.base import init_base
from ichigo.language.checkpoint import load_model
from ichigo.language.contract import TokenContract, contract_for
from ichigo.language.expand import expand
from ichigo.language.layouts import Example, Layouts, Sample, Turn
from ichigo.recipe.schema import Expand, InitBase

LIMIT = 24
SURPLUS = 7  # rows of the base without a token


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An expanded model folder with weights wide enough apart that every prompt has an answer of its own."""
    base, out = tmp_path_factory.mktemp("base"), tmp_path_factory.mktemp("model")
    settings = InitBase(kind="init", width=32, layers=2, heads=4, kv_heads=2, feed_forward=64, vocabulary=300)
    init_base(["turn on the light", "what is two plus two"], settings, seed=1, folder=base)
    contract = contract_for(base, "a" * 64)
    expand(base, contract, Expand(), seed=1, out_folder=out)
    model = load_model(out, contract)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.3, generator=generator)
        model.lm_head.weight[contract.eot] *= 2.5  # a larger row wins more often, so some answers end
    model.save_pretrained(out)
    return out


@pytest.fixture(scope="module")
def engine(folder: Path) -> Engine:
    return Engine.open(folder)


@pytest.fixture(scope="module")
def model(folder: Path) -> LlamaForCausalLM:
    """The same weights, opened apart from the engine, for the oracle."""
    opened: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(folder)
    return opened


@pytest.fixture(scope="module")
def prompts(engine: Engine) -> list[list[int]]:
    """Speech and text prompts of 12 to 130 tokens in no order of length."""
    rng = np.random.default_rng(5)
    samples = [Sample("speech", (Turn(rng.integers(0, 513, n).astype(np.int16)),)) for n in (3, 90, 17, 40, 41, 8, 120)]
    samples += [Sample("text", (Turn(text),)) for text in ("turn on the light", "what is two plus two", "a")]
    found = [engine.layouts.prompt_for(sample).tolist() for sample in samples]
    random.Random(5).shuffle(found)
    return found


def naive(model: LlamaForCausalLM, contract: TokenContract, prompt: Sequence[int], limit: int) -> Generation:
    """Greedy decoding by its definition: the whole sequence anew for every token."""
    ids = list(prompt)
    for _ in range(limit):
        with torch.no_grad():
            token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
        if token in (contract.eot, contract.end_of_text):
            return Generation(tuple(ids[len(prompt) :]), "eot")
        ids.append(token)
    return Generation(tuple(ids[len(prompt) :]), "length")


@pytest.fixture(scope="module")
def expected(engine: Engine, model: LlamaForCausalLM, prompts: list[list[int]]) -> list[Generation]:
    answers = [naive(model, engine.contract, prompt, LIMIT) for prompt in prompts]
    lengths = {len(answer.tokens) for answer in answers}
    assert {answer.stopped for answer in answers} == {"eot", "length"}, "the model must show both endings"
    assert len(lengths) > 2, "rows must leave their batch at different times"
    return answers


@pytest.mark.parametrize("batch", [1, 3, 4, 64])
def test_answers_equal_decoding_without_cache_padding_or_batch(
    engine: Engine, prompts: list[list[int]], expected: list[Generation], batch: int
) -> None:
    assert engine.generate(prompts, LIMIT, batch) == expected


def test_an_answer_does_not_depend_on_its_company(
    engine: Engine, prompts: list[list[int]], expected: list[Generation]
) -> None:
    order = list(range(len(prompts)))
    for seed in range(4):
        random.Random(seed).shuffle(order)
        chosen = order[: 3 + seed]
        assert engine.generate([prompts[at] for at in chosen], LIMIT, 8) == [expected[at] for at in chosen]


def test_every_prompt_starts_at_position_zero(engine: Engine, folder: Path, prompts: list[list[int]]) -> None:
    """Rotary attention sees differences only, but a position past the model's last one is a value it never had."""
    model = load_model(folder, engine.contract)
    seen: list[torch.Tensor] = []
    model.register_forward_pre_hook(lambda _, __, inputs: seen.append(inputs["position_ids"]), with_kwargs=True)
    short, long = sorted(prompts, key=len)[:: len(prompts) - 1]
    Engine(model, engine.layouts).generate([short, long], 2, 2)
    assert [positions[:, -1].tolist() for positions in seen] == [
        [len(long) - 1, len(short) - 1],
        [len(long), len(short)],
    ]


def test_the_limit_cuts_and_the_stop_token_needs_room(
    engine: Engine, prompts: list[list[int]], expected: list[Generation]
) -> None:
    at = next(at for at, answer in enumerate(expected) if answer.stopped == "eot" and answer.tokens)
    length = len(expected[at].tokens)
    assert engine.generate([prompts[at]], length + 1, 1) == [expected[at]]
    assert engine.generate([prompts[at]], length, 1) == [Generation(expected[at].tokens, "length")]


def test_one_token_at_a_time_gives_the_same_answers(
    engine: Engine, prompts: list[list[int]], expected: list[Generation]
) -> None:
    for prompt, answer in zip(prompts, expected, strict=True):
        decoding = engine.begin(prompt, LIMIT)
        assert Generation(tuple(decoding), decoding.stopped or "length") == answer
        assert list(decoding) == [], "an answer that ended stays ended"


def test_the_first_token_needs_only_the_prefill(
    engine: Engine, folder: Path, prompts: list[list[int]], expected: list[Generation]
) -> None:
    prompt = next(prompt for prompt, answer in zip(prompts, expected, strict=True) if len(answer.tokens) > 1)
    model = load_model(folder, engine.contract)
    passes: list[int] = []
    model.register_forward_pre_hook(lambda _, __, inputs: passes.append(inputs["input_ids"].shape[1]), with_kwargs=True)
    decoding = Engine(model, engine.layouts).begin(prompt, LIMIT)
    assert passes == [len(prompt)], "the prefill is done before the first token is asked for"
    next(decoding)
    assert len(passes) == 1
    next(decoding)
    assert passes[1:] == [1]


def test_begin_refuses_what_generate_refuses(engine: Engine) -> None:
    with pytest.raises(DataError, match=r"4090 tokens.*4096 positions"):
        engine.begin([5] * 4090, LIMIT)


def test_no_prompts_no_answers(engine: Engine) -> None:
    assert engine.generate([], LIMIT, 4) == []


def test_progress_names_the_work(engine: Engine, prompts: list[list[int]], capsys: pytest.CaptureFixture[str]) -> None:
    engine.generate(prompts[:2], 1, 1, what="spoken_answers")
    assert "[progress] spoken_answers 2/2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("prompt", "error", "message"),
    [
        ([], DataError, "prompt 1 is empty"),
        ([5, 100_000], ContractError, "prompt 1 holds id 100000"),
        ([-1], ContractError, "prompt 1 holds id -1"),
        ([5] * 4090, DataError, "4090 tokens.*4096 positions"),
    ],
)
def test_impossible_prompts_are_named(engine: Engine, prompt: list[int], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        engine.generate([[5], prompt], LIMIT, 2)


def test_decode_keeps_text_only(engine: Engine) -> None:
    contract = engine.contract
    tokenizer = engine.layouts.prompt_for(Sample("text", (Turn("turn on the light"),))).tolist()
    start = tokenizer.index(contract.end_header) + 2
    words = tokenizer[start : tokenizer.index(contract.eot)]
    mixed = [contract.first_sound + 9, *words, contract.sound_end, contract.start_header]
    assert engine.decode(mixed) == engine.decode(words)
    assert engine.decode(words).endswith("turn on the light")
    assert engine.decode([contract.sound_start, contract.first_sound]) == ""


def test_stray_sound_is_any_token_of_the_sound_range(engine: Engine) -> None:
    contract = engine.contract
    assert not engine.stray_sound([contract.eot, contract.text_vocabulary - 1])
    for token in (contract.sound_start, contract.sound_end, contract.first_sound, contract.first_sound + 512):
        assert engine.stray_sound([5, token])


def test_loss_sums_the_labelled_tokens(engine: Engine, model: LlamaForCausalLM) -> None:
    """2,100 labelled tokens in one example: more than one piece of logits."""
    rng = np.random.default_rng(6)
    codes = [rng.integers(0, 513, n).astype(np.int16) for n in (2100, 30, 4)]
    long, short, other = (Turn(code, "turn on the light") for code in codes)
    examples = [
        engine.layouts.example(Sample("speech", (short,)), loss_on="answers"),
        engine.layouts.example(Sample("sound", (long,))),
        engine.layouts.example(Sample("speech", (other,))),
    ]
    total, count = 0.0, 0
    for example in examples:
        with torch.no_grad():
            logits = model(torch.from_numpy(example.input_ids)[None].long()).logits[0].double()
        spread = logits.log_softmax(-1)
        for at in range(1, len(example.labels)):
            if example.labels[at] != -100:
                total, count = total - float(spread[at - 1, example.labels[at]]), count + 1
    for batch in (1, 3):
        found, tokens = engine.loss(examples, batch)
        assert found == pytest.approx(total, rel=1e-5)
        assert tokens == count > 2100


def test_loss_of_nothing_is_nothing(engine: Engine) -> None:
    silent = Example(np.array([1, 2, 3], dtype=np.int32), np.full(3, -100, dtype=np.int32))
    assert engine.loss([], 4) == (0.0, 0)
    assert engine.loss([silent], 4) == (0.0, 0)


def test_rows_without_a_token_are_never_generated(tmp_path: Path) -> None:
    """A base may have more rows than tokens; such a row can win the argmax but means nothing."""
    base, out = tmp_path / "base", tmp_path / "model"
    settings = InitBase(kind="init", width=16, layers=1, heads=2, kv_heads=1, feed_forward=16, vocabulary=300)
    init_base(["turn on the light"], settings, seed=1, folder=base)
    wide = LlamaForCausalLM.from_pretrained(base)
    wide.resize_token_embeddings(wide.config.vocab_size + 515 + SURPLUS, mean_resizing=False)
    wide.save_pretrained(base)
    contract = contract_for(base, "a" * 64)
    end = contract.first_sound + contract.sound_codes
    assert contract.vocabulary == end + SURPLUS
    expand(base, contract, Expand(), seed=1, out_folder=out)
    model = load_model(out, contract)
    with torch.no_grad():
        model.lm_head.weight[end:] = 50 * torch.randn(SURPLUS, 16, generator=torch.Generator().manual_seed(2))
    raw = int(model(torch.tensor([[contract.bos]])).logits[0, -1].argmax())
    assert raw >= end, "the oracle must want a row without a token"
    answer = Engine(model, Layouts.open(out, contract)).generate([[contract.bos]], 8, 1)[0]
    assert answer.tokens
    assert max(answer.tokens) < end


def test_open_refuses_the_contract_of_another_tokenizer(engine: Engine, folder: Path) -> None:
    with pytest.raises(ContractError, match="speech_tokenizer"):
        Engine.open(folder, dataclasses.replace(engine.contract, speech_tokenizer="b" * 64))
    assert Engine.open(folder, engine.contract).contract == engine.contract


def test_open_refuses_a_folder_with_pickled_weights(folder: Path, tmp_path: Path) -> None:
    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(b"anything")
    with pytest.raises(ModelError, match=r"pytorch_model\.bin"):
        Engine.open(tmp_path)
