"""Points and boxes for SAM from a similarity map, and the selection among the masks that it predicts.

Every function takes one map (H, W), tensor or array, and returns a :class:`Prompt`. A constant map locates nothing, so
its prompt is empty. Coordinates are pixels of the map, x to the right and y down. A map that is not 2-D or contains NaN
or infinity raises ValueError.
Source: Sam4AVS, `avs_scripts/avs_*_zero_shot_sam/test_{point_prompt,heatmap_prompt_box}*.py`.
"""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import Tensor

from utils.fidelity import Fidelity, validate_fidelity
from zero_shot.similarity import similarity_map

__all__ = ["Prompt", "choose_mask", "component_boxes", "dense_points", "peak_points", "similarity_map", "top_points"]

BoxRule = Literal["multi_box", "total_box", "single_maxscore", "single_maxarea"]
DENSE_STEP = 7  # pixels between the points of the dense grid
BORDER = 2  # pixels of zero padding for the search of peaks


@dataclass(frozen=True, eq=False)
class Prompt:
    """SAM's prompt for one frame: all points together, or each box separately.

    Attributes:
        points: (N, 2) float64, x and y.
        labels: (N,) int64, 1 for foreground and 0 for background.
        boxes: (K, 4) left, top, right, bottom, inclusive.
    """

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None

    @property
    def empty(self) -> bool:
        """Whether there is neither a point nor a box; the mask of the frame then is empty."""
        return not any(part is not None and len(part) for part in (self.points, self.boxes))


def top_points(sm: ArrayLike | Tensor) -> Prompt:
    """Global points: the highest and, as background, the lowest; pixel centers, the first in reading order on ties."""
    scores = _validate_map(sm)
    if _is_constant(scores):
        return _points([], [])
    ends = np.array([scores.argmax(), scores.argmin()])
    return _points(np.stack((ends % scores.shape[1], ends // scores.shape[1]), axis=1) + 0.5, [1, 0])


def peak_points(sm: ArrayLike | Tensor, threshold: float, fidelity: Fidelity = "corrected") -> Prompt:
    """Local points: all peaks above `threshold` and, as background, all troughs below 1 - `threshold`.

    A peak is strictly higher than its four neighbors, a trough strictly lower; the map is padded with zeros. Without a
    peak, every pixel of the highest value is used; without a trough, every zero. An extreme cell on the border of the
    grid becomes a plateau after resizing, which is neither.

    Args:
        sm: similarity map (H, W).
        threshold: of the peaks.
        fidelity: "published" puts each point at (x, x), on the diagonal, because the original swaps rows and columns
            through an alias; "corrected" puts it at (x, y).

    Returns:
        Points in reading order, foreground first, as whole pixels (no 0.5 added).
    """
    validate_fidelity(fidelity)
    scores = _validate_map(sm)
    if _is_constant(scores):
        return _points([], [])
    padded = np.pad(scores, BORDER)
    inner = padded[1:-1, 1:-1]  # includes a border of zeros
    neighbors = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    peaks = np.logical_and.reduce([inner > other for other in neighbors]) & (inner > np.float32(threshold))
    troughs = np.logical_and.reduce([inner < other for other in neighbors]) & (inner < np.float32(1 - threshold))
    if not peaks.any():
        peaks = inner == inner.max()
    if not troughs.any():
        troughs = inner == inner.min()
    foreground, background = (np.argwhere(found[1:-1, 1:-1])[:, ::-1] for found in (peaks, troughs))
    points = np.concatenate((foreground, background)).astype(np.float64)
    if fidelity == "published":
        points[:, 1] = points[:, 0]
    return _points(points, [1] * len(foreground) + [0] * len(background))


def dense_points(sm: ArrayLike | Tensor, threshold: float) -> Prompt:
    """Dense points: the n highest of a grid with a step of 7 pixels and, as background, its n lowest.

    n is the number of those that reach `threshold`, but at least 1 and at most half the grid. Points are the centers of
    the cells of an (H // 7) × (W // 7) grid. Among equal values those later in reading order count as higher.
    """
    scores = _validate_map(sm)
    if _is_constant(scores):
        return _points([], [])
    height, width = scores.shape
    rows, columns = max(1, height // DENSE_STEP), max(1, width // DENSE_STEP)
    smaller = F.interpolate(torch.from_numpy(scores)[None, None], (rows, columns), mode="bilinear", align_corners=False)
    values = smaller.numpy().ravel()
    count = min(max(1, int((values >= np.float32(threshold)).sum())), values.size // 2)
    order = np.argsort(values, kind="stable")
    chosen = np.concatenate((order[values.size - count :], order[:count]))
    points = np.stack(
        ((chosen % columns + 0.5) * (width / columns), (chosen // columns + 0.5) * (height / rows)), axis=1
    )
    return _points(points, [1] * count + [0] * count)


def component_boxes(sm: ArrayLike | Tensor, threshold: float, rule: BoxRule) -> Prompt:
    """Boxes around the 8-connected components that reach `threshold`; no box if nothing does.

    Args:
        sm: similarity map (H, W).
        threshold: of the map.
        rule: "multi_box" gives one box per component, "total_box" one around all, "single_maxscore" that of the
            component with the highest value, "single_maxarea" that of the component with the most pixels; the first on
            ties.

    Raises:
        ValueError: for another rule.
    """
    if rule not in ("multi_box", "total_box", "single_maxscore", "single_maxarea"):
        raise ValueError(f"unknown box rule {rule!r}")
    scores = _validate_map(sm)
    above = (scores >= np.float32(threshold)).astype(np.uint8)
    if _is_constant(scores) or not above.any():
        return Prompt(boxes=np.zeros((0, 4), np.int64))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    stats = stats[1:].astype(np.int64)  # the first is the background
    corner = stats[:, [cv2.CC_STAT_LEFT, cv2.CC_STAT_TOP]]
    size = stats[:, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]]
    boxes = np.concatenate((corner, corner + size - 1), axis=1)
    if rule == "total_box":
        boxes = np.concatenate((boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)))[None]
    elif rule == "single_maxscore":
        boxes = boxes[[labels.ravel()[scores.argmax()] - 1]]
    elif rule == "single_maxarea":
        boxes = boxes[[stats[:, cv2.CC_STAT_AREA].argmax()]]
    return Prompt(boxes=boxes)


def choose_mask(masks: ArrayLike | Tensor, scores: ArrayLike | Tensor, method: Literal["max_score", "max_area"]) -> int:
    """Select one of SAM's masks.

    Args:
        masks: (C, H, W).
        scores: predicted IoU (C,).
        method: highest predicted IoU, or most pixels; the first on ties.

    Returns:
        Index of the mask.

    Raises:
        ValueError: for another method, no mask, or shapes that do not fit each other.
    """
    candidates, predicted = torch.as_tensor(masks), torch.as_tensor(scores)
    if candidates.ndim != 3 or predicted.shape != candidates.shape[:1] or not len(candidates):
        raise ValueError(f"expected masks (C, H, W) and scores (C,), got {candidates.shape} and {predicted.shape}")
    if method == "max_score":
        return int(predicted.argmax())
    if method == "max_area":
        return int((candidates > 0).sum(dim=(1, 2)).argmax())
    raise ValueError(f"method must be 'max_score' or 'max_area', got {method!r}")


def _validate_map(sm: ArrayLike | Tensor) -> np.ndarray:
    """The map as float32, the precision in which it is compared with thresholds."""
    scores = torch.as_tensor(sm).detach().float().cpu().numpy()
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"expected one map (H, W), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("the map contains NaN or infinity")
    return scores


def _is_constant(scores: np.ndarray) -> bool:
    return bool(scores.min() == scores.max())


def _points(points: ArrayLike, labels: ArrayLike) -> Prompt:
    return Prompt(points=np.asarray(points, np.float64).reshape(-1, 2), labels=np.asarray(labels, np.int64))
