"""What every zero-shot method is: frames and their audio in, masks out."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from zero_shot.prompts import Prompt

AUDIOCLIP_RATE, CLAP_RATE = 44_100, 48_000  # Hz


@dataclass
class Prediction:
    """A method's prediction for one frame.

    Attributes:
        mask: (H, W) bool.
        similarity_map: (H, W) float32 in [0, 1], of the methods that compute one.
        prompt: what SAM was prompted with, of the methods that prompt it.
        labels: the names that box_prompt gives the sound.
    """

    mask: np.ndarray
    similarity_map: np.ndarray | None = None
    prompt: Prompt | None = None
    labels: Sequence[str] = ()


class ZeroShotMethod(ABC):
    """How frames and their seconds of audio become masks. Frames are independent of each other.

    Attributes:
        sample_rate: Hz, of the audio that `predict` takes.
        int16_round_trip: whether that audio is to be quantized to 16 bits first.
    """

    sample_rate = AUDIOCLIP_RATE
    int16_round_trip = False

    @abstractmethod
    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Segment what sounds in each frame.

        Args:
            frames: N frames (H, W, 3) uint8 RGB, all of one size.
            audio: (N, samples) float32 in [-1, 1], the second of each frame.

        Returns:
            N predictions, with masks of the frames' size.
        """
