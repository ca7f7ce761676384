"""Sound as the study uses it: VGGish's log-mel examples, and the waveforms that AudioCLIP and CLAP hear.

NumPy only, so that preprocessing workers start without torch.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr

from utils.cli import InputError
from utils.layout import CLIP_SECONDS
from utils.paths import describe_siblings

SAMPLE_RATE = 16_000  # Hz, of VGGish and of the wav files on disk
WINDOW_LENGTH, HOP_LENGTH, N_FFT = 400, 160, 512  # samples: 25 ms every 10 ms
MEL_BANDS, MEL_LOW, MEL_HIGH = 64, 125.0, 7500.0  # Hz
EXAMPLE_FRAMES = 96  # log-mel frames: 0.96 s, no overlap
LOG_OFFSET = 0.01
MAX_AUDIO_SECONDS = 600  # seconds of a clip's sound, beyond which a file is not read
MAX_SAMPLES = 1 << 26  # samples of all channels, beyond which neither
MAX_AMPLITUDE = 2  # sample of a file of floats, where 1 is full scale
MIN_SAMPLES = WINDOW_LENGTH + (EXAMPLE_FRAMES - 1) * HOP_LENGTH  # samples that make one example


@lru_cache(maxsize=1)
def mel_matrix() -> np.ndarray:
    """The (257, 64) float64 matrix from magnitude bins to mel bands: triangles that are linear in mel."""
    mel = lambda hertz: 1127.0 * np.log(1.0 + np.asarray(hertz) / 700.0)  # noqa: E731
    bins = mel(np.linspace(0.0, SAMPLE_RATE / 2, N_FFT // 2 + 1))[:, None]
    edges = np.linspace(mel(MEL_LOW), mel(MEL_HIGH), MEL_BANDS + 2)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    matrix = np.maximum(0.0, np.minimum((bins - low) / (centre - low), (high - bins) / (high - centre)))
    matrix[0] = 0.0  # no DC
    return matrix


def log_mel(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """VGGish's input: examples of 0.96 s × 64 mel bands.

    waveform: (samples,) or (samples, channels), floats in [-1, 1] or int16; channels are averaged.
    sample_rate: Hz; other than 16 000 is resampled by resampy's `kaiser_best`, as in the original.
    Returns float32 (N, 1, 96, 64), axes (example, channel, time, mel); N = 0 below 15 600 samples.
    Computed in float64. Source: AVSBench, `torchvggish/vggish_input.py`, after the TensorFlow VGGish.
    """
    samples = np.asarray(waveform)
    samples = samples / 32768.0 if samples.dtype == np.int16 else samples.astype(np.float64)
    if samples.ndim not in (1, 2):
        raise ValueError(f"waveform has shape {samples.shape}; expected (samples,) or (samples, channels)")
    if samples.ndim == 2:
        samples = samples.mean(axis=1)
    if sample_rate != SAMPLE_RATE:
        import resampy  # compiles on first use, and AVSBench's 16 kHz files never need it

        samples = resampy.resample(samples, sample_rate, SAMPLE_RATE)
    if len(samples) < MIN_SAMPLES:
        return np.zeros((0, 1, EXAMPLE_FRAMES, MEL_BANDS), np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, WINDOW_LENGTH)[::HOP_LENGTH]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_LENGTH) / WINDOW_LENGTH)  # periodic
    spectrum = np.abs(np.fft.rfft(frames * hann, N_FFT))
    logs = np.log(spectrum @ mel_matrix() + LOG_OFFSET)
    count = len(logs) // EXAMPLE_FRAMES
    return logs[: count * EXAMPLE_FRAMES].reshape(count, 1, EXAMPLE_FRAMES, MEL_BANDS).astype(np.float32)


def pad_or_trim(examples: np.ndarray) -> np.ndarray:
    """Bring (N, 1, 96, 64) to five: a short clip repeats its last example, a long one is cut.

    AVSBench's script stops on N > 5; cutting keeps the first five seconds, as the frames do.
    Raises ValueError if N = 0.
    """
    if len(examples) == 0:
        raise ValueError(f"the sound is shorter than one log-mel example ({MIN_SAMPLES / SAMPLE_RATE:.3f} s)")
    return examples[np.minimum(np.arange(CLIP_SECONDS), len(examples) - 1)]


def read_wav(path: Path) -> tuple[np.ndarray, int]:
    """Read a PCM file as int16 (samples,) or (samples, channels), and its rate in Hz."""
    return _read(path, dtype="int16")


def _read(path: Path, **options: Any) -> tuple[np.ndarray, int]:
    """What soundfile reads; InputError if it cannot, if the end is missing, or if samples are NaN or infinite."""
    if not path.is_file():
        raise InputError(f"{path}: no such file{describe_siblings(path)}")
    with path.open("rb") as file:
        start = file.read(12)
    announced = int.from_bytes(start[4:8], "little") + 8
    # Of a file that lacks its end soundfile gives the beginning. A stream announces no length, or the largest.
    if start[:4] + start[8:] == b"RIFFWAVE" and path.stat().st_size + 1 < announced < 2**32:
        raise InputError(f"{path}: truncated; preprocess the clip again")
    try:
        info = soundfile.info(path)
        if (
            info.samplerate < 1
            or info.frames > MAX_AUDIO_SECONDS * info.samplerate
            or info.frames * info.channels > MAX_SAMPLES
        ):
            raise InputError(f"{path}: has {info.frames} samples of {info.channels} channels at {info.samplerate} Hz")
        peak = np.abs(soundfile.read(path)[0]).max(initial=0) if info.subtype in ("FLOAT", "DOUBLE") else 0
        if not np.isfinite(peak):
            raise InputError(f"{path}: holds NaN or infinite samples; write the sound anew")
        if peak > MAX_AMPLITUDE:
            raise InputError(f"{path}: holds samples of {peak:g}, not from -1 to 1; write the sound anew")
        return soundfile.read(path, **options)
    except soundfile.SoundFileError as error:
        raise InputError(f"{path}: not a readable sound file ({error})") from error


def quantize_int16(track: np.ndarray) -> np.ndarray:
    """Floats in [-1, 1] (clipped) after a trip through 16 bits, as float32. Source: as `load_clip_waveform`."""
    return (np.clip(track, -1.0, 1.0) * 32767.0).astype(np.int16).astype(np.float32) / np.float32(32767.0)


def resample(track: np.ndarray, rate: int, to: int) -> np.ndarray:
    """A mono track (n,) at another rate, float32 (ceil(n · to / rate),): what librosa.resample gives by default.

    By soxr, which librosa calls: librosa's own import takes seconds.
    """
    if rate == to:
        return track
    found = soxr.resample(track, rate, to, quality="HQ")
    count = -(-len(track) * to // rate)
    return np.pad(found[:count], (0, max(0, count - len(found))))


def load_clip_waveform(path: Path, sample_rate: int, *, tile: int = 1, int16_round_trip: bool = False) -> np.ndarray:
    """A clip's sound, cut into five seconds: float32 (5, tile · sample_rate) in [-1, 1].

    The channels are averaged and the sound resampled (soxr). A clip shorter than five seconds
    loses its incomplete last second, and copies of its last `sample_rate` samples take the free seconds.
    tile repeats each second in time: the original gives AudioCLIP each second five times over.
    int16_round_trip quantises to 16 bits on the way, as the original does for its No-Prompt and Box-Prompt
    settings. Raises InputError on an unreadable file, on NaN, or on a sound under a second (the original then
    returns rows that cannot be batched). Source: Sam4AVS, `avs_scripts/*/dataloader.py` and
    `zero_shot/*/dataloader.py`.
    """
    samples, rate = _read(path, dtype="float32", always_2d=True)
    track = resample(samples.mean(axis=1), rate, sample_rate)
    if len(track) < sample_rate:
        raise InputError(f"{path}: {len(track) / sample_rate:.2f} s of sound; at least one second is needed")
    whole = min(len(track) // sample_rate, CLIP_SECONDS)
    parts = [track[: whole * sample_rate]] + [track[-sample_rate:]] * (CLIP_SECONDS - whole)
    track = np.concatenate(parts)
    if int16_round_trip:
        track = quantize_int16(track)
    return np.tile(track.reshape(CLIP_SECONDS, sample_rate), (1, tile)).astype(np.float32, copy=False)
