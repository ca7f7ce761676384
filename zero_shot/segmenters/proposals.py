"""Mask proposals: the records of `SamAutomaticMaskGenerator`, computed faster, by any promptable segmenter.

The segmenter is prompted with a grid of points; masks are filtered by predicted IoU, by stability and by non-maximum
suppression of their boxes. Here the predicted IoU is checked before a mask is computed at the frame's size.
Source: segment-anything, `automatic_mask_generator.py`, with one crop and no removal of small regions.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from utils.cache import Cache, content_hash, get_or_compute
from zero_shot.method_options import ProposalOptions

MASK_THRESHOLD = 0.0  # of SAM's and SAM 2's logits


@dataclass(frozen=True)
class DecodedPoints:
    """A batch of point prompts, decoded up to the predicted IoU.

    Attributes:
        first: index of the first point.
        scores: predicted IoU (P, 3) float32.
        logits: gives the logits (M, H, W) at the frame's size of the masks at (prompts (M,), outputs (M,)), with
            ascending prompts from 0 to P - 1 and outputs from 0 to 2.
    """

    first: int
    scores: Tensor
    logits: Callable[[Tensor, Tensor], Tensor]


class PointDecoder(Protocol):
    """What `generate_proposals` needs of a segmenter.

    Attributes:
        device: where it computes.
        cache: folder of cached proposals; None caches nothing.
        parameters: what proposals depend on besides the frame and the options.
        images_per_batch: frames encoded at once.
    """

    cache: Path | None
    parameters: dict[str, Any]

    @property
    def device(self) -> torch.device: ...

    @property
    def images_per_batch(self) -> int: ...

    def embed(self, frames: Sequence[np.ndarray]) -> Sequence[Any]:
        """As of Segmenter.embed; an embedding has the attribute `size`, (H, W) of the frame."""
        ...

    def decode_points(self, embedding: Any, points: np.ndarray) -> Iterator[DecodedPoints]:
        """Decode each of the points (P, 2), x and y in pixels of the frame, as a prompt of its own."""
        ...


def generate_proposals(
    segmenter: PointDecoder, frames: Sequence[np.ndarray], options: ProposalOptions
) -> list[list[dict[str, Any]]]:
    """Propose masks for everything in each frame; arguments and records as of Segmenter.propose."""
    cache = None
    if segmenter.cache:
        cache = Cache(segmenter.cache, "proposals", {**segmenter.parameters, **asdict(options)})

    def proposals(indices: list[int]) -> list[dict[str, Tensor]]:
        embeddings = segmenter.embed([frames[index] for index in indices])
        return [_propose(segmenter, embedding, options) for embedding in embeddings]

    found = get_or_compute(cache, [content_hash(frame) for frame in frames], proposals, segmenter.images_per_batch)
    return [_records(entry, (frame.shape[0], frame.shape[1])) for entry, frame in zip(found, frames, strict=True)]


@torch.no_grad()
def _propose(segmenter: PointDecoder, embedding: Any, options: ProposalOptions) -> dict[str, Tensor]:
    """The proposals of a frame, on the CPU, as they are cached."""
    height, width = embedding.size
    points = build_point_grid(options.points_per_side) * np.array([[width, height]])
    empty = torch.empty(0, device=segmenter.device)
    parts = [_filter_masks(empty.view(0, height, width), empty, empty.long(), options)]
    for decoded in segmenter.decode_points(embedding, points):
        scores = decoded.scores
        good = scores > options.pred_iou_thresh if options.pred_iou_thresh > 0 else torch.ones_like(scores)
        chosen = good.nonzero()
        for prompts, outputs in (part.unbind(1) for part in chosen.split(len(scores)) if len(chosen)):
            logits = decoded.logits(prompts, outputs)
            parts.append(_filter_masks(logits, scores[prompts, outputs], decoded.first + prompts, options))
    # One transfer to the CPU at the end: each would make a GPU wait.
    found = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    found["point"] = torch.as_tensor(points)[found["point"]]
    kept = batched_nms(found["box"].float(), found["score"], torch.zeros(len(found["box"])), options.box_nms_thresh)
    return {name: tensor[kept] for name, tensor in found.items()}


def _filter_masks(logits: Tensor, score: Tensor, point: Tensor, options: ProposalOptions) -> dict[str, Tensor]:
    """Those of K masks that are stable enough, with eight pixels packed into a byte.

    Args:
        logits: (K, H, W).
        score: predicted IoU (K,).
        point: index of the point in the grid (K,).
        options: the thresholds.
    """
    stability = calculate_stability_score(logits, MASK_THRESHOLD, options.stability_score_offset)
    if options.stability_score_thresh > 0:
        stable = (stability >= options.stability_score_thresh).nonzero()[:, 0]  # once, because it makes a GPU wait
        logits, score, stability, point = logits[stable], score[stable], stability[stable], point[stable]
    masks = logits > MASK_THRESHOLD
    return {
        "mask": pack_bits(masks.flatten(1)),
        "area": masks.sum((1, 2)),
        "box": batched_mask_to_box(masks).long(),
        "score": score,
        "stability": stability,
        "point": point,
    }


def pack_bits(bits: Tensor) -> Tensor:
    """Pack (K, N) bool into (K, ceil(N / 8)) uint8 as numpy.packbits does, on the tensor's device."""
    if bits.device.type == "cpu":
        return torch.from_numpy(np.packbits(bits.numpy(), axis=1))
    return pack_bits_with_torch(bits)


def pack_bits_with_torch(bits: Tensor) -> Tensor:
    """`pack_bits` for any device; slower than NumPy on a CPU."""
    padded = F.pad(bits.byte(), (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    return (padded << torch.arange(7, -1, -1, dtype=torch.uint8, device=bits.device)).sum(2, dtype=torch.uint8)


def _records(found: dict[str, Tensor], size: tuple[int, int]) -> list[dict[str, Any]]:
    height, width = size
    pixels = np.unpackbits(found["mask"].numpy(), axis=1, count=height * width).astype(bool).reshape(-1, height, width)
    columns = [found[name].tolist() for name in ("area", "box", "score", "point", "stability")]
    return [
        {
            "segmentation": mask,
            "area": area,
            "bbox": [left, top, right - left, bottom - top],
            "predicted_iou": score,
            "point_coords": [point],
            "stability_score": stability,
            "crop_box": [0, 0, width, height],
        }
        for mask, area, (left, top, right, bottom), score, point, stability in zip(pixels, *columns, strict=True)
    ]
