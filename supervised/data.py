"""The data set of a supervised run, whose items hold the audio or, of a frozen tower, its precomputed features."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from supervised.model import AVSModel, InputSpec
from supervised.options import DataOptions
from utils.cache import Cache, content_hash, weights_hash
from utils.cli import progress_bar_options
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset, pad_seconds
from utils.fidelity import Fidelity
from utils.layout import FRAME_SIZE, AVSBench
from utils.sound_conditions import AudioCondition

NEGATIVE_KINDS: tuple[AudioCondition, ...] = ("silent", "noise", "shuffled")
CONSTANT_NEGATIVES: tuple[AudioCondition, ...] = ("silent", "noise")  # whose features can be computed once
FEATURES_VERSION = 1  # in the key of the cache: raise it when a change alters the features


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


class _AudioOnly(Dataset[dict[str, Any]]):
    """The audio of a split without its frames."""

    def __init__(self, dataset: AVSDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, **self.dataset.load_audio(index)}


@torch.no_grad()
def extract_audio_features(
    model: AVSModel,
    dataset: AVSDataset,
    accelerator: Accelerator,
    *,
    num_workers: int = 0,
    cache: Path | None = None,
    title: str = "audio features",
) -> Tensor:
    """The audio features of every clip of a split, for a model whose `audio_is_static`.

    Clips are encoded one at a time, so that features depend neither on other clips of a batch, nor on the number of
    processes, nor on what the cache already holds.

    Args:
        model: on the accelerator's device.
        num_workers: processes that load audio; 0 loads in this one.
        cache: folder that keeps the features for later runs.
        title: of the progress bar.

    Returns:
        (clips, T, A) float32 on the CPU, the same in every process; 0 after the end of a clip.
    """
    if model.audio_tower is None:
        raise ValueError("this model takes no audio")
    kind = model.inputs.audio
    store = _feature_cache(model, accelerator, cache) if cache else None
    mine = list(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    features = torch.zeros(len(dataset), dataset.data.benchmark.max_seconds, model.audio_feature_size)
    was_training = model.training
    model.eval()
    loader = load_batches(_AudioOnly(dataset), chunk(mine, 1), num_workers)
    for item in tqdm(
        loader,
        desc=title,
        unit="clip",
        total=len(mine),
        disable=not accelerator.is_main_process,
        **progress_bar_options(),
    ):
        key = content_hash(item[kind].numpy()) if store else ""
        entry = store.get(key) if store else None
        if entry is None:
            with accelerator.autocast():
                entry = {"features": model.encode_audio(item[kind].to(accelerator.device))[0].float().cpu()}
            if store:
                store.put(key, entry)
        features[item["index"], : len(entry["features"])] = entry["features"]
    model.train(was_training)
    if accelerator.num_processes > 1:  # each process has filled its own rows; the others are zero
        return accelerator.reduce(features.to(accelerator.device), "sum").cpu()
    return features


def _feature_cache(model: AVSModel, accelerator: Accelerator, folder: Path) -> Cache:
    tower = model.audio_tower
    assert tower is not None
    parameters = {
        "version": FEATURES_VERSION,
        "weights": weights_hash(tower),
        "hop": getattr(tower, "hop", None),  # not visible in the weights
        "amplitude": getattr(model.segmentor, "fidelity", model.fidelity if model.audioclip_audio else None),
        "precision": accelerator.mixed_precision if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "device": accelerator.device.type,  # rounding differs
    }
    return Cache(folder, "audio_features", parameters)
