"""Selecting SAM's proposals by audio: crop each, embed the crops, compare them with the audio, keep the most similar.

Source: Sam4AVS, `zero_shot/S4/no_prompt.py`. The encoder embeds what :func:`prepare_crops` makes of
:func:`crop_proposals`, for :func:`proposal_probabilities`.
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
    """Crop a frame to a proposal, with black background.

    Args:
        frame: (H, W, 3) uint8 RGB.
        record: of SamAutomaticMaskGenerator: `segmentation` (H, W) bool, and `bbox` as x, y, w, h in pixels, whose
            w and h are differences of indices and so one too small.
        fidelity: "published" uses w and h as they are and so loses the last column and the last row, and every proposal
            that is one pixel wide or high; "corrected" keeps them.

    Returns:
        The crop (h, w, 3) uint8, or None if it is empty.

    Raises:
        ValueError: if mask and frame differ in size.
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


def crop_proposals(
    frame: np.ndarray, records: Sequence[Mapping[str, Any]], fidelity: Fidelity
) -> dict[int, np.ndarray]:
    """`crop_proposal` of each proposal, by its index, without those that give none."""
    crops = {index: crop_proposal(frame, record, fidelity) for index, record in enumerate(records)}
    return {index: crop for index, crop in crops.items() if crop is not None}


def mean_in_mask(similarity_map: np.ndarray, record: Mapping[str, Any]) -> float:
    """The mean of a map (H, W) over a proposal, of which only its box is read."""
    x, y, width, height = (round(side) for side in record["bbox"])
    box = slice(y, y + height + 1), slice(x, x + width + 1)  # width and height are one too small
    return float(similarity_map[box][record["segmentation"][box]].mean())


def prepare_crops(crops: Sequence[np.ndarray], size: int = FRAME_SIZE[0], device: torch.device | str = "cpu") -> Tensor:
    """CLIP's preprocessing on the device: resize the shorter side to `size`, crop the center, normalize.

    Interpolation is bicubic without antialiasing (whose kernel would differ even when enlarging) and without clamping.
    Only the center is interpolated, because a crop of 1 × 200 pixels would first grow to 224 × 44,800; the result
    equals torchvision's up to rounding.

    Args:
        crops: K crops (h, w, 3) uint8 RGB.
        size: side of the images in pixels.
        device: where they are computed and stay.

    Returns:
        Images (K, 3, size, size).
    """
    device = torch.device(device)
    images = torch.empty(len(crops), 3, size, size, device=device)
    for image, crop in zip(images, crops, strict=True):
        # Interpolation weights sum to 1, so normalizing first makes no difference.
        source = to_device(normalize_frames(torch.from_numpy(np.ascontiguousarray(crop))[None], "clip"), device)
        height, width = crop.shape[:2]
        short = min(height, width)
        rows, columns = (_center_grid(int(size * side / short), size) for side in (height, width))
        grid = to_device(torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[None], device)
        image[:] = F.grid_sample(source, grid, mode="bicubic", padding_mode="border", align_corners=False)[0]
    return images


def proposal_probabilities(image_features: Tensor, audio_feature: Tensor, scale: float = 100.0) -> Tensor:
    """Softmax over K proposals of `scale` times the cosine similarity with the audio.

    Args:
        image_features: (K, D) of any norm; K may be 0.
        audio_feature: (D,) of any norm.
        scale: factor of the cosines.

    Returns:
        Probabilities (K,).

    Raises:
        ValueError: for other shapes, NaN or infinity.
    """
    if image_features.ndim != 2 or audio_feature.shape != image_features.shape[1:]:
        shapes = f"{tuple(image_features.shape)} and {tuple(audio_feature.shape)}"
        raise ValueError(f"expected features (K, D) and an audio feature (D,), got {shapes}")
    if not (image_features.isfinite().all() and audio_feature.isfinite().all()):
        raise ValueError("the embeddings contain NaN or infinity")
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
    """Select proposals by their probability.

    Args:
        probabilities: (K,) of the proposals that gave a crop.
        kept: indices of these K among all proposals, ascending.
        total: number of proposals.
        threshold: of rule "threshold".
        rule: "threshold" selects every proposal whose probability exceeds the threshold, "top1" the most probable one.
        fidelity: "published" uses indices among the crops as indices among the proposals, so that after a proposal
            without a crop it selects the wrong masks; "corrected" does not.

    Returns:
        Indices among all proposals of the frame; empty if there are no probabilities.

    Raises:
        ValueError: for another rule, or indices that do not fit the probabilities or the total.
    """
    indices = list(kept)
    if probabilities.shape != (len(indices),):
        raise ValueError(f"indices {indices} for probabilities of shape {tuple(probabilities.shape)}")
    if indices != sorted(set(indices)) or (indices and not 0 <= indices[0] <= indices[-1] < total):
        raise ValueError(f"indices must ascend within {total} proposals, got {indices}")
    if validate_fidelity(fidelity) == "published":
        indices = list(range(len(indices)))
    if rule == "threshold":
        return [indices[i] for i in torch.nonzero(probabilities > threshold).flatten().tolist()]
    if rule == "top1":
        return [indices[int(probabilities.argmax())]] if indices else []
    raise ValueError(f"rule must be 'threshold' or 'top1', got {rule!r}")


def paint_probabilities(
    proposals: Sequence[Mapping[str, Any]], probabilities: Mapping[int, float], size: tuple[int, int]
) -> np.ndarray:
    """A map (H, W) float32 of the highest probability of the proposals at each pixel; 0 where there is none.

    Args:
        proposals: records with a `segmentation` (H, W) bool.
        probabilities: by index of the proposal.
        size: (H, W).
    """
    painted = np.zeros(size, np.float32)
    for index, probability in probabilities.items():
        np.maximum(painted, np.float32(probability), out=painted, where=proposals[index]["segmentation"])
    return painted


def union_masks(masks: Sequence[ArrayLike] | Tensor, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
    """The union (H, W) bool of masks (H, W).

    Args:
        masks: any number of them.
        size: (H, W), needed if there are none.

    Raises:
        ValueError: for a mask of another size.
    """
    union = np.zeros(size, bool)
    for mask in masks:
        binary = torch.as_tensor(mask).cpu().numpy() > 0
        if binary.shape != union.shape:
            raise ValueError(f"a mask {binary.shape} in a frame of {union.shape}")
        union |= binary
    return union


def _center_grid(length: int, size: int) -> Tensor:
    """Coordinates of the middle `size` of `length` pixels, from -1 to 1 between the outer edges of the image."""
    first = round((length - size) / 2)
    return ((2 * torch.arange(first, first + size, dtype=torch.float64) + 1) / length - 1).float()
