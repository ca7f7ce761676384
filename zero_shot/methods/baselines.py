"""Trivial baselines, which use no audio: a method must exceed them to show that it uses the audio."""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from utils.cache import content_hash
from zero_shot.methods.base import ZeroShotMethod
from zero_shot.methods.prediction import Prediction
from zero_shot.options import Options
from zero_shot.segmenters import Segmenter

MAX_AREA = 0.5  # fraction of the frame above which a proposal counts as background


class Foreground(ZeroShotMethod):
    """The whole frame."""

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        return [Prediction(np.ones(frame.shape[:2], bool)) for frame in frames]


class ProposalBaseline(ZeroShotMethod):
    """The largest proposal under half the frame, or a random one."""

    def __init__(self, options: Options, segmenter: Segmenter):
        self.options, self.segmenter = options, segmenter

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        predictions = []
        found = self.segmenter.propose(frames, self.options.proposals)
        for frame, proposals in zip(frames, found, strict=True):
            small = [p for p in proposals if p["area"] < MAX_AREA * frame.shape[0] * frame.shape[1]]
            if self.options.method == "random_proposal":
                # Seeded by the frame's content, so that batches, order and number of processes do not matter.
                small = small and [small[int(content_hash(frame)[:12], 16) % len(small)]]
            best = max(small, key=lambda proposal: proposal["area"], default=None)
            predictions.append(Prediction(best["segmentation"] if best else np.zeros(frame.shape[:2], bool)))
        return predictions
