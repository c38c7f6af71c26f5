"""Packed attention, products and the chunked loss against the plain computation, values and gradients."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers.models.llama.configuration_llama import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaForCausalLM

from ichigo.language.layouts import IGNORE, Example
from ichigo.language.packing import Packed, pack
from ichigo.linear import product, use_products
from ichigo.training import attention
from ichigo.training import head as head_module
from ichigo.training.head import CHUNK, KEPT, LossHead
from ichigo.training.model import MicroBatch, StageModel

CPU = torch.device("cpu")
VOCABULARY = 60


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def llama() -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        initializer_range=0.3,  # large enough that what a token attends to changes its logits
    )
    return LlamaForCausalLM(config)


def examples(lengths: tuple[int, ...] = (9, 14, 5, 2, 20)) -> list[Example]:
    random = np.random.default_rng(0)
    made = []
    for length in lengths:
        ids = random.integers(0, VOCABULARY, length).astype(np.int32)
        made.append(Example(ids, np.where(np.arange(length) < length // 3 + 1, IGNORE, ids).astype(np.int32)))
    return made


def joined(packed: Packed) -> MicroBatch:
    return MicroBatch.join([packed.sequence(index) for index in range(len(packed))], CPU)


def one_by_one(model: Any, packed: Packed) -> list[tuple[Tensor, Tensor]]:
    """Logits and labels of each example alone, in packed order, with transformers' own attention."""
    borders = packed.example_offsets
    pairs = []
    for first, last in pairwise(borders):
        ids = torch.from_numpy(packed.input_ids[first:last].astype(np.int64))[None]
        labels = torch.from_numpy(packed.labels[first:last].astype(np.int64))
        pairs.append((model(input_ids=ids).logits[0], labels))
    return pairs


def packed_logits(model: Any, batch: MicroBatch) -> Tensor:
    model.set_attn_implementation(attention.NAME)
    logits: Tensor = model(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        cu_seq_lens_q=batch.cu_seqlens,
        max_length_q=batch.longest,
    ).logits[0]
    return logits


@pytest.fixture
def packed() -> Packed:
    sequences = pack(examples(), 32, True)
    assert len(sequences) < len(sequences.example_offsets) - 1  # some sequence holds several examples
    return sequences


@torch.no_grad()
def test_packed_logits_are_those_of_each_example_alone(packed: Packed) -> None:
    alone = torch.cat([logits for logits, _ in one_by_one(llama().eval(), packed)])
    torch.testing.assert_close(packed_logits(llama().eval(), joined(packed)), alone, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_plain_causal_mask_would_let_examples_see_each_other(packed: Packed) -> None:
    alone = torch.cat([logits for logits, _ in one_by_one(llama().eval(), packed)])
    batch = joined(packed)
    causal = llama().eval()(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=torch.ones_like(batch.input_ids),
    )
    assert (causal.logits[0] - alone).abs().max() > 0.1


@torch.no_grad()
def test_a_mask_is_refused() -> None:
    states = torch.zeros(1, 2, 4, 8)
    with pytest.raises(ValueError, match="no attention_mask"):
        attention.segment_attention(
            nn.Module(), states, states, states, torch.ones(1, 4), cu_seq_lens_q=torch.tensor([0, 4]), max_length_q=4
        )


class Varlen(ModuleType):
    """``torch.nn.attention.varlen`` as some torch has it, attending on the CPU."""

    def __init__(self, torch_version: str) -> None:
        super().__init__("varlen")
        self.calls = 0
        if torch_version == "2.10":
            self.varlen_attn: Any = self.of_2_10
        else:
            self.varlen_attn = self.of_2_11 if torch_version == "2.11" else self.of_2_13

    def of_2_10(self, query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, is_causal: bool = False) -> None:
        raise AssertionError("it takes no scale and no window")

    def of_2_11(
        self, query: Tensor, key: Tensor, value: Tensor, cu_seq_q: Tensor, cu_seq_k: Tensor, max_q: int, max_k: int, *,
        scale: float | None = None, window_size: tuple[int, int] = (-1, -1),
    ) -> Tensor:  # fmt: skip
        """(tokens, heads, width) each; refuses grouped keys."""
        self.calls += 1
        assert query.shape == key.shape == value.shape
        assert max_q == max_k == int(cu_seq_q.diff().max())
        assert window_size == (-1, 0)
        found = []
        for first, last in pairwise(cu_seq_q.tolist()):
            q, k, v = (part[first:last].transpose(0, 1) for part in (query, key, value))
            own = (q @ k.mT * (scale or q.shape[-1] ** -0.5)).masked_fill(
                torch.ones(last - first, last - first, dtype=torch.bool).triu(1), float("-inf")
            )
            found.append((own.softmax(-1) @ v).transpose(0, 1))
        return torch.cat(found)

    def of_2_13(self, query: Tensor, key: Tensor, value: Tensor, *rest: Any, enable_gqa: bool = False,
                scale: float | None = None, window_size: tuple[int, int] = (-1, -1)) -> Tensor:  # fmt: skip
        """The same, which repeats grouped keys itself."""
        assert enable_gqa
        key, value = (part.repeat_interleave(query.shape[1] // part.shape[1], 1) for part in (key, value))
        return self.of_2_11(query, key, value, *rest, scale=scale, window_size=window_size)


@pytest.fixture
def varlen(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Varlen | None:
    """This torch has the kernel of another one; None stands for a torch without any."""
    module = Varlen(request.param) if request.param else None
    monkeypatch.setitem(sys.modules, "torch.nn.attention.varlen", module)
    return module


@torch.no_grad()
@pytest.mark.parametrize("varlen", ["2.11", "2.13"], indirect=True)
def test_torch_s_kernel_in_place_of_the_loop_gives_the_same(
    packed: Packed, varlen: Varlen, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = packed_logits(llama().eval(), joined(packed))
    found = attention.kernel("cuda", torch.bfloat16)
    monkeypatch.setattr(attention, "kernel", lambda device, dtype: found)
    torch.testing.assert_close(packed_logits(llama().eval(), joined(packed)), loop, rtol=0, atol=1e-5)
    assert varlen.calls == 2  # once for each layer


@pytest.mark.parametrize("varlen", [None, "2.10"], indirect=True)
def test_where_torch_has_no_kernel_that_can_the_loop_serves_on_a_gpu_too(varlen: Varlen | None) -> None:
    assert attention.kernel("cuda", torch.bfloat16) is None


def test_the_kernel_serves_in_16_bit_on_a_gpu_alone() -> None:
    assert attention.kernel("cuda", torch.bfloat16) is not None
    assert attention.kernel("cuda", torch.float32) is None
    assert attention.kernel("cpu", torch.bfloat16) is None


@pytest.mark.parametrize("varlen", [None], indirect=True)
def test_a_stage_needs_nothing_that_torch_2_11_lacks(
    packed: Packed, varlen: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has no ``linear_cross_entropy``, which would not have to hold the logits either."""
    model = llama()
    model.set_attn_implementation(attention.NAME)
    expected = StageModel(model)(joined(packed))
    for module in (torch.nn.functional, torch.nn):
        for name in ("linear_cross_entropy", "LinearCrossEntropyLoss", "LinearCrossEntropyOptions"):
            monkeypatch.delattr(module, name, raising=False)
    assert StageModel(model)(joined(packed)).item() == expected.item()


@pytest.mark.parametrize("recompute", [False, True])
def test_the_loss_and_every_gradient_equal_those_of_the_unpacked_examples(packed: Packed, recompute: bool) -> None:
    plain = llama()
    losses = [
        cross_entropy(logits[:-1], labels[1:], reduction="sum", ignore_index=IGNORE)
        for logits, labels in one_by_one(plain, packed)
    ]
    expected = torch.stack(losses).sum()
    gradients = torch.autograd.grad(expected, list(plain.parameters()))
    ours = llama()
    ours.set_attn_implementation(attention.NAME)
    if recompute:
        ours.gradient_checkpointing_enable({"use_reentrant": False})
    loss = StageModel(ours.train())(joined(packed))
    loss.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=0)
    for (name, parameter), gradient in zip(ours.named_parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=1e-4, atol=1e-4, msg=name)


@pytest.mark.parametrize("shape", [(7, 16), (1, 5, 16), (0, 16)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_product_is_torch_s_linear_with_its_gradients(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    rows, weight = (torch.randn(size, dtype=dtype, requires_grad=True) for size in (shape, (24, 16)))
    ours, theirs = product(rows, weight), linear(rows, weight)
    gradient = torch.randn_like(theirs)
    torch.testing.assert_close(ours, theirs)
    for pair in zip(*(torch.autograd.grad(found, [rows, weight], gradient) for found in (ours, theirs)), strict=True):
        torch.testing.assert_close(*pair)


def test_layers_in_place_of_torch_s_keep_names_parameters_and_results() -> None:
    module = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Sequential(nn.Linear(4, 2)))
    names = {name: id(parameter) for name, parameter in module.named_parameters()}
    rows = torch.randn(5, 3)
    before = module(rows)
    use_products(module)
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == names
    assert not any(isinstance(layer, nn.Linear) for layer in module.modules())
    torch.testing.assert_close(module(rows), before)


def head_and_rows(rows: int, columns: int = 40) -> tuple[LossHead, Tensor, Tensor]:
    torch.manual_seed(1)
    head = LossHead(nn.Parameter(torch.randn(columns, 16)))
    return head, torch.randn(rows, 16, requires_grad=True), torch.randint(columns, (rows,))


@pytest.mark.parametrize("rows", [1, CHUNK, CHUNK + 1, 3 * CHUNK - 7])
@pytest.mark.parametrize("kept", [True, False], ids=["kept", "chunked"])
def test_the_loss_is_the_cross_entropy(rows: int, kept: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head_module, "KEPT", KEPT if kept else 0)
    head, hidden, targets = head_and_rows(rows)
    gradients = torch.autograd.grad(head(hidden, targets), [hidden, head.weight])
    plain = cross_entropy(hidden @ head.weight.T, targets, reduction="sum")
    torch.testing.assert_close(head(hidden, targets), plain)
    for ours, theirs in zip(gradients, torch.autograd.grad(plain, [hidden, head.weight]), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_micro_batch_without_loss_still_has_a_backward_pass(packed: Packed) -> None:
    silent = Packed(
        packed.input_ids,
        np.full_like(packed.labels, IGNORE),
        packed.example_offsets,
        packed.sequence_offsets,
        packed.sequence_length,
    )
    model = llama()
    model.set_attn_implementation(attention.NAME)
    loss = StageModel(model)(joined(silent))
    loss.backward()
    assert loss.item() == 0
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


class Largest(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records the largest tensor, in elements, that any operation returns."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        sizes = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, Tensor)]
        self.elements = max([self.elements, *sizes])
        return result


def test_the_logits_never_exist_as_a_whole() -> None:
    columns = 2000
    head, hidden, targets = head_and_rows(8 * CHUNK, columns)
    with Largest() as largest:
        head(hidden, targets).backward()
    assert largest.elements == CHUNK * columns


def test_the_loss_is_summed_in_fp32_from_bf16_states() -> None:
    head, hidden, targets = head_and_rows(2 * CHUNK)
    exact = head(hidden, targets)
    half = LossHead(nn.Parameter(head.weight.detach().bfloat16()))
    loss = half(hidden.detach().bfloat16(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, exact, rtol=1e-2, atol=0)
