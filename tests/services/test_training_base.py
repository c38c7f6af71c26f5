"""The text base trained by a real worker: it learns a small world, and gives the same bytes again, also when killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ichigo.language.base import check_folder, text_contract
from ichigo.language.checkpoint import open_llama
from ichigo.language.contract import CONTRACT_FILE, contract_for
from ichigo.language.layouts import Layouts, Sample, Turn
from ichigo.recipe.schema import TrainBase
from ichigo.training import Point, StageJob, StageResult, run_stage
from ichigo.training.base import Conversation, train_base

SETTINGS = TrainBase(
    kind="train",
    width=64,
    layers=2,
    heads=4,
    kv_heads=4,
    feed_forward=128,
    vocabulary=400,
    steps=200,
    batch_tokens=256,
    learning_rate=2e-2,
    warmup_steps=5,
)
TEXTS = ["sorry i did not catch that"]
ROOMS, THINGS = ("kitchen", "garage", "office", "attic"), ("light", "heater", "radio", "fan")


def conversations() -> list[Conversation]:
    single: list[Conversation] = [
        [(f"turn {way} the {room} {thing}", f"turning {way} the {room} {thing}")]
        for room in ROOMS
        for thing in THINGS
        for way in ("on", "off")
    ]
    return [*single, *([*one, *other] for one, other in zip(single, reversed(single), strict=True))]


def run(folder: Path) -> tuple[StageResult, list[Point]]:
    points: list[Point] = []

    def carry_out(job: StageJob) -> StageResult:
        return run_stage(job, folder / "work" / "stage", points.append)

    return train_base(conversations(), TEXTS, SETTINGS, 3, folder / "base", folder / "work", carry_out), points


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult, list[Point]]:
    folder = tmp_path_factory.mktemp("base")
    return folder, *run(folder)


def answer(base: Path, question: str) -> str:
    layouts = Layouts.open(base, text_contract(base))
    prompt = layouts.prompt_for(Sample("text", (Turn(question),)))
    ids = torch.from_numpy(prompt).long()[None]
    model: Any = open_llama(base)
    with torch.no_grad():
        written = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    return layouts.answer_of(written[0, len(prompt) :].tolist())


def test_it_learns_what_it_was_taught(trained: tuple[Path, StageResult, list[Point]]) -> None:
    folder, result, points = trained
    assert points[0]["loss"] > 4
    assert result.loss < 0.1
    assert result.steps == len(points) == SETTINGS.steps
    for way, room, thing in [("on", "attic", "fan"), ("off", "attic", "fan"), ("on", "kitchen", "light")]:
        assert answer(folder / "base", f"turn {way} the {room} {thing}") == f"turning {way} the {room} {thing}"


def test_it_is_a_base_like_any_other(trained: tuple[Path, StageResult, list[Point]]) -> None:
    base = trained[0] / "base"
    check_folder(base)
    assert not (base / CONTRACT_FILE).exists()
    contract = contract_for(base, "whispervq:abc")
    assert contract.sound_codes == 513
    Layouts.open(base, contract)


def test_the_same_arguments_give_the_same_bytes(trained: tuple[Path, StageResult, list[Point]], tmp_path: Path) -> None:
    run(tmp_path)
    require_same_bytes(trained[0] / "base", tmp_path / "base")


def test_one_that_is_killed_goes_on_and_gives_the_same_bytes(
    trained: tuple[Path, StageResult, list[Point]], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tests.services.base_launcher", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout
        assert any(line.startswith("recorded 0000005") for line in killed.stdout)  # after a quarter of the steps
        killed.kill()
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert int(next(line for line in again if line.startswith("resumed")).split()[1]) in {50, 100, 150}
    points = [json.loads(line.removeprefix("point ")) for line in again if line.startswith("point ")]
    assert [point["loss"] for point in points] == [point["loss"] for point in trained[2]]
    require_same_bytes(trained[0] / "base", tmp_path / "base")


def require_same_bytes(first: Path, again: Path) -> None:
    names = sorted(path.name for path in first.iterdir())
    assert names == sorted(path.name for path in again.iterdir())
    assert [name for name in names if (first / name).read_bytes() != (again / name).read_bytes()] == []
