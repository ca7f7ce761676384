"""Mask proposals: the records of `SamAutomaticMaskGenerator`, computed faster.

SAM is prompted with a grid of points; masks are filtered by predicted IoU, by stability and by non-maximum suppression
of their boxes. Here the predicted IoU is checked before a mask is computed.
Source: segment-anything, `automatic_mask_generator.py`, with one crop and no removal of small regions.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box, build_point_grid, calculate_stability_score
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import batched_nms

from utils.cache import Cache, content_hash, get_or_compute
from zero_shot.options import ProposalOptions
from zero_shot.segmenters.sam_decoder import FastDecoder

if TYPE_CHECKING:
    from zero_shot.segmenters.sam import ImageEmbedding, SamSegmenter

POINT_TOKENS = 2  # tokens of a point prompt: the point and its padding


def generate_proposals(
    segmenter: "SamSegmenter", frames: Sequence[np.ndarray], options: ProposalOptions
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
def _propose(segmenter: "SamSegmenter", embedding: "ImageEmbedding", options: ProposalOptions) -> dict[str, Tensor]:
    """The proposals of a frame, on the CPU, as they are cached."""
    height, width = embedding.size
    device, points = segmenter.device, build_point_grid(options.points_per_side) * np.array([[width, height]])
    encoder, decoder = segmenter.sam.prompt_encoder, FastDecoder(segmenter.sam.mask_decoder, segmenter.autocast)
    # In float64 up to the positional encoding, as in SamAutomaticMaskGenerator.
    coordinates = torch.as_tensor(segmenter.transform.apply_coords(points, embedding.size), device=device)
    labels = torch.ones(len(points), 1, dtype=torch.int, device=device)
    sparse, _ = encoder(points=(coordinates[:, None], labels), boxes=None, masks=None)
    image = decoder.share(embedding.features, encoder.no_mask_embed.weight[0], encoder.get_dense_pe())
    batch = segmenter.prompts_per_batch(POINT_TOKENS, embedding.size)
    empty = torch.empty(0, device=device)
    parts = [_filter_masks(empty.view(0, height, width), empty, empty.long(), options)]
    for decoded in decoder.decode(image, sparse, batch):
        scores = decoded.iou[:, 1:]
        good = scores > options.pred_iou_thresh if options.pred_iou_thresh > 0 else torch.ones_like(scores)
        chosen = good.nonzero()
        for prompts, outputs in (part.unbind(1) for part in chosen.split(batch) if len(chosen)):
            logits = segmenter.upscale(decoder.masks(image, decoded, prompts, outputs + 1), embedding)
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
    stability = calculate_stability_score(logits, Sam.mask_threshold, options.stability_score_offset)
    if options.stability_score_thresh > 0:
        stable = (stability >= options.stability_score_thresh).nonzero()[:, 0]  # once, because it makes a GPU wait
        logits, score, stability, point = logits[stable], score[stable], stability[stable], point[stable]
    masks = logits > Sam.mask_threshold
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
