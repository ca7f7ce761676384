"""Features of audio towers that training leaves as they are, computed once for a run and kept in a cache."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from supervised.data import CONSTANT_NEGATIVES, SupervisedDataset
from supervised.model import AVSModel
from supervised.options import Options
from utils.cache import Cache, content_hash, weights_hash
from utils.cli import progress_bar_options
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset
from utils.sound_conditions import AudioCondition

FEATURES_VERSION = 1  # in the key of the cache: raise it when a change alters the features


def precompute_audio_features(
    model: AVSModel, datasets: Mapping[str, SupervisedDataset], accelerator: Accelerator, options: Options
) -> None:
    """Store the features of the frozen audio tower in the data sets, by split, those of negatives too."""
    for split, dataset in datasets.items():
        fraction, dataset.negatives = dataset.negatives, 0.0
        features: dict[AudioCondition, Tensor] = {}
        for sound in ("original", *(CONSTANT_NEGATIVES if fraction else ())):
            dataset.set_sound(sound, options.train.seed)
            features[sound] = extract_audio_features(
                model,
                dataset,
                accelerator,
                num_workers=options.data.num_workers,
                cache=options.data.cache,
                title=f"audio features, {split}" + ("" if sound == "original" else f", {sound}"),
            )
        dataset.set_sound("original")
        dataset.audio_features, dataset.negative_features = features.pop("original"), features
        dataset.negatives = fraction


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


class _AudioOnly(Dataset[dict[str, Any]]):
    """The audio of a split without its frames."""

    def __init__(self, dataset: AVSDataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, **self.dataset.load_audio(index)}


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
