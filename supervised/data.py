"""The clips of a run as its model takes them, and what a frozen audio tower hears in them, computed once."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from models.audioclip_segmentor import AudioCLIPSegmentor
from supervised.model import AVSModel, InputSpec
from supervised.options import DataOptions
from utils.audio import LOG_OFFSET
from utils.cache import Cache, content_hash, weights_hash
from utils.cli import InputError, quiet_bar
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset
from utils.layout import AVSBench

Sound = Literal["real", "silent", "shuffled"]
VERSION = 1  # of the features: raise it when a change alters them


class SupervisedDataset(AVSDataset):
    """A split whose clips hear themselves, nothing, or each other."""

    def __init__(self, data: AVSBench, split: str, sound: Sound = "real", **kinds: Any):
        super().__init__(data, split, **kinds)
        self.hears = sound

    def sound(self, index: int) -> dict[str, Tensor]:
        """What an item holds of the sound that it is to hear."""
        if self.hears == "shuffled":
            return super().sound(other_clip(self, index))
        heard = super().sound(index)
        if self.hears == "silent":
            silence = {"log_mel": float(np.log(LOG_OFFSET)), "waveform": 0.0}
            heard = {kind: torch.full_like(value, silence[kind]) for kind, value in heard.items()}
        return heard


def other_clip(dataset: AVSDataset, index: int) -> int:
    """The clip that lends its sound: half the split further on, then the next of another category."""
    count = len(dataset.clips)
    turns = [(index + count // 2 + step) % count for step in range(count)]
    others = [i for i in turns if i != index]
    strangers = [i for i in others if dataset.clips[i].category != dataset.clips[index].category]
    if not others:
        raise InputError("a split of one clip has no other sound to shuffle in")
    return (strangers or others)[0]


def open_dataset(
    options: DataOptions, inputs: InputSpec, split: str, *, root: Path | None = None, sound: Sound = "real"
) -> SupervisedDataset:
    """A split with the frames and sounds that a model wants. Raises InputError."""
    data = AVSBench(root or options.root, options.benchmark)
    kinds: dict[str, Any] = {**inputs._asdict(), "tile": options.audio_repeats, "image_size": options.image_size}
    kinds |= {"fraction": options.fraction, "soft_masks": options.soft_masks}
    return SupervisedDataset(data, split, sound, **kinds)


class _Sounds(Dataset[dict[str, Any]]):
    """The sounds of a split without its frames."""

    def __init__(self, clips: AVSDataset):
        self.clips = clips

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"index": index, **self.clips.sound(index)}


@torch.no_grad()
def extract_audio_features(
    model: AVSModel,
    clips: AVSDataset,
    accelerator: Accelerator,
    *,
    workers: int = 0,
    cache: Path | None = None,
    title: str = "listen",
) -> Tensor:
    """What a tower that `hears_the_same` makes of every clip's sound: (clips, 5, A) on the CPU, in every process.

    Each clip goes through it alone, so that the features do not depend on their neighbours, on the number of
    processes, or on what the cache already had.
    """
    if model.audio_tower is None:
        raise ValueError("this model does not listen")
    kind = model.inputs.audio
    store = _store(model, accelerator, cache) if cache else None
    mine = list(range(accelerator.process_index, len(clips), accelerator.num_processes))
    found = torch.zeros(len(clips), 5, _size(model))
    was_training = model.training
    model.eval()
    loader = load_batches(_Sounds(clips), chunk(mine, 1), workers)
    for item in tqdm(
        loader, desc=title, unit="clip", total=len(mine), disable=not accelerator.is_main_process, **quiet_bar()
    ):
        key = content_hash(item[kind].numpy()) if store else ""
        kept = store.get(key) if store else None
        if kept is None:
            with accelerator.autocast():
                kept = {"heard": model.encode_audio(item[kind].to(accelerator.device))[0].float().cpu()}
            if store:
                store.put(key, kept)
        found[item["index"]] = kept["heard"]
    model.train(was_training)
    if accelerator.num_processes > 1:  # elsewhere it is zero
        return accelerator.reduce(found.to(accelerator.device), "sum").cpu()
    return found


def _size(model: AVSModel) -> int:
    if isinstance(model.segmentor, AudioCLIPSegmentor):
        return model.segmentor.projection.in_features
    return model.options.vggish.features


def _store(model: AVSModel, accelerator: Accelerator, folder: Path) -> Cache:
    tower = model.audio_tower
    assert tower is not None
    facts = {
        "version": VERSION,
        "weights": weights_hash(tower),
        "hop": getattr(tower, "hop", None),  # which no shape of a weight tells
        "amplitude": getattr(model.segmentor, "fidelity", None),
        "precision": accelerator.mixed_precision if torch.get_float32_matmul_precision() == "highest" else "tf32",
        "device": accelerator.device.type,  # rounding differs
    }
    return Cache(folder, "heard", facts)
