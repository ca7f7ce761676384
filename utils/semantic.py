"""AVSS: the metrics under each of the rules in use, and what reads and writes class labels.

For each frame and class c, with TP pixels that are c in both, P predicted as c and G labeled c:
    IoU = TP / (P + G - TP), and F = 1.3 p r / (0.3 p + r) of p = TP/P and r = TP/G; 0 where undefined.
J_c and F_c are the sums of these over frames, divided by the number of frames in which c is predicted or labeled, and 0
if there are none. The rules differ in the frames and classes that they average over (docs/metrics.md):

    miou_published, f_published              padded frames too, all 71 classes; what AVSBench's code computes
    miou_published_nobg, f_published_nobg    the same without the last class, woman, which it takes for the background
    miou_real, f_real                        real frames, all 71 classes; COMBO's and AL-Ref-SAM2's rule
    miou_seen, f_seen                        real frames, classes that are labeled or predicted anywhere
    miou_truth, f_truth                      real frames, classes that are labeled anywhere: recommended
    miou_foreground, f_foreground            the same without the background
    miou_pooled                              real frames, labeled classes; sums of TP over sums of P + G - TP

Sums over frames are kept, so memory does not grow with the number of clips. Without torch at import.
Source: AVSBench, `avs_scripts/avss/utils/compute_color_metrics.py`, `calc_color_miou_fscore`.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from utils.classes import CLASSES, PALETTE, decode
from utils.labels import fit

__all__ = ["CLASSES", "PALETTE", "SemanticMetrics", "class_counts", "decode", "fit"]

BETA_SQUARED = 0.3
TINY = 2.2e-16  # the original's epsilon in the denominator of the IoU


@dataclass
class ClassSums:
    """Sums over frames, float64 (classes,) each.

    Attributes:
        iou: of the IoU.
        f: of the F-score.
        frames: the number of frames in which the class is predicted or labeled.
    """

    iou: np.ndarray
    f: np.ndarray
    frames: np.ndarray

    def __add__(self, other: "ClassSums") -> "ClassSums":
        return ClassSums(self.iou + other.iou, self.f + other.f, self.frames + other.frames)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """J_c and F_c, float64 (classes,)."""
        frames = np.maximum(self.frames, 1)
        return self.iou / frames, self.f / frames


def class_counts(predicted: np.ndarray, labels: np.ndarray, classes: int) -> np.ndarray:
    """The confusion matrix of a frame.

    Args:
        predicted: (H, W) class of each pixel, integers below `classes`.
        labels: (H, W), the ground truth.
        classes: number of classes.

    Returns:
        int64 (classes, classes): the pixels of each labeled class (rows) that are predicted as each class (columns).
    """
    cells = labels.astype(np.intp).ravel() * classes + predicted.ravel()
    return np.bincount(cells, minlength=classes * classes).reshape(classes, classes)


def frame_scores(counts: np.ndarray) -> ClassSums:
    """The IoU and F-score of each class in one frame, from its confusion matrix."""
    hits, predicted, labeled = np.diag(counts).astype(np.float64), counts.sum(0), counts.sum(1)
    union = predicted + labeled - hits
    with np.errstate(invalid="ignore", divide="ignore"):
        precision, recall = hits / predicted, hits / labeled
        f = (1 + BETA_SQUARED) * precision * recall / (BETA_SQUARED * precision + recall)
    return ClassSums(hits / (union + TINY), np.nan_to_num(f), (union > 0).astype(np.float64))


class SemanticMetrics:
    """Accumulates frames in any order, from any number of processes, and computes every rule.

    Args:
        classes: number of classes, of which 0 is the background.

    Attributes:
        confusion: int64 (classes, classes), pixels of the real frames by labeled (row) and predicted class (column).
        real, padding: the sums over the real frames and over those that pad a clip.
        clips: for each clip of `add_clip`, by index, the mean IoU and F of each frame over the classes in it.
    """

    def __init__(self, classes: int = len(CLASSES)):
        self.classes = classes
        self.confusion = np.zeros((classes, classes), np.int64)
        self.real, self.padding = (ClassSums(*np.zeros((3, classes))) for _ in range(2))
        self.frames, self.padded_frames = 0, 0
        self.clips: dict[int, list[tuple[float, float]]] = {}

    def add(self, logits: Any, labels: Any, valid: Any = None) -> "list[ClassSums]":
        """Add frames.

        Args:
            logits: (N, classes, H, W), a tensor or an array. Of equal classes the lowest is predicted.
            labels: (N, H, W), the class of each pixel.
            valid: (N,), 0 for the frames that only pad a clip; None if all are real.

        Returns:
            The scores of each frame.

        Raises:
            ValueError: Shapes differ, the logits have NaN, or a label is not a class.
        """
        if len(logits.shape) != 4 or logits.shape[1] != self.classes:
            raise ValueError(f"logits are {tuple(logits.shape)}, not (N, {self.classes}, H, W)")
        highest, predicted = _max_and_argmax(logits)
        if bool((highest != highest).any()):
            raise ValueError("logits have NaN")
        return self.add_classes(predicted, labels, valid)

    def add_classes(self, predicted: Any, labels: Any, valid: Any = None) -> "list[ClassSums]":
        """Like `add`, from the predicted class of each pixel, (N, H, W) integers."""
        predicted, labels = _array(predicted), _array(labels)
        valid = np.ones(len(labels), bool) if valid is None else _array(valid).astype(bool)
        if predicted.shape != labels.shape or labels.ndim != 3 or valid.shape != labels.shape[:1]:
            raise ValueError(f"predictions {predicted.shape}, labels {labels.shape} and valid {valid.shape} differ")
        for name, values in (("predictions", predicted), ("labels", labels)):
            if values.size and not 0 <= values.min() <= values.max() < self.classes:
                raise ValueError(f"{name} must be from 0 to {self.classes - 1}")
        scores = []
        for guess, label, real in zip(predicted, labels, valid, strict=True):
            counts = class_counts(guess, label, self.classes)
            scores.append(frame_scores(counts))
            if real:
                self.confusion += counts
                self.real += scores[-1]
                self.frames += 1
            else:
                self.padding += scores[-1]
                self.padded_frames += 1
        return scores

    def add_clip(self, index: int, predicted: Any, labels: Any, length: int) -> None:
        """Add the real frames of a clip, and their means to `clips`.

        Args:
            index: Of the clip in its set.
            predicted: (T, H, W) class of each pixel.
            labels: (T, H, W), the ground truth.
            length: Frames to which the published rule pads the clip, as background in prediction and label.
        """
        scores = self.add_classes(predicted, labels)
        self.clips[index] = [
            (float(frame.iou.sum() / frame.frames.sum()), float(frame.f.sum() / frame.frames.sum())) for frame in scores
        ]
        self.add_padding(length - len(scores))

    def add_padding(self, frames: int) -> None:
        """Add frames of padding that are background in label and prediction, which only the published rules score."""
        background = np.zeros(self.classes)
        background[0] = frames
        self.padding += ClassSums(background, background, background)
        self.padded_frames += frames

    def gather(self, processes: int) -> None:
        """Share the sums among all processes."""
        if processes > 1:
            from accelerate.utils import gather_object  # slow to import, and not needed by a single process

            first, *others = gather_object([vars(self)])
            for name in set(first) - {"classes"}:
                total = first[name]
                for part in others:
                    total = total | part[name] if name == "clips" else total + part[name]
                setattr(self, name, total)

    @property
    def labeled(self) -> np.ndarray:
        """(classes,) bool: the classes in the ground truth of the real frames."""
        return self.confusion.sum(1) > 0

    def result(self) -> dict[str, float | int]:
        """All metrics, under their names in metrics.json.

        Raises:
            ValueError: No real frame was added.
        """
        if not self.frames:
            raise ValueError("no frame was added")
        everything, every_class = self.real + self.padding, np.ones(self.classes, bool)
        foreground = self.labeled & (np.arange(self.classes) > 0)
        rules = {
            "published": (everything, every_class),
            "published_nobg": (everything, np.arange(self.classes) < self.classes - 1),
            "real": (self.real, every_class),
            "seen": (self.real, self.real.frames > 0),
            "truth": (self.real, self.labeled),
            "foreground": (self.real, foreground),
        }
        numbers: dict[str, float | int] = {}
        for name, (sums, averaged) in rules.items():
            means = sums.means()
            for measure, values in zip(("miou", "f"), means, strict=True):
                numbers[f"{measure}_{name}"] = float(values[averaged].mean()) if averaged.any() else 0.0
        numbers["miou_pooled"] = float(self.pooled_iou()[self.labeled].mean())
        numbers |= {"classes_truth": int(self.labeled.sum()), "classes_seen": int((self.real.frames > 0).sum())}
        return numbers | {"frames": self.frames, "padded_frames": self.padded_frames, "videos": len(self.clips)}

    def pooled_iou(self) -> np.ndarray:
        """The IoU of each class over all pixels of the real frames, float64 (classes,)."""
        hits = np.diag(self.confusion).astype(np.float64)
        return hits / np.maximum(self.confusion.sum(0) + self.confusion.sum(1) - hits, 1)

    def per_class(self) -> list[dict[str, float | int | str]]:
        """A row for each class: index, name, J_c and F_c and the frames they average over, pooled IoU, pixels."""
        iou, f = self.real.means()
        names = CLASSES if self.classes == len(CLASSES) else tuple(map(str, range(self.classes)))
        pooled, truth, predicted = self.pooled_iou(), self.confusion.sum(1), self.confusion.sum(0)
        return [
            {
                "class": c,
                "name": names[c],
                "iou": round(float(iou[c]), 6),
                "f": round(float(f[c]), 6),
                "frames": int(self.real.frames[c]),
                "iou_pooled": round(float(pooled[c]), 6),
                "labeled_pixels": int(truth[c]),
                "predicted_pixels": int(predicted[c]),
            }
            for c in range(self.classes)
        ]


def _max_and_argmax(logits: Any) -> tuple[Any, Any]:
    """The highest of the logits (N, classes, H, W) of each pixel, NaN if one of them is, and its class: (N, H, W)."""
    if hasattr(logits, "cpu"):
        return logits.max(1)
    predicted = logits.argmax(1)
    return np.take_along_axis(logits, predicted[:, None], 1)[:, 0], predicted


def _array(values: Any) -> np.ndarray:
    """A tensor or an array as an array on the CPU."""
    return np.asarray(values.cpu() if hasattr(values, "cpu") else values)
