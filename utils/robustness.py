"""Measures of what a model segments when the sound does not come from the picture.

A negative is a clip with a sound of nothing in its picture (silence, noise, another clip's sound), so that its ground
truth is empty. All measures follow from three numbers per frame: the predicted area, the IoU with the ground-truth mask
of the original sound, and the IoU with the model's own mask under the original sound.

    pIA        mean predicted area, as a fraction of the frame (FPR where the ground truth is empty)      vssl_eval
    AUC_N      area under the curve t -> share of frames with an area of at most t, 21 points             vssl_eval
    quiet      share of frames with an area below 0.001
    MJ_neg     M_J against the empty mask = 1 - pIA                                                       AVSBench
    MJ_same    M_J against the mask of the original sound; lower is better                               AVSBench-Robust
    drop       M_J(original) - MJ_same, on the same clips
    agree      mean IoU with the mask under the original sound; 1 where both are empty                    vssl_eval
    keep       share of frames in which that IoU exceeds 0.9
    S_null     square root of pIA                                                                         Ref-AVS
    H          harmonic mean of M_J(original) and 1 - pIA                                                 vssl_eval
    heard      fraction of the predicted pixels that are in a class of the new sound (AVSS)
    seen       fraction of the predicted pixels that are in a class of the clip's own sound (AVSS)

Sources: AVSBench-Robust (arXiv 2502.00358), vssl_eval (arXiv 2410.01020), Ref-AVS; docs/robustness.md. Without torch at
import, so that a scorer of masks starts quickly.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

AUC_POINTS = 21
QUIET_AREA = 0.001  # 50 of 50 176 pixels
KEPT_IOU = 0.9
SWEEP = tuple(round(0.1 * step, 1) for step in range(1, 10))  # thresholds of the probability
NEGATIVES = ("silent", "noise", "shuffled")  # H over all of them is the summary of a model


def false_positive_rate(logits: "Tensor") -> "Tensor":
    """The predicted fraction of each frame, as AVSBench-Robust's `calculate_FPR` computes it in float32.

    Args:
        logits: (N, H, W).

    Returns:
        (N,), the share of pixels whose probability exceeds 0.5.
    """
    height, width = logits.shape[1:]
    return (logits.sigmoid() > 0.5).float().sum((1, 2)) / (height * width + 1e-7)


def predicted_areas(masks: np.ndarray) -> np.ndarray:
    """pIA of each frame: the fraction of the frame that each (N, H, W) mask covers, float64 (N,)."""
    return np.asarray(masks, bool).reshape(len(masks), -1).mean(axis=1)


def area_auc(areas: "Sequence[float] | np.ndarray") -> float:
    """AUC_N: the area under the curve t -> share of areas <= t, by the trapezoid rule at 0, 0.05, …, 1.

    1 if nothing is predicted, 0.025 if everything is.
    """
    grid = np.linspace(0, 1, AUC_POINTS)
    share = (np.asarray(areas, float)[None] <= grid[:, None]).mean(axis=1)
    return float(np.sum(np.diff(grid) * (share[1:] + share[:-1]) / 2))


def harmonic_mean(one: float, other: float) -> float:
    """2·a·b / (a + b); 0 if both are 0."""
    return 2 * one * other / (one + other) if one + other else 0.0


def mask_ious(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """IoU of (N, H, W) bool masks, frame by frame; 1 where both are empty. Float64 (N,)."""
    both = (one & other).reshape(len(one), -1).sum(axis=1)
    either = (one | other).reshape(len(one), -1).sum(axis=1)
    return np.where(either == 0, 1.0, both / np.maximum(either, 1))


@dataclass
class FrameMeasures:
    """What the measures of N frames under one condition follow from.

    Attributes:
        area: (N,) predicted fraction of the frame at probability 0.5.
        same: (N,) IoU with the ground truth of the original sound, by the rule of M_J.
        agree: (N,) IoU with the prediction under the original sound.
        sweep: (N, 9) predicted fraction at probability 0.1 … 0.9; NaN where a method gives no probabilities.
        heard: (N,) predicted fraction in a class of the new sound; NaN where such classes are not known (AVSS only).
        seen: (N,) the same for the classes of the clip's own sound.
    """

    area: np.ndarray
    same: np.ndarray
    agree: np.ndarray
    sweep: np.ndarray
    heard: np.ndarray
    seen: np.ndarray

    @staticmethod
    def cat(parts: "Sequence[FrameMeasures]") -> "FrameMeasures":
        """Concatenate the frames of several clips."""
        names = FrameMeasures.__dataclass_fields__
        return FrameMeasures(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def measure_frames(
    predicted: np.ndarray,
    truth: np.ndarray,
    original: np.ndarray,
    probabilities: np.ndarray | None = None,
    heard: np.ndarray | None = None,
    seen: np.ndarray | None = None,
) -> FrameMeasures:
    """Measure the frames of one clip under one condition.

    Args:
        predicted: (N, H, W) bool, the masks under this condition.
        truth: (N, H, W) bool, the ground truth of the original sound.
        original: (N, H, W) bool, the masks under the original sound.
        probabilities: (N, H, W) float32 of this condition, where the method gives any.
        heard: (N, H, W) bool, the predicted pixels in a class of the new sound, where classes are known.
        seen: (N, H, W) bool, those in a class of the clip's own sound.
    """
    iou = mask_ious(predicted, truth)
    empty = ~truth.reshape(len(truth), -1).any(axis=1)
    area = predicted_areas(predicted)
    same = np.where(empty, 1 - area, iou)
    sweep = np.full((len(predicted), len(SWEEP)), np.nan)
    if probabilities is not None:
        for column, threshold in enumerate(SWEEP):
            sweep[:, column] = [cv2.countNonZero((p > threshold).view(np.uint8)) / p.size for p in probabilities]
    unknown = np.full(len(predicted), np.nan)
    shares = [unknown if each is None else predicted_areas(each) for each in (heard, seen)]
    return FrameMeasures(area, same, mask_ious(predicted, original), sweep, *shares)


def class_shares(frames: FrameMeasures) -> dict[str, float]:
    """heard and seen: the fraction of the predicted pixels, over all frames of known classes, in those classes.

    Without the names whose classes are not known in any frame, or in whose frames nothing is predicted.
    """
    shares = {}
    for name in ("heard", "seen"):
        inside = getattr(frames, name)
        known = ~np.isnan(inside)
        if (predicted := float(frames.area[known].sum())) > 0:
            shares[name] = float(inside[known].sum()) / predicted
    return shares


def condition_measures(frames: FrameMeasures, m_j: float, negative: bool) -> dict[str, float]:
    """The measures of one condition.

    Args:
        frames: all frames under the condition.
        m_j: M_J under the original sound, on the same frames.
        negative: whether the ground truth under this condition is empty.

    Returns:
        The values by name; those that need an empty ground truth only if it is.
    """
    area, same = float(frames.area.mean()), float(frames.same.mean())
    values = {"pIA": area, "AUC_N": area_auc(frames.area), "quiet": float((frames.area < QUIET_AREA).mean())}
    values |= {"S_null": float(np.sqrt(area)), "MJ_same": same}
    values |= {"drop": m_j - same, "drop_relative": (m_j - same) / m_j if m_j else 0.0}
    values |= {"agree": float(frames.agree.mean()), "keep": float((frames.agree > KEPT_IOU).mean())}
    values |= class_shares(frames)
    if negative:
        values |= {"FPR": area, "MJ_neg": 1 - area, "H": harmonic_mean(m_j, 1 - area)}
    return values
