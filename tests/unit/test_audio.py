"""Reading recordings: what arrives is the sound that was recorded, and a bad file says so."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from ichigo.errors import DataError
from ichigo.speech.audio import SAMPLE_RATE, AudioError, read_audio, write_flac

Waveform = npt.NDArray[np.float32]
Samples = npt.NDArray[np.float32] | npt.NDArray[np.int16]


def tone(hertz: float, seconds: float, rate: int, amplitude: float = 0.5) -> Waveform:
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encoded(waveform: Samples, rate: int, container: str, subtype: str | None = None) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, waveform, rate, format=container, subtype=subtype)
    return buffer.getvalue()


def refusal(source: Path | bytes, **options: float) -> AudioError:
    with pytest.raises(AudioError) as caught:
        read_audio(source, "clip.x", **options)
    assert str(caught.value).startswith("clip.x: "), "an error names the file"
    assert isinstance(caught.value, DataError)
    return caught.value


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAVEX", "PCM_24"),
        ("FLAC", None),
        ("OGG", "VORBIS"),
        ("OGG", "OPUS"),
        ("MP3", None),
    ],
)
def test_every_format_gives_the_recorded_tone(container: str, subtype: str | None) -> None:
    rate = 48_000
    heard = read_audio(encoded(tone(440, 2.0, rate), rate, container, subtype))
    assert heard.dtype == np.float32
    assert heard.shape == (2 * SAMPLE_RATE,)
    expected = tone(440, 2.0, SAMPLE_RATE)
    middle = slice(SAMPLE_RATE // 2, 3 * SAMPLE_RATE // 2)
    assert np.abs(heard[middle] - expected[middle]).max() < 0.02


def test_channels_are_averaged() -> None:
    left, right = tone(300, 0.5, SAMPLE_RATE, 0.8), tone(700, 0.5, SAMPLE_RATE, 0.2)
    heard = read_audio(encoded(np.stack([left, right], axis=1), SAMPLE_RATE, "WAV", "FLOAT"))
    np.testing.assert_allclose(heard, (left + right) / 2, atol=1e-7)


def test_flac_keeps_sixteen_bit_sound_exactly_and_is_deterministic() -> None:
    samples = np.random.default_rng(0).integers(-32768, 32768, 20_000).astype(np.int16)
    samples[:2] = (-32768, 32767)
    heard = read_audio(encoded(samples, SAMPLE_RATE, "WAV", "PCM_16"))
    stored = write_flac(heard)
    np.testing.assert_array_equal(read_audio(stored) * 32768, samples)
    assert write_flac(heard) == stored


def test_flac_clips_instead_of_wrapping() -> None:
    stored = write_flac(np.array([1.5, -1.5, 1.0, -1.0], np.float32))
    np.testing.assert_array_equal(read_audio(stored) * 32768, [32767, -32768, 32767, -32768])


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9, 0.999])
@pytest.mark.parametrize(
    ("container", "subtype"),
    [("WAV", "PCM_16"), ("WAVEX", "PCM_16"), ("FLAC", None), ("OGG", "VORBIS"), ("OGG", "OPUS")],
)
def test_a_cut_off_file_is_refused(container: str, subtype: str | None, kept: float) -> None:
    noise = np.random.default_rng(1).uniform(-0.5, 0.5, 3 * SAMPLE_RATE).astype(np.float32)
    whole = encoded(noise, SAMPLE_RATE, container, subtype)
    assert read_audio(whole).size == noise.size
    assert refusal(whole[: int(kept * len(whole))]).reason in {"truncated", "unreadable"}


def test_a_cut_off_mp3_with_a_length_tag_is_refused() -> None:
    noise = np.random.default_rng(2).uniform(-0.5, 0.5, 3 * SAMPLE_RATE).astype(np.float32)
    whole = encoded(noise, SAMPLE_RATE, "MP3")
    assert refusal(whole[: len(whole) // 2]).reason == "truncated"


def test_a_wav_from_a_pipe_is_read_though_its_length_is_unknown() -> None:
    wav = bytearray(encoded(tone(440, 1.0, SAMPLE_RATE), SAMPLE_RATE, "WAV", "PCM_16"))
    struct.pack_into("<I", wav, 4, 0xFFFFFFFF)
    struct.pack_into("<I", wav, wav.index(b"data") + 4, 0xFFFFFFFF)
    assert read_audio(bytes(wav)).size == SAMPLE_RATE


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_samples_that_are_no_numbers_are_refused(value: float) -> None:
    waveform = tone(440, 0.5, SAMPLE_RATE)
    waveform[100:103] = value
    error = refusal(encoded(waveform, SAMPLE_RATE, "WAV", "FLOAT"))
    assert error.reason == "not_finite"
    assert "3 of 8000 samples" in str(error)


def test_integers_in_a_float_file_are_refused() -> None:
    assert refusal(encoded(tone(440, 0.5, SAMPLE_RATE, 20_000), SAMPLE_RATE, "WAV", "FLOAT")).reason == "out_of_range"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (encoded(np.zeros(0, np.float32), SAMPLE_RATE, "WAV"), "empty"),
        (b"these are no samples" * 100, "unreadable"),
        (encoded(np.zeros(1000, np.float32), SAMPLE_RATE, "AIFF"), "unsupported"),
        (encoded(np.zeros(1000, np.float32), 100, "WAV"), "unsupported"),
    ],
    ids=["no bytes", "no samples", "no audio", "other format", "other rate"],
)
def test_what_is_no_recording_is_refused(data: bytes, reason: str) -> None:
    assert refusal(data).reason == reason


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "absent.wav").reason == "missing"
    assert refusal(tmp_path).reason == "missing"


def test_the_length_in_the_header_is_judged_before_anything_is_decoded() -> None:
    flac = bytearray(encoded(tone(440, 1.0, SAMPLE_RATE), SAMPLE_RATE, "FLAC"))
    flac[21] |= 0x0F  # the top bits of STREAMINFO's 36-bit sample count: now 68 GB of samples
    assert refusal(bytes(flac)).reason == "too_long"
    assert refusal(encoded(tone(440, 1.0, 8000), 8000, "WAV"), max_seconds=0.9).reason == "too_long"


def test_channels_count_for_how_much_may_be_decoded() -> None:
    flac = bytearray(encoded(np.zeros((100, 8), np.float32), SAMPLE_RATE, "FLAC"))
    flac[22:26] = (80_000_000).to_bytes(4, "big")  # 5000 s of 8 channels: within the seconds, beyond the memory
    assert refusal(bytes(flac), max_seconds=6000.0).reason == "too_long"


def test_a_real_stereo_recording_becomes_eleven_seconds_of_mono(recordings: Path) -> None:
    clip = recordings / "clips" / "jfk.flac"
    heard = read_audio(clip)
    assert heard.shape == (11 * SAMPLE_RATE,)
    original, rate = soundfile.read(clip, dtype="float64")
    assert (rate, original.shape[1]) == (44_100, 2)
    # Speech lies below 8 kHz, so its energy per second survives the change of rate.
    assert np.mean(heard.astype(np.float64) ** 2) == pytest.approx(np.mean(original.mean(axis=1) ** 2), rel=0.01)
    np.testing.assert_array_equal(read_audio(clip.read_bytes()), heard)
