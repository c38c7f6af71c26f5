"""Recordings in and out: any common file becomes 16 kHz mono float32, checked; a waveform becomes FLAC.

libsndfile (through soundfile) decodes, but says nothing about a WAV, Ogg or MP3 file that was cut off, and lets NaN
through. Both are caught here, because half a recording or a NaN becomes plausible sound tokens further on.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import soundfile

from ichigo.errors import DataError
from ichigo.speech.resample import resample

SAMPLE_RATE = 16_000
MAX_SECONDS = 3600.0
MAX_BYTES = 1 << 30  # one hour of 48 kHz stereo in 24 bit
FORMATS = ("WAV", "WAVEX", "FLAC", "OGG", "MP3")  # Ogg: Vorbis and Opus

AudioReason = Literal[
    "missing", "unreadable", "unsupported", "empty", "truncated", "too_long", "not_finite", "out_of_range"
]

_RATES = (4_000, 384_000)  # Hz
_CHANNELS = 8  # what FLAC can hold; more are no recording of a voice, and 65,535 of them in a WAV header are an attack
_UNKNOWN = 1 << 62  # frames: libsndfile says 2^63 - 1 of a FLAC that was written to a pipe
_MAX_DECODED = 1 << 29  # samples of all channels, 2 GiB: 90 minutes of 48 kHz stereo
_MAX_PEAK = 2.0  # lossy decoders overshoot full scale by less; a float file of integer samples by thousands
_MP3_SLACK = 2304  # frames: two MPEG frames, by which encoders' delay tags may be wrong
_STREAMED = 0x7FFF_0000  # a pipe writes this or more as the length of a WAV that it cannot know


class AudioError(DataError):
    """A recording that cannot be used; ``reason`` is a short code for counting."""

    def __init__(self, reason: AudioReason, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def read_audio(
    source: Path | bytes, name: str | None = None, *, max_seconds: float = MAX_SECONDS
) -> npt.NDArray[np.float32]:
    """The recording as float32 ``(samples,)``, 16 kHz, mono (mean of the channels), in [-1, 1].

    ``source`` is a WAV, FLAC, Ogg or MP3 file or its bytes; ``name`` is what errors call it. Raises :class:`AudioError`
    for a file that is missing, undecodable, of another format, empty, cut off, longer than ``max_seconds`` (decided by
    its header, before decoding), or that holds NaN, infinities or samples far outside [-1, 1]. A cut-off MP3 is noticed
    only if it carries a Xing header.
    """
    label = name or (str(source) if isinstance(source, Path) else "audio")
    data = source if isinstance(source, bytes) else _file_bytes(source, label)
    if not data:
        raise AudioError("empty", f"{label}: the file is empty (0 bytes); record or copy it again")
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_header(file, label, max_seconds)
            mono = _decode(file)
            _check_complete(file, data, mono.size, label)
            rate = file.samplerate
    except soundfile.LibsndfileError as error:
        raise AudioError("unreadable", f"{label}: damaged, or no sound file at all ({error.error_string})") from None
    _check_samples(mono, label)
    return np.clip(resample(mono, rate, SAMPLE_RATE), -1.0, 1.0)


def pcm16(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.int16]:
    """``waveform`` in [-1, 1] as 16-bit samples; undoes exactly what :func:`read_audio` does to 16-bit files."""
    samples: npt.NDArray[np.int16] = np.clip(np.rint(waveform * 32768.0), -32768, 32767).astype(np.int16)
    return samples


def write_flac(waveform: npt.NDArray[np.float32]) -> bytes:
    """``waveform`` float32 ``(samples,)``, 16 kHz, as a 16-bit FLAC file; one waveform always gives the same bytes."""
    buffer = io.BytesIO()
    soundfile.write(buffer, pcm16(waveform), SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def _file_bytes(path: Path, label: str) -> bytes:
    try:
        if not path.is_file():  # also keeps named pipes and devices from blocking the reader
            raise AudioError("missing", f"{label}: no such file; correct the name or add the recording")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise AudioError("too_long", f"{label}: {size} bytes, more than {MAX_BYTES}; split the recording")
        return path.read_bytes()
    except OSError as error:
        raise AudioError("unreadable", f"{label}: {error.strerror}; make the file readable") from None


def _check_header(file: soundfile.SoundFile, label: str, max_seconds: float) -> None:
    if file.format not in FORMATS:
        raise AudioError("unsupported", f"{label}: {file.format} is not read here; convert it to WAV, FLAC, Ogg or MP3")
    if not _RATES[0] <= file.samplerate <= _RATES[1]:
        raise AudioError("unsupported", f"{label}: {file.samplerate} Hz; convert it to {_RATES[0]} to {_RATES[1]} Hz")
    if file.channels > _CHANNELS:
        raise AudioError("unsupported", f"{label}: {file.channels} channels; mix it down to {_CHANNELS} or fewer")
    if file.frames > _UNKNOWN:
        raise AudioError("unsupported", f"{label}: its header does not say how long it is; write it to a file first")
    seconds = file.frames / file.samplerate
    if seconds > max_seconds:
        raise AudioError("too_long", f"{label}: {seconds:.1f} s, more than {max_seconds:g} s; split the recording")
    samples = file.frames * file.channels
    if samples > _MAX_DECODED:
        raise AudioError("too_long", f"{label}: {samples} samples in {file.channels} channels; split or mix it down")


def _decode(file: soundfile.SoundFile) -> npt.NDArray[np.float32]:
    """All frames, as the mean of their channels.

    In one call: soundfile seeks after each, and an MP3 decoder that sought loses the overlap with the frame before
    (read in blocks, a tone of amplitude 0.5 comes back with errors of 0.56 at the seams).
    """
    mono: npt.NDArray[np.float32] = file.read(dtype="float32", always_2d=True).mean(axis=1)
    return mono


def _check_samples(mono: npt.NDArray[np.float32], label: str) -> None:
    if not mono.size:
        raise AudioError("empty", f"{label}: the file holds no samples; record or copy it again")
    bad = int(mono.size - np.isfinite(mono).sum())
    if bad:
        raise AudioError("not_finite", f"{label}: {bad} of {mono.size} samples are NaN or infinite; export it again")
    peak = float(np.abs(mono).max())
    if peak > _MAX_PEAK:
        raise AudioError("out_of_range", f"{label}: samples reach {peak:g}; scale them to [-1, 1]")


def _check_complete(file: soundfile.SoundFile, data: bytes, frames: int, label: str) -> None:
    """Compare what was decoded with the container's own account of its length; FLAC does this itself."""
    slack = _MP3_SLACK if file.format == "MP3" else 0
    cut = file.frames - frames > slack
    if file.format in ("WAV", "WAVEX"):
        cut = cut or _wav_cut(data)
    elif file.format == "OGG":
        cut = cut or _ogg_cut(data)
    if cut:
        seconds = frames / file.samplerate
        raise AudioError("truncated", f"{label}: cut off after {seconds:.2f} s of a longer recording; copy it again")


def _wav_cut(data: bytes) -> bool:
    """Whether the ``data`` chunk of a RIFF file promises more bytes than follow (libsndfile shortens it silently)."""
    order = ">" if data[:4] == b"RIFX" else "<"
    position = 12
    while position + 8 <= len(data):
        size = int(struct.unpack_from(f"{order}I", data, position + 4)[0])
        if data[position : position + 4] == b"data":
            return size < _STREAMED and position + 8 + size > len(data)
        position += 8 + size + size % 2
    return False


def _ogg_cut(data: bytes) -> bool:
    """Whether the last Ogg page is incomplete or lacks the end-of-stream flag (RFC 3533, section 6)."""
    page = data[data.rfind(b"OggS") :]
    if len(page) < 27:
        return True
    segments = page[26]
    complete = len(page) >= 27 + segments + sum(page[27 : 27 + segments])
    return not (complete and page[5] & 4)
