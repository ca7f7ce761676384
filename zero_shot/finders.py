"""What finds in a frame the things that a text names, with a mask for each."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.methods.prediction import ObjectMask
from zero_shot.segmenters import Segmenter

Wanted = Mapping[str, tuple[str, float]]  # by label: what to look for, and the probability that the audio has it
Found = tuple[list[ObjectMask], np.ndarray]  # objects, and boxes (K, 4): left, top, right, bottom in pixels


class ObjectFinder(Protocol):
    """Finds in frames what labels name.

    Attributes:
        segmenter: that makes the masks; None if the finder does it alone.
    """

    segmenter: Segmenter | None

    def find(self, frames: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[Found]:
        """Find objects.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size.
            wanted: for each frame what to find; may be empty.

        Returns:
            For each frame its objects and boxes.
        """
        ...


class BoxFinder:
    """A detector's boxes, each of which the segmenter turns into a mask; implements ObjectFinder.

    Args:
        detector: finds boxes.
        segmenter: is prompted by them.
        threshold: minimum score of a box.
    """

    def __init__(self, detector: GroundingDinoDetector, segmenter: Segmenter, threshold: float):
        self.detector, self.prompted, self.threshold = detector, segmenter, threshold
        self.segmenter: Segmenter | None = segmenter

    def find(self, frames: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[Found]:
        """Implements ObjectFinder.find. Frames without a box are not encoded."""
        detected = [
            [(label, *self.detector.detect_with_scores(frame, target, self.threshold)) for label, (target, _) in items]
            for frame, items in zip(frames, (each.items() for each in wanted), strict=True)
        ]
        boxes = [np.concatenate([_no_boxes(), *(of_label for _, of_label, _ in found)]) for found in detected]
        used = [index for index, of_frame in enumerate(boxes) if len(of_frame)]
        embeddings = self.prompted.embed([frames[index] for index in used]) if used else []
        results: list[Found] = [([], of_frame) for of_frame in boxes]
        for index, embedding in zip(used, embeddings, strict=True):
            masks, ious = self.prompted.prompt(embedding, boxes=boxes[index], multimask=False)
            names = [(label, float(score)) for label, _, scores in detected[index] for score in scores]
            for mask, iou, (label, score) in zip(masks[:, 0].cpu().numpy(), ious[:, 0].tolist(), names, strict=True):
                if mask.any():
                    results[index][0].append(ObjectMask(mask, iou, wanted[index][label][1], label, score))
        return results


class TextFinder:
    """SAM 3's masks for texts; implements ObjectFinder.

    Args:
        detector: SAM 3.
        threshold: minimum score of an instance.
        min_presence: minimum probability that a frame shows the named thing at all.
    """

    segmenter: Segmenter | None = None

    def __init__(self, detector: Sam3Detector, threshold: float, min_presence: float):
        self.detector, self.threshold, self.min_presence = detector, threshold, min_presence

    def find(self, frames: Sequence[np.ndarray], wanted: Sequence[Wanted]) -> list[Found]:
        """Implements ObjectFinder.find. The score of an instance stands for its predicted IoU."""
        results: list[Found] = []
        for frame, items in zip(frames, wanted, strict=True):
            objects, boxes = list[ObjectMask](), [_no_boxes()]
            targets = [target for target, _ in items.values()]
            found = self.detector.find(frame, targets, self.threshold, self.min_presence)
            for (label, (_, probability)), instances in zip(items.items(), found, strict=True):
                for mask, score in zip(instances.masks, instances.scores.tolist(), strict=True):
                    if mask.any():
                        objects.append(ObjectMask(mask, score, probability, label, instances.presence))
                boxes.append(instances.boxes)
            results.append((objects, np.concatenate(boxes)))
        return results


def _no_boxes() -> np.ndarray:
    return np.zeros((0, 4), np.float32)
