"""Contestants: preprocessing, sound and the loading of clips, on composed clips of 480×360 at 25 frames a second."""

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
from utils.dataset import NORMALIZATION, AVSDataset
from utils.files import read_image
from utils.layout import AVSBench, Clip
from utils.timestamps import published_frame_indices

FOLDER = Path(tempfile.gettempdir())


def clips(count: int) -> AVSBench:
    """So many composed clips, made and preprocessed once and kept in the system's temporary folder."""
    root = FOLDER / f"avs_benchmark_{count}_clips"
    data = root / "Single-source"
    arguments = ["--out", str(root), "--s4", str(count), "--ms3", "0", "--size", "480x360", "--fps", "25"]
    assert compose.main(arguments) == 0
    assert all(outcome.status != "failed" for outcome in preprocess.preprocess(AVSBench(data, "s4"), jobs=1))
    return AVSBench(data, "s4")


def made(count: int, **_: Any) -> dict[str, Any]:
    """Nothing but the clips."""
    clips(count)
    return {}


def _sums(data: AVSBench) -> Output:
    """What preprocessing made, in short: the sums of the frames' rows and of the log-mel examples' bands."""
    frames = [read_image(path).sum((1, 2)) for clip in data.clips for path in data.frames(clip)]
    return {
        "frames": np.stack(frames).astype(np.float64),
        "log-mel": np.stack([np.load(data.log_mel(clip)).sum((0, 1, 2)) for clip in data.clips]),
    }


def preprocess_reference(count: int, jobs: int) -> Work:
    """One process, as the original: every frame is decoded, converted and resized, the file opened again for its
    sound, and frames compressed."""
    data = clips(count)

    def one(clip: Clip) -> None:
        path = str(data.video(clip))
        with av.open(path) as container:
            rate = float(container.streams.video[0].average_rate or 25)
            frames = [
                cv2.resize(frame.to_ndarray(format="rgb24", interpolation="BICUBIC"), (224, 224))
                for frame in container.decode(video=0)
            ]
        for target, index in zip(data.frames(clip), published_frame_indices(rate), strict=True):
            cv2.imwrite(str(target), cv2.cvtColor(frames[min(index, len(frames) - 1)], cv2.COLOR_RGB2BGR))
        with av.open(path) as container:
            layout = "mono" if container.streams.audio[0].channels == 1 else "stereo"
            resampler = av.AudioResampler("s16", layout, SAMPLE_RATE)
            blocks = [b.to_ndarray() for f in [*container.decode(audio=0), None] for b in resampler.resample(f)]
        samples = np.concatenate(blocks, axis=1).reshape(-1, resampler.layout.nb_channels)
        soundfile.write(data.wav(clip), samples, SAMPLE_RATE, subtype="PCM_16")
        np.save(data.log_mel(clip), pad_or_trim(log_mel(soundfile.read(data.wav(clip), dtype="int16")[0], SAMPLE_RATE)))

    def work() -> Callable[[], Output]:
        for clip in data.clips:
            one(clip)
        return partial(_sums, data)

    return work


def preprocess_optimized(count: int, jobs: int) -> Work:
    """Each file is opened once, only what the chosen frames need is decoded, and only they are converted."""
    data = clips(count)

    def work() -> Callable[[], Output]:
        preprocess.preprocess(data, jobs=jobs, overwrite=True)
        return partial(_sums, data)

    return work


def _sound() -> np.ndarray:
    return np.random.default_rng(0).uniform(-0.5, 0.5, 5 * SAMPLE_RATE)


def log_mel_reference(calls: int) -> Work:
    """librosa's spectrogram, then VGGish's mel bands, which librosa has not: its triangles are not linear in mel."""
    samples = _sound()

    def work() -> Output:
        for _ in range(calls):
            padded = np.pad(samples, 56)  # librosa centres the window in the transform
            stft = librosa.stft(padded, n_fft=512, hop_length=160, win_length=400, window="hann", center=False)
            logs = np.log(np.abs(stft).T @ mel_matrix() + 0.01)
        count = len(logs) // 96
        return {"log-mel": logs[: count * 96].reshape(count, 1, 96, 64).astype(np.float32)}

    return work


def log_mel_optimized(calls: int) -> Work:
    """utils.audio.log_mel."""
    samples = _sound()

    def work() -> Output:
        for _ in range(calls):
            examples = log_mel(samples, SAMPLE_RATE)
        return {"log-mel": examples}

    return work


def load_reference(count: int, split: str) -> Work:
    """As the original's loader: PNG as the original writes them, by PIL and torchvision, and pickled tensors."""
    data, folder = clips(count), FOLDER / f"avs_benchmark_{count}_clips" / f"original_{split}"
    folder.mkdir(exist_ok=True)
    look = transforms.Compose([transforms.ToTensor(), transforms.Normalize(*NORMALIZATION["imagenet"])])
    paths = []
    for clip in data.split(split):
        frames = [folder / f"{clip.name}_{k}.png" for k in range(5)]
        for source, target in zip(data.frames(clip), frames, strict=True):
            cv2.imwrite(str(target), cv2.cvtColor(read_image(source), cv2.COLOR_RGB2BGR))
        pickled = folder / f"{clip.name}.pkl"
        pickled.write_bytes(pickle.dumps(torch.from_numpy(np.load(data.log_mel(clip))).requires_grad_(True)))
        paths.append((frames, pickled, data.masks(clip)))

    def picture(path: Path, mode: str) -> Image.Image:
        with path.open("rb") as file, Image.open(file) as image:
            return image.convert(mode)

    def work() -> Output:
        for frames, pickled, masks in paths:
            item = (
                torch.stack([look(picture(path, "RGB")) for path in frames]),
                pickle.loads(pickled.read_bytes()).detach(),
                torch.cat([transforms.functional.to_tensor(picture(path, "1")) for path in masks]),
            )
        return _arrays(*item)

    return work


def load_optimized(count: int, split: str) -> Work:
    """utils.dataset, and frames as preprocessing writes them."""
    dataset = AVSDataset(clips(count), split)

    def work() -> Output:
        for index in range(len(dataset)):
            item = dataset[index]
        return _arrays(item["frames"], item["log_mel"], item["masks"])

    return work


def _arrays(*tensors: torch.Tensor) -> Output:
    return {str(place): tensor.numpy() for place, tensor in enumerate(tensors)}
