"""What a method needs of a promptable segmenter."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zero_shot.method_options import ProposalOptions


class Segmenter(Protocol):
    """Turns points and boxes into masks, and proposes masks without a prompt.

    Attributes:
        device: where it computes.
    """

    @property
    def device(self) -> torch.device: ...

    def embed(self, frames: Sequence[np.ndarray]) -> Sequence[Any]:
        """Encode frames.

        Args:
            frames: (H, W, 3) uint8 RGB of any sizes.

        Returns:
            An embedding for each frame, to be passed to `prompt`.
        """
        ...

    def prompt(
        self,
        embedding: Any,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Segment what the points (all in one prompt) or each of the boxes mark; with both, each box has all points.

        Args:
            embedding: of one frame, by `embed`.
            points: (N, 2), x and y in pixels of the frame.
            labels: (N,), 1 for foreground and 0 for background.
            boxes: (K, 4), left, top, right and bottom in pixels.
            multimask: three masks for each prompt, or one.

        Returns:
            Masks (K, 3 or 1, H, W) bool and their predicted IoU (K, 3 or 1), on `device`; K is 1 without boxes.

        Raises:
            ValueError: for points without as many labels, or if there is no prompt at all.
        """
        ...

    def propose(self, frames: Sequence[np.ndarray], options: ProposalOptions) -> list[list[dict[str, Any]]]:
        """Propose masks for everything in each frame.

        Args:
            frames: (H, W, 3) uint8 RGB of any sizes.
            options: which masks to keep.

        Returns:
            For each frame the records of SamAutomaticMaskGenerator: segmentation, (H, W) bool; area in pixels; bbox,
            [left, top, width, height] with the width from the first pixel to the last; predicted_iou; point_coords,
            [[x, y]]; stability_score; crop_box, the whole frame. By descending predicted IoU; none is an empty list.
        """
        ...


def validate_frame(frame: np.ndarray) -> np.ndarray:
    """The frame itself. Raises ValueError unless it is (H, W, 3) uint8."""
    if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"expected a frame (H, W, 3) of uint8, got {frame.shape} of {frame.dtype}")
    return frame


def validate_prompt(points: np.ndarray | None, labels: np.ndarray | None, boxes: np.ndarray | None) -> None:
    """Raise ValueError for points without as many labels, or if there is no prompt at all."""
    counts = [0 if part is None else len(part) for part in (points, labels)]
    if (points is None and boxes is None) or counts[0] != counts[1]:
        raise ValueError("a prompt consists of points with one label each, of boxes, or of both")


def frame_size(frame: np.ndarray) -> tuple[int, int]:
    """Height and width in pixels."""
    return frame.shape[0], frame.shape[1]
