"""What a method needs of a promptable segmenter."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zero_shot.options import ProposalOptions


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
