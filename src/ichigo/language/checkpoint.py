"""Model folders under a contract: what lies in one, opening it, and writing one.

A folder that training or inference may open holds Hugging Face's ``config.json``, ``generation_config.json`` and
safetensors weights, the expanded tokenizer, and ``contract.json``. Loading never runs code from the folder and never
reads a pickle.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from ichigo.errors import ContractError
from ichigo.language.base import check_folder
from ichigo.language.contract import CONTRACT_FILE, TokenContract

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM

COMPANIONS = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", CONTRACT_FILE)
"""What travels beside the weights from one stage's model to the next."""


def load_model(folder: Path, contract: TokenContract, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
    """Open an expanded model on the CPU, in ``dtype`` or as stored.

    Raises :class:`ContractError` if ``folder`` was made under another contract or its embedding does not have
    ``contract.vocabulary`` rows, :class:`ModelError` for a folder that :func:`~ichigo.language.base.check_folder`
    refuses.
    """
    contract.require_same(TokenContract.load(folder), f"the model in {folder}")
    model = open_llama(folder, dtype)
    rows = model.model.embed_tokens.weight.shape[0]
    if rows != contract.vocabulary:
        raise ContractError(
            f"{folder}: the embedding has {rows} rows, the contract says {contract.vocabulary}; take the model "
            "again from its artifact"
        )
    return model


def open_llama(folder: Path, dtype: torch.dtype | None = None) -> LlamaForCausalLM:
    """Open any Llama folder that :func:`~ichigo.language.base.check_folder` accepts, expanded or not."""
    from transformers import LlamaForCausalLM

    check_folder(folder)
    model: LlamaForCausalLM = LlamaForCausalLM.from_pretrained(
        folder, dtype=dtype or "auto", use_safetensors=True, local_files_only=True, trust_remote_code=False
    )
    return model


def copy_companions(source: Path, folder: Path) -> None:
    """Copy :data:`COMPANIONS` and licence files of one model folder to another, whose weights are written apart."""
    present = [name for name in COMPANIONS if (source / name).is_file()]
    licences = [
        path.name for path in source.iterdir() if path.name.upper().startswith(("LICENSE", "LICENCE", "NOTICE"))
    ]
    for name in (*present, *licences):
        shutil.copyfile(source / name, folder / name)
