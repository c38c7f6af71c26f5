"""Vocabulary expansion: old rows bit for bit, new rows by the recipe, one id per sound token, one contract."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file

from ichigo.errors import ContractError, ModelError
from ichigo.language.base import init_base
from ichigo.language.checkpoint import load_model, open_llama
from ichigo.language.contract import SOUND_TOKENS, TokenContract, contract_for
from ichigo.language.expand import expand
from ichigo.language.layouts import Layouts, Sample, Turn
from ichigo.recipe.schema import Expand, InitBase

SETTINGS = InitBase(kind="init", width=16, layers=1, heads=4, kv_heads=2, feed_forward=24, vocabulary=320)
TEXTS = ["the quick brown fox jumps over the lazy dog", "what is two plus three, it's 12345, isn't it?", "turning on"]
NEW = slice(320, 320 + 515)
EMBEDDING = "model.embed_tokens.weight"
SPEECH = Sample("speech", (Turn(np.array([7, 512], dtype=np.int16), "turning on"),))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("expand") / "base"
    init_base(TEXTS, SETTINGS, 7, folder)
    (folder / "LICENSE.txt").write_text("terms")
    return folder


@pytest.fixture(scope="module")
def contract(base: Path) -> TokenContract:
    return contract_for(base, "whispervq:abc")


@pytest.fixture(scope="module")
def expanded(base: Path, contract: TokenContract) -> Path:
    folder = base.parent / "expanded"
    expand(base, contract, Expand(), 3, folder)
    return folder


def rows(folder: Path, name: str = EMBEDDING) -> npt.NDArray[np.float32]:
    matrix: npt.NDArray[np.float32] = load_file(folder / "model.safetensors")[name]
    return matrix


def test_everything_of_the_base_is_kept_bit_for_bit(base: Path, expanded: Path) -> None:
    before, after = load_file(base / "model.safetensors"), load_file(expanded / "model.safetensors")
    assert before.keys() == after.keys()
    after[EMBEDDING] = after[EMBEDDING][: len(before[EMBEDDING])]
    assert all(before[name].tobytes() == after[name].tobytes() for name in before)


def test_sizes_follow_the_contract(contract: TokenContract, expanded: Path) -> None:
    assert (contract.text_vocabulary, contract.vocabulary) == (320, 835)
    assert rows(expanded).shape == (835, 16)
    assert json.loads((expanded / "config.json").read_text())["vocab_size"] == 835


def test_mean_gives_every_new_row_the_mean_of_the_old_ones(base: Path, contract: TokenContract, tmp_path: Path) -> None:
    expand(base, contract, Expand(init="mean"), 3, tmp_path)
    expected = rows(base).astype(np.float64).mean(axis=0).astype(np.float32)
    np.testing.assert_array_equal(rows(tmp_path)[NEW], np.tile(expected, (515, 1)))


def test_noise_is_measured_in_standard_deviations_of_the_old_rows(
    base: Path, contract: TokenContract, tmp_path: Path
) -> None:
    expand(base, contract, Expand(init="mean_noise", noise=0.5), 3, tmp_path)
    old, new = rows(base), rows(tmp_path)[NEW]
    standardised = (new - old.mean(axis=0)) / old.std(axis=0)
    assert standardised.mean() == pytest.approx(0, abs=0.03)  # 8,240 values: standard error 0.0055
    np.testing.assert_allclose(standardised.std(axis=0), 0.5, rtol=0.2)  # of 515 values each: 3 %
    assert len(np.unique(new, axis=0)) == 515


def codebook(codes: int = 512) -> npt.NDArray[np.float32]:
    """Unit vectors in neighbourhoods of eight, as a codebook of cosine similarity has, and the row for padding."""
    generator = np.random.default_rng(0)
    centres = np.repeat(generator.normal(size=(-(-codes // 8), 64)), 8, axis=0)[:codes]
    vectors = centres + 0.5 * generator.normal(size=(codes, 64))
    return np.concatenate([vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.zeros((1, 64))]).astype("f4")


def distances(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Between every two rows."""
    wide = vectors.astype(np.float64)
    lengths = np.square(wide).sum(1)
    squares = lengths[:, None] + lengths[None] - 2 * wide @ wide.T
    found: npt.NDArray[np.float64] = np.sqrt(squares[np.triu_indices(len(wide), 1)].clip(0))
    return found


@pytest.mark.parametrize(("width", "correlation"), [(128, 0.99), (16, 0.4)])  # of 64 dimensions, 16 columns lose most
def test_codes_that_are_near_in_the_codebook_start_near(tmp_path: Path, width: int, correlation: float) -> None:
    init_base(TEXTS, SETTINGS.model_copy(update={"width": width}), 7, tmp_path / "base")
    vectors, contract = codebook(), contract_for(tmp_path / "base", "vq")
    expand(tmp_path / "base", contract, Expand(init="codebook"), 3, tmp_path / "expanded", vectors)
    new = rows(tmp_path / "expanded")[NEW][2:514]
    assert np.corrcoef(distances(new), distances(vectors[:512]))[0, 1] > correlation
    neighbours = np.linalg.norm(new[::8] - new[1::8], axis=1)  # the first two of each neighbourhood
    assert neighbours.mean() < 0.7 * distances(new).mean()


def test_codebook_rows_have_the_mean_and_the_spread_of_the_old_rows(
    base: Path, contract: TokenContract, tmp_path: Path
) -> None:
    expand(base, contract, Expand(init="codebook"), 3, tmp_path, codebook())
    standardised = (rows(tmp_path)[NEW] - rows(base).mean(axis=0)) / rows(base).std(axis=0)
    np.testing.assert_allclose(standardised[2:].mean(axis=0), 0, atol=1e-4)
    assert np.square(standardised[2:]).mean() == pytest.approx(1, rel=1e-4)
    assert len(np.unique(standardised, axis=0)) == 515  # both borders as well


def test_codes_that_a_small_tokenizer_lacks_start_as_noise(base: Path, contract: TokenContract, tmp_path: Path) -> None:
    expand(base, contract, Expand(init="codebook"), 3, tmp_path, codebook(64))
    standardised = (rows(tmp_path)[NEW] - rows(base).mean(axis=0)) / rows(base).std(axis=0)
    assert standardised[2 + 65 :].std() == pytest.approx(1, abs=0.05)  # 7,168 values: standard error 0.008
    assert len(np.unique(standardised, axis=0)) == 515


@pytest.mark.parametrize("vectors", [None, codebook()[:1], codebook(513)], ids=["none", "one row", "514 rows"])
def test_without_a_fitting_codebook_nothing_is_written(
    base: Path, contract: TokenContract, tmp_path: Path, vectors: npt.NDArray[np.float32] | None
) -> None:
    with pytest.raises(ModelError, match="a codebook of 2 to 513 rows, found"):
        expand(base, contract, Expand(init="codebook"), 3, tmp_path / "expanded", vectors)
    assert not (tmp_path / "expanded").exists()


@pytest.mark.parametrize("init", ["mean", "mean_noise", "codebook"])
def test_a_published_ichigo_keeps_every_weight(
    base: Path, expanded: Path, contract: TokenContract, tmp_path: Path, init: Literal["mean", "mean_noise", "codebook"]
) -> None:
    published = Path(shutil.copytree(expanded, tmp_path / "published"))
    (published / "contract.json").unlink()
    adopted = contract_for(published, contract.speech_tokenizer)

    expand(published, adopted, Expand(init=init), 9, tmp_path / "adopted", codebook())

    before, after = load_file(published / "model.safetensors"), load_file(tmp_path / "adopted" / "model.safetensors")
    assert {name: value.tobytes() for name, value in before.items()} == {
        name: value.tobytes() for name, value in after.items()
    }
    assert replace(adopted, text_tokenizer=contract.text_tokenizer) == contract
    assert load_model(tmp_path / "adopted", adopted).config.vocab_size == 835


def test_a_published_ichigo_whose_sound_tokens_are_words_gets_them_as_special_ones(
    base: Path, expanded: Path, tmp_path: Path
) -> None:
    from tokenizers import Tokenizer

    published = Path(shutil.copytree(expanded, tmp_path / "published"))
    (published / "contract.json").unlink()
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.add_tokens(list(SOUND_TOKENS))
    tokenizer.save(str(published / "tokenizer.json"))
    adopted = contract_for(published, "vq")

    expand(published, adopted, Expand(), 3, tmp_path / "adopted")

    layouts = Layouts.open(tmp_path / "adopted", adopted)
    assert layouts.answer_of([adopted.first_sound + 7]) == ""
    assert layouts.prompt_for(SPEECH).max() == adopted.first_sound + 512


def test_the_same_seed_writes_the_same_bytes_and_another_seed_other_rows(
    base: Path, contract: TokenContract, expanded: Path, tmp_path: Path
) -> None:
    expand(base, contract, Expand(), 3, tmp_path / "again")
    expand(base, contract, Expand(), 4, tmp_path / "other")
    names = sorted(path.name for path in expanded.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert all((expanded / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    assert not np.array_equal(rows(expanded), rows(tmp_path / "other"))


def test_an_untied_output_matrix_grows_as_well(base: Path, tmp_path: Path) -> None:
    import torch

    model = open_llama(base)
    model.config.tie_word_embeddings = False
    model.lm_head.weight = torch.nn.Parameter(torch.full((320, 16), 2.0) + torch.eye(320, 16))
    untied = Path(shutil.copytree(base, tmp_path / "untied"))
    model.save_pretrained(untied)
    contract = contract_for(untied, "whispervq:abc")

    expand(untied, contract, Expand(init="mean"), 3, tmp_path / "expanded")

    output = rows(tmp_path / "expanded", "lm_head.weight")
    np.testing.assert_array_equal(output[:320], rows(untied, "lm_head.weight"))
    np.testing.assert_allclose(output[NEW], 2 + 1 / 320, rtol=1e-6)
    np.testing.assert_array_equal(rows(tmp_path / "expanded")[:320], rows(base))


def test_bf16_weights_stay_bf16_and_bit_equal(base: Path, tmp_path: Path) -> None:
    import torch

    half = Path(shutil.copytree(base, tmp_path / "half"))
    open_llama(base, torch.bfloat16).save_pretrained(half)
    contract = contract_for(half, "whispervq:abc")
    expand(half, contract, Expand(), 3, tmp_path / "expanded")
    old, new = (
        open_llama(half).model.embed_tokens.weight,
        load_model(tmp_path / "expanded", contract).model.embed_tokens.weight,
    )
    assert new.dtype == torch.bfloat16
    assert torch.equal(new[:320], old)


def test_surplus_rows_beyond_the_new_tokens_are_kept(base: Path, tmp_path: Path) -> None:
    model = open_llama(base)
    model.resize_token_embeddings(1024, mean_resizing=False)
    padded = Path(shutil.copytree(base, tmp_path / "padded"))
    model.save_pretrained(padded)
    contract = contract_for(padded, "whispervq:abc")

    expand(padded, contract, Expand(init="mean"), 3, tmp_path / "expanded")

    before, after = rows(padded), rows(tmp_path / "expanded")
    assert after.shape == (1024, 16)
    np.testing.assert_array_equal(after[:320], before[:320])
    np.testing.assert_array_equal(after[NEW.stop :], before[NEW.stop :])
    np.testing.assert_allclose(after[NEW], np.tile(before[:320].mean(axis=0), (515, 1)), atol=1e-7)


def test_each_sound_token_written_as_text_is_one_id(contract: TokenContract, expanded: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(expanded)
    text = "<|sound_start|>" + "".join(f"<|sound_{code:04d}|>" for code in range(513)) + "<|sound_end|>"
    expected = [contract.sound_start, *range(contract.first_sound, contract.first_sound + 513), contract.sound_end]
    assert tokenizer(text, add_special_tokens=False)["input_ids"] == expected
    assert len(tokenizer) == contract.vocabulary


def test_a_deployer_s_chat_template_gives_the_speech_layout(contract: TokenContract, expanded: Path) -> None:
    from transformers import AutoTokenizer

    messages = [{"role": "user", "content": "<|sound_start|><|sound_0007|><|sound_0512|><|sound_end|>"}]
    tokenizer = AutoTokenizer.from_pretrained(expanded)
    asked = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    assert asked == Layouts.open(expanded, contract).prompt_for(SPEECH).tolist()


def test_sound_tokens_are_no_part_of_an_answer(contract: TokenContract, expanded: Path) -> None:
    layouts = Layouts.open(expanded, contract)
    question, answer = layouts.prompt_for(SPEECH), layouts.example(SPEECH).input_ids
    generated = [contract.sound_start, contract.first_sound + 7, *answer[len(question) :].tolist()]
    assert layouts.answer_of(generated) == "turning on"


def test_a_base_s_own_chat_template_is_replaced(base: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    foreign = Path(shutil.copytree(base, tmp_path / "foreign"))
    (foreign / "chat_template.jinja").write_text("{{ 'Today is Friday' }}")
    config = json.loads((foreign / "tokenizer_config.json").read_text())
    (foreign / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": "{{ 'It is Friday' }}"}))
    expand(foreign, contract_for(foreign, "vq"), Expand(), 3, tmp_path / "expanded")
    text = AutoTokenizer.from_pretrained(tmp_path / "expanded").apply_chat_template(
        [{"role": "user", "content": "q"}], tokenize=False
    )
    assert text == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nq<|eot_id|><|end_of_text|>"


def test_generation_stops_at_both_ends_also_where_the_base_named_one(base: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(base, tmp_path / "other"))
    (other / "generation_config.json").write_text(json.dumps({"eos_token_id": 5}))
    contract = contract_for(other, "vq")
    expand(other, contract, Expand(), 3, tmp_path / "expanded")
    model = load_model(tmp_path / "expanded", contract)
    assert model.generation_config.eos_token_id == [5, *sorted(contract.stop_ids)]


def test_licence_files_travel_with_the_weights(expanded: Path) -> None:
    assert (expanded / "LICENSE.txt").read_text() == "terms"


def test_the_contract_must_be_that_of_the_base(base: Path, contract: TokenContract, tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="first_sound: expected 323, found 322"):
        expand(base, replace(contract, first_sound=323), Expand(), 3, tmp_path / "expanded")
    assert not (tmp_path / "expanded").exists()


def test_a_model_of_another_contract_or_size_does_not_load(
    contract: TokenContract, expanded: Path, tmp_path: Path
) -> None:
    assert load_model(expanded, contract).config.vocab_size == 835
    with pytest.raises(ContractError, match="speech_tokenizer: expected whispervq:def, found whispervq:abc"):
        load_model(expanded, replace(contract, speech_tokenizer="whispervq:def"))
    larger = Path(shutil.copytree(expanded, tmp_path / "larger"))
    grown = replace(contract, vocabulary=900)
    grown.save(larger)
    with pytest.raises(ContractError, match="835 rows, the contract says 900"):
        load_model(larger, grown)


def test_layouts_refuse_an_expanded_model_of_another_contract(contract: TokenContract, expanded: Path) -> None:
    with pytest.raises(ContractError, match="sound_end"):
        Layouts.open(expanded, replace(contract, sound_end=9))
