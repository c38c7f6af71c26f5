"""The text model under everything: a small Llama made from nothing, or a folder that someone gives.

:func:`init_base` trains a byte-level BPE tokenizer with Llama-3's splitting rule and special tokens and writes a
randomly initialised ``LlamaForCausalLM`` beside it. :func:`check_folder` looks at a given Hugging Face folder before
anything opens it: safetensors only (a pickle can run code), no remote code, Llama architecture, a tokenizer that fits
the embedding.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ichigo.errors import ModelError
from ichigo.language.contract import SPECIAL_TOKENS, TokenContract, contract_for, read_object, read_tokenizer
from ichigo.language.layouts import CHAT_TEMPLATE, layout_texts
from ichigo.recipe.schema import InitBase

if TYPE_CHECKING:
    from tokenizers import Tokenizer

MAX_POSITIONS = 4096
"""``max_position_embeddings`` of an initialised base: the paper's longest training sequence."""

_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Llama-3's pre-tokenisation, read from its tokenizer.json; words, numbers of three digits, punctuation, line ends."""

_PICKLES = frozenset({".bin", ".pt", ".pth", ".pkl", ".ckpt"})
_EMBEDDING = "model.embed_tokens.weight"


def init_base(texts: Iterable[str], settings: InitBase, seed: int, folder: Path) -> None:
    """Write a base model with a tokenizer trained on ``texts`` and the layouts' own words into ``folder``.

    Same arguments, same bytes. ``texts`` are questions and answers, each as often as it should weigh.

    The vocabulary is 256 bytes, merges, and 6 special tokens with the largest ids. It is smaller than
    ``settings.vocabulary`` when the texts hold fewer merges. Input and output embedding are tied: at these sizes the
    second matrix would be a large part of the model and of the time of a step. Raises :class:`ModelError` for widths
    that do not divide into heads.
    """
    _check_shape(settings)
    rows = list(texts)
    tokenizer = train_tokenizer([*rows, *layout_texts(len(rows) // 2)], settings.vocabulary)
    folder.mkdir(parents=True, exist_ok=True)
    write_tokenizer(tokenizer, folder)
    _write_model(settings, tokenizer, seed, folder)


def text_contract(folder: Path) -> TokenContract:
    """The contract of an initialised base on its own: text alone, no sound tokens, ``vocabulary`` rows as they are.

    It serves while the base learns text, before the contract with a speech tokenizer exists.
    """
    whole = contract_for(folder, speech_tokenizer="none")
    end = whole.text_vocabulary
    return replace(whole, sound_start=end, sound_end=end, first_sound=end, sound_codes=0, vocabulary=end)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Tokenizer:
    """Byte-level BPE of at most ``vocabulary`` tokens, special tokens included."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(_SPLIT), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS.values()])
    bos = SPECIAL_TOKENS["bos"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, tokenizer.token_to_id(bos))]
    )
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` (with our chat template) and ``special_tokens_map.json``."""
    names = {
        "bos_token": SPECIAL_TOKENS["bos"],
        "eos_token": SPECIAL_TOKENS["eot"],
        "pad_token": SPECIAL_TOKENS["pad"],
    }
    config = {
        **names,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": MAX_POSITIONS,
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(folder / "tokenizer_config.json", config)
    write_json(folder / "special_tokens_map.json", names)


def check_folder(folder: Path) -> None:
    """Raise :class:`ModelError`, with everything that is wrong, unless ``folder`` is a Llama base that may be
    opened."""
    config = read_json(folder / "config.json")
    problems = [*_config_problems(config), *_unsafe_files(folder)]
    weights, missing = _weights(folder)
    problems.extend(missing)
    if not (folder / "tokenizer.json").is_file():
        problems.append("no tokenizer.json; export the fast tokenizer")
    elif not missing:
        problems.extend(_size_problems(folder, weights, config))
    if problems:
        raise ModelError("\n".join([f"{folder} cannot be the base:", *(f"  - {problem}" for problem in problems)]))


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a model folder; :class:`ModelError` if there is none."""
    return read_object(path, ModelError, "a complete Hugging Face folder is needed")


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write an object with sorted keys."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _check_shape(settings: InitBase) -> None:
    head_width, rest = divmod(settings.width, settings.heads)
    if rest or head_width % 2:
        raise ModelError(f"base.width {settings.width} must be an even multiple of base.heads {settings.heads}")
    if settings.heads % settings.kv_heads:
        raise ModelError(f"base.heads {settings.heads} must be a multiple of base.kv_heads {settings.kv_heads}")


def _write_model(settings: InitBase, tokenizer: Tokenizer, seed: int, folder: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokens = tokenizer.get_vocab(with_added_tokens=True)
    ids = {field: tokens[name] for field, name in SPECIAL_TOKENS.items()}
    config = LlamaConfig(
        vocab_size=len(tokens),
        hidden_size=settings.width,
        intermediate_size=settings.feed_forward,
        num_hidden_layers=settings.layers,
        num_attention_heads=settings.heads,
        num_key_value_heads=settings.kv_heads,
        max_position_embeddings=MAX_POSITIONS,
        rms_norm_eps=1e-5,  # this and theta as in Llama-3.1
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=True,
        bos_token_id=ids["bos"],
        eos_token_id=[ids["end_of_text"], ids["eot"]],
        pad_token_id=ids["pad"],
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.save_pretrained(folder)


def _config_problems(config: dict[str, Any]) -> list[str]:
    problems = []
    if config.get("model_type") != "llama":
        problems.append(f"config.json: model_type is {config.get('model_type')!r}; only 'llama' is supported")
    if "auto_map" in config:
        problems.append(
            "config.json: auto_map asks for code from the folder; remote code is never run, use a plain Llama"
        )
    if "quantization_config" in config:
        problems.append("config.json: the weights are quantised; training needs the full-precision folder")
    return problems


def _unsafe_files(folder: Path) -> list[str]:
    pickles = sorted(path.name for path in folder.iterdir() if path.suffix in _PICKLES)
    return [f"{name}: pickled files can run code; convert the weights to safetensors and delete it" for name in pickles]


def _weights(folder: Path) -> tuple[list[Path], list[str]]:
    """The safetensors files of a folder, and what is missing of them."""
    index = folder / "model.safetensors.index.json"
    names = set(read_json(index).get("weight_map", {}).values()) if index.is_file() else {"model.safetensors"}
    paths = [folder / name for name in sorted(names)]
    return paths, [
        f"no {path.name}; the weights must be complete, as safetensors" for path in paths if not path.is_file()
    ]


def _size_problems(folder: Path, weights: list[Path], config: dict[str, Any]) -> list[str]:
    rows = _embedding_rows(weights)
    tokens = max(read_tokenizer(folder / "tokenizer.json").get_vocab(with_added_tokens=True).values()) + 1
    problems = []
    if rows != config.get("vocab_size"):
        problems.append(f"{_EMBEDDING} has {rows} rows, config.json says vocab_size {config.get('vocab_size')}")
    if rows is not None and tokens > rows:
        problems.append(f"tokenizer.json has ids up to {tokens - 1}, the embedding {rows} rows; they are of two models")
    return problems


def _embedding_rows(weights: list[Path]) -> int | None:
    from safetensors import SafetensorError, safe_open

    for path in weights:
        try:
            with safe_open(path, framework="numpy") as tensors:
                if _EMBEDDING in tensors.keys():  # noqa: SIM118 - the handle is not a mapping
                    return int(tensors.get_slice(_EMBEDDING).get_shape()[0])
        except SafetensorError as error:
            raise ModelError(f"{path}: not a complete safetensors file ({error}); fetch it again") from error
    return None
