"""What every zero-shot method is: frames and their audio in, masks out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from zero_shot.methods.prediction import Prediction, Predictions

if TYPE_CHECKING:
    from zero_shot.methods.tracking import ClipTracker


class ZeroShotMethod(ABC):
    """Segments the source of the sound in frames, each given one second of audio. Frames are independent.

    Attributes:
        sample_rate: Hz, of the audio that `predict` takes.
        int16_round_trip: whether that audio must be quantized to 16 bits first.
        tracker: carries masks through a clip; None leaves every frame its own.
        image_size: longer side in pixels to which larger frames of other sources than a benchmark are reduced; None
            resizes them to 224 × 224, as in the study.
    """

    sample_rate = 44_100
    int16_round_trip = False
    tracker: "ClipTracker | None" = None
    image_size: int | None = None

    @abstractmethod
    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Segment the source of the sound in each frame.

        Args:
            frames: N frames (H, W, 3) uint8 RGB, all of one size.
            audio: (N, samples) float32 in [-1, 1], the second of each frame.

        Returns:
            N predictions, with masks of the frames' size.
        """

    def track(self, frames: Sequence[np.ndarray], predictions: Predictions) -> Predictions:
        """The predictions of one clip, with masks carried through it if there is a tracker.

        Args:
            frames: N frames (H, W, 3) uint8 RGB, in order.
            predictions: of each frame, by `predict`; None for a silent one.

        Returns:
            N predictions, None where it was given.
        """
        return predictions if self.tracker is None else self.tracker.track(frames, predictions)
