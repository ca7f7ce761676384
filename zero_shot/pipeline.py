"""The zero-shot methods from Python: frames and audio in, masks out; nothing is written to disk unless asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from utils.audio import quantize_int16, resample
from utils.cli import InputError
from utils.config import resolve_options
from utils.video_frame import resize_frame
from zero_shot.methods import Prediction, ZeroShotMethod, build_method
from zero_shot.options import Options
from zero_shot.prompts import Prompt

CONFIGS = Path(__file__).parent / "configs"


@dataclass
class PipelineResult:
    """What a method found in N frames of H × W pixels.

    Attributes:
        masks: (N, H, W) bool, what sounds.
        similarity_maps: (N, 224, 224) float32 in [0, 1]; None for methods without one.
        prompts: what Segment Anything was prompted with, in pixels of a 224 × 224 frame; None where it was not.
        labels: for each frame the names that box_prompt gives the sound; empty for other methods.
    """

    masks: np.ndarray
    similarity_maps: np.ndarray | None
    prompts: list[Prompt | None]
    labels: list[Sequence[str]]


class Pipeline:
    """A zero-shot method with its networks, as a function of frames and audio."""

    def __init__(self, method: ZeroShotMethod, options: Options):
        self.method, self.options = method, options

    def __call__(self, frames: Sequence[np.ndarray], audio: np.ndarray, sample_rate: int) -> PipelineResult:
        """Segment what sounds in each second.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size, one for each second. As in the study, the networks see
                them at 224 × 224.
            audio: (samples,) or (samples, channels), int16 or floats in [-1, 1]; N seconds. A missing end is silence.
            sample_rate: Hz, of `audio`.

        Raises:
            ValueError: for arrays of other shapes or types.
        """
        _validate(frames, audio, sample_rate)
        seconds = self._split_audio(np.asarray(audio), sample_rate, len(frames))
        size, predictions = frames[0].shape[:2], list[Prediction]()
        batch = 5 * self.options.run.batch_size
        for start in range(0, len(frames), batch):
            part = [resize_frame(np.ascontiguousarray(frame)) for frame in frames[start : start + batch]]
            predictions += self.method.predict(part, seconds[start : start + batch])
        maps = [p.similarity_map for p in predictions if p.similarity_map is not None]
        return PipelineResult(
            masks=np.stack([_resize_mask(p.mask, size) for p in predictions]),
            similarity_maps=np.stack(maps) if maps else None,
            prompts=[p.prompt for p in predictions],
            labels=[p.labels for p in predictions],
        )

    def _split_audio(self, audio: np.ndarray, sample_rate: int, count: int) -> torch.Tensor:
        """The seconds (N, samples) at the method's rate."""
        samples = audio / np.float32(32768) if audio.dtype == np.int16 else audio
        mono = samples.astype(np.float32).reshape(len(samples), -1).mean(axis=1)
        track = resample(mono, sample_rate, self.method.sample_rate)
        if self.method.int16_round_trip:
            track = quantize_int16(track)
        length = count * self.method.sample_rate
        padded = np.pad(track[:length], (0, max(0, length - len(track))))
        return torch.from_numpy(padded.reshape(count, self.method.sample_rate).astype(np.float32))


def load_pipeline(config: str | Path = "mini/s4_point_dense", *, device: str | None = None, **options: Any) -> Pipeline:
    """A zero-shot method with its networks.

    Args:
        config: a YAML file, or the name of one in zero_shot/configs, such as "s4_point_dense".
        device: "cpu" or "cuda"; default: a GPU if there is one.
        options: more options, with a double underscore for each dot: audioclip__weights="audioclip-full". Embeddings
            are kept on disk only if run__cache names a folder.

    Raises:
        InputError: for an unknown option, or a checkpoint that is missing or does not fit.
    """
    path = Path(config).expanduser()
    if not path.is_file():
        path = CONFIGS / f"{config}.yaml"
    if not path.is_file():
        names = sorted(file.relative_to(CONFIGS).with_suffix("").as_posix() for file in CONFIGS.rglob("*.yaml"))
        raise InputError(f"{config}: no such file, and no configuration of this name; names: {', '.join(names)}")
    dotted = {name.replace("__", "."): value for name, value in options.items()}
    dotted.setdefault("run.use_cache", "run.cache" in dotted)
    words = [word for name, value in dotted.items() for word in (f"--{name}", _word(value))]
    resolved = resolve_options(Options, ["--config", str(path), *words])
    return Pipeline(build_method(resolved, device or ("cuda" if torch.cuda.is_available() else "cpu")), resolved)


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def _validate(frames: Sequence[np.ndarray], audio: np.ndarray, sample_rate: int) -> None:
    shapes = {(frame.shape, frame.dtype) for frame in map(np.asarray, frames)}
    if len(shapes) != 1:
        raise ValueError(f"expected frames (H, W, 3) of one size, got {len(frames)} of {len(shapes)} sizes or types")
    shape, dtype = shapes.pop()
    if len(shape) != 3 or shape[2] != 3 or dtype != np.uint8:
        raise ValueError(f"expected frames (H, W, 3) of uint8, got {shape} of {dtype}")
    samples = np.asarray(audio)
    if samples.ndim not in (1, 2) or not (samples.dtype == np.int16 or np.issubdtype(samples.dtype, np.floating)):
        raise ValueError(f"expected audio (samples,) or (samples, channels), got {samples.shape} of {samples.dtype}")
    if sample_rate < 1 or not np.isfinite(samples).all():
        raise ValueError("the sample rate must be positive, and the audio finite")
