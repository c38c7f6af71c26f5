"""Our tokenizer against the published packages, run live in an environment of their own.

``whisperspeech`` does not import after a plain install and wants an older torchaudio, so it never shares the project's
environment: :func:`oracle` installs ``tests/oracle/requirements.txt`` once into pytest's cache folder (a minute), and
``tests/oracle/program.py`` answers in a subprocess. Published weights cannot be fetched here; random ones of the same
geometry, saved by the packages themselves, take their place, with codes that sound really reaches.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ichigo.hashing import sha256_json
from ichigo.recipe.schema import FitTokenizer
from ichigo.speech.fit import fit
from ichigo.speech.mel import log_mel
from ichigo.speech.vq import WhisperVQ
from tests.unit.test_fit import utterance
from tests.unit.test_whisper_vq import sound

ORACLE = Path(__file__).parents[1] / "oracle"
TIE = 1e-5
MODELS = [
    {"name": "medium-2d-512c-dim64", "width": 1024, "heads": 16, "layers": 2, "seed": 0},
    {"name": "thin", "width": 128, "heads": 2, "layers": 4, "seed": 1},
]
SECONDS = [30.0, 29.99, 0.04, 8.777]
"""The first only teaches the random models their codes."""


@dataclass(frozen=True)
class Answers:
    """What the published packages said of ``waves``; the files of the models they said it with are in ``folder``."""

    folder: Path
    waves: list[NDArray[np.float32]]
    values: dict[str, NDArray[Any]]

    def tokens_that_differ(self, tokenizer: WhisperVQ, name: str, kind: str = "tokens") -> tuple[int, list[float]]:
        """Tokens compared, and the gap between the two best codes at each one that differs."""
        total, differing = 0, []
        for number, wave in list(enumerate(self.waves))[1:]:
            theirs, gaps = self.values[f"{name}/{number}/{kind}"], self.values[f"{name}/{number}/gaps"]
            (ours,) = tokenizer.encode([wave])
            assert ours.shape == theirs.shape
            total += ours.size
            differing += gaps[ours != theirs].tolist()
        return total, differing


@pytest.fixture(scope="session")
def oracle(request: pytest.FixtureRequest) -> Path:
    """The folder with the published packages, installed once for each list of requirements."""
    requirements = ORACLE / "requirements.txt"
    key = sha256_json([requirements.read_text(), sys.version])[:16]
    folder = request.config.cache.mkdir("oracle") / key
    if not folder.exists():
        _install(requirements, folder)
    return Path(folder)


def _install(requirements: Path, folder: Path) -> None:
    """Into a folder beside, then renamed: an install that broke off is never taken for a whole one."""
    draft = folder.with_name(f"{folder.name}.{os.getpid()}")
    arguments = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--quiet", "--target", str(draft)]
    command = [sys.executable, "-m", "pip", "install", *arguments, "--requirement", str(requirements)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        shutil.rmtree(draft, ignore_errors=True)
        reason = f"the published packages cannot be installed: {(done.stderr.strip().splitlines() or ['?'])[-1]}"
        if os.environ.get("CI"):
            pytest.fail(f"{reason}\n{done.stderr}")
        pytest.skip(reason)
    for library in (draft / "torchaudio" / "lib").glob("*.so"):
        library.unlink()  # built for CUDA's torch; without them torchaudio is pure Python, on purpose
    draft.rename(folder)


@pytest.fixture(scope="session")
def answers(oracle: Path, tmp_path_factory: pytest.TempPathFactory) -> Answers:
    folder = tmp_path_factory.mktemp("oracle")
    waves = [sound(seconds, 400 + number) for number, seconds in enumerate(SECONDS)]
    settings = FitTokenizer(
        kind="fit", width=64, layers=2, heads=2, codes=64, codebook_dim=16, steps=40, batch=4, learning_rate=4e-3
    )
    fit([utterance(seed) for seed in range(30)], settings, seed=1).save(folder / "fitted")
    np.savez(folder / "waves.npz", *waves)
    (folder / "job.json").write_text(json.dumps({"models": MODELS, "fitted": str(folder / "fitted")}))
    environment = os.environ | {"PYTHONPATH": str(oracle), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", str(ORACLE / "program.py"), str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return Answers(folder, waves, dict(np.load(folder / "answers.npz")))


@pytest.mark.parametrize(
    ("name", "spelling"),
    [
        ("medium-2d-512c-dim64", "rq.layers.0.project_"),
        ("thin", "rq.layers.0.project_"),
        ("thin", "rq.project_"),  # as in whisper-vq-stoks-v3-7lang-fixed.model
    ],
)
def test_tokens_are_those_of_whisperspeech(answers: Answers, tmp_path: Path, name: str, spelling: str) -> None:
    content = torch.load(answers.folder / f"{name}.model", weights_only=True)
    content["state_dict"] = {
        key.replace("rq.layers.0.project_", spelling): value for key, value in content["state_dict"].items()
    }
    torch.save(content, tmp_path / "vq.model")
    tokenizer = WhisperVQ.load(tmp_path / "vq.model", answers.folder / f"{name}.pt", "whisper30")
    assert tokenizer.codes == 513
    total, differing = answers.tokens_that_differ(tokenizer, name)
    print(f"{name}: {len(differing)} of {total} tokens differ, gaps {differing}")
    assert all(gap < TIE for gap in differing), "another code although one is clearly the best"
    assert len(differing) <= 0.01 * total
    long, _, short = (answers.values[f"{name}/{number}/tokens"] for number in range(1, len(SECONDS)))
    assert (long[: short.size] != short).mean() > 0.8, "the sound decides, not the position"
    assert len(np.unique(long)) > 100, "few codes would hide mistakes"


def test_whisperspeech_reads_our_files_and_gives_our_tokens(answers: Answers) -> None:
    folder = answers.folder / "fitted"
    exact = WhisperVQ.open(folder)
    padded = WhisperVQ.load(folder / "whisper-vq.model", folder / "whisper.pt", "whisper30")
    for tokenizer, kind in ((padded, "tokens"), (exact, "exact")):
        total, differing = answers.tokens_that_differ(tokenizer, "fitted", kind)
        print(f"{kind}: {len(differing)} of {total} tokens differ")
        assert len(differing) <= 0.01 * total


def test_the_mel_is_whispers(answers: Answers) -> None:
    for number, wave in list(enumerate(answers.waves))[1:]:
        np.testing.assert_allclose(log_mel(wave).numpy(), answers.values[f"mel/{number}"], atol=2e-5)
