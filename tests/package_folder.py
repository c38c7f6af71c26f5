"""A package on disk, of a model with random weights and a causal speech tokenizer, and what it should answer."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import soundfile

from ichigo.inference.session import Session
from ichigo.registry.package import SPEECH_TOKENIZER, environment, write_package
from ichigo.speech.synthesis import Request, speak_all
from tests.unit.model_folder import make_model
from tests.unit.test_whisper_vq_stream import causal

PROGRAM = Path(__file__).with_name("load_package.py")
LIMIT = 8  # tokens of an answer, as PROGRAM asks for


@dataclass(frozen=True)
class Packed:
    """A package's folder, the folders it is made of, and what its model answers to a recording here."""

    folder: Path
    model: Path
    tokenizer: Path
    audio: Path
    samples: list[float]
    expected: str

    def load(self, python: str, uri: str, constraints: Path | None, scratch: Path) -> dict[str, Any]:
        """What :data:`PROGRAM` prints under the interpreter ``python`` for the package at ``uri``."""
        request = {"uri": uri, "constraints": constraints and str(constraints), "audio": str(self.audio)}
        asked = scratch / "request.json"
        asked.write_text(json.dumps({**request, "samples": self.samples, "rate": 16_000}))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [python, str(PROGRAM), str(asked)], cwd=scratch, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(base64.b64decode(done.stdout.splitlines()[-1]))
        return found


def make_package_folder(root: Path) -> Packed:
    """Make model and tokenizer below ``root``, and a package of them without a store."""
    tokenizer, model, folder = (root / name for name in ("tokenizer", "model", "package"))
    heard = causal(12)
    heard.save(tokenizer)
    make_model(model, heard.identity())
    shutil.copytree(model, folder)
    shutil.copytree(tokenizer, folder / SPEECH_TOKENIZER)
    write_package(folder, environment())
    (said,) = speak_all([Request("turn on the kitchen light", "en-us", 175, 50)])
    audio = root / "question.wav"
    soundfile.write(audio, said.waveform, 16_000, subtype="FLOAT")
    reply = Session.open(model, tokenizer).ask(said.waveform, max_new_tokens=LIMIT)
    return Packed(folder, model, tokenizer, audio, [float(sample) for sample in said.waveform], reply.text)
