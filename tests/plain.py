"""Textbook forms of what the code does faster: the tests compare against them, the benchmarks race them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from models.tpavi import TPAVI
from utils.dataset import STATISTICS


def normalise(frames: Tensor, statistics: str) -> Tensor:
    """(N, H, W, 3) uint8 RGB -> (N, 3, H, W) float32, by the formula."""
    mean, std = (torch.tensor(values)[:, None, None] for values in STATISTICS[statistics])
    return (frames.permute(0, 3, 1, 2).float() / 255 - mean) / std


def read_mask(path: Path, benchmark: str) -> Tensor:
    """A mask (H, W) as the original decodes it, of 0 and 1 if the file is black and white."""
    with Image.open(path) as image:
        decoded = np.asarray(image.convert("1" if benchmark == "s4" else "P"))
    return torch.from_numpy(decoded / np.float32(1 if benchmark == "s4" else 255))


def f_measure(logits: Tensor, masks: Tensor) -> float:
    """M_F of one batch as the original takes it: 255 passes over the pixels of every frame."""
    steps = torch.linspace(0, 1 - 1e-10, 255)
    total, valid = torch.zeros(255), 0
    for probability, truth in zip(logits.sigmoid(), masks, strict=True):
        if truth.mean() == 0:
            continue
        f = torch.zeros(255)
        for i, step in enumerate(steps):
            chosen = (probability >= step).float()
            hit = (chosen * truth).sum()
            precision, recall = hit / (chosen.sum() + 1e-20), hit / (truth.sum() + 1e-20)
            f[i] = 1.3 * precision * recall / (0.3 * precision + recall)
        total += f.nan_to_num(0.0)
        valid += 1
    return (total / valid).max().item() if valid else 0.0


def iou(logits: Tensor, masks: Tensor) -> float:
    """M_J of one batch, pixel by pixel; an empty truth is scored by its background."""
    scores = []
    for z, truth in zip(logits, masks, strict=True):
        chosen, wanted = z.sigmoid() > 0.5, truth > 0.5
        if not wanted.any():
            scores.append((~chosen).float().mean())
        else:
            scores.append((chosen & wanted).sum() / (chosen | wanted).sum())
    return torch.stack(scores).mean().item()


def tpavi(block: TPAVI, maps: Tensor, audio: Tensor | None) -> Tensor:
    """TPAVI with its n × n attention matrix. maps (B, T, C, H, W) -> the same shape."""
    x = maps.transpose(1, 2)
    batch, channels, seconds, height, width = x.shape
    key = x
    if audio is not None:
        aligned = block.align_channel(audio).transpose(1, 2)[..., None, None]
        key = aligned.expand(batch, channels, seconds, height, width)
    theta = block.theta(x).flatten(2).transpose(1, 2)
    phi = block.phi(key).flatten(2)
    g = block.g(x).flatten(2).transpose(1, 2)
    attention = theta @ phi
    y = (attention / attention.shape[-1]) @ g
    y = y.transpose(1, 2).reshape(batch, -1, seconds, height, width)
    z = block.W_z(y) + x
    return block.norm_layer(z.permute(0, 2, 3, 4, 1)).permute(0, 1, 4, 2, 3)


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel examples of mono float samples at 16 kHz, frame by frame and band by band."""
    window = [0.5 - 0.5 * np.cos(2 * np.pi * i / 400) for i in range(400)]
    mel = [1127 * np.log(1 + k * 31.25 / 700) for k in range(257)]
    low, high = 1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700)
    edges = [low + (high - low) * i / 65 for i in range(66)]
    rows = []
    for start in range(0, len(samples) - 399, 160):
        spectrum = np.abs(np.fft.rfft(samples[start : start + 400] * window, 512))
        row = []
        for m in range(64):
            left, centre, right = edges[m : m + 3]
            energy = 0.0
            for k in range(1, 257):
                share = min((mel[k] - left) / (centre - left), (right - mel[k]) / (right - centre))
                energy += max(0.0, share) * spectrum[k]
            row.append(np.log(energy + 0.01))
        rows.append(row)
    count = len(rows) // 96
    return np.asarray(rows[: count * 96], np.float32).reshape(count, 1, 96, 64)


def enlarged(cells: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map (h, w) float32 bilinearly as torch does where multiply-add is one operation, to the last bit."""

    def along(x: np.ndarray, count: int) -> np.ndarray:  # the last axis
        before = len(x[0])
        place = np.float32(before / count) * (np.arange(count, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
        place = place.clip(0)
        first = place.astype(int)
        weight = place - first.astype(np.float32)
        product = weight * x[:, np.minimum(first + 1, before - 1)]  # rounded; the other one is not
        return ((np.float32(1) - weight).astype(np.float64) * x[:, first] + product).astype(np.float32)

    return along(along(cells, size[1]).T, size[0]).T


def peaks(sm: np.ndarray, threshold: float) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Peaks and troughs as (x, y), pixel by pixel; beyond the map lie zeros, which count in the fallbacks."""
    height, width = sm.shape
    highest, lowest = max(sm.max(), 0), min(sm.min(), 0)
    pixels = [(x, y) for y in range(height) for x in range(width)]

    def at(x: int, y: int) -> np.float32:
        return sm[y, x] if 0 <= x < width and 0 <= y < height else np.float32(0)

    def beside(x: int, y: int) -> list[np.float32]:
        return [at(x - 1, y), at(x + 1, y), at(x, y - 1), at(x, y + 1)]

    limits = np.float32(threshold), np.float32(1 - threshold)
    peaks = [p for p in pixels if at(*p) > limits[0] and all(at(*p) > other for other in beside(*p))]
    troughs = [p for p in pixels if at(*p) < limits[1] and all(at(*p) < other for other in beside(*p))]
    return peaks or [p for p in pixels if at(*p) == highest], troughs or [p for p in pixels if at(*p) == lowest]


def crop_image(crop: np.ndarray, size: int) -> Tensor:
    """A crop (h, w, 3) uint8 as AudioCLIP's image (3, size, size): resized whole by torchvision, its centre kept."""
    steps = [
        v2.ToImage(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Resize(size, v2.InterpolationMode.BICUBIC, antialias=False),
        v2.CenterCrop(size),
        v2.Normalize(*map(list, STATISTICS["clip"])),
    ]
    return v2.Compose(steps)(crop)
