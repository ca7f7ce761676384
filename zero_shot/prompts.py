"""Points and boxes for SAM from a similarity map, and the choice among the masks it answers with.

Every rule takes one map (H, W), tensor or array, and returns a :class:`Prompt`. A map that is the same everywhere
says nothing of where the sound is, so its prompt is empty. Coordinates are pixels of the map, x to the right and y
down. A map that is not 2-d or holds NaN or infinity raises ValueError.
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
BORDER = 2  # pixels of zeros around the map when peaks are sought


@dataclass(frozen=True, eq=False)
class Prompt:
    """What SAM is asked with, for one frame.

    points: (N, 2) float64, x and y; labels: (N,) int64, 1 for what is wanted and 0 for what is not. All points are
    one question. boxes: (K, 4) int64, left, top, right, bottom, edges included; each box is a question of its own.
    """

    points: np.ndarray | None = None
    labels: np.ndarray | None = None
    boxes: np.ndarray | None = None

    @property
    def empty(self) -> bool:
        """Whether there is nothing to ask; the frame's mask then is empty."""
        return not any(part is not None and len(part) for part in (self.points, self.boxes))


def top_points(sm: ArrayLike | Tensor) -> Prompt:
    """The highest point and, as background, the lowest: pixel centres, the first in reading order on ties."""
    scores = _validate_map(sm)
    if _flat(scores):
        return _points([], [])
    ends = np.array([scores.argmax(), scores.argmin()])
    return _points(np.stack((ends % scores.shape[1], ends // scores.shape[1]), axis=1) + 0.5, [1, 0])


def peak_points(sm: ArrayLike | Tensor, threshold: float, fidelity: Fidelity = "corrected") -> Prompt:
    """All peaks above `threshold` and, as background, all troughs below 1 - `threshold`, in reading order.

    A peak is strictly higher than its four neighbours, a trough strictly lower; beyond the map lie zeros. Where
    there is no peak, every pixel of the highest value stands in; where there is no trough, every zero. An extreme
    cell on the border of the grid makes a plateau, which is neither. Whole pixels, no half added.
    fidelity: "published" puts each point at (x, x), on the diagonal, for the original swaps rows and columns
    through an alias; "corrected" puts it at (x, y).
    """
    validate_fidelity(fidelity)
    scores = _validate_map(sm)
    if _flat(scores):
        return _points([], [])
    padded = np.pad(scores, BORDER)
    inner = padded[1:-1, 1:-1]  # a ring of zeros is part of what is searched
    beside = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    peaks = np.logical_and.reduce([inner > other for other in beside]) & (inner > np.float32(threshold))
    troughs = np.logical_and.reduce([inner < other for other in beside]) & (inner < np.float32(1 - threshold))
    if not peaks.any():
        peaks = inner == inner.max()
    if not troughs.any():
        troughs = inner == inner.min()
    wanted, unwanted = (np.argwhere(found[1:-1, 1:-1])[:, ::-1] for found in (peaks, troughs))
    points = np.concatenate((wanted, unwanted)).astype(np.float64)
    if fidelity == "published":
        points[:, 1] = points[:, 0]
    return _points(points, [1] * len(wanted) + [0] * len(unwanted))


def dense_points(sm: ArrayLike | Tensor, threshold: float) -> Prompt:
    """The n highest points of a grid of 7 pixels' step and, as background, its n lowest.

    n is how many reach `threshold`, but at least 1 and at most half the grid. Points are the centres of the
    (H // 7) × (W // 7) grid's cells. Among equal values those later in reading order count as higher.
    """
    scores = _validate_map(sm)
    if _flat(scores):
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
    """Boxes around what reaches `threshold`, in components of 8 neighbours; no box if nothing does.

    rule: "multi_box" gives one box a component, "total_box" one around all, "single_maxscore" that of the component
    with the highest point, "single_maxarea" that of the component of most pixels; on ties the first.
    """
    if rule not in ("multi_box", "total_box", "single_maxscore", "single_maxarea"):
        raise ValueError(f"no box rule {rule!r}")
    scores = _validate_map(sm)
    above = (scores >= np.float32(threshold)).astype(np.uint8)
    if _flat(scores) or not above.any():
        return Prompt(boxes=np.zeros((0, 4), np.int64))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    stats = stats[1:].astype(np.int64)  # the first is what lies below the threshold
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
    """Index of the mask to take of SAM's (C, H, W): highest predicted IoU (C,), or most pixels; on ties the first.

    Raises ValueError on another method, no mask, or shapes that do not fit each other.
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
    """The map as float32, the precision that its thresholds are compared in."""
    scores = torch.as_tensor(sm).detach().float().cpu().numpy()
    if scores.ndim != 2 or not scores.size:
        raise ValueError(f"expected one map (H, W), got {scores.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("the map holds NaN or infinity")
    return scores


def _flat(scores: np.ndarray) -> bool:
    return bool(scores.min() == scores.max())


def _points(points: ArrayLike, labels: ArrayLike) -> Prompt:
    return Prompt(points=np.asarray(points, np.float64).reshape(-1, 2), labels=np.asarray(labels, np.int64))
