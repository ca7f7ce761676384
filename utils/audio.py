"""Audio as the networks take it: VGGish's log-mel examples, and waveforms for AudioCLIP and CLAP.

Without torch and librosa at import, so that preprocessing workers start quickly.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from utils.cli import InputError
from utils.paths import describe_siblings
from utils.words import counted

SAMPLE_RATE = 16_000  # Hz, of VGGish and of the wav files on disk
WINDOW_LENGTH, HOP_LENGTH, N_FFT = 400, 160, 512  # samples: 25 ms every 10 ms
MEL_BANDS, MEL_MIN_HZ, MEL_MAX_HZ = 64, 125.0, 7500.0
EXAMPLE_FRAMES = 96  # log-mel frames of an example: 0.96 s, without overlap
LOG_OFFSET = 0.01
MAX_AUDIO_SECONDS = 600  # longer files are not read
MAX_SAMPLES = 1 << 26  # of all channels together; larger files are not read
MAX_AMPLITUDE = 2  # of float files, in which full scale is 1
MIN_SAMPLES = WINDOW_LENGTH + (EXAMPLE_FRAMES - 1) * HOP_LENGTH  # of one example


@lru_cache(maxsize=1)
def mel_matrix() -> np.ndarray:
    """The (257, 64) float64 matrix from magnitude bins to mel bands: triangles that are linear in mel."""
    mel = lambda hertz: 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)  # noqa: E731
    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(MEL_MIN_HZ), mel(MEL_MAX_HZ), MEL_BANDS + 2)
    low, center, high = edges[:-2], edges[1:-1], edges[2:]
    matrix = np.maximum(0.0, np.minimum((bins - low) / (center - low), (high - bins) / (high - center)))
    matrix[0] = 0.0  # no DC
    return matrix


def log_mel(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """Compute VGGish's input in float64: examples of 0.96 s × 64 mel bands.

    Args:
        waveform: (samples,) or (samples, channels), floats in [-1, 1] or int16; channels are averaged.
        sample_rate: Hz; other rates than 16 000 are resampled by `kaiser_best`, as in the original.

    Returns:
        float32 (N, 1, 96, 64), axes (example, channel, time, mel); N = 0 below 15 600 samples.

    Raises:
        ValueError: The waveform has another shape.

    Source: AVSBench, `torchvggish/vggish_input.py`, after the TensorFlow VGGish.
    """
    samples = np.asarray(waveform)
    samples = samples / 32768.0 if samples.dtype == np.int16 else samples.astype(np.float64)
    if samples.ndim not in (1, 2):
        raise ValueError(f"waveform has shape {samples.shape}; expected (samples,) or (samples, channels)")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    samples = resample(samples, sample_rate, SAMPLE_RATE, res_type="kaiser_best", fix=False)
    if len(samples) < MIN_SAMPLES:
        return np.zeros((0, 1, EXAMPLE_FRAMES, MEL_BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_LENGTH)[::HOP_LENGTH]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_LENGTH) / WINDOW_LENGTH)  # periodic
    spectrum = np.abs(np.fft.rfft(frames * hann, N_FFT))
    log_spectrum = np.log(spectrum @ mel_matrix() + LOG_OFFSET)
    count = len(log_spectrum) // EXAMPLE_FRAMES
    return log_spectrum[: count * EXAMPLE_FRAMES].reshape(count, 1, EXAMPLE_FRAMES, MEL_BANDS).astype(np.float32)


def pad_or_trim(examples: np.ndarray, seconds: int = 5) -> np.ndarray:
    """Give (N, 1, 96, 64) examples the length of a clip: repeat the last one, or drop those after its end.

    AVSBench's script stops on N > 5; here the first seconds are used, as of the frames.
    Raises ValueError if N = 0.
    """
    if len(examples) == 0:
        raise ValueError(f"the audio is shorter than one log-mel example ({MIN_SAMPLES / SAMPLE_RATE:.3f} s)")
    return examples[np.minimum(np.arange(seconds), len(examples) - 1)]


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Read an audio file as int16 (samples,) or (samples, channels), and its rate in Hz.

    Raises:
        InputError: The file is missing, not audio, truncated or too long, or has NaN, infinite or far too large
            samples.
    """
    return _read(path, dtype="int16")


def _read(path: Path, **options: Any) -> tuple[np.ndarray, int]:
    """`soundfile.read` with the checks of `read_wav`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file{describe_siblings(path)}")
    with path.open("rb") as file:
        header = file.read(12)
    riff_size = int.from_bytes(header[4:8], "little") + 8
    # soundfile reads truncated files without an error. Streamed files have a size of 0 or the maximum.
    if header[:4] + header[8:] == b"RIFFWAVE" and path.stat().st_size + 1 < riff_size < 2**32:
        raise InputError(f"{path}: truncated; preprocess the clip again")
    try:
        info = soundfile.info(path)
        too_long = info.samplerate < 1 or info.frames > MAX_AUDIO_SECONDS * info.samplerate
        if too_long or info.frames * info.channels > MAX_SAMPLES:
            length = f"{counted(info.frames, 'sample')} of {counted(info.channels, 'channel')}"
            raise InputError(f"{path}: has {length} at {info.samplerate} Hz")
        peak = np.abs(soundfile.read(path)[0]).max(initial=0) if info.subtype in ("FLOAT", "DOUBLE") else 0
        if not np.isfinite(peak):
            raise InputError(f"{path}: has NaN or infinite samples; write the file again")
        if peak > MAX_AMPLITUDE:
            raise InputError(f"{path}: has samples of {peak:g}, not from -1 to 1; write the file again")
        return soundfile.read(path, **options)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path}: not a readable audio file ({error})") from error


def quantize_int16(waveform: np.ndarray) -> np.ndarray:
    """Clip floats to [-1, 1] and round them to 16 bits, as the original does; returns float32 in [-1, 1]."""
    return (np.clip(waveform, -1.0, 1.0) * 32767.0).astype(np.int16).astype(np.float32) / np.float32(32767.0)


def resample(
    samples: np.ndarray, orig_sr: int, target_sr: int, *, res_type: str = "soxr_hq", fix: bool = True, axis: int = -1
) -> np.ndarray:
    """`librosa.resample`, imported only if the rates differ: importing librosa takes seconds."""
    if orig_sr == target_sr:
        return samples
    import librosa

    return librosa.resample(samples, orig_sr=orig_sr, target_sr=target_sr, res_type=res_type, fix=fix, axis=axis)


def read_mono(path: Path) -> np.ndarray:
    """Read an audio file as float32 (samples,) in [-1, 1] at 16 kHz, with its channels averaged.

    Raises:
        InputError: As of `read_wav`.
    """
    samples, rate = _read(path, dtype="float32", always_2d=True)
    return resample(samples.mean(axis=1), rate, SAMPLE_RATE)


def load_clip_waveform(
    path: Path, sample_rate: int, *, seconds: int = 5, audio_repeats: int = 1, int16_round_trip: bool = False
) -> np.ndarray:
    """Read the waveform of a clip, split into seconds by `split_seconds`.

    Raises:
        InputError: As of `read_wav`, and for less than one second of audio, for which the original returns rows that
            cannot be batched.
    """
    samples, file_rate = _read(path, dtype="float32", always_2d=True)
    options: dict[str, Any] = {"seconds": seconds, "audio_repeats": audio_repeats, "int16_round_trip": int16_round_trip}
    try:
        return split_seconds(samples.mean(axis=1), file_rate, sample_rate, **options)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def split_seconds(
    waveform: np.ndarray,
    file_rate: int,
    sample_rate: int,
    *,
    seconds: int = 5,
    audio_repeats: int = 1,
    int16_round_trip: bool = False,
) -> np.ndarray:
    """Resample a waveform and split it into seconds.

    Of audio shorter than the clip an incomplete last second is dropped, and the missing seconds are filled with copies
    of its last `sample_rate` samples.

    Args:
        waveform: float32 (samples,).
        file_rate: Its sample rate in Hz.
        sample_rate: Hz, of the result.
        seconds: Length of the clip.
        audio_repeats: How often each second is repeated in time; the original gives AudioCLIP five copies.
        int16_round_trip: Quantize to 16 bits, as the original does for No-Prompt and Box-Prompt.

    Returns:
        float32 (seconds, audio_repeats · sample_rate) in [-1, 1].

    Raises:
        ValueError: There is less than one second of audio.

    Source: Sam4AVS, `avs_scripts/*/dataloader.py` and `zero_shot/*/dataloader.py`.
    """
    waveform = resample(waveform, file_rate, sample_rate)
    if len(waveform) < sample_rate:
        raise ValueError(f"{len(waveform) / sample_rate:.2f} s of audio; at least one second is needed")
    full_seconds = min(len(waveform) // sample_rate, seconds)
    parts = [waveform[: full_seconds * sample_rate]] + [waveform[-sample_rate:]] * (seconds - full_seconds)
    waveform = np.concatenate(parts)
    if int16_round_trip:
        waveform = quantize_int16(waveform)
    return np.tile(waveform.reshape(seconds, sample_rate), (1, audio_repeats)).astype(np.float32, copy=False)
