"""Peak memory of the step ``prepare``, and for 16 times the rows: ``python -m tests.measure_preparing``.

Two subjects, each with a text of its own for every row: *recordings*, tones of a quarter of a second by 40 speakers,
and *instructions*, questions and answers in writing. They are read and written as a corpus by a process of their own,
the few rows first. Prints a table; the exit status is 1 if 16 times the rows take more than 1.1 times the memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np

from ichigo.corpus.audiofolder import METADATA
from ichigo.corpus.sources import open_sources
from ichigo.recipe.schema import Data, Instructions, TokenStrings
from ichigo.speech.audio import write_flac
from ichigo.steps.context import Step
from ichigo.steps.prepare import build
from ichigo.store import Draft
from tests.measure_tokenising import LIMIT, TIMES

RATE = 16_000


def recordings(folder: Path, count: int) -> Data:
    """Write a folder of ``count`` recordings; the data that names it."""
    time = np.arange(RATE // 4) / RATE
    with (folder / METADATA).open("w") as file:
        for number in range(count):
            wave = 0.3 * np.sin(2 * np.pi * (200 + number / 10) * time)
            (folder / f"{number}.flac").write_bytes(write_flac(wave.astype(np.float32)))
            row = {"file_name": f"{number}.flac", "text": said(number), "answer": f"yes {number}"}
            file.write(json.dumps({**row, "speaker": f"s{number % 40}"}) + "\n")
    return Data(folder=str(folder), held_out_speakers=0.25)


def instructions(folder: Path, count: int) -> Data:
    """Write ``count`` questions and answers, and a dozen token strings, without which there is no corpus."""
    with (folder / "asked.jsonl").open("w") as file:
        for number in range(count):
            file.write(json.dumps({"question": said(number), "output": f"yes {number}"}) + "\n")
    with (folder / "tokens.jsonl").open("w") as file:
        for number in range(12):
            file.write(json.dumps({"text": f"<|sound_start|><|sound_{number:04d}|><|sound_end|>"}) + "\n")
    strings = TokenStrings(kind="tokens", path=str(folder / "tokens.jsonl"), tokenizer="published")
    asked = Instructions(kind="instructions", path=str(folder / "asked.jsonl"), near_duplicates=1.0)
    return Data(sources=(strings, asked), held_out_speakers=0.25)


def said(number: int) -> str:
    """A question of its own."""
    return f"what is the number of bottles on wall {number} where {number * 7919 % 99991} of them are green"


def prepare(data: Data) -> dict[str, int]:
    """Do the step's work in this process; rows and texts of the corpus, and the peak memory in bytes."""
    step = SimpleNamespace(recipe=SimpleNamespace(data=data, seed=3), say=lambda _: None)
    with tempfile.TemporaryDirectory() as scratch, redirect_stdout(sys.stderr):
        draft = Draft(Path(scratch))
        build(cast(Step, step), data, open_sources(data, 3), draft)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {
        "texts": int(draft.facts["texts"]),
        "rows": int(draft.facts["rows"]),
        "peak": int(status["VmHWM"].split()[0]) << 10,
    }


def measure(subject: str, count: int) -> int:
    """Print a subject's rows of the table; the exit status."""
    peaks = []
    with tempfile.TemporaryDirectory() as scratch:
        for number in (count, TIMES * count):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            data = SUBJECTS[subject](folder, number)
            found = json.loads(child(data.model_dump_json()))
            peaks.append(found["peak"])
            print(f"{subject:<13} {found['rows']:<8} {found['texts']:<8} {found['peak'] / 2**20:.1f}", flush=True)
    ratio = peaks[1] / peaks[0]
    print(f"{TIMES} times the rows, times the memory: {ratio:.3f}; limit {LIMIT}")
    return int(ratio > LIMIT)


def child(data: str) -> str:
    """This module in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, "--data", data]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> int:
    """Measure, or do the part of a child."""
    parser = argparse.ArgumentParser(description="peak memory of the step prepare")
    parser.add_argument("--rows", type=int, default=1024, help="of the smaller source")
    parser.add_argument("--only", choices=[*SUBJECTS], help="one subject")
    parser.add_argument("--data", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.data:
        print(json.dumps(prepare(Data.model_validate_json(arguments.data))))
        return 0
    print("subject       rows     texts    peak MiB")
    return max(measure(subject, arguments.rows) for subject in SUBJECTS if arguments.only in (None, subject))


SUBJECTS: dict[str, Callable[[Path, int], Data]] = {"recordings": recordings, "instructions": instructions}


if __name__ == "__main__":
    sys.exit(main())
