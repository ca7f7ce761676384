"""Promptable segmenters, which turn points and boxes into masks. One file each."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zero_shot.options import ProposalOptions


class Segmenter(Protocol):
    """What a method needs of a segmenter.

    Attributes:
        device: where it computes.
    """

    @property
    def device(self) -> torch.device: ...

    def embed(self, frames: Sequence[np.ndarray]) -> Sequence[Any]:
        """Embeddings of frames (H, W, 3) uint8 RGB of any sizes, one each, to be passed to `prompt`."""
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
        """Masks for the points, all in one prompt, or for each of K boxes, or for each box with all points.

        Args:
            embedding: of one frame, by `embed`.
            points: (N, 2), x and y in pixels of the frame.
            labels: (N,), 1 for foreground and 0 for background.
            boxes: (K, 4), left, top, right and bottom in pixels.
            multimask: three masks for a prompt, or one.

        Returns:
            Masks (K, 3 or 1, H, W) bool and their predicted IoU (K, 3 or 1), on `device`; K is 1 without boxes.
        """
        ...

    def propose(self, frames: Sequence[np.ndarray], options: ProposalOptions) -> list[list[dict[str, Any]]]:
        """Masks of whatever is in each frame (H, W, 3) uint8 RGB, as records of SamAutomaticMaskGenerator: segmentation
        (H, W) bool, area, bbox, predicted_iou and more."""
        ...
