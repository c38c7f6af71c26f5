"""What ``make gpu`` judges, on numbers made up here: which runs it must refuse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ichigo import recipe as recipes
from ichigo.recipe.schema import Launch
from tests import measure_gpu
from tests.measure_gpu import LARGE, Row, World, main, off, packing_faults, planned_memory

GOOD = Row(
    zero=2, first=5.0, last=1.0, off_zero_1=1e-6, off_repeated=0.0, off_resumed=0.0, same_bits=True,
    tokens_per_second=1e4, memory=1, planned=1,
)  # fmt: skip


def test_without_a_gpu_it_says_so_and_the_status_tells_it_from_a_failed_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main([]) == 2
    assert "no CUDA device on this machine, nothing was measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (replace(GOOD, last=5.1, first=5.0), "does not fall"),
        (replace(GOOD, off_zero_1=1e-3), "off by 0.001 from those of ZeRO 1"),
        (replace(GOOD, same_bits=False), "killed and resumed, it is off by 0"),  # the losses agree, some bit does not
        (replace(GOOD, same_bits=False, off_resumed=1e-7), "off by 1e-07; repeated, by 0"),
        (replace(GOOD, same_bits=False, off_resumed=1e-2, off_repeated=1e-3), "off by 0.01; repeated, by 0.001"),
        (replace(GOOD, same_bits=False, off_resumed=float("inf"), off_repeated=1e-3), "off by inf"),
    ],
)
def test_a_stage_that_is_not_as_it_must_be_is_a_fault(row: Row, fault: str) -> None:
    (found,) = row.faults("fp32")
    assert found.startswith("ZeRO 2: ")
    assert fault in found


def test_bits_may_differ_only_where_an_undisturbed_repetition_differs_as_much() -> None:
    assert GOOD.faults("fp32") == []
    assert replace(GOOD, same_bits=False, off_resumed=3e-3, off_repeated=1e-3).faults("bf16") == []


def test_a_run_with_fewer_points_is_no_equal() -> None:
    assert off([{"loss": 2.0}, {"loss": 1.0}], [{"loss": 2.0}, {"loss": 1.1}]) == pytest.approx(0.05)
    assert off([{"loss": 2.0}, {"loss": 1.0}], [{"loss": 2.0}]) == float("inf")


def test_packed_gradients_may_be_off_as_far_as_the_precision_makes_them() -> None:
    assert packing_faults({"packed": 0.015, "alone": 0.01}) == []
    assert packing_faults({"packed": 1e-6, "alone": 0.0}) == []
    assert packing_faults({"packed": 1e-3, "alone": 0.0}) != []
    assert packing_faults({"packed": 0.9, "alone": 0.01}) != []


def test_the_plan_is_the_recipe_s_some_45_gb_on_one_gpu_and_less_where_processes_share() -> None:
    recipe = recipes.load("llama-3.2-1b-one-gpu")
    world, stage = World(Path(), LARGE, 1_240_000_000, 128_771), recipe.stage("instruct")
    alone = planned_memory(world, stage, recipe.launch)
    assert 16 * 1.24e9 < alone < 45e9
    shares = [planned_memory(world, stage, Launch(processes=2, zero=zero, precision="bf16")) for zero in (1, 2, 3)]
    assert [alone - share for share in shares] == [int(1.24e9 * part / 2) for part in (12, 14, 16)]


def test_its_stage_is_that_of_smoke() -> None:
    base, stage = measure_gpu.smoke(24)
    assert base == recipes.load("smoke").base
    assert (stage.steps, stage.sequence_length) == (24, recipes.load("smoke").stage("instruct").sequence_length)
