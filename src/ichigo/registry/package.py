"""A model as it leaves the house: one folder that MLflow and Hugging Face load, with nothing of ours installed.

::

    config.json  *.safetensors  tokenizer.json  contract.json …   the model folder, as it was trained
    speech-tokenizer/                                             the speech tokenizer of its contract
    MLmodel  model.py  code/ichigo/…                              MLflow's account, and the code that answers
    requirements.txt  constraints.txt  python_env.yaml  conda.yaml
    input_example.json                                            a spoken question

``mlflow.pyfunc.load_model`` takes the folder's address or its name in the registry,
``AutoModelForCausalLM.from_pretrained`` the folder: the weights lie in it once, for both.

``requirements.txt`` pins what the code imports, ``constraints.txt`` all that these need, at the versions with which
the package was made; a torch for CUDA or for CPUs satisfies both.
"""

from __future__ import annotations

import base64
import io
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import yaml

from ichigo.hashing import canonical_json
from ichigo.store.code import ROOT, reachable

REQUIRED = (
    *("mlflow", "boto3"),  # MLflow fetches s3:// by boto3, which it does not require
    *("torch", "transformers", "tokenizers", "safetensors", "numpy", "pandas", "soundfile", "pydantic", "PyYAML"),
)
"""What the code of a package imports and what fetches it; a test loads one with nothing else at hand."""

CODE_MODULE = "ichigo.inference.pyfunc"
SPEECH_TOKENIZER, SPEECH_FILES = "speech-tokenizer", ("tokenizer.json", "whisper-vq.model", "whisper.pt")
EXAMPLE_TEXT = "turn on the light"

_MODEL_FILE, _CODE, _EXAMPLE = "model.py", "code", "input_example.json"
_PROGRAM = '''"""What MLflow runs when it loads this folder; code/ichigo/inference/pyfunc.py says what a request is."""

from ichigo.inference.pyfunc import AudioToText
from mlflow.models import set_model

set_model(AudioToText())
'''
_MAX_NEW_TOKENS = 64  # unless a request says otherwise


@dataclass(frozen=True)
class Environment:
    """What a package needs to run, one ``name==version`` a line: what it imports, and all that this needs."""

    python: str
    requirements: tuple[str, ...]
    constraints: tuple[str, ...]


def environment() -> Environment:
    """What this process runs on, by the metadata of what is installed; nothing is imported."""
    everything = sorted(_closure(), key=str.lower)
    return Environment(platform.python_version(), tuple(map(_pin, REQUIRED)), tuple(map(_pin, everything)))


def write_package(folder: Path, needs: Environment) -> None:
    """Write everything but the model folder and the speech tokenizer into ``folder``; same code, same bytes."""
    for file in reachable(CODE_MODULE):
        place = folder / _CODE / file.relative_to(ROOT.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(file.read_bytes())
    (folder / _MODEL_FILE).write_text(_PROGRAM)
    _write_environment(folder, needs)
    (folder / _EXAMPLE).write_bytes(canonical_json(_example()))
    (folder / "MLmodel").write_text(yaml.safe_dump(_account(needs), sort_keys=True, width=120))


def _closure() -> set[str]:
    """The names of :data:`REQUIRED` and of all that is installed because of them."""
    from packaging.requirements import Requirement

    found: dict[str, str] = {}
    waiting = [(name, "") for name in REQUIRED]
    seen: set[tuple[str, str]] = set()
    while waiting:
        name, extra = waiting.pop()
        try:
            one = distribution(name)
        except PackageNotFoundError:
            continue  # for another machine or an extra that nobody took
        found[_plain(name)] = one.metadata["Name"]
        for line in one.requires or ():
            wanted = Requirement(line)
            if wanted.marker is None or wanted.marker.evaluate({"extra": extra}):
                new = {(wanted.name, inner) for inner in ("", *wanted.extras)} - seen
                seen |= new
                waiting.extend(sorted(new))
    return set(found.values())


def _plain(name: str) -> str:
    """A distribution's name as the package index compares it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _pin(name: str) -> str:
    """``name==version``, without the local part that says for which device a torch was built."""
    one = distribution(name)
    return f"{one.metadata['Name']}=={one.version.partition('+')[0]}"


def _write_environment(folder: Path, needs: Environment) -> None:
    (folder / "requirements.txt").write_text("\n".join(["-c constraints.txt", *needs.requirements, ""]))
    (folder / "constraints.txt").write_text("\n".join([*needs.constraints, ""]))
    virtualenv = {"python": needs.python, "build_dependencies": [], "dependencies": ["-r requirements.txt"]}
    pip = ["pip", {"pip": ["-c constraints.txt", *needs.requirements]}]
    conda = {"name": "mlflow-env", "channels": ["conda-forge"], "dependencies": [f"python={needs.python}", *pip]}
    for name, content in (("python_env.yaml", virtualenv), ("conda.yaml", conda)):
        (folder / name).write_text(yaml.safe_dump(content, sort_keys=True))


def _example() -> dict[str, Any]:
    """A request as MLflow keeps it: a table split into columns and rows, bytes in base64."""
    import soundfile

    from ichigo.speech.audio import SAMPLE_RATE, pcm16
    from ichigo.speech.synthesis import Request, speak_all

    (said,) = speak_all([Request(EXAMPLE_TEXT, "en-us", 175, 50)])
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm16(said.waveform), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return {"columns": ["audio"], "data": [[base64.b64encode(buffer.getvalue()).decode()]]}


def _account(needs: Environment) -> Mapping[str, Any]:
    """MLflow's ``MLmodel``: how the folder is loaded, and what goes in and comes out.

    Its own writer adds the time and a random id; without them the same model has the same bytes. The folder itself is
    the model that the code gets, so nothing in it has to be there twice.
    """
    from mlflow.models import Model, ModelSignature
    from mlflow.pyfunc import add_to_model
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    columns: list[Any] = [
        ColSpec(DataType.binary, "audio", required=False),
        ColSpec(DataType.string, "path", required=False),
        ColSpec(Array(DataType.double), "samples", required=False),
        ColSpec(DataType.long, "rate", required=False),
    ]
    params = ParamSchema([ParamSpec("max_new_tokens", DataType.long, _MAX_NEW_TOKENS)])
    signature = ModelSignature(Schema(columns), Schema([ColSpec(DataType.string)]), params)
    example = {"artifact_path": _EXAMPLE, "pandas_orient": "split", "type": "dataframe"}
    model = Model(signature=signature, saved_input_example_info=example)
    add_to_model(  # type: ignore[no-untyped-call]
        model,
        loader_module="mlflow.pyfunc.loaders.code_model",
        code=_CODE,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_code_path=_MODEL_FILE,
        artifacts={"model": _here("."), "speech_tokenizer": _here(SPEECH_TOKENIZER)},
        streamable=False,
    )
    account: dict[str, Any] = {
        name: value for name, value in model.to_dict().items() if name not in {"utc_time_created", "model_uuid"}
    }
    account["flavors"]["python_function"]["python_version"] = needs.python
    return account


def _here(path: str) -> dict[str, str]:
    """A part of the folder as ``MLmodel`` names what the code gets."""
    return {"path": path, "uri": path}
