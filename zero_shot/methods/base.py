"""What every zero-shot method is: frames and their audio in, masks out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zero_shot.prompts import Prompt


@dataclass
class Prediction:
    """A method's prediction for one frame.

    Attributes:
        mask: (H, W) bool.
        similarity_map: (H, W) float32 in [0, 1], of the methods that compute one.
        prompt: what SAM was prompted with, of the methods that prompt it.
        labels: the labels that box_prompt assigns to the audio.
    """

    mask: np.ndarray
    similarity_map: np.ndarray | None = None
    prompt: Prompt | None = None
    labels: Sequence[str] = ()


class ZeroShotMethod(ABC):
    """Segments the source of the sound in frames, each given one second of audio. Frames are independent.

    Attributes:
        sample_rate: Hz, of the audio that `predict` takes.
        int16_round_trip: whether that audio must be quantized to 16 bits first.
    """

    sample_rate = 44_100
    int16_round_trip = False

    @abstractmethod
    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Segment the source of the sound in each frame.

        Args:
            frames: N frames (H, W, 3) uint8 RGB, all of one size.
            audio: (N, samples) float32 in [-1, 1], the second of each frame.

        Returns:
            N predictions, with masks of the frames' size.
        """
