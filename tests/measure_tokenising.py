"""Peak memory of tokenising a shard, and one of 16 times its rows: ``python -m tests.measure_tokenising``.

Each shard is tokenised twice by processes of their own, with an empty cache and as part of another corpus that the
cache knows, from and to a real S3 server. Prints a table; the exit status is 1 if 16 times the rows take more than 1.1
times the memory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ichigo.corpus.rows import Row, row_id, sound_digest
from ichigo.corpus.shards import write_shards
from ichigo.speech.audio import write_flac
from ichigo.speech.vq import WhisperVQ
from ichigo.steps.tokenize import build
from ichigo.store import Identity, Reference, S3Objects, Store
from tests.services.s3_process import S3Process
from tests.unit.test_whisper_vq import random_model, random_whisper

STORE = "s3://measure/store"
SHARD = "shard-00000.parquet"
TIMES = 16
LIMIT = 1.1


def rows(count: int) -> Iterator[Row]:
    """Noise of 0.25 to 0.75 s."""
    for number in range(count):
        random = np.random.default_rng(number)
        wave = random.uniform(-0.3, 0.3, 4000 + int(random.integers(8000))).astype(np.float32)
        name = f"row {number}"
        yield Row(
            id=row_id(sound_digest(wave), name, None), text=name, answer=None, speaker="", language="", license="",
            split="test" if number % 9 == 0 else "train", seconds=len(wave) / 16000, audio=write_flac(wave),
            origin="folder",
        )  # fmt: skip


def prepare(store: Store, folder: Path, count: int) -> None:
    """Commit a tokenizer, a stand-in for a contract and two corpora of the same rows; save their references."""
    import torch

    whisper = random_whisper()
    torch.save(whisper, folder / "whisper.pt")
    torch.save(random_model(whisper), folder / "vq.model")
    tokenizer = WhisperVQ.load(folder / "vq.model", folder / "whisper.pt", "exact")
    write_shards(rows(count), folder / "shards", 1)
    for name in ("tokenizer", "contract", "corpus", "again"):
        with store.write(Identity("corpus" if name == "again" else name, {name: count}, {}, ""), parents={}) as draft:
            if name == "tokenizer":
                tokenizer.save(draft.folder)
            elif name == "contract":
                (draft.folder / "contract.json").write_text("{}")
            else:
                shutil.copy(folder / "shards" / SHARD, draft.folder)
                (draft.folder / "name").write_text(name)
        draft.committed.reference.save(folder / name)


def tokenise(store: Store, folder: Path, corpus: str) -> dict[str, int]:
    """Do the step's work in this process; its facts and its peak memory in bytes."""
    names = {"corpus": corpus, "tokenizer": "tokenizer", "contract": "contract"}
    inputs = {name: store.open(Reference.load(folder / file)) for name, file in names.items()}
    identity = Identity("tokens", {}, {name: one.digest for name, one in inputs.items()}, "")
    with store.write(identity, parents={}) as draft:
        build(store.objects, SHARD, inputs, draft)
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {**draft.facts, "peak": int(status["VmHWM"].split()[0]) << 10}


def child(*arguments: str) -> str:
    """This module in a process of its own."""
    command = [sys.executable, "-m", __spec__.name, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(count: int) -> int:
    """Print the table; the exit status."""
    peaks: dict[str, list[int]] = {"corpus": [], "again": []}
    print("rows      cache   encoded  peak MiB")
    with tempfile.TemporaryDirectory() as scratch, S3Process(Path(scratch) / "s3") as server:
        os.environ.update(server.environment())
        S3Objects(STORE)._client.create_bucket(Bucket="measure")
        for number in (count, TIMES * count):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            child("prepare", str(folder), str(number))
            for corpus, cache in (("corpus", "empty"), ("again", "full")):
                found = json.loads(child("tokenise", str(folder), corpus))
                peaks[corpus].append(found["peak"])
                print(f"{found['rows']:<9} {cache:<7} {found['encoded']:<8} {found['peak'] / 2**20:.1f}", flush=True)
    ratios = {corpus: own[1] / own[0] for corpus, own in peaks.items()}
    said = ", ".join(f"{ratio:.3f} ({corpus})" for corpus, ratio in ratios.items())
    print(f"{TIMES} times the rows, times the memory: {said}; limit {LIMIT}")
    return int(max(ratios.values()) > LIMIT)


def main() -> int:
    """Measure, or do the part of a child."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=int, default=1024, help="of the smaller shard; one batch of the step is 1024")
    arguments = parser.parse_args()
    if not arguments.part:
        return measure(arguments.rows)
    part, folder, what = arguments.part
    store = Store.at(f"{STORE}/{Path(folder).name}")  # a cache for each size
    if part == "prepare":
        prepare(store, Path(folder), int(what))
    else:
        print(json.dumps(tokenise(store, Path(folder), what)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
