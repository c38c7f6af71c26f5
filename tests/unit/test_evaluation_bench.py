"""``ichigo bench``: what is kept of each run, and the files that it leaves."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ichigo.cli import bench
from ichigo.cli.bench import machine, measured, seeds, variants, write
from ichigo.errors import DataError

HELD_OUT = "spoken.held_out.exact_match"


def summary(status: str = "done", exact: float = 0.9) -> dict[str, Any]:
    """A run that began 5 s after its command: two steps, the last stage ending 600 s after the begin."""
    steps = [
        {"name": "prepare", "status": status, "ended_seconds": 60.0, "peak_memory": 3 * 2**30},
        {"name": "enhance", "status": "done", "ended_seconds": 600.0, "peak_memory": 2**30},
        {"name": "evaluate", "status": "done", "ended_seconds": 690.0, "peak_memory": 2**30},
    ]
    return {
        "recipe": "tiny",
        "run_key": "tiny-1",
        "fingerprint": "f",
        "started": 1005.0,
        "evaluation": {HELD_OUT: exact},
        "gate": {"verdict": "promote", "rules": []},
        "model": None,
        "steps": [{**step, "seconds": 1.0, "startup_seconds": 2.0} for step in steps],
    }


def test_times_count_from_the_command_to_the_last_stage_and_to_the_end() -> None:
    run = measured("seed 3", summary(), asked=1000.0, answered=1700.0)
    assert run["metrics"] == {
        HELD_OUT: 0.9,
        "run.model_seconds": 605.0,
        "run.seconds": 700.0,
        "run.peak_memory": 3.0 * 2**30,
    }


def test_a_run_that_reused_work_has_no_times() -> None:
    run = measured("seed 3", summary("reused"), asked=1000.0, answered=1200.0)
    assert run["reused"] == ["prepare"]
    assert {"run.model_seconds", "run.seconds"}.isdisjoint(run["metrics"])


def test_the_files_hold_command_machine_table_and_every_run(tmp_path: Path) -> None:
    runs = [
        measured("seed 1", summary(exact=0.86), asked=1000.0, answered=1700.0),
        measured("seed 2", summary("reused", exact=0.92), asked=2000.0, answered=2100.0),
    ]
    facts = {"cores": 2, "processor": "A CPU", "memory_gib": 8.0, "software": "Python 3.11"}
    command = "ichigo bench tiny --seeds 1,2 --out out"
    write(tmp_path, command, facts, runs)
    text = (tmp_path / "table.md").read_text()
    assert f"`{command}`\n\n2 cores, A CPU, 8 GiB; Python 3.11." in text
    assert "| ≥ 88.0 % | 89.0 [50.9, 127.1] | kept | 86.0 | 92.0 |" in text, "two runs say little: t is 12.7"
    assert "The run seed 2 reused prepare, so it has no times." in text
    assert "| ≤ 720 s | - | missed | 605 | - |" in text, "one seed's time is no mean"
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["command"], results["machine"], results["recipe"]) == (command, facts, "tiny")
    assert [run["name"] for run in results["runs"]] == ["seed 1", "seed 2"]
    assert results["runs"][0]["steps"][1]["ended_seconds"] == 600.0
    assert results["group"][HELD_OUT] == pytest.approx({"mean": 0.89, "low": 0.5088, "high": 1.2712}, abs=1e-4)
    assert bench.group(runs[:1]) == {}


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench.arguments(parser)
    return parser.parse_args([*words, "--out", "out"])


def folder_of(path: Path, *speakers: str) -> str:
    lines = [json.dumps({"file_name": f"{name}.wav", "text": "one", "speaker": name}) for name in speakers]
    (path / "metadata.jsonl").write_text("\n".join(lines))
    return str(path)


def test_each_run_is_the_recipe_with_another_seed_or_without_another_speaker(tmp_path: Path) -> None:
    assert variants(parsed("smoke", "--seeds", "4,2")) == {"seed 4": "seed=4", "seed 2": "seed=2"}
    args = parsed("smoke", "--leave-out-each", "--data", folder_of(tmp_path, "O'Hara: x", "ben"), "--set", "seed=7")
    planned = {name: bench._with(args, override) for name, override in variants(args).items()}
    assert {name: (recipe.data.leave_out, recipe.seed) for name, recipe in planned.items()} == {
        "without O'Hara: x": (("O'Hara: x",), 7),
        "without ben": (("ben",), 7),
    }


def test_seeds_and_speakers_are_not_varied_at_once() -> None:
    with pytest.raises(SystemExit):
        parsed("smoke", "--seeds", "1,2", "--leave-out-each")


def test_nobody_can_be_left_out_of_one_or_no_speaker(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"data\.folder is not set"):
        variants(parsed("smoke", "--leave-out-each"))
    with pytest.raises(DataError, match=r"names 1 speaker\(s\)"):
        variants(parsed("smoke", "--leave-out-each", "--data", folder_of(tmp_path, "ann")))


def test_the_table_of_left_out_speakers_has_their_numbers_and_the_mean(tmp_path: Path) -> None:
    found = {"transcription.folder": 0.7, "transcription.folder.low": 0.66, "transcription.folder.high": 0.74}
    runs = [
        measured(f"without {name}", {**summary(), "recipe": "digits", "evaluation": {**found, **more}}, 0.0, 9.0)
        for name, more in (("ann", {}), ("ben", {"transcription.folder": 0.4, "transcription.folder.items": 500.0}))
    ]
    write(tmp_path, "ichigo bench digits --leave-out-each", machine(), runs)
    text = (tmp_path / "table.md").read_text()
    assert "| measure | bar | mean |  | without ann | without ben |" in text
    assert "| ≥ 60.0 % | 55.0 [-135.6, 245.6] | missed | 70.0 [66.0, 74.0] | 40.0 [66.0, 74.0] |" in text
    assert "| … recordings asked |  | - |  | - | 500 |" in text


def test_a_machine_says_what_times_depend_on() -> None:
    facts = machine()
    assert facts["cores"] >= 1
    assert facts["memory_gib"] > 0.1
    assert facts["processor"]
    assert "torch 2." in facts["software"]


@pytest.mark.parametrize("text", ["1,1", "-1,2", "1,,2", "one"])
def test_seeds_must_be_different_numbers(text: str) -> None:
    with pytest.raises((argparse.ArgumentTypeError, ValueError)):
        seeds(text)
    assert seeds("4,2") == (4, 2)


def test_the_memory_of_workers_counts_as_their_step_s() -> None:
    """A step's own process stays small while torchrun's workers train; the largest of them is the number."""
    code = """
import subprocess, sys
from ichigo.steps.context import _peak_memory
worker = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'bytes([7]) * (300 * 2**20)'], check=True)"
subprocess.run([sys.executable, "-c", worker], check=True)
print(_peak_memory())
"""
    found = int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)
    assert found >= 300 * 2**20
