"""AVSBench as a PyTorch data set, with arguments for every loader of the original.

    arguments                                                the original's loader
    images="imagenet", audio="log_mel"                       AVSBench, TPAVI rows, VGGish ablations
    images="clip", audio="waveform", audio_repeats=5         AudioCLIP rows
    images="raw", audio="waveform"                           zero-shot point prompts and heatmap boxes
    images="raw", audio="waveform", sample_rate=48_000,
        int16_round_trip=True                                zero-shot No-Prompt and Box-Prompt (as published)
    fraction=0.2                                             the `*_partial` variants

Source: AVSBench and Sam4AVS, `dataloader.py` of every folder (docs: avsbench_data/README.md).
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from utils.audio import SAMPLE_RATE, load_clip_waveform, log_mel, pad_or_trim, read_mono, split_seconds
from utils.cli import InputError
from utils.files import read_image
from utils.labels import UnknownColors, fit, read_avss_frame, read_frame_and_labels
from utils.layout import FRAME_SIZE, AVSBench, Clip, SoftMasks
from utils.log_mel import read_log_mel
from utils.masks import read_mask
from utils.sound_conditions import AudioCondition, SoundCondition, absent_sounds, clip_classes, list_sounds
from utils.words import counted

NORMALIZATION = {  # mean and standard deviation of R, G, B in [0, 1]
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


class AVSDataset(Dataset[dict[str, Any]]):
    """The clips of one split, in the order of the meta CSV.

    Args:
        data: The benchmark's files.
        split: train, val or test.
        images: The normalization of the frames, or "raw".
        audio: What an item holds of the audio: "log_mel", "waveform" or "none".
        sample_rate, audio_repeats, int16_round_trip: Of the waveform, see utils.audio.load_clip_waveform.
        fraction: Of the training clips, drawn as in the original; val and test are never reduced.
        image_size: Height and width of the frames; 224 is the size on disk.
        mask_size: Height and width of the masks; sizes other than 224 are their nearest pixels.
        soft_masks: How to treat masks that are not black and white, see utils.masks.read_mask.
        center_crop: In training on AVSS keep the aspect ratio of frames and labels and crop them, as AVSBench does;
            else they are squeezed, as in val and test.
        unknown_colors: How to treat labels of AVSS that are no class, see utils.labels.read_labels.

    Each item is a dict, in which T is the number of seconds (5):
        index: int, in the split
        name, category: str; category is "" in MS3
        frames: float32 (T, 3, H, W), or uint8 RGB (T, H, W, 3) if raw
        log_mel: float32 (T, 1, 96, 64), or
        waveform: float32 (T, audio_repeats · sample_rate), in [-1, 1]
        masks: float32 (M, mask_size, mask_size) of 0 and 1; M = 1 in S4 training, else T

    In AVSS T is the length of the longest clips (10), to which the others are padded with zeros; frames after their
    normalization, as in AVSBench. Instead of masks an item has
        labels: int64 (T, mask_size, mask_size), the class of each pixel; 0 where there are no labels
        valid: float32 (T,), 0 for padding
        labeled: float32 (T,), 1 for frames with labels

    Raises:
        InputError: The split has no clips or is not preprocessed, or the fraction is out of range.
    """

    def __init__(
        self,
        data: AVSBench,
        split: str,
        *,
        images: Literal["imagenet", "clip", "raw"] = "imagenet",
        audio: Literal["log_mel", "waveform", "none"] = "log_mel",
        sample_rate: int = 44_100,
        audio_repeats: int = 1,
        int16_round_trip: bool = False,
        fraction: float = 1.0,
        image_size: int = FRAME_SIZE[0],
        mask_size: int = FRAME_SIZE[0],
        soft_masks: SoftMasks = "refuse",
        center_crop: bool = False,
        unknown_colors: UnknownColors = "refuse",
    ):
        self.data, self.images, self.audio, self.image_size, self.mask_size = data, images, audio, image_size, mask_size
        self.soft_masks, self.unknown_colors = soft_masks, unknown_colors
        self.center_crop = center_crop and split == "train"
        self.sample_rate, self.audio_repeats, self.int16_round_trip = sample_rate, audio_repeats, int16_round_trip
        self.clips = data.split(split)
        if not self.clips:
            raise InputError(f"{data.root}: no {split} clips in {data.benchmark.meta}")
        if split == "train" and fraction != 1.0:
            self.clips = sample_fraction(self.clips, fraction)
        _check_preprocessed(data, self.clips[0], audio)
        self.sound: SoundCondition | None = None
        if audio == "waveform":
            from librosa import resample  # noqa: F401  takes seconds: once here, before data-loading processes are forked

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        clip = self.clips[index]
        item: dict[str, Any] = {"index": index, "name": clip.name, "category": clip.category}
        if self.data.benchmark.classes > 1:
            return item | self._padded(self._load_semantic(clip) | self.load_audio(index))
        item["frames"] = self._normalized([read_frame(path, self.image_size) for path in self.data.frames(clip)])
        item |= self.load_audio(index)
        masks = torch.from_numpy(np.stack([read_mask(path, self.soft_masks) for path in self.data.masks(clip)]))
        item["masks"] = self._resize_masks(masks)
        return item

    def _resize_masks(self, masks: Tensor) -> Tensor:
        if self.mask_size == FRAME_SIZE[0]:
            return masks
        # PIL's "nearest", by which AVSegFormer's loaders resize masks, is PyTorch's "nearest-exact".
        return F.interpolate(masks[None], (self.mask_size, self.mask_size), mode="nearest-exact")[0]

    def set_sound(self, condition: AudioCondition, seed: int = 0, offscreen_sounds: Path | None = None) -> None:
        """Replace the sound of every clip from now on; frames and masks stay the same.

        Args:
            condition: See utils.sound_conditions.
            seed: Of noise, and of the choice of other sounds.
            offscreen_sounds: Folder of sounds for the condition "offscreen".

        Raises:
            InputError: The condition is not possible for these clips.
        """
        self.sound = None if condition == "original" else self.make_sound(condition, seed, offscreen_sounds)

    def make_sound(
        self, condition: AudioCondition, seed: int = 0, offscreen_sounds: Path | None = None
    ) -> SoundCondition:
        """A sound condition for these clips; arguments and errors as of `set_sound`."""
        sound = SoundCondition(
            condition,
            self.clips,
            [self._classes(clip) for clip in self.clips],
            self._own_sound,
            seed,
            self._offscreen_sounds(offscreen_sounds) if condition == "offscreen" else {},
            read_mono,
        )
        sound.check()
        return sound

    def _classes(self, clip: Clip) -> frozenset[str]:
        """The classes of a clip; where they are not known, a class of its own."""
        classes = clip_classes(self.data.benchmark.name, clip)
        return frozenset([f"clip {clip.name}"]) if classes is None else classes

    def _offscreen_sounds(self, folder: Path | None) -> dict[Path, frozenset[str] | None]:
        return absent_sounds(self.data, self.clips) if folder is None else dict.fromkeys(list_sounds(folder))

    def _own_sound(self, index: int) -> np.ndarray:
        """The waveform of a clip, float32 (samples,) at 16 kHz."""
        return read_mono(self.data.wav(self.clips[index]))

    def with_sound(self, indices: Sequence[int]) -> list[int]:
        """Those of the clips to which the sound condition applies."""
        return [index for index in indices if self.sound is None or self.sound.applies(index)]

    def load_audio(self, index: int) -> dict[str, Tensor]:
        """The audio part of an item."""
        clip = self.clips[index]
        if self.sound is not None:
            return self.load_sound(self.sound, index)
        if self.audio == "log_mel":
            return {"log_mel": torch.from_numpy(read_log_mel(self.data, clip))}
        if self.audio == "waveform":
            waveform = load_clip_waveform(
                self.data.wav(clip),
                self.sample_rate,
                seconds=self.data.benchmark.num_frames(clip),
                audio_repeats=self.audio_repeats,
                int16_round_trip=self.int16_round_trip,
            )
            return {"waveform": torch.from_numpy(waveform)}
        return {}

    def load_sound(self, sound: SoundCondition, index: int) -> dict[str, Tensor]:
        """The audio part of an item under a sound condition, whose waveform takes the same path as the clip's own."""
        if self.audio == "none":
            return {}
        waveform, length = sound.waveform(index), self.data.benchmark.num_frames(self.clips[index])
        if self.audio == "log_mel":
            return {"log_mel": torch.from_numpy(pad_or_trim(log_mel(waveform, SAMPLE_RATE), length))}
        seconds = split_seconds(
            waveform,
            SAMPLE_RATE,
            self.sample_rate,
            seconds=length,
            audio_repeats=self.audio_repeats,
            int16_round_trip=self.int16_round_trip,
        )
        return {"waveform": torch.from_numpy(seconds)}

    def frame_images(self, index: int) -> list[np.ndarray]:
        """The frames of a clip at the size of its masks: (mask_size, mask_size, 3) uint8 RGB each."""
        paths = self.data.frames(self.clips[index])
        if self.data.benchmark.classes == 1:
            return [read_frame(path, self.mask_size) for path in paths]
        return [_resize(fit(read_avss_frame(path), train=self.center_crop), self.mask_size) for path in paths]

    def _load_semantic(self, clip: Clip) -> dict[str, Tensor]:
        """Frames, labels, valid and labeled of an AVSS clip, without padding."""
        seconds = range(self.data.benchmark.num_frames(clip))
        options: dict[str, Any] = {"train": self.center_crop, "unknown": self.unknown_colors}
        frames, labels = zip(*(read_frame_and_labels(self.data, clip, k, **options) for k in seconds), strict=True)
        given = [np.zeros(FRAME_SIZE, np.uint8) if each is None else each for each in labels]
        return {
            "frames": self._normalized([_resize(frame, self.image_size) for frame in frames]),
            "labels": self._resize_masks(torch.from_numpy(np.stack(given)).float()).long(),
            "valid": torch.ones(len(seconds)),
            "labeled": torch.tensor([float(each is not None) for each in labels]),
        }

    def _padded(self, item: dict[str, Tensor]) -> dict[str, Tensor]:
        """Pad the seconds of a clip to those of the longest clips with zeros."""
        return {name: pad_seconds(value, self.data.benchmark.max_seconds) for name, value in item.items()}

    def _normalized(self, frames: Sequence[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(frames)) if self.images == "raw" else normalize_frames(frames, self.images)


def pad_seconds(values: Tensor, seconds: int) -> Tensor:
    """Append zeros to (T, ...) up to `seconds`."""
    missing = seconds - len(values)
    return values if missing == 0 else torch.cat([values, values.new_zeros(missing, *values.shape[1:])])


def _check_preprocessed(data: AVSBench, clip: Clip, audio: str) -> None:
    """Raise InputError if the folders of a clip that preprocessing makes are missing. AVSS is distributed with them."""
    if data.benchmark.classes > 1:
        return
    for path in [data.frames(clip)[0], *([data.wav(clip)] if audio == "waveform" else [])]:
        if not path.parent.is_dir():
            raise InputError(f"{path}: no such file; run {data.preprocess_command}")


def sample_fraction(clips: Sequence[Clip], fraction: float) -> list[Clip]:
    """Draw the clips that the original's partial-data configurations train on, in its (permuted) order."""
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction} is not in (0, 1]")
    indices = pd.Series(range(len(clips))).sample(frac=fraction, replace=False, random_state=0)
    if not len(indices):
        raise InputError(f"data.fraction {fraction} leaves none of {counted(len(clips), 'clip')}")
    return [clips[index] for index in indices]


def normalize_frames(frames: Tensor | Sequence[np.ndarray], statistics: str) -> Tensor:
    """Normalize frames.

    Args:
        frames: (N, H, W, 3) uint8 RGB.
        statistics: A key of NORMALIZATION.

    Returns:
        float32 (N, 3, H, W), channels last in memory.
    """
    images, table = torch.empty(len(frames), *frames[0].shape), _lookup_table(statistics)
    for image, frame in zip(images.numpy(), frames, strict=True):
        cv2.LUT(np.asarray(frame), table, image)
    return images.permute(0, 3, 1, 2)


@lru_cache
def _lookup_table(statistics: str) -> np.ndarray:
    """The normalized value of each byte in each channel, float32 (1, 256, 3)."""
    mean, std = (torch.tensor(values) for values in NORMALIZATION[statistics])
    return ((torch.arange(256.0)[None, :, None] / 255 - mean) / std).numpy()


def read_frame(path: Path, size: int = FRAME_SIZE[0]) -> np.ndarray:
    """Read a frame as (size, size, 3) RGB uint8, resized if the size differs from that on disk.

    Larger sizes are PIL's bilinear interpolation, bit by bit, as in AVSegFormer's loaders.

    Raises:
        InputError: The file is missing, not an image or not 224×224.
    """
    frame = read_image(path)
    if frame.shape[:2] != FRAME_SIZE:
        raise InputError(f"{path}: is {frame.shape[1]}×{frame.shape[0]}, not 224×224; preprocess the clip again")
    return _resize(frame, size)


def _resize(frame: np.ndarray, size: int) -> np.ndarray:
    if size == FRAME_SIZE[0]:
        return frame
    if size < FRAME_SIZE[0]:
        return cv2.resize(frame, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(Image.fromarray(frame).resize((size, size), Image.Resampling.BILINEAR))
