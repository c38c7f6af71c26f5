"""A Llama that computes the summed loss of a packed micro-batch, and how it is loaded and exported."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from ichigo.language.checkpoint import copy_companions, load_model
from ichigo.language.contract import TokenContract
from ichigo.language.layouts import IGNORE
from ichigo.language.packing import PackedSequence
from ichigo.linear import use_products
from ichigo.recipe.schema import Launch
from ichigo.training import attention
from ichigo.training.head import LossHead

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class MicroBatch:
    """Packed sequences laid end to end, never padded.

    ``input_ids``, ``position_ids``: int64 (1, tokens); ``cu_seqlens``: int32 (segments + 1,); ``longest``: tokens of
    the longest segment; ``rows``, ``targets``: int64 (labelled,), positions whose *next* token carries loss, and those
    tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    cu_seqlens: Tensor
    longest: int
    rows: Tensor
    targets: Tensor

    @classmethod
    def join(cls, sequences: Iterable[PackedSequence], device: torch.device) -> MicroBatch:
        """Join packed sequences; rows are found on the host so that the device need not wait for a count."""
        ids, labels, borders, positions = zip(*sequences, strict=True)
        lengths = np.concatenate([np.diff(border) for border in borders])
        all_labels = np.concatenate(labels)
        labelled = np.flatnonzero(all_labels != IGNORE)

        def on_device(array: NDArray[Any], dtype: type[np.generic]) -> Tensor:
            return torch.from_numpy(array.astype(dtype)).to(device)

        return cls(
            input_ids=on_device(np.concatenate(ids)[None], np.int64),
            position_ids=on_device(np.concatenate(positions)[None], np.int64),
            cu_seqlens=on_device(np.concatenate([[0], lengths.cumsum()]), np.int32),
            longest=int(lengths.max()),
            rows=on_device(labelled - 1, np.int64),
            targets=on_device(all_labels[labelled], np.int64),
        )


class StageModel(nn.Module):
    """A Llama with :class:`LossHead`; the forward pass is the summed loss, in nats, of one micro-batch."""

    def __init__(self, llama: LlamaForCausalLM) -> None:
        super().__init__()
        self.llama = llama
        self.llama.lm_head = LossHead(llama.lm_head.weight)
        use_products(self.llama)

    @classmethod
    def load(cls, folder: Path, contract: TokenContract, launch: Launch) -> StageModel:
        """Open a model folder in the precision of ``launch``; raises what ``language.checkpoint.load_model`` raises."""
        llama = load_model(folder, contract, DTYPES[launch.precision])
        llama.set_attn_implementation(attention.NAME)
        if launch.activation_checkpointing:
            llama.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[no-untyped-call]
        return cls(llama.train())

    def forward(self, batch: MicroBatch) -> Tensor:
        """Sum over the labelled tokens of ``batch``; a scalar in fp32."""
        hidden = self.llama.model(
            input_ids=batch.input_ids,
            position_ids=batch.position_ids,
            cu_seq_lens_q=batch.cu_seqlens,
            max_length_q=batch.longest,
            use_cache=False,
        ).last_hidden_state
        loss: Tensor = self.llama.lm_head(hidden[0].index_select(0, batch.rows), batch.targets)
        return loss


def export(weights: dict[str, Tensor], parent: Path, output: Path) -> None:
    """Write a model folder: ``weights`` under Llama's names, everything else from the ``parent`` folder.

    ``config.json`` gets the dtype of the weights; the same weights always give the same bytes.
    """
    output.mkdir(parents=True, exist_ok=True)
    copy_companions(parent, output)
    if (generation := parent / "generation_config.json").exists():
        shutil.copyfile(generation, output / generation.name)
    config = json.loads((parent / "config.json").read_bytes())
    config["dtype"] = str(next(iter(weights.values())).dtype).removeprefix("torch.")
    (output / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    save_file(weights, output / "model.safetensors", metadata={"format": "pt"})
