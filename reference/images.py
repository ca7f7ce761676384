"""Reading and normalizing images with PIL, torchvision and the formulas."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from utils.dataset import NORMALIZATION


def normalize_frames(frames: Tensor, statistics: str) -> Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32, by the statistics of that name."""
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALIZATION[statistics])
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


def read_mask(path: Path, benchmark: str) -> Tensor:
    """A mask (H, W) as the original study decodes it; of 0 and 1 if the file is black and white."""
    with Image.open(path) as image:
        decoded = np.asarray(image.convert("1" if benchmark == "s4" else "P"))
    return torch.from_numpy(decoded / np.float32(1 if benchmark == "s4" else 255))


def crop_image(crop: np.ndarray, size: int) -> Tensor:
    """A crop (h, w, 3) uint8 -> AudioCLIP's input (3, size, size): resized by torchvision, then center-cropped."""
    steps = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Resize(size, v2.InterpolationMode.BICUBIC, antialias=False),
        v2.CenterCrop(size),
        v2.Normalize(*map(list, NORMALIZATION["clip"])),
    ]
    return v2.Compose(steps)(crop)


def resize_bilinear(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize (h, w) float32 as torch does where multiply-add is one operation, equal to the last bit."""

    def along(x: np.ndarray, count: int) -> np.ndarray:  # the last axis
        length = len(x[0])
        position = np.float32(length / count) * (np.arange(count, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
        position = position.clip(0)
        first = position.astype(int)
        weight = position - first.astype(np.float32)
        product = weight * x[:, np.minimum(first + 1, length - 1)]  # rounded; the other product is not
        return ((np.float32(1) - weight).astype(np.float64) * x[:, first] + product).astype(np.float32)

    return along(along(image, size[1]).T, size[0]).T
