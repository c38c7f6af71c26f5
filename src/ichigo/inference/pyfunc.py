"""The model as MLflow runs it: recordings in, answers out.

This is the code in a package (:mod:`ichigo.registry.package`): MLflow puts the package's copy of the rooms that it
needs before everything else on the path, opens the model folder, and calls :meth:`AudioToText.predict`.

A request is a table with one row per question and one of these columns:

==========  ===========================================================================================
``audio``   bytes of a WAV, FLAC, Ogg or MP3 file, of any rate and any number of channels
``path``    the name of such a file where the model runs
``samples`` an array of samples in [-1, 1], one channel; its ``rate`` in Hz is 16,000 unless a column says
==========  ===========================================================================================

The parameter ``max_new_tokens`` is the length of the longest answer.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import soundfile
from mlflow.pyfunc.model import PythonModel

from ichigo.errors import DataError
from ichigo.inference.session import MAX_NEW_TOKENS, Session, Waveform
from ichigo.speech.audio import SAMPLE_RATE, read_audio

COLUMNS = ("audio", "path", "samples")


class AudioToText(PythonModel):
    """A session behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Open the artifacts ``model`` and ``speech_tokenizer``; raises what :meth:`Session.open` raises."""
        folders = context.artifacts
        self._session = Session.open(Path(folders["model"]), Path(folders["speech_tokenizer"]))

    def predict(
        self, context: Any, model_input: pandas.DataFrame, params: Mapping[str, Any] | None = None
    ) -> list[str]:
        """The answer to every row of a table.

        Raises:
            DataError: a table without one column of recordings, or, with the number of its row, a recording that is
                empty, damaged, too short or too long, or a rate that no recording has.
        """
        limit = int((params or {}).get("max_new_tokens", MAX_NEW_TOKENS))
        return [self._answer(number, waveform, limit) for number, waveform in enumerate(recordings(model_input))]

    def _answer(self, number: int, waveform: Waveform, limit: int) -> str:
        try:
            return self._session.ask(waveform, max_new_tokens=limit).text
        except DataError as error:
            raise DataError(f"row {number}: {error}") from None


def recordings(table: pandas.DataFrame) -> Iterator[Waveform]:
    """The rows of a table, each float32 ``(samples,)``, 16 kHz; raises :class:`DataError`."""
    given = [name for name in COLUMNS if name in table.columns]
    if len(given) != 1:
        found = ", ".join(map(str, table.columns)) or "none"
        raise DataError(f"the columns are {found}; give recordings in one of {', '.join(COLUMNS)}")
    rates = table["rate"] if "rate" in table.columns else [SAMPLE_RATE] * len(table)
    for number, (value, rate) in enumerate(zip(table[given[0]], rates, strict=True)):
        name = f"row {number}"
        if given[0] == "path":
            yield read_audio(Path(str(value)), f"{name}: {value}")
        elif given[0] == "samples":
            yield read_audio(_wav(value, rate, name), name)
        elif isinstance(value, bytes):
            yield read_audio(value, name)
        else:  # MLflow lets text pass for bytes
            raise DataError(f"{name}: audio is {type(value).__name__}; give the bytes of a file, or its name as path")


def _wav(samples: Any, rate: Any, name: str) -> bytes:
    """Samples as a file, so that they are checked and resampled like any other recording."""
    waveform = np.asarray(samples, dtype=np.float32)
    if waveform.ndim != 1 or not waveform.size:
        raise DataError(f"{name}: samples have shape {waveform.shape}; one channel of at least one sample is expected")
    if not 0 < rate < 2**31:
        raise DataError(f"{name}: a rate of {rate} Hz; give the samples a second of the recording, such as 16000")
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, int(rate), format="WAV", subtype="FLOAT")
    return buffer.getvalue()
