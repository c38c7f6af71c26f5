"""The base model: made from nothing in a Hugging Face folder, or a given folder that is looked at before it is
opened."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer

from ichigo.errors import ModelError
from ichigo.language.base import check_folder, init_base, train_tokenizer
from ichigo.language.checkpoint import open_llama
from ichigo.language.contract import SPECIAL_TOKENS, contract_for
from ichigo.language.layouts import Layouts, Sample, Turn
from ichigo.recipe.schema import InitBase

SETTINGS = InitBase(kind="init", width=16, layers=1, heads=4, kv_heads=2, feed_forward=24, vocabulary=320)
TEXTS = ["the quick brown fox jumps over the lazy dog", "what is two plus three, it's 12345, isn't it?", "turning on"]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "base"
    init_base(TEXTS, SETTINGS, 7, folder)
    return folder


@pytest.fixture
def copy(base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(base, tmp_path / "copy"))


def test_the_same_arguments_write_the_same_bytes_and_another_seed_other_weights(base: Path, tmp_path: Path) -> None:
    init_base(TEXTS, SETTINGS, 7, tmp_path / "again")
    init_base(TEXTS, SETTINGS, 8, tmp_path / "other")
    names = sorted(path.name for path in base.iterdir())
    assert names == sorted(path.name for path in (tmp_path / "again").iterdir())
    assert {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json"} < set(names)
    assert [name for name in names if (base / name).read_bytes() != (tmp_path / "again" / name).read_bytes()] == []
    assert [name for name in names if (base / name).read_bytes() != (tmp_path / "other" / name).read_bytes()] == [
        "model.safetensors"
    ]


def test_making_a_base_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    import torch

    before = torch.get_rng_state()
    init_base(TEXTS, SETTINGS, 7, tmp_path / "base")
    assert torch.equal(torch.get_rng_state(), before)


def test_the_tokenizer_spells_any_text_and_its_specials_have_the_largest_ids() -> None:
    tokenizer = train_tokenizer(TEXTS, 300)
    assert [tokenizer.token_to_id(name) for name in SPECIAL_TOKENS.values()] == list(range(294, 300))
    for text in ("Grüße, 世界! 🎧", "  two  spaces\n\n\tand a tab", "it's 1234567"):
        assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids) == text


def test_little_text_gives_a_smaller_vocabulary_and_a_model_of_that_size(tmp_path: Path) -> None:
    init_base(["ab ab"], SETTINGS.model_copy(update={"vocabulary": 4000}), 0, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["vocab_size"] == Tokenizer.from_file(str(tmp_path / "tokenizer.json")).get_vocab_size() < 300
    check_folder(tmp_path)


def test_transformers_opens_the_folder_with_the_recipe_s_shape(base: Path) -> None:
    model = open_llama(base)
    config = model.config
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (16, 1, 4)
    assert (config.num_key_value_heads, config.intermediate_size, config.vocab_size) == (2, 24, 320)
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    contract = contract_for(base, "vq")
    assert set(model.generation_config.eos_token_id) == {contract.eot, contract.end_of_text}
    assert (config.bos_token_id, config.pad_token_id) == (contract.bos, contract.pad)


@pytest.mark.parametrize("turns", [(("What is two\n", " it's 5 "),), (("a b", "c"), ("d", "e's"))])
def test_the_chat_template_gives_the_training_layout(base: Path, turns: tuple[tuple[str, str], ...]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    layouts = Layouts.open(base, contract_for(base, "vq"))
    sample = Sample("text", tuple(Turn(user, assistant) for user, assistant in turns))
    messages = [
        {"role": role, "content": content}
        for turn in turns
        for role, content in zip(("user", "assistant"), turn, strict=True)
    ]
    whole = tokenizer.apply_chat_template(messages, return_dict=False)
    asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
    assert whole == layouts.example(sample).input_ids.tolist()
    assert asked == layouts.prompt_for(sample).tolist()


@pytest.mark.parametrize(
    ("change", "field"), [({"width": 18}, "width 18"), ({"width": 12}, "width 12"), ({"kv_heads": 3}, "kv_heads 3")]
)
def test_widths_that_do_not_divide_are_refused(tmp_path: Path, change: dict[str, int], field: str) -> None:
    with pytest.raises(ModelError, match=field):
        init_base(TEXTS, SETTINGS.model_copy(update=change), 0, tmp_path / "base")
    assert not (tmp_path / "base").exists()


def set_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return change


def grow_tokenizer(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["<extra>"])
    tokenizer.save(str(folder / "tokenizer.json"))


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def only_a_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def half_of_the_shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    shards = {"model.embed_tokens.weight": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (set_config(model_type="mistral"), "model_type is 'mistral'"),
        (set_config(auto_map={"AutoModelForCausalLM": "evil.Model"}), "auto_map"),
        (set_config(quantization_config={"bits": 4}), "quantised"),
        (set_config(vocab_size=999), "has 320 rows, config.json says vocab_size 999"),
        (lambda folder: (folder / "config.json").unlink(), r"config\.json: cannot be read"),
        (lambda folder: (folder / "tokenizer.json").unlink(), r"no tokenizer\.json"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no model\.safetensors"),
        (lambda folder: (folder / "training_args.bin").write_bytes(b"x"), r"training_args\.bin: pickled"),
        (only_a_pickle, r"(?s)pytorch_model\.bin: pickled.*no model\.safetensors"),
        (half_of_the_shards, r"no model-00002-of-00002\.safetensors"),
        (grow_tokenizer, "ids up to 320, the embedding 320 rows"),
        (cut_weights, "not a complete safetensors file"),
    ],
)
def test_a_folder_that_may_not_be_opened_says_why(copy: Path, damage: Callable[[Path], None], reason: str) -> None:
    check_folder(copy)
    damage(copy)
    with pytest.raises(ModelError, match=reason):
        open_llama(copy)


def test_sharded_weights_are_accepted(copy: Path) -> None:
    whole = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    embedding = {"model.embed_tokens.weight": whole.pop("model.embed_tokens.weight")}
    save_file(embedding, copy / "b.safetensors", {"format": "pt"})
    save_file(whole, copy / "a.safetensors", {"format": "pt"})
    where = {**dict.fromkeys(whole, "a.safetensors"), **dict.fromkeys(embedding, "b.safetensors")}
    (copy / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    model = open_llama(copy)
    np.testing.assert_array_equal(
        model.model.embed_tokens.weight.detach().numpy(), embedding["model.embed_tokens.weight"]
    )
