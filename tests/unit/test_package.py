"""A package on disk: what is written into it, and what the code in it makes of a request."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import pandas
import pytest
import soundfile
import torch

from ichigo.cli.main import main
from ichigo.errors import DataError
from ichigo.registry.package import REQUIRED, environment, write_package
from tests.package_folder import Packed, make_package_folder

LIMIT = {"max_new_tokens": 8}


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Packed:
    torch.set_num_threads(1)
    return make_package_folder(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def model(packed: Packed) -> Iterator[Any]:
    """The package as MLflow loads it, here beside the checkout's own code."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        yield mlflow.pyfunc.load_model(str(packed.folder))


def wav(samples: Any, rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV", subtype="FLOAT")
    return buffer.getvalue()


def test_the_same_sources_give_the_same_bytes(packed: Packed, tmp_path: Path) -> None:
    write_package(tmp_path, environment())
    written = [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert {"MLmodel", "model.py", "requirements.txt", "constraints.txt", "input_example.json"} <= set(
        map(str, written)
    )
    assert all((tmp_path / path).read_bytes() == (packed.folder / path).read_bytes() for path in written)


def test_its_versions_are_pinned(packed: Packed) -> None:
    direct = (packed.folder / "requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in (packed.folder / "constraints.txt").read_text().split())
    assert direct[0] == "-c constraints.txt"
    assert [line.partition("==")[0] for line in direct[1:]] == list(REQUIRED)
    assert all(pinned[name] == version for name, version in (line.split("==") for line in direct[1:]))
    assert {"botocore", "huggingface-hub", "pandas"} <= {name.lower().replace("_", "-") for name in pinned}
    assert "deepspeed" not in pinned, "nothing that only trains"
    assert not [version for version in pinned.values() if "+" in version], "of no device's build"


def test_the_signature_says_what_goes_in_and_comes_out(model: Any) -> None:
    signature = model.metadata.signature
    assert signature.inputs.input_names() == ["audio", "path", "samples", "rate"]
    assert [column.type.name for column in signature.outputs] == ["string"]
    assert signature.params.to_dict()[0]["default"] == 64


def test_one_question_in_any_form_has_one_answer(packed: Packed, model: Any) -> None:
    samples = np.asarray(packed.samples, dtype=np.float32)
    forms: list[dict[str, Any]] = [
        {"audio": [packed.audio.read_bytes()]},
        {"path": [str(packed.audio)]},
        {"samples": [samples]},
        {"samples": [packed.samples], "rate": [16_000]},
    ]
    assert [model.predict(pandas.DataFrame(form), LIMIT) for form in forms] == [[packed.expected]] * 4


def test_rows_are_answered_in_their_order_at_any_rate(packed: Packed, model: Any) -> None:
    """A rate of 8 kHz loses the upper half of the spectrum, so only its length is compared."""
    samples = np.asarray(packed.samples, dtype=np.float32)
    half = samples[: samples.size // 2]
    asked = pandas.DataFrame({"audio": [wav(half), wav(samples), wav(np.stack([samples, samples], axis=1))]})
    said = model.predict(asked, LIMIT)
    assert said[1:] == [packed.expected] * 2
    assert said[0] != packed.expected
    assert len(model.predict(pandas.DataFrame({"samples": [samples[::2]], "rate": [8_000]}), LIMIT)) == 1


def test_its_own_example_is_a_question(model: Any) -> None:
    assert len(model.predict(model.input_example, LIMIT)) == 1


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"audio": [b""]}, r"row 0: the file is empty"),
        ({"audio": [b"RIFF" * 20]}, r"row 0: damaged, or no sound file at all"),
        ({"audio": [wav(np.zeros(100, np.float32))]}, r"row 0: the recording lasts 6\.25 ms"),
        ({"audio": [wav(np.zeros(170 * 16_000, np.float32))]}, r"row 0: the recording lasts 170\.0 s.*at most"),
        ({"audio": [wav(np.full(16_000, np.nan, np.float32))]}, r"row 0: 16000 of 16000 samples are NaN"),
        ({"audio": ["question.wav"]}, r"row 0: audio is str; give the bytes of a file, or its name as path"),
        ({"path": ["/nowhere/question.wav"]}, r"row 0: /nowhere/question\.wav: no such file"),
        ({"samples": [[]]}, r"row 0: samples have shape \(0,\)"),
        ({"samples": [[0.1] * 16_000], "rate": [0]}, r"row 0: a rate of 0 Hz"),
        ({"samples": [[0.1] * 16_000], "rate": [10]}, r"row 0: 10 Hz; convert it to 4000 to 384000 Hz"),
        ({"samples": [[900.0] * 16_000]}, r"row 0: samples reach 900; scale them"),
        ({"path": ["a.wav"], "audio": [b"1"]}, r"the columns are audio, path; give recordings in one of"),
        ({"rate": [16_000]}, r"the columns are rate; give recordings in one of audio, path, samples"),
    ],
)
def test_a_request_that_cannot_be_answered_is_told_why(model: Any, form: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        model.predict(pandas.DataFrame(form), LIMIT)


def test_the_folder_is_asked_by_its_own_tokenizer(packed: Packed, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ask", str(packed.audio), "--model", str(packed.folder), "--max-new-tokens", "8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["turns"][0]["answer"] == packed.expected


def test_the_row_that_is_wrong_is_named(packed: Packed, model: Any) -> None:
    with pytest.raises(DataError, match="row 1: the file is empty"):
        model.predict(pandas.DataFrame({"audio": [packed.audio.read_bytes(), b""]}), LIMIT)
