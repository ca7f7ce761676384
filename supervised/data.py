"""The data set of a supervised run, whose items hold the audio or, of a frozen tower, its precomputed features."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from models.audioclip_segmentor import AudioCLIPSegmentor
from supervised.model import AVSModel, InputSpec
from supervised.options import AudioCondition, DataOptions
from utils.audio import LOG_OFFSET
from utils.cache import Cache, content_hash, weights_hash
from utils.cli import InputError, progress_bar_options
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset
from utils.layout import AVSBench

FEATURES_VERSION = 1  # in the key of the cache: raise it when a change alters the features


class SupervisedDataset(AVSDataset):
    """A split with its original audio, with silence, or with the audio of another clip.

    Attributes:
        condition: "original", "silent" or "shuffled".
        audio_features: (clips, 5, A) float32 on the CPU. If set, items hold `audio_features` (5, A) instead of
            `log_mel` or `waveform`.
    """

    def __init__(self, data: AVSBench, split: str, condition: AudioCondition = "original", **kinds: Any):
        super().__init__(data, split, **kinds)
        self.condition = condition
        self.audio_features: Tensor | None = None

    def load_audio(self, index: int) -> dict[str, Tensor]:
        """The audio of an item, by its key, under the condition."""
        if self.audio_features is not None:
            return {"audio_features": self.audio_features[index]}
        if self.condition == "shuffled":
            return super().load_audio(other_clip(self, index))
        audio = super().load_audio(index)
        if self.condition == "silent":
            silence = {"log_mel": float(np.log(LOG_OFFSET)), "waveform": 0.0}
            audio = {kind: torch.full_like(value, silence[kind]) for kind, value in audio.items()}
        return audio


def other_clip(dataset: AVSDataset, index: int) -> int:
    """Index of the clip whose audio a clip gets under the condition "shuffled".

    The first clip of another category (of any, where there is no other) from half the split further on.

    Raises:
        InputError: if the split has only one clip.
    """
    count = len(dataset.clips)
    candidates = [i for step in range(count) if (i := (index + count // 2 + step) % count) != index]
    if not candidates:
        raise InputError("--audio shuffled needs at least two clips in the split")
    category = dataset.clips[index].category
    return next((i for i in candidates if dataset.clips[i].category != category), candidates[0])


def open_dataset(
    options: DataOptions,
    inputs: InputSpec,
    split: str,
    *,
    root: Path | None = None,
    condition: AudioCondition = "original",
) -> SupervisedDataset:
    """Open a split as the inputs of a model.

    Args:
        options: which clips.
        inputs: of the model.
        split: "train", "val" or "test".
        root: replaces `options.root`.
        condition: of the audio.

    Raises:
        InputError: if the data are missing.
    """
    data = AVSBench(root or options.root, options.benchmark)
    kinds: dict[str, Any] = {
        **inputs._asdict(),
        "audio_repeats": options.audio_repeats,
        "image_size": options.image_size,
    }
    kinds |= {"fraction": options.fraction, "soft_masks": options.soft_masks}
    return SupervisedDataset(data, split, condition, **kinds)


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
        (clips, 5, A) float32 on the CPU, the same in every process.
    """
    if model.audio_tower is None:
        raise ValueError("this model takes no audio")
    kind = model.inputs.audio
    store = _feature_cache(model, accelerator, cache) if cache else None
    mine = list(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    features = torch.zeros(len(dataset), 5, _feature_size(model))
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
        features[item["index"]] = entry["features"]
    model.train(was_training)
    if accelerator.num_processes > 1:  # each process has filled its own rows; the others are zero
        return accelerator.reduce(features.to(accelerator.device), "sum").cpu()
    return features


def _feature_size(model: AVSModel) -> int:
    if isinstance(model.segmentor, AudioCLIPSegmentor):
        return model.segmentor.projection.in_features
    return model.options.vggish.features


def _feature_cache(model: AVSModel, accelerator: Accelerator, folder: Path) -> Cache:
    tower = model.audio_tower
    assert tower is not None
    parameters = {
        "version": FEATURES_VERSION,
        "weights": weights_hash(tower),
        "hop": getattr(tower, "hop", None),  # not visible in the weights
        "amplitude": getattr(model.segmentor, "fidelity", None),
        "precision": accelerator.mixed_precision if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "device": accelerator.device.type,  # rounding differs
    }
    return Cache(folder, "audio_features", parameters)
