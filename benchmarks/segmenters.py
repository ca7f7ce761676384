"""Implementations of encoding and prompting a frame, by SAM and the SAM 2 family, and of SAM 2's proposals.

The networks have their published sizes and random weights, which hardly change the amount of work. Different networks
give different masks, so rows that compare two of them compare no outputs; their cache entries are compared by size.
"""

from typing import Any, Literal

import numpy as np

from benchmarks.harness import Output, Work
from synthetic.random_sam2 import image_processor, published_config, random_network, tiny_config
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters import sam2
from zero_shot.segmenters.proposals import generate_proposals
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.segmenters.sam2 import Sam2Segmenter

Precision = Literal["fp32", "bf16"]
BOX = np.array([[40.0, 50.0, 150.0, 170.0]])
EVERYTHING = ProposalOptions(8, -1e9, 0.0, 1.0, 1.0)


def build_segmenter(network: str, precision: Precision, tiny: bool = False) -> Any:
    """A segmenter of the published or of a tiny size, with random weights."""
    if network.startswith("vit"):
        from benchmarks.zero_shot import _sam

        return SamSegmenter(_sam("mini" if tiny else network, "cpu"), precision=precision)
    return random_sam2(network, precision, tiny)


def random_sam2(network: str, precision: Precision, tiny: bool = False, *, video: bool = False) -> Sam2Segmenter:
    """SAM 2.1 or EdgeTAM with random weights; with `video` of a class that tracks."""
    family = "edgetam" if network == "edgetam" else "sam2"
    config = tiny_config(family, video=video) if tiny else published_config(network, video=video)
    model = random_network(config).requires_grad_(False)
    return Sam2Segmenter(model, image_processor(model), precision=precision)


def _frame() -> np.ndarray:
    squares = np.random.default_rng(0).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return squares.repeat(32, axis=0).repeat(32, axis=1)


def segment(network: str, precision: Precision = "fp32", tiny: bool = False) -> Work:
    """Encode a frame and prompt it with a box; the output is the predicted IoU."""
    segmenter = build_segmenter(network, precision, tiny)

    def work() -> Output:
        (embedding,) = segmenter.embed([_frame()])
        return {"scores": segmenter.prompt(embedding, boxes=BOX)[1].numpy()}

    return work


def segment_bf16(network: str, tiny: bool = False) -> Work:
    """`segment` in bfloat16."""
    return segment(network, "bf16", tiny)


def segment_sam(network: str, tiny: bool = False) -> Work:
    """`segment` by SAM ViT-B, whatever the network that it is compared with; no output to compare."""
    return _cost(segment("vit_b", "fp32", tiny))


def segment_cost(network: str, tiny: bool = False) -> Work:
    """`segment`, with no output to compare."""
    return _cost(segment(network, "fp32", tiny))


def _cost(work: Work) -> Work:
    def measured() -> Output:
        work()
        return {"nothing": np.zeros(1)}

    return measured


def proposals_batched(network: str, tiny: bool = False) -> Work:
    """Proposals by transformers' own mask decoder, in batches."""
    return _proposals(network, tiny, fast=False)


def proposals_fast(network: str, tiny: bool = False) -> Work:
    """Proposals by FastSam2Decoder."""
    return _proposals(network, tiny, fast=True)


def _proposals(network: str, tiny: bool, fast: bool) -> Work:
    segmenter = build_segmenter(network, "fp32", tiny)
    embeddings = segmenter.embed([_frame()])  # encoding is another row
    segmenter.embed = lambda frames: embeddings

    def work() -> Output:
        holds = sam2.shortcuts_hold
        sam2.shortcuts_hold = lambda decoder: fast
        try:
            (records,) = generate_proposals(segmenter, [_frame()], EVERYTHING)
        finally:
            sam2.shortcuts_hold = holds
        return {
            "masks": np.array([record["segmentation"] for record in records]),
            "scores": np.array([record["predicted_iou"] for record in records]),
        }

    return work
