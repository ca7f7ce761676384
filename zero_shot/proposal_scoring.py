"""Which of SAM's proposals sounds: cut each out, embed it, compare it with the sound, keep the likely.

Source: Sam4AVS, `zero_shot/S4/no_prompt.py`. Embedding lies between :func:`prepare_crops` and
:func:`proposal_probabilities` and is AudioCLIP's.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from utils.dataset import normalize_frames
from utils.device import to_device
from utils.fidelity import Fidelity, validate_fidelity
from utils.layout import FRAME_SIZE


def crop_proposal(frame: np.ndarray, record: Mapping[str, Any], fidelity: Fidelity) -> np.ndarray | None:
    """A proposal cut out of its frame, (h, w, 3) uint8, black where its mask is not; None if nothing is left.

    Args:
        frame: (H, W, 3) uint8 RGB.
        record: of SamAutomaticMaskGenerator: `segmentation` (H, W) bool, and `bbox` as x, y, w, h in pixels, whose
            w and h are differences of indices and so one short.
        fidelity: "published" takes w and h at their word and so loses the last column and the last row, and with
            them every proposal that is one pixel wide or high; "corrected" keeps them.
    """
    mask = np.asarray(record["segmentation"], bool)
    if frame.shape != (*mask.shape, 3):
        raise ValueError(f"a mask {mask.shape} does not fit a frame {frame.shape}")
    x, y, width, height = (round(side) for side in record["bbox"])
    if validate_fidelity(fidelity) == "corrected":
        width, height = width + 1, height + 1
    box = slice(y, y + height), slice(x, x + width)
    if not mask[box].size or not mask.any():
        return None
    return np.where(mask[box][..., None], frame[box], np.uint8(0))


def prepare_crops(crops: Sequence[np.ndarray], size: int = FRAME_SIZE[0], device: torch.device | str = "cpu") -> Tensor:
    """AudioCLIP's images (K, 3, size, size) of K crops (h, w, 3) uint8 RGB: their centres, normalised as CLIP's are.

    They are made, and stay, on the device.

    The shorter side becomes `size` by bicubic interpolation without antialiasing (its kernel would be another even
    when enlarging) and without clamping. Only the pixels of the centre are interpolated, for a crop of 1 × 200
    pixels would first grow to 224 × 44 800; they equal the plain form's but for rounding.
    """
    device = torch.device(device)
    images = torch.empty(len(crops), 3, size, size, device=device)
    for image, crop in zip(images, crops, strict=True):
        # Weights sum to 1, so normalising first changes nothing.
        source = to_device(normalize_frames(torch.from_numpy(np.ascontiguousarray(crop))[None], "clip"), device)
        height, width = crop.shape[:2]
        short = min(height, width)
        rows, columns = (_centre(int(size * side / short), size) for side in (height, width))
        grid = to_device(torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None], device)
        image[:] = F.grid_sample(source, grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    return images


def proposal_probabilities(image_features: Tensor, audio_feature: Tensor, scale: float = 100.0) -> Tensor:
    """How likely each of K proposals is the sound's: softmax (K,) of `scale` times the cosine.

    image_features: (K, D), K may be 0; audio_feature: (D,). Of any length. Raises ValueError on other shapes, NaN
    or infinity.
    """
    if image_features.ndim != 2 or audio_feature.shape != image_features.shape[1:]:
        shapes = f"{tuple(image_features.shape)} and {tuple(audio_feature.shape)}"
        raise ValueError(f"expected features (K, D) and a sound (D,), got {shapes}")
    if not (image_features.isfinite().all() and audio_feature.isfinite().all()):
        raise ValueError("embeddings hold NaN or infinity")
    cosines = F.normalize(image_features.float(), dim=1) @ F.normalize(audio_feature.float(), dim=0)
    return (scale * cosines).softmax(dim=0)


def select_proposals(
    probabilities: Tensor,
    kept: Sequence[int],
    total: int,
    threshold: float = 0.5,
    rule: Literal["threshold", "top1"] = "threshold",
    fidelity: Fidelity = "corrected",
) -> list[int]:
    """Indices, into all of a frame's proposals, of those taken; none if there is no probability to judge by.

    Args:
        probabilities: (K,) of the proposals that gave a crop.
        kept: places of these K among all proposals, ascending.
        total: how many proposals there are, K of them or more.
        threshold: of rule "threshold".
        rule: "threshold" takes every proposal whose probability exceeds the threshold, "top1" the likeliest.
        fidelity: "published" takes places among the crops for places among the proposals, so that after a proposal
            without a crop its masks are the wrong ones; "corrected" does not.

    Raises:
        ValueError: another rule, or places that do not fit the probabilities or the total.
    """
    places = list(kept)
    if probabilities.shape != (len(places),):
        raise ValueError(f"{len(places)} places for probabilities of shape {tuple(probabilities.shape)}")
    if places != sorted(set(places)) or (places and not 0 <= places[0] <= places[-1] < total):
        raise ValueError(f"places must ascend within {total} proposals, got {places}")
    if validate_fidelity(fidelity) == "published":
        places = list(range(len(places)))
    if rule == "threshold":
        return [places[i] for i in torch.nonzero(probabilities > threshold).flatten().tolist()]
    if rule == "top1":
        return [places[int(probabilities.argmax())]] if places else []
    raise ValueError(f"rule must be 'above' or 'best', got {rule!r}")


def union_masks(masks: Sequence[ArrayLike] | Tensor, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """What any of the masks (H, W) covers, (H, W) bool. size: (H, W), which also holds where there is no mask."""
    covered = np.zeros(size, bool)
    for mask in masks:
        part = torch.as_tensor(mask).cpu().numpy() > 0
        if part.shape != covered.shape:
            raise ValueError(f"a mask {part.shape} in a frame of {covered.shape}")
        covered |= part
    return covered


def _centre(length: int, size: int) -> Tensor:
    """Where the middle `size` of `length` pixels lie, from -1 to 1 between the outer edges of the image."""
    first = round((length - size) / 2)
    return ((2 * torch.arange(first, first + size, dtype=torch.float64) + 1) / length - 1).float()
