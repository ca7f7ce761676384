"""AVSBench's metrics of logits, and their accumulation over a split and over processes.

`utils.frame_counts` defines the metrics and computes them from probabilities.
"""

import torch
from torch import Tensor

from utils.frame_counts import FrameCounts, best_f, set_metrics
from utils.frame_counts import count_frames as count_probabilities


@torch.no_grad()
def count_frames(logits: Tensor, masks: Tensor) -> FrameCounts:
    """Compute the counts of frames on the CPU.

    Args:
        logits: (N, H, W), or 0/1 masks if a method gives no probabilities.
        masks: (N, H, W), the ground truth, 0 or 1.

    Raises:
        ValueError: The shapes differ, the masks are not binary, or the logits have NaN.
    """
    if logits.shape != masks.shape or logits.ndim != 3:
        raise ValueError(f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)} must both be (N, H, W)")
    return count_probabilities(list(logits.float().cpu().sigmoid().numpy()), list(masks.float().cpu().numpy()))


def mean_iou(logits: Tensor, masks: Tensor) -> float:
    """M_J of (N, H, W) frames as one batch."""
    return float(count_frames(logits, masks).iou().mean())


def f_score(logits: Tensor, masks: Tensor) -> float:
    """M_F of (N, H, W) frames as one batch: one threshold for all of them."""
    return best_f(count_frames(logits, masks))


class Metrics:
    """Accumulates videos in any order, from any number of processes, and computes the metrics of the whole set."""

    def __init__(self) -> None:
        self.videos: dict[int, FrameCounts] = {}

    def add(self, video: int, logits: Tensor, masks: Tensor) -> None:
        """Add a video by its index in the set; logits and masks are (seconds, H, W), as in `count_frames`."""
        self.videos[video] = count_frames(logits, masks)

    def gather(self, processes: int) -> None:
        """Share the videos among all processes."""
        if processes > 1:
            from accelerate.utils import gather_object  # slow to import, and not needed by a single process

            for part in gather_object([self.videos]):
                self.videos.update(part)

    def result(self, metric_batch: int) -> dict[str, float | int]:
        """Compute the metrics, under their names in metrics.json; videos are batched in the order of their indices."""
        return set_metrics([self.videos[index] for index in sorted(self.videos)], metric_batch)
