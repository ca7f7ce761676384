"""Every mask of a frame that SAM thinks well of: the records of `SamAutomaticMaskGenerator`, made cheaply.

A grid of points prompts SAM; masks are kept by predicted IoU, by stability and by non-maximum suppression of their
boxes. Here the predicted IoU decides before a mask is made.
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

SPARSE = 2  # tokens of a point prompt: the point and the padding beside it


def generate_proposals(
    segmenter: "SamSegmenter", frames: Sequence[np.ndarray], options: ProposalOptions
) -> list[list[dict[str, Any]]]:
    """The proposals of frames, (H, W, 3) uint8 RGB of any sizes; none is an empty list.

    Each is a record: segmentation, (H, W) bool; area in pixels; bbox, [left, top, width, height] with the width from
    the first pixel to the last; predicted_iou; point_coords, [[x, y]]; stability_score; crop_box, the whole frame.
    They come by descending predicted IoU.
    """
    cache = None
    if segmenter.folder:
        cache = Cache(segmenter.folder, "proposals", {**segmenter.parameters, **asdict(options)})

    def proposals(some: list[int]) -> list[dict[str, Tensor]]:
        return [_find(segmenter, embedded, options) for embedded in segmenter.embed([frames[place] for place in some])]

    found = get_or_compute(cache, [content_hash(frame) for frame in frames], proposals, segmenter.images_per_batch)
    return [_records(entry, (frame.shape[0], frame.shape[1])) for entry, frame in zip(found, frames, strict=True)]


@torch.no_grad()
def _find(segmenter: "SamSegmenter", embedded: "ImageEmbedding", options: ProposalOptions) -> dict[str, Tensor]:
    """The surviving masks of a frame, on the CPU, in the form that a cache keeps."""
    height, width = embedded.size
    device, points = segmenter.device, build_point_grid(options.points_per_side) * np.array([[width, height]])
    encoder, decoder = segmenter.sam.prompt_encoder, FastDecoder(segmenter.sam.mask_decoder, segmenter.autocast)
    # In float64 up to the positional encoding, as in the stock generator.
    placed = torch.as_tensor(segmenter.transform.apply_coords(points, embedded.size), device=device)
    labels = torch.ones(len(points), 1, dtype=torch.int, device=device)
    sparse, _ = encoder(points=(placed[:, None], labels), boxes=None, masks=None)
    image = decoder.share(embedded.features, encoder.no_mask_embed.weight[0], encoder.get_dense_pe())
    batch = segmenter.prompts_per_batch(SPARSE, embedded.size)
    nothing = torch.empty(0, device=device)
    parts = [_filter_masks(nothing.view(0, height, width), nothing, nothing.long(), options)]
    for decoded in decoder.decode(image, sparse, batch):
        scores = decoded.iou[:, 1:]
        good = scores > options.pred_iou_thresh if options.pred_iou_thresh > 0 else torch.ones_like(scores)
        chosen = good.nonzero()
        for prompt, kind in (some.unbind(1) for some in chosen.split(batch) if len(chosen)):
            logits = segmenter.upscale(decoder.masks(image, decoded, prompt, kind + 1), embedded)
            parts.append(_filter_masks(logits, scores[prompt, kind], decoded.first + prompt, options))
    # To the CPU all at once: a GPU would stand idle at every transfer.
    found = {name: torch.cat([part[name] for part in parts]).cpu() for name in parts[0]}
    found["point"] = torch.as_tensor(points)[found["point"]]
    kept = batched_nms(found["box"].float(), found["score"], torch.zeros(len(found["box"])), options.box_nms_thresh)
    return {name: tensor[kept] for name, tensor in found.items()}


def _filter_masks(logits: Tensor, score: Tensor, point: Tensor, options: ProposalOptions) -> dict[str, Tensor]:
    """Of K masks, those that are stable enough, their pixels packed eight to a byte.

    logits: (K, H, W). score: (K,) predicted IoU. point: (K,), its place in the grid.
    """
    stability = calculate_stability_score(logits, Sam.mask_threshold, options.stability_score_offset)
    if options.stability_score_thresh > 0:
        stable = (stability >= options.stability_score_thresh).nonzero()[:, 0]  # once: a GPU is waited for here
        logits, score, stability, point = logits[stable], score[stable], stability[stable], point[stable]
    masks = logits > Sam.mask_threshold
    return {
        "mask": packed(masks.flatten(1)),
        "area": masks.sum((1, 2)),
        "box": batched_mask_to_box(masks).long(),
        "score": score,
        "stability": stability,
        "point": point,
    }


def packed(bits: Tensor) -> Tensor:
    """(K, N) bool as NumPy's packbits has it, (K, N / 8 rounded up) uint8, on the device."""
    if bits.device.type == "cpu":
        return torch.from_numpy(np.packbits(bits.numpy(), axis=1))
    return packed_by_torch(bits)


def packed_by_torch(bits: Tensor) -> Tensor:
    """The same on any device, on a CPU slower."""
    whole = F.pad(bits.byte(), (0, -bits.shape[1] % 8)).unflatten(1, (-1, 8))
    return (whole << torch.arange(7, -1, -1, dtype=torch.uint8, device=bits.device)).sum(2, dtype=torch.uint8)


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
