"""The VGGish front end and network, and the waveforms of AudioCLIP, against the original's figures and rules."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import resampy
import soundfile
import soxr
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from models.vggish import VGGish, log_mel
from reference import audio as reference
from tests.helpers import golden_values as golden
from utils.audio import load_clip_waveform, mel_matrix, pad_or_trim, quantize_int16, read_wav, resample
from utils.cli import InputError

FOLDER = Path(__file__).parents[1] / "golden"
FIGURES = np.load(FOLDER / "vggish_seed1.npz")


def relative(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize(
    "name, seconds, rate, channels",
    [("w16", 5.0, 16_000, 1), ("w44", 5.0, 44_100, 1), ("w48stereo", 3.3, 48_000, 2)],
)
def test_log_mel_is_the_originals(name: str, seconds: float, rate: int, channels: int) -> None:
    source = {"w16": "wav16k", "w44": "wav44k", "w48stereo": "wav48k"}[name]
    samples = golden.audio(1, source, seconds, rate)
    if channels == 2:
        samples = np.stack([samples, samples], axis=1)
    ours = log_mel(samples, rate)
    assert ours.shape == FIGURES[name].shape and ours.dtype == np.float32
    assert relative(ours, FIGURES[name]) < 1e-6


def test_mel_matrix_is_the_originals() -> None:
    np.testing.assert_allclose(mel_matrix(), FIGURES["mel_matrix"], atol=1e-7)
    assert (mel_matrix()[0] == 0).all()


def test_vggish_is_the_originals() -> None:
    network = VGGish().eval()
    keys = {name: list(value.shape) for name, value in network.state_dict().items()}
    assert keys == json.loads((FOLDER / "vggish_keys.json").read_text())
    assert sum(value.numel() for value in network.parameters()) == 72_141_184
    network.load_state_dict(golden.fill(network.state_dict(), 1))
    with torch.no_grad():
        ours = network(torch.from_numpy(FIGURES["w16"])).numpy()
    assert relative(ours, FIGURES["embedding"]) < 1e-5
    assert ours.min() >= 0


def test_log_mel_equals_the_plain_form() -> None:
    samples = golden.audio(2, "short", 1.2, 16_000)
    np.testing.assert_allclose(log_mel(samples, 16_000), reference.log_mel(samples.astype(np.float64)), atol=1e-5)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 100_000))
def test_number_of_examples(length: int) -> None:
    frames = 1 + (length - 400) // 160 if length >= 400 else 0
    assert len(log_mel(np.zeros(length), 16_000)) == frames // 96


def test_silence_and_int16() -> None:
    np.testing.assert_allclose(log_mel(np.zeros(80_000), 16_000), np.log(0.01), rtol=1e-6)
    samples = (golden.audio(1, "wav16k", 5.0, 16_000) * 32767).astype(np.int16)
    np.testing.assert_array_equal(log_mel(samples, 16_000), log_mel(samples / 32768.0, 16_000))
    with pytest.raises(ValueError, match="shape"):
        log_mel(np.zeros((2, 3, 4)), 16_000)


def test_five_examples_pads_cuts_and_refuses() -> None:
    examples = np.arange(7, dtype=np.float32)[:, None, None, None] * np.ones((7, 1, 96, 64), np.float32)
    assert pad_or_trim(examples[:2])[:, 0, 0, 0].tolist() == [0, 1, 1, 1, 1]
    assert pad_or_trim(examples)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="shorter than one log-mel example"):
        pad_or_trim(examples[:0])


def write_ramp(path: Path, seconds: float, rate: int = 8_000) -> np.ndarray:
    samples = np.linspace(-0.9, 0.9, round(seconds * rate)).astype(np.float32)
    soundfile.write(path, samples, rate, subtype="FLOAT")
    return samples


def test_five_seconds_rows_and_tiling(tmp_path: Path) -> None:
    samples = write_ramp(tmp_path / "a.wav", 6.5)
    rows = load_clip_waveform(tmp_path / "a.wav", 8_000)
    np.testing.assert_array_equal(rows, samples[:40_000].reshape(5, 8_000))
    tiled = load_clip_waveform(tmp_path / "a.wav", 8_000, audio_repeats=5)
    assert tiled.shape == (5, 40_000)
    np.testing.assert_array_equal(tiled[2, 8_000:16_000], rows[2])


def test_five_seconds_replaces_the_incomplete_second(tmp_path: Path) -> None:
    samples = write_ramp(tmp_path / "a.wav", 3.25)
    rows = load_clip_waveform(tmp_path / "a.wav", 8_000)
    np.testing.assert_array_equal(rows[:3].ravel(), samples[:24_000])
    for row in rows[3:]:
        np.testing.assert_array_equal(row, samples[-8_000:])


def test_int16_round_trip_truncates_towards_zero(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(8_000, 1.7 / 32767, np.float32), 8_000, subtype="FLOAT")
    rows = load_clip_waveform(tmp_path / "a.wav", 8_000, int16_round_trip=True)
    np.testing.assert_allclose(rows, np.float32(1 / 32767))


def test_sound_faults(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_bytes(b"this is no sound")
    for read in (read_wav, lambda path: load_clip_waveform(path, 8_000)):
        with pytest.raises(InputError, match=r"no\.wav: not a readable audio file"):
            read(tmp_path / "no.wav")
        with pytest.raises(InputError, match="no such file"):
            read(tmp_path / "absent.wav")
    write_ramp(tmp_path / "short.wav", 0.5)
    with pytest.raises(InputError, match=r"0\.50 s of audio; at least one second"):
        load_clip_waveform(tmp_path / "short.wav", 8_000)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("read", [read_wav, lambda path: load_clip_waveform(path, 8_000)])
def test_samples_that_are_no_numbers_are_refused(tmp_path: Path, bad: float, read: Callable[[Path], object]) -> None:
    samples = write_ramp(tmp_path / "bad.wav", 5.0)
    read(tmp_path / "bad.wav")
    samples[20_000] = bad
    soundfile.write(tmp_path / "bad.wav", samples, 8_000, subtype="FLOAT")
    with pytest.raises(InputError, match=r"bad\.wav: has NaN or infinite samples[^\n]*$"):
        read(tmp_path / "bad.wav")


def test_a_wav_that_lacks_its_last_sample_is_refused(tmp_path: Path) -> None:
    """soundfile gives what there is; AVSBench's loader would train on it."""
    path = tmp_path / "a.wav"
    soundfile.write(path, np.full(16_000, 0.1), 16_000)
    whole = path.read_bytes()
    assert len(read_wav(path)[0]) == 16_000
    path.write_bytes(whole[:-2])
    with pytest.raises(InputError, match="truncated"):
        read_wav(path)


@pytest.mark.parametrize(
    "rate, frames, channels, fits",
    [
        (48_000, 600 * 48_000, 2, True),  # ten minutes
        (48_000, 600 * 48_000 + 1, 1, False),
        (1_000_000, 1 << 25, 2, True),
        (1_000_000, (1 << 25) + 1, 2, False),
        (0, 0, 1, False),
    ],
)
def test_what_announces_too_much_sound_is_refused_unread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: int, frames: int, channels: int, fits: bool
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros(100), 16_000)
    info = SimpleNamespace(samplerate=rate, frames=frames, channels=channels, subtype="PCM_16")
    monkeypatch.setattr(soundfile, "info", lambda _: info)
    if fits:
        assert len(read_wav(path)[0]) == 100
    else:
        with pytest.raises(InputError, match=f"has {frames} samples of {channels} channels? at {rate} Hz"):
            read_wav(path)


def test_quantising_clips_and_truncates() -> None:
    steps = quantize_int16(np.array([-2.0, -1.05, -1.0, -0.9999, 0.0, 0.9999, 1.0, 1.05, 2.0])) * 32767
    assert steps.tolist() == [-32767, -32767, -32767, -32763, 0, 32763, 32767, 32767, 32767]


def test_silence_is_five_seconds_of_zeros(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "silent.wav", np.zeros((40_000, 2), np.int16), 8_000)
    rows = load_clip_waveform(tmp_path / "silent.wav", 44_100)
    assert rows.shape == (5, 44_100) and (rows == 0).all()


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_any_rate_and_channels_give_the_same_sound(tmp_path: Path, rate: int, channels: int) -> None:
    time = np.arange(5 * rate) / rate
    tone = 0.4 * np.sin(2 * np.pi * 440 * time)
    soundfile.write(tmp_path / "a.wav", np.stack([tone] * channels, axis=1), rate, subtype="FLOAT")
    rows = load_clip_waveform(tmp_path / "a.wav", 44_100)
    expected = 0.4 * np.sin(2 * np.pi * 440 * np.arange(5 * 44_100) / 44_100)
    assert rows.shape == (5, 44_100)
    inside = slice(2_000, -2_000)  # the resampler's filter has nothing to hold on to at the ends
    np.testing.assert_allclose(rows.ravel()[inside], expected[inside], atol=2e-3)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    "samples, rate, target", [(80_000, 16_000, 44_100), (44_101, 44_100, 16_000), (7, 48_000, 16_000)]
)
def test_libraries_resample_alike(samples: int, rate: int, target: int, channels: int) -> None:
    """librosa gives the bits of soxr, which preprocessing calls, and of resampy, which the original calls."""
    waveform = np.random.default_rng(0).uniform(-1, 1, (samples, channels)).astype(np.float32)
    expected = soxr.resample(waveform, rate, target, quality="HQ")
    assert np.array_equal(resample(waveform, rate, target, fix=False, axis=0), expected)
    if samples > 100:
        mono = waveform[:, 0].astype(np.float64)
        expected = resampy.resample(mono, rate, target)
        assert np.array_equal(resample(mono, rate, target, res_type="kaiser_best", fix=False), expected)
    assert resample(waveform, rate, rate) is waveform
