"""Pictures as the published outputs took them: PIL's or a tensor's resizing, CLIP's or ImageNet's statistics."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as F
from torchvision.transforms.v2.functional import InterpolationMode
from tqdm import tqdm

from utils.cli import InputError, progress_bar_options
from utils.dataset import NORMALIZATION, normalize_frames
from utils.files import read_image
from utils.words import counted

SIDE = 224  # pixels, of the classifiers' input


def clip_demo_input(path: Path) -> Tensor:
    """A picture as AudioCLIP's demo takes it: resized as a float tensor, without antialiasing; (3, 224, 224)."""
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1) / 255
    resized = F.resize(image, [SIDE], InterpolationMode.BICUBIC, antialias=False)
    return _clip_statistics(F.center_crop(resized, [SIDE, SIDE]))


def clip_input(path: Path) -> Tensor:
    """A picture resized as a uint8 tensor with antialiasing, center crop; (3, 224, 224) by CLIP's statistics."""
    image = torch.from_numpy(read_image(path)).permute(2, 0, 1)
    resized = F.resize(image, [SIDE], InterpolationMode.BICUBIC, antialias=True)
    return normalize_frames([F.center_crop(resized, [SIDE, SIDE]).permute(1, 2, 0).numpy()], "clip")[0]


def squeezed_input(path: Path) -> Tensor:
    """A picture with both sides resized by PIL (bilinear); (3, 224, 224) by ImageNet's statistics."""
    image = Image.fromarray(read_image(path)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return normalize_frames([np.asarray(image)], "imagenet")[0]


def cropped_input(path: Path, side: int, resample: Image.Resampling, statistics: str) -> Tensor:
    """A picture whose shorter side PIL resizes to `side`, center crop; (3, 224, 224)."""
    image = Image.fromarray(read_image(path))
    width, height = (int(side * length / min(image.size)) for length in image.size)
    resized = image.resize((width, height), resample)
    left, top = round((resized.width - SIDE) / 2), round((resized.height - SIDE) / 2)
    return normalize_frames([np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))], statistics)[0]


class ImageNetVal(Dataset[tuple[Tensor, int]]):
    """ImageNet's validation pictures, one folder per class.

    Args:
        folder: n01440764/*.JPEG, ...
        pictures: how many there must be.
        options: of `cropped_input`.

    Raises:
        InputError: for another layout or number.
    """

    def __init__(self, folder: Path, pictures: int, **options: Any) -> None:
        from timm.data import ImageNetInfo

        index = {name: number for number, name in enumerate(ImageNetInfo().label_names())}
        found = sorted(path for path in folder.glob("*/*") if path.is_file())
        if unknown := {path.parent.name for path in found} - set(index):
            raise InputError(f"{folder}: {min(unknown)} is no class of ImageNet, such as n01440764")
        if len(found) != pictures:
            raise InputError(f"{folder}: {counted(len(found), 'picture')} in the folders of classes, not {pictures}")
        self.items, self.options = [(path, index[path.parent.name]) for path in found], options

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        path, label = self.items[number]
        return cropped_input(path, **self.options), label

    def batches(self, size: int = 64) -> Any:
        """Pictures (B, 3, 224, 224) and labels (B,), with a progress bar."""
        loader = DataLoader(self, size, num_workers=0 if len(self) < size else 4)
        return tqdm(loader, desc="ImageNet", **progress_bar_options())


def _clip_statistics(image: Tensor) -> Tensor:
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALIZATION["clip"])
    return (image - mean) / std
