"""Box-Prompt: CLAP names the sound, GroundingDINO finds boxes for the names, Segment Anything masks the boxes.

Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.methods.base import CLAP_RATE, Prediction, ZeroShotMethod
from zero_shot.options import Options
from zero_shot.prompts import Prompt
from zero_shot.segmenters import Segmenter


class BoxPrompt(ZeroShotMethod):
    """The union of SAM's masks for every box of every name."""

    sample_rate = CLAP_RATE
    int16_round_trip = True

    def __init__(
        self, options: Options, classifier: ClapClassifier, detector: GroundingDinoDetector, segmenter: Segmenter
    ):
        self.options, self.classifier, self.detector, self.segmenter = options, classifier, detector, segmenter

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        options, predictions = self.options.grounding, []
        labels = self.classifier.classify(audio, options.top_k)
        for frame, names, embedding in zip(frames, labels, self.segmenter.embed(frames), strict=True):
            boxes = [self.detector.detect(frame, name, options.threshold) for name in names]
            prompt = Prompt(boxes=np.concatenate(boxes))
            mask = np.zeros(frame.shape[:2], bool)
            if not prompt.empty:
                masks, _ = self.segmenter.prompt(embedding, boxes=prompt.boxes, multimask=False)
                mask = masks[:, 0].any(dim=0).cpu().numpy()
            predictions.append(Prediction(mask, prompt=prompt, labels=names))
        return predictions
