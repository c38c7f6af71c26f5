"""A base model given rows for the sound tokens.

Old rows stay bit for bit. New rows of the input embedding, and of the output matrix where it is not tied, start at the
mean of the base's rows, which the paper found steadier and faster than the default initialisation (arXiv 2410.15316,
section 2). Identical rows would get identical gradients as outputs and stay interchangeable for long, so ``mean_noise``
adds a little noise, measured in standard deviations of the existing rows.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.errors import ContractError
from ichigo.language.base import read_json, write_json
from ichigo.language.checkpoint import copy_companions, open_llama
from ichigo.language.contract import SOUND_TOKENS, TokenContract, contract_for, read_tokenizer
from ichigo.language.layouts import CHAT_TEMPLATE
from ichigo.recipe.schema import Expand

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

_BLOCK = 8192  # rows whose float64 copy is held at once: 256 MiB at width 4,096


def expand(base_folder: Path, contract: TokenContract, settings: Expand, seed: int, out_folder: Path) -> None:
    """Write the expanded model, its tokenizer and ``contract.json`` into ``out_folder``; same arguments, same bytes.

    ``contract`` must be that of ``base_folder`` (:class:`ContractError`); a base that may not be opened is a
    :class:`ModelError`. ``config.json`` gets ``vocab_size = contract.vocabulary``, and the chat template becomes that
    of the training layout.
    """
    contract.require_same(contract_for(base_folder, contract.speech_tokenizer), f"the base in {base_folder}")
    model = open_llama(base_folder)
    _grow(model, contract, settings, seed)
    _set_roles(model, contract)
    out_folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out_folder)
    copy_companions(base_folder, out_folder)
    _write_tokenizer(base_folder, contract, out_folder)
    contract.save(out_folder)


def _grow(model: LlamaForCausalLM, contract: TokenContract, settings: Expand, seed: int) -> None:
    import torch

    generator = torch.Generator().manual_seed(seed)
    model.resize_token_embeddings(contract.vocabulary, mean_resizing=False)
    tied = model.config.tie_word_embeddings
    matrices = [model.model.embed_tokens.weight, *([] if tied else [model.lm_head.weight])]
    with torch.no_grad():
        for matrix in matrices:
            new = slice(contract.sound_start, contract.first_sound + contract.sound_codes)
            matrix[new] = _new_rows(matrix[: contract.text_vocabulary], settings, generator).to(matrix.dtype)


def _new_rows(old: torch.Tensor, settings: Expand, generator: torch.Generator) -> torch.Tensor:
    """Rows for all sound tokens, float64 (515, width), from the base's rows (n, width)."""
    import torch

    mean, spread = _moments(old)
    rows = mean.expand(len(SOUND_TOKENS), -1)
    if settings.init == "mean":
        return rows
    noise = torch.randn(rows.shape, generator=generator, dtype=torch.float64)
    return rows + settings.noise * spread * noise


def _moments(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each column in float64, block by block to bound memory."""
    import torch

    mean, variance = torch.zeros(2, rows.shape[1], dtype=torch.float64)
    blocks = [rows[start : start + _BLOCK] for start in range(0, len(rows), _BLOCK)]
    for block in blocks:
        mean += block.double().sum(0) / len(rows)
    for block in blocks:
        variance += (block.double() - mean).square().sum(0) / len(rows)
    return mean, variance.sqrt()


def _set_roles(model: LlamaForCausalLM, contract: TokenContract) -> None:
    """Make every reader of the folder stop at both ends of an answer and pad with the contract's token."""
    for config in (model.config, model.generation_config):
        before = config.eos_token_id
        known = before if isinstance(before, list) else [before] if before is not None else []
        config.eos_token_id = sorted({*known, *contract.stop_ids})
        config.bos_token_id = contract.bos
        config.pad_token_id = contract.pad


def _write_tokenizer(base_folder: Path, contract: TokenContract, folder: Path) -> None:
    from tokenizers import AddedToken

    tokenizer = read_tokenizer(base_folder / "tokenizer.json")
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SOUND_TOKENS])
    for place, name in enumerate(SOUND_TOKENS):
        if tokenizer.token_to_id(name) != contract.sound_start + place:
            raise ContractError(f"{base_folder}: {name} became id {tokenizer.token_to_id(name)}, not the contract's")
    tokenizer.save(str(folder / "tokenizer.json"))
    config = read_json(base_folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", {**config, "chat_template": CHAT_TEMPLATE})
