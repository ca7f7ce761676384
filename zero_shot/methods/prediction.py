"""What a zero-shot method gives for a frame: a mask, the objects that it is the union of, and how it came about."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from zero_shot.prompts import Prompt


@dataclass(frozen=True, eq=False)
class ObjectMask:
    """One of the objects whose union is the mask of a frame.

    Attributes:
        mask: (H, W) bool.
        predicted_iou: the segmenter's estimate of its IoU, 0 to 1; 1 where there is none.
        audio_score: how well the audio of the frame's second agrees with it, 0 to 1, by the method.
        label: its name, for methods that name objects.
        detection_score: how sure a detector is that the frame shows what the label names, 0 to 1; 1 without one.
    """

    mask: np.ndarray
    predicted_iou: float
    audio_score: float
    label: str = ""
    detection_score: float = 1.0

    @property
    def certainty(self) -> float:
        """Predicted IoU × audio score."""
        return self.predicted_iou * self.audio_score


@dataclass
class Prediction:
    """A method's prediction for one frame.

    Attributes:
        mask: (H, W) bool.
        similarity_map: (H, W) float32 in [0, 1], of the methods that compute one.
        prompt: what SAM was prompted with, of the methods that prompt it.
        labels: the labels that a method assigns to the audio.
        objects: what the mask is the union of; empty for methods that do not use the audio.
        audio_map: (H, W) in [0, 1], how well the audio agrees with each pixel, comparable between seconds; default:
            the similarity map.
        label_scores: how well the audio agrees with each label, 0 to 1, for methods that name objects.
        pivot: index of the frame from which tracking carried the objects; None if they are of this frame.
    """

    mask: np.ndarray
    similarity_map: np.ndarray | None = None
    prompt: Prompt | None = None
    labels: Sequence[str] = ()
    objects: Sequence[ObjectMask] = ()
    audio_map: np.ndarray | None = None
    label_scores: Mapping[str, float] = field(default_factory=dict)
    pivot: int | None = None

    @property
    def certainty(self) -> float:
        """That of its most certain object; 0 without objects."""
        return max((each.certainty for each in self.objects), default=0.0)

    def audio_agreement(self, mask: np.ndarray, label: str = "") -> float:
        """How well the audio of this second agrees with an object, 0 to 1.

        Args:
            mask: of the object in this frame, (H, W) bool.
            label: its name; objects with a name are compared by it, others by the audio map.
        """
        if label:
            return self.label_scores.get(label, 0.0)
        audio_map = self.similarity_map if self.audio_map is None else self.audio_map
        return mean_over_mask(audio_map, mask) if audio_map is not None else 1.0


# With None for silent seconds, or without.
Predictions = TypeVar("Predictions", "list[Prediction]", "list[Prediction | None]")


def mean_over_mask(values: np.ndarray, mask: np.ndarray) -> float:
    """Mean of (H, W) values over a mask (H, W) bool; 0 if that is empty."""
    return float(values[mask].mean()) if mask.any() else 0.0
