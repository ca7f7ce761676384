"""Promptable segmenters. A new one is a file here, a line in SEGMENTERS, and its name in `options.SegmenterName`."""

from collections.abc import Callable
from pathlib import Path

import torch

from zero_shot.options import Options
from zero_shot.segmenters.base import Segmenter
from zero_shot.segmenters.sam import build_sam_segmenter
from zero_shot.segmenters.sam2 import build_sam2_segmenter

__all__ = ["SEGMENTERS", "Segmenter"]

# Each builds a segmenter from the options, the device and the cache folder (None: no cache). Raises InputError for a
# checkpoint that is missing or does not fit.
SEGMENTERS: dict[str, Callable[[Options, torch.device, Path | None], Segmenter]] = {
    "sam": build_sam_segmenter,
    "sam2": build_sam2_segmenter,
    "edgetam": build_sam2_segmenter,
    "sam3_tracker": build_sam2_segmenter,
}
