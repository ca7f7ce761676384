"""M_J and M_F by AVSBench's rule, and their batch-independent companions.

M_J    mean over frames of the intersection over union at probability 0.5. A frame whose truth is empty counts,
       scored by its background.
M_F    F-measure with β² = 0.3: per batch of `metric_batch` videos, the maximum over 255 thresholds of the mean
       F over the frames whose truth is not empty (0 if the batch has none); then the mean over batches. It
       depends on `metric_batch`: AVSBench and the TPAVI rows use 4, the study's other rows 1.
M_F whole set   the same with every frame in one batch: one threshold for the whole test set.
IoU of the data set   Σ intersections / Σ unions over all frames.

Every number follows from per-frame counts, taken once with one histogram of the probabilities in place of 255
passes over the pixels. Source: AVSBench, `utils/utility.py` (`mask_iou`, `Eval_Fmeasure`) and `pyutils.py`.
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
    """What the metrics need of N frames, in float64."""

    intersection: Tensor  # (N,) pixels; of the background where the truth is empty
    union: Tensor  # (N,) pixels; of the whole frame where the truth is empty
    positives: Tensor  # (N,) pixels of the truth
    predicted: Tensor  # (N, 255) pixels at or above each threshold
    hit: Tensor  # (N, 255) of these, pixels of the truth

    def __getitem__(self, frames: slice) -> "FrameCounts":
        return FrameCounts(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    @staticmethod
    def cat(parts: "list[FrameCounts]") -> "FrameCounts":
        """Join counts of several batches of frames."""
        return FrameCounts(
            *(torch.cat([getattr(part, name) for part in parts]) for name in FrameCounts.__dataclass_fields__)
        )

    def iou(self) -> Tensor:
        """(N,) intersection over union of each frame."""
        return self.intersection / (self.union + 1e-7)

    def f(self) -> Tensor:
        """(N, 255) F-measure of each frame at each threshold; 0 where it is undefined."""
        precision = self.hit / (self.predicted + 1e-20)
        recall = self.hit / (self.positives[:, None] + 1e-20)
        f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
        return f.nan_to_num(0.0)


@torch.no_grad()
def count_frames(logits: Tensor, masks: Tensor) -> FrameCounts:
    """Count one or more frames, on the CPU.

    logits: (N, H, W), or 0/1 masks where a setting has no probabilities. masks: (N, H, W), the truth, 0 or 1.
    Raises ValueError on other shapes, masks that are not binary, and NaN.
    """
    if logits.shape != masks.shape or logits.ndim != 3:
        raise ValueError(f"logits {tuple(logits.shape)} and masks {tuple(masks.shape)} must both be (N, H, W)")
    probabilities, truths = logits.float().cpu().sigmoid().numpy(), masks.float().cpu().numpy()
    rows = [_count(p, g) for p, g in zip(probabilities, truths, strict=True)]
    return FrameCounts(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


def levels(probability: np.ndarray) -> np.ndarray:
    """(H, W) uint8: how many of the 255 thresholds each float32 probability reaches, exactly.

    The thresholds are evenly spaced, so rounding finds the count or the count less one; one look at the true
    float32 threshold settles which.
    """
    level = cv2.convertScaleAbs(probability, alpha=THRESHOLDS - 1)
    following = cv2.LUT(level, _next_thresholds())
    return level - cv2.compare(probability, following, cv2.CMP_GE)  # "true" is 255, which adds one


@lru_cache(maxsize=1)
def _next_thresholds() -> np.ndarray:
    """The threshold after as many as a pixel reaches, (256,); none follows the last."""
    return np.append(thresholds().numpy(), np.float32(np.inf))


def _count(probability: np.ndarray, mask: np.ndarray) -> tuple[Any, ...]:
    """The fields of FrameCounts for one frame."""
    truth = (mask > 0).view(np.uint8)
    positives = cv2.countNonZero(truth)
    low, high, _, _ = cv2.minMaxLoc(mask)
    if low < 0 or high > 1 or cv2.sumElems(mask)[0] != positives:
        raise ValueError("masks must hold 0 and 1 only")
    if np.isnan(probability.sum()):
        raise ValueError("logits hold NaN")
    level = levels(probability)
    # Levels start at 1: cell 0 stays empty and is left out.
    everywhere, inside = (cv2.calcHist([level], [0], mask, [256], [0, 256]) for mask in (None, truth))
    # Pixels at or above threshold i are those of level i + 1 and more.
    predicted, hit = (np.cumsum(h.ravel()[:0:-1].astype(np.float64))[::-1] for h in (everywhere, inside))
    chosen = (probability > 0.5).view(np.uint8)
    intersection = cv2.countNonZero(chosen & truth)
    union = cv2.countNonZero(chosen) + positives - intersection
    if positives == 0:
        intersection, union = truth.size - union, truth.size
    return np.float64(intersection), np.float64(union), np.float64(positives), predicted, hit


def _best_f(counts: FrameCounts) -> float:
    valid = counts.positives > 0
    return counts.f()[valid].mean(0).max().item() if valid.any() else 0.0


def mean_iou(logits: Tensor, masks: Tensor) -> float:
    """M_J of (N, H, W) frames as one batch."""
    return count_frames(logits, masks).iou().mean().item()


def f_score(logits: Tensor, masks: Tensor) -> float:
    """M_F of (N, H, W) frames as one batch: one threshold for all of them."""
    return _best_f(count_frames(logits, masks))


class Metrics:
    """Collects videos in any order, from any number of processes, and gives the numbers of the whole set."""

    def __init__(self) -> None:
        self.videos: dict[int, FrameCounts] = {}

    def add(self, video: int, logits: Tensor, masks: Tensor) -> None:
        """Add one video by its place in the set; logits and masks are (seconds, H, W)."""
        self.videos[video] = count_frames(logits, masks)

    def gather(self, processes: int) -> None:
        """Give each of several processes the videos of all."""
        if processes > 1:
            from accelerate.utils import gather_object  # slow to import, and one process has all it needs

            for part in gather_object([self.videos]):
                self.videos.update(part)

    def result(self, metric_batch: int) -> dict[str, float | int]:
        """The numbers under the names that metrics.json uses. Videos are batched in the order of the set."""
        if not self.videos:
            raise ValueError("no video was added")
        videos = [self.videos[index] for index in sorted(self.videos)]
        batches = [FrameCounts.cat(videos[i : i + metric_batch]) for i in range(0, len(videos), metric_batch)]
        everything = FrameCounts.cat(videos)
        mean = lambda values: sum(values) / len(batches)  # noqa: E731  every batch weighs the same
        return {
            "m_j": mean([batch.iou().mean().item() for batch in batches]),
            "m_f": mean([_best_f(batch) for batch in batches]),
            "metric_batch": metric_batch,
            "m_f_whole_set": _best_f(everything),
            "iou_dataset": (everything.intersection.sum() / everything.union.sum()).item(),
            "frames": len(everything.positives),
            "videos": len(videos),
        }
