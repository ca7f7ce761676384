"""The data set of a supervised run, whose items hold the audio or, of a frozen tower, its precomputed features."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from supervised.model import InputSpec
from supervised.options import DataOptions
from utils.dataset import AVSDataset, pad_seconds
from utils.fidelity import Fidelity
from utils.layout import FRAME_SIZE, AVSBench
from utils.sound_conditions import AudioCondition

NEGATIVE_KINDS: tuple[AudioCondition, ...] = ("silent", "noise", "shuffled")
CONSTANT_NEGATIVES: tuple[AudioCondition, ...] = ("silent", "noise")  # whose features can be computed once


class SupervisedDataset(AVSDataset):
    """A split whose audio may be replaced by precomputed features, and with negatives in training.

    Attributes:
        audio_features: (clips, T, A) float32 on the CPU. If set, items hold `audio_features` (T, A) instead of
            `log_mel` or `waveform`.
        negatives: the fraction of items with another sound and an empty mask.
        negative_features: like `audio_features`, of the negatives whose sound is no other clip's.
    """

    def __init__(self, data: AVSBench, split: str, **kinds: Any):
        super().__init__(data, split, **kinds)
        self.audio_features: Tensor | None = None
        self.negative_features: dict[AudioCondition, Tensor] = {}
        self.negatives, self._seed, self._epoch = 0.0, 0, 0

    def use_negatives(self, fraction: float, seed: int) -> None:
        """Turn a fraction of the items into negatives, drawn by the seed, the epoch and the clip.

        Raises:
            InputError: No clip has a partner of another category.
        """
        self.negatives, self._seed = fraction, seed
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw the negatives of an epoch, before its batches are loaded."""
        self._epoch = epoch
        if self.negatives:
            seeds = {"shuffled": (self._seed * 100_003 + epoch) % 2**32}  # the others stay, so that features do too
            self._sounds = {kind: self.make_sound(kind, seeds.get(kind, self._seed)) for kind in NEGATIVE_KINDS}

    def condition_of(self, index: int) -> AudioCondition:
        """Which sound an item has in this epoch."""
        if not self.negatives:
            return "original"
        drawn = np.random.default_rng([self._seed, self._epoch, index]).random() / self.negatives
        kind = NEGATIVE_KINDS[int(drawn * len(NEGATIVE_KINDS))] if drawn < 1 else "original"
        return kind if kind == "original" or self._sounds[kind].applies(index) else "silent"

    def __getitem__(self, index: int) -> dict[str, Any]:
        item = super().__getitem__(index)
        if self.condition_of(index) != "original":
            truth = "masks" if self.data.benchmark.classes == 1 else "labels"
            item[truth] = torch.zeros_like(item[truth])
        return item

    def load_audio(self, index: int) -> dict[str, Tensor]:
        """The audio of an item, by its key."""
        condition = self.condition_of(index)
        if self.audio_features is None:
            sound = self.sound if condition == "original" else self._sounds[condition]
            return super().load_audio(index) if sound is None else self.load_sound(sound, index)
        if condition == "shuffled":
            partner = self._sounds[condition].partners[index]
            assert partner is not None
            return {"audio_features": self._looped(self.audio_features[partner], partner, index)}
        features = self.audio_features if condition == "original" else self.negative_features[condition]
        return {"audio_features": features[index]}

    def _looped(self, features: Tensor, source: int, index: int) -> Tensor:
        """The features (T, A) of a clip at the length of another one, repeated or cut where lengths differ (AVSS)."""
        count = self.data.benchmark.num_frames
        theirs, ours = count(self.clips[source]), count(self.clips[index])
        return pad_seconds(features[torch.arange(ours) % theirs], len(features))


def open_dataset(
    options: DataOptions,
    inputs: InputSpec,
    split: str,
    *,
    root: Path | None = None,
    fidelity: Fidelity = "corrected",
) -> SupervisedDataset:
    """Open a split as the inputs of a model.

    Args:
        options: which clips.
        inputs: of the model.
        split: "train", "val" or "test".
        root: replaces `options.root`.
        fidelity: "published" gives val and test the masks of training, "corrected" those on disk, so that all
            segmentors are measured at the same size. In AVSS "published" crops the clips of training, but not those of
            val and test, and takes labels that are no class for background.

    Raises:
        InputError: if the data are missing.
    """
    published = fidelity == "published"
    data = AVSBench(root or options.root, options.benchmark)
    kinds: dict[str, Any] = {
        **inputs._asdict(),
        "audio_repeats": options.audio_repeats,
        "image_size": options.image_size,
        "mask_size": options.mask_size if split == "train" or fidelity == "published" else FRAME_SIZE[0],
    }
    kinds |= {"fraction": options.fraction, "soft_masks": options.soft_masks, "center_crop": published}
    kinds["unknown_colors"] = "background" if published else options.unknown_colors
    return SupervisedDataset(data, split, **kinds)
