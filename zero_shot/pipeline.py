"""The zero-shot methods from Python: frames and audio in, masks out; nothing is written to disk without a cache."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from utils.audio import quantize_int16, resample
from utils.cli import InputError
from utils.config import resolve_options
from utils.device import select_device
from utils.layout import BENCHMARKS
from utils.option_ranges import DeviceName
from utils.video_frame import resize_frame, shrink_frame
from zero_shot.figures import resize_mask
from zero_shot.methods import Prediction, ZeroShotMethod, build_method
from zero_shot.options import Options
from zero_shot.prompts import Prompt

CONFIG_DIR = Path(__file__).parent / "configs"
MAX_CHANNELS = 16  # of audio; an array with more columns than this and than rows is (channels, samples)


@dataclass
class PipelineResult:
    """The predictions for N frames of H × W pixels.

    Attributes:
        masks: (N, H, W) bool, the source of the sound.
        similarity_maps: (N, 224, 224) float32 in [0, 1]; None for methods without them.
        prompts: SAM's prompt for each frame, in pixels of the frame that the networks get; None where SAM was not
            prompted.
        labels: for each frame the labels that box_prompt or concept_prompt assigns to the audio; empty for others.
    """

    masks: np.ndarray
    similarity_maps: np.ndarray | None
    prompts: list[Prompt | None]
    labels: list[Sequence[str]]


class Pipeline:
    """A zero-shot method with its networks, as a function of frames and audio.

    Args:
        method: built from the options.
        options: of the method.
    """

    def __init__(self, method: ZeroShotMethod, options: Options):
        self.method, self.options = method, options

    def __call__(self, frames: Sequence[np.ndarray], audio: np.ndarray, sample_rate: int) -> PipelineResult:
        """Segment the source of the sound. With option `track`, masks are tracked in windows of `tracking.window`.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size, one per second. As in the study, the networks get them at
                224 × 224; those of concept_prompt at most at `concept.image_size`.
            audio: (samples,) or (samples, channels), int16 or floats in [-1, 1], of N seconds; padded with silence or
                trimmed if it is shorter or longer.
            sample_rate: of the audio, in Hz.

        Returns:
            Masks of the frames' size, similarity maps, prompts and labels.

        Raises:
            ValueError: for arrays of other shapes or types, NaN or infinity.
        """
        _validate(frames, audio, sample_rate)
        seconds = self._split_audio(np.asarray(audio), sample_rate, len(frames))
        size, predictions = frames[0].shape[:2], list[Prediction]()
        batch = BENCHMARKS[self.options.data.benchmark].max_seconds * self.options.run.batch_size
        window, side = self.options.tracking.window, self.method.image_size
        whole = map(np.ascontiguousarray, frames)
        resized = [resize_frame(frame) if side is None else shrink_frame(frame, side) for frame in whole]
        for start in range(0, len(frames), batch):
            predictions += self.method.predict(resized[start : start + batch], seconds[start : start + batch])
        for start in range(0, len(frames), window):
            part = slice(start, start + window)
            predictions[part] = self.method.track(resized[part], predictions[part])
        maps = [prediction.similarity_map for prediction in predictions if prediction.similarity_map is not None]
        return PipelineResult(
            masks=np.stack([resize_mask(prediction.mask, size) for prediction in predictions]),
            similarity_maps=np.stack(maps) if maps else None,
            prompts=[prediction.prompt for prediction in predictions],
            labels=[prediction.labels for prediction in predictions],
        )

    def _split_audio(self, audio: np.ndarray, sample_rate: int, num_seconds: int) -> torch.Tensor:
        """Mono seconds (N, samples) float32 at the sample rate of the method."""
        samples = audio / np.float32(32768) if audio.dtype == np.int16 else audio
        mono = samples.astype(np.float32).reshape(len(samples), -1).mean(axis=1)
        track = resample(mono, sample_rate, self.method.sample_rate)
        if self.method.int16_round_trip:
            track = quantize_int16(track)
        length = num_seconds * self.method.sample_rate
        padded = np.pad(track[:length], (0, max(0, length - len(track))))
        return torch.from_numpy(padded.reshape(num_seconds, self.method.sample_rate).astype(np.float32))


def load_pipeline(
    config: str | Path = "mini/s4_point_dense", *, device: DeviceName = "auto", **options: Any
) -> Pipeline:
    """Build a zero-shot method with its networks.

    Args:
        config: a YAML file, or the name of one in zero_shot/configs, such as "s4_point_dense".
        device: "auto" uses a GPU if there is one.
        options: further options, with a double underscore for each dot: `audioclip__weights="audioclip-full"`.
            Embeddings are cached on disk only if `run__cache` names a folder.

    Raises:
        InputError: for an unknown configuration or option, or a checkpoint that is missing or does not fit.
    """
    path = Path(config).expanduser()
    if not path.is_file():
        path = CONFIG_DIR / f"{config}.yaml"
    if not path.is_file():
        names = sorted(file.relative_to(CONFIG_DIR).with_suffix("").as_posix() for file in CONFIG_DIR.rglob("*.yaml"))
        raise InputError(f"{config}: no such file or configuration; configurations: {', '.join(names)}")
    values = {name.replace("__", "."): value for name, value in options.items()}
    values = {"run.device": device, "run.use_cache": "run.cache" in values, **values}
    arguments = [word for name, value in values.items() for word in (f"--{name}", _to_argument(value))]
    resolved = resolve_options(Options, ["--config", str(path), *arguments])
    return Pipeline(build_method(resolved, select_device(resolved.run.device)), resolved)


def _to_argument(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _validate(frames: Sequence[np.ndarray], audio: np.ndarray, sample_rate: int) -> None:
    """Raise ValueError unless the arguments are those of Pipeline.__call__."""
    shapes = {(frame.shape, frame.dtype) for frame in map(np.asarray, frames)}
    if len(shapes) != 1:
        raise ValueError(f"expected frames (H, W, 3) of one size, got {len(frames)} of {len(shapes)} sizes or types")
    shape, dtype = shapes.pop()
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
        raise ValueError(f"expected frames (H, W, 3) of uint8, got {shape} of {dtype}")
    samples = np.asarray(audio)
    if samples.ndim not in (1, 2) or not (samples.dtype == np.int16 or np.issubdtype(samples.dtype, np.floating)):
        raise ValueError(f"expected audio (samples,) or (samples, channels), got {samples.shape} of {samples.dtype}")
    if samples.ndim == 2 and samples.shape[1] > max(samples.shape[0], MAX_CHANNELS):
        raise ValueError(f"expected audio (samples,) or (samples, channels), got {samples.shape}: transpose it")
    if sample_rate < 1 or not np.isfinite(samples).all():
        raise ValueError("the sample rate must be positive, and the audio finite")
