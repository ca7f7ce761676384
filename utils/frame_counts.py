"""AVSBench's metrics M_J and M_F from the pixel counts of each frame, in NumPy, so that a scorer needs no torch.

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

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

THRESHOLDS = 255
BETA_SQUARED = 0.3


@lru_cache(maxsize=1)
def thresholds() -> np.ndarray:
    """The 255 float32 thresholds, 0 to 1, of `torch.linspace(0, 1 - 1e-10, 255)`; the last rounds to exactly 1."""
    step = np.float32(1) / np.float32(THRESHOLDS - 1)
    number = np.arange(THRESHOLDS, dtype=np.float32)
    # torch counts from the nearer end, in float32.
    values = np.where(number < THRESHOLDS // 2, number * step, np.float32(1) - number[::-1] * step)
    values.flags.writeable = False
    return values


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

    intersection: np.ndarray
    union: np.ndarray
    positives: np.ndarray
    predicted: np.ndarray
    true_positives: np.ndarray

    def __getitem__(self, frames: slice) -> "FrameCounts":
        return FrameCounts(*(getattr(self, name)[frames] for name in self.__dataclass_fields__))

    @staticmethod
    def cat(parts: "Sequence[FrameCounts]") -> "FrameCounts":
        """Concatenate the counts of several batches of frames."""
        names = FrameCounts.__dataclass_fields__
        return FrameCounts(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    @staticmethod
    def of_masks(counts: np.ndarray) -> "FrameCounts":
        """The counts of masks without probabilities: those of `count_frames` for the sigmoids of 0 and 1.

        Args:
            counts: (N, 4) pixels of the predicted mask, of the predicted mask in the ground truth, of the ground truth,
                and of the frame.
        """
        predicted, hits, positives, pixels = np.asarray(counts).astype(np.float64).T
        # The sigmoid of 0 is 0.5 and reaches the lower half of the thresholds; that of 1 reaches some more.
        by_all, by_mask = (
            (probability >= thresholds()).astype(np.float64) for probability in (0.5, 1 / (1 + np.exp(-1)))
        )
        union, empty = predicted + positives - hits, positives == 0
        return FrameCounts(
            np.where(empty, pixels - union, hits),
            np.where(empty, pixels, union),
            positives,
            predicted[:, None] * by_mask + (pixels - predicted)[:, None] * by_all,
            hits[:, None] * by_mask + (positives - hits)[:, None] * by_all,
        )

    def iou(self) -> np.ndarray:
        """(N,) intersection over union of each frame."""
        return self.intersection / (self.union + 1e-7)

    def f_scores(self) -> np.ndarray:
        """(N, 255) F-measure of each frame at each threshold; 0 if undefined."""
        precision = self.true_positives / (self.predicted + 1e-20)
        recall = self.true_positives / (self.positives[:, None] + 1e-20)
        with np.errstate(invalid="ignore"):
            f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
        return np.nan_to_num(f, nan=0.0)


def count_frames(probabilities: Sequence[np.ndarray], masks: Sequence[np.ndarray]) -> FrameCounts:
    """Compute the counts of N frames.

    Args:
        probabilities: N arrays (H, W) float32 in [0, 1].
        masks: N ground truths (H, W) float32, 0 or 1.

    Raises:
        ValueError: The masks are not binary, or the probabilities have NaN.
    """
    rows = [_count(p, g) for p, g in zip(probabilities, masks, strict=True)]
    return FrameCounts(*(np.stack(column) for column in zip(*rows, strict=True)))


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
    return np.append(thresholds(), np.float32(np.inf))


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


def best_f(counts: FrameCounts) -> float:
    """M_F of frames as one batch: one threshold for all of them; 0 if every ground truth is empty."""
    valid = counts.positives > 0
    return float(counts.f_scores()[valid].mean(0).max()) if valid.any() else 0.0


def set_metrics(videos: Sequence[FrameCounts], metric_batch: int) -> dict[str, float | int]:
    """The metrics of a set, under their names in metrics.json.

    Args:
        videos: of each video its frames, in the order of the set.
        metric_batch: videos that share a threshold in M_F.

    Raises:
        ValueError: There is no video.
    """
    if not videos:
        raise ValueError("no video was added")
    batches = [FrameCounts.cat(videos[i : i + metric_batch]) for i in range(0, len(videos), metric_batch)]
    all_frames = FrameCounts.cat(videos)
    mean = lambda values: sum(values) / len(batches)  # noqa: E731  of equally weighted batches
    return {
        "m_j": mean([float(batch.iou().mean()) for batch in batches]),
        "m_f": mean([best_f(batch) for batch in batches]),
        "metric_batch": metric_batch,
        "m_f_whole_set": best_f(all_frames),
        "iou_dataset": float(all_frames.intersection.sum() / all_frames.union.sum()),
        "frames": len(all_frames.positives),
        "videos": len(videos),
    }
