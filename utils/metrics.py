"""AVSBench's metrics M_J and M_F, and variants of them that do not depend on the batch size.

M_J: the mean over frames of the intersection over union at probability 0.5. Frames with an empty ground truth count,
    with the IoU of the background.
M_F: F-measure with β² = 0.3. For each batch of `metric_batch` videos, the maximum over 255 thresholds of the mean F
    over the frames with a non-empty ground truth (0 if there are none); then the mean over batches. It depends on
    `metric_batch`: AVSBench and the TPAVI configurations use 4, the study's others 1.
m_f_whole_set: the same with all frames in one batch, that is, with one threshold for the whole test set.
iou_dataset: the sum of intersections over the sum of unions of all frames.

All of them follow from per-frame counts, computed with one histogram of the probabilities instead of 255 passes over
the pixels. Source: AVSBench, `utils/utility.py` (`mask_iou`, `Eval_Fmeasure`) and `pyutils.py`.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

THRESHOLDS = 255
BETA_SQUARED = 0.3


def thresholds() -> Tensor:
    """The 255 float32 thresholds, 0 to 1; the last rounds to exactly 1, as in the original."""
    return torch.linspace(0, 1 - 1e-10, THRESHOLDS)


@dataclass
class FrameCounts:
    """The counts of N frames from which all metrics follow, in float64.

    Attributes:
        intersection: (N,) pixels; of the background if the ground truth is empty.
        union: (N,) pixels; of the whole frame if the ground truth is empty.
        positives: (N,) pixels of the ground truth.
        predicted: (N, 255) pixels at or above each threshold.
        true_positives: (N, 255) those among them that are in the ground truth.
    """

    intersection: Tensor
    union: Tensor
    positives: Tensor
    predicted: Tensor
    true_positives: Tensor

    def __getitem__(self, frames: slice) -> "FrameCounts":
        return FrameCounts(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    @staticmethod
    def cat(parts: "list[FrameCounts]") -> "FrameCounts":
        """Concatenate the counts of several batches of frames."""
        return FrameCounts(
            *(torch.cat([getattr(part, name) for part in parts]) for name in FrameCounts.__dataclass_fields__)
        )

    def iou(self) -> Tensor:
        """(N,) intersection over union of each frame."""
        return self.intersection / (self.union + 1e-7)

    def f_scores(self) -> Tensor:
        """(N, 255) F-measure of each frame at each threshold; 0 if undefined."""
        precision = self.true_positives / (self.predicted + 1e-20)
        recall = self.true_positives / (self.positives[:, None] + 1e-20)
        f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
        return f.nan_to_num(0.0)


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
    probabilities, ground_truths = logits.float().cpu().sigmoid().numpy(), masks.float().cpu().numpy()
    rows = [_count(p, g) for p, g in zip(probabilities, ground_truths, strict=True)]
    return FrameCounts(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def threshold_levels(probability: np.ndarray) -> np.ndarray:
    """The exact number of the 255 thresholds that each probability reaches: (H, W) float32 to uint8.

    The thresholds are evenly spaced, so rounding gives the number or one less; comparing with the next float32
    threshold decides.
    """
    level = cv2.convertScaleAbs(probability, alpha=THRESHOLDS - 1)
    following = cv2.LUT(level, _next_thresholds())
    return level - cv2.compare(probability, following, cv2.CMP_GE)  # subtracting "true" (255) adds one


@lru_cache(maxsize=1)
def _next_thresholds() -> np.ndarray:
    """The next threshold after each level, float32 (256,); infinity after the last."""
    return np.append(thresholds().numpy(), np.float32(np.inf))


def _count(probability: np.ndarray, mask: np.ndarray) -> tuple[Any, ...]:
    """The fields of FrameCounts for one frame."""
    ground_truth = (mask > 0).view(np.uint8)
    positives = cv2.countNonZero(ground_truth)
    low, high, _, _ = cv2.minMaxLoc(mask)
    if low < 0 or high > 1 or cv2.sumElems(mask)[0] != positives:
        raise ValueError("masks must contain 0 and 1 only")
    if np.isnan(probability.sum()):
        raise ValueError("logits have NaN")
    level = threshold_levels(probability)
    # Levels start at 1, so bin 0 is empty and left out.
    all_pixels, inside = (cv2.calcHist([level], [0], mask, [256], [0, 256]) for mask in (None, ground_truth))
    # Pixels at or above threshold i are those of level i + 1 or higher.
    predicted, hit = (np.cumsum(h.ravel()[:0:-1].astype(np.float64))[::-1] for h in (all_pixels, inside))
    mask_at_half = (probability > 0.5).view(np.uint8)
    intersection = cv2.countNonZero(mask_at_half & ground_truth)
    union = cv2.countNonZero(mask_at_half) + positives - intersection
    if positives == 0:
        intersection, union = ground_truth.size - union, ground_truth.size
    return np.float64(intersection), np.float64(union), np.float64(positives), predicted, hit


def _best_f(counts: FrameCounts) -> float:
    valid = counts.positives > 0
    return counts.f_scores()[valid].mean(0).max().item() if valid.any() else 0.0


def mean_iou(logits: Tensor, masks: Tensor) -> float:
    """M_J of (N, H, W) frames as one batch."""
    return count_frames(logits, masks).iou().mean().item()


def f_score(logits: Tensor, masks: Tensor) -> float:
    """M_F of (N, H, W) frames as one batch: one threshold for all of them."""
    return _best_f(count_frames(logits, masks))


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
        if not self.videos:
            raise ValueError("no video was added")
        videos = [self.videos[index] for index in sorted(self.videos)]
        batches = [FrameCounts.cat(videos[i : i + metric_batch]) for i in range(0, len(videos), metric_batch)]
        all_frames = FrameCounts.cat(videos)
        mean = lambda values: sum(values) / len(batches)  # noqa: E731  of equally weighted batches
        return {
            "m_j": mean([batch.iou().mean().item() for batch in batches]),
            "m_f": mean([_best_f(batch) for batch in batches]),
            "metric_batch": metric_batch,
            "m_f_whole_set": _best_f(all_frames),
            "iou_dataset": (all_frames.intersection.sum() / all_frames.union.sum()).item(),
            "frames": len(all_frames.positives),
            "videos": len(videos),
        }
