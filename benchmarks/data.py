"""Implementations of preprocessing, log-mel and loading, on composed clips of 480×360 at 25 frames per second."""

import pickle
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import av
import cv2
import librosa
import numpy as np
import soundfile
import torch
from PIL import Image
from torchvision import transforms

from benchmarks.harness import Output, Work
from synthetic import compose
from utils import preprocess
from utils.audio import SAMPLE_RATE, log_mel, mel_matrix, pad_or_trim
from utils.audio_track import to_int16
from utils.dataset import NORMALIZATION, AVSDataset
from utils.files import read_image
from utils.layout import AVSBench, Clip
from utils.timestamps import ROUNDING, SAMPLE_POINT
from utils.video_frame import resize_frame, to_rgb

CLIPS_DIR = Path(tempfile.gettempdir())  # composed clips are kept here for the next run


def clips(count: int) -> AVSBench:
    """That many composed clips, preprocessed. Composed once and kept in CLIPS_DIR."""
    root = CLIPS_DIR / f"avs_benchmark_{count}_clips"
    data = root / "Single-source"
    arguments = ["--out", str(root), "--s4", str(count), "--ms3", "0", "--size", "480x360", "--fps", "25"]
    assert compose.main(arguments) == 0
    assert all(outcome.status != "failed" for outcome in preprocess.preprocess(AVSBench(data, "s4"), jobs=1))
    return AVSBench(data, "s4")


def prepare_clips(count: int, **_: Any) -> dict[str, Any]:
    """Compose the clips; adds no options."""
    clips(count)
    return {}


def _preprocessed(data: AVSBench) -> Output:
    """What preprocessing has written, in short: sums over the frames' columns and over the time of the log-mels."""
    frames = [read_image(path).sum((1, 2)) for clip in data.clips for path in data.frames(clip)]
    return {
        "frames": np.stack(frames).astype(np.float64),
        "log-mel": np.stack([np.load(data.log_mel(clip)).sum((0, 1, 2)) for clip in data.clips]),
    }


def preprocess_reference(count: int, jobs: int) -> Work:
    """One process: every frame is decoded, converted and resized, and the file is opened again for its audio."""
    data = clips(count)

    def preprocess_clip(clip: Clip) -> None:
        path = str(data.video(clip))
        with av.open(path) as container:
            frames = [(frame.time or 0.0, resize_frame(to_rgb(frame))) for frame in container.decode(video=0)]
        for second, target in enumerate(data.frames(clip)):
            shown = [frame for time, frame in frames if time - frames[0][0] <= second + SAMPLE_POINT + ROUNDING]
            cv2.imwrite(str(target), cv2.cvtColor(shown[-1], cv2.COLOR_RGB2BGR))
        with av.open(path) as container:
            audio = container.streams.audio[0]
            resampler = av.AudioResampler("flt", "mono" if audio.channels == 1 else "stereo", audio.rate)
            blocks = [b.to_ndarray() for f in [*container.decode(audio), None] for b in resampler.resample(f)]
        waveform = np.concatenate(blocks, axis=1).reshape(-1, resampler.layout.nb_channels)
        resampled = librosa.resample(waveform, orig_sr=audio.rate, target_sr=SAMPLE_RATE, res_type="soxr_hq", axis=0)
        samples = to_int16(resampled)
        soundfile.write(data.wav(clip), samples, SAMPLE_RATE, subtype="PCM_16")
        np.save(data.log_mel(clip), pad_or_trim(log_mel(samples, SAMPLE_RATE)))

    def work() -> Callable[[], Output]:
        for clip in data.clips:
            preprocess_clip(clip)
        return partial(_preprocessed, data)

    return work


def preprocess_optimized(count: int, jobs: int) -> Work:
    """utils.preprocess: files are opened once; only the selected frames, and those they depend on, are decoded."""
    data = clips(count)

    def work() -> Callable[[], Output]:
        preprocess.preprocess(data, jobs=jobs, overwrite=True)
        return partial(_preprocessed, data)

    return work


def _waveform() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE)


def log_mel_reference(calls: int) -> Work:
    """librosa's spectrogram, then VGGish's mel bands (librosa's triangles are linear in Hz, VGGish's in mel)."""
    samples = _waveform()

    def work() -> Output:
        for _ in range(calls):
            padded = np.pad(samples, 56)  # librosa centers the window in the transform
            stft = librosa.stft(padded, n_fft=512, hop_length=160, win_length=400, window="hann", center=False)
            logs = np.log(np.abs(stft).T @ mel_matrix() + 0.01)
        count = len(logs) // 96
        return {"log-mel": logs[: count * 96].reshape(count, 1, 96, 64).astype(np.float32)}

    return work


def log_mel_optimized(calls: int) -> Work:
    """utils.audio.log_mel."""
    samples = _waveform()

    def work() -> Output:
        for _ in range(calls):
            examples = log_mel(samples, SAMPLE_RATE)
        return {"log-mel": examples}

    return work


def load_reference(count: int, split: str) -> Work:
    """As in AVSBench's data set: compressed PNG read by PIL and torchvision, and pickled log-mel tensors."""
    data, folder = clips(count), CLIPS_DIR / f"avs_benchmark_{count}_clips" / f"reference_{split}"
    folder.mkdir(exist_ok=True)
    transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*NORMALIZATION["imagenet"])])
    paths = []
    for clip in data.split(split):
        frames = [folder / f"{clip.name}_{k}.png" for k in range(5)]
        for source, target in zip(data.frames(clip), frames, strict=True):
            cv2.imwrite(str(target), cv2.cvtColor(read_image(source), cv2.COLOR_RGB2BGR))
        pickled = folder / f"{clip.name}.pkl"
        pickled.write_bytes(pickle.dumps(torch.from_numpy(np.load(data.log_mel(clip))).requires_grad_(True)))
        paths.append((frames, pickled, data.masks(clip)))

    def read(path: Path, mode: str) -> Image.Image:
        with path.open("rb") as file, Image.open(file) as image:
            return image.convert(mode)

    def work() -> Output:
        for frames, pickled, masks in paths:
            item = (
                torch.stack([transform(read(path, "RGB")) for path in frames]),
                pickle.loads(pickled.read_bytes()).detach(),
                torch.cat([transforms.functional.to_tensor(read(path, "1")) for path in masks]),
            )
        return _arrays(*item)

    return work


def load_optimized(count: int, split: str) -> Work:
    """utils.dataset, with uncompressed PNG as our preprocessing writes it."""
    dataset = AVSDataset(clips(count), split)

    def work() -> Output:
        for index in range(len(dataset)):
            item = dataset[index]
        return _arrays(item["frames"], item["log_mel"], item["masks"])

    return work


def _arrays(*tensors: torch.Tensor) -> Output:
    return {str(position): tensor.numpy() for position, tensor in enumerate(tensors)}
