"""Box-Prompt: CLAP classifies the audio, GroundingDINO detects boxes for its labels, SAM segments the boxes.

Source: Sam4AVS, `zero_shot/*/box_prompt.py`.
"""

from collections.abc import Sequence

import numpy as np
from torch import Tensor

from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.encoders.clap import SAMPLE_RATE, ClapClassifier
from zero_shot.methods.base import ZeroShotMethod
from zero_shot.methods.prediction import ObjectMask, Prediction
from zero_shot.options import Options
from zero_shot.prompts import Prompt
from zero_shot.segmenters import Segmenter


class BoxPrompt(ZeroShotMethod):
    """The union of SAM's masks for every box of every label."""

    sample_rate = SAMPLE_RATE
    int16_round_trip = True

    def __init__(
        self, options: Options, classifier: ClapClassifier, detector: GroundingDinoDetector, segmenter: Segmenter
    ):
        self.options, self.classifier, self.detector, self.segmenter = options, classifier, detector, segmenter

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        options, predictions = self.options.grounding, []
        classified = self.classifier.classify(audio, options.top_k)
        for frame, labels, embedding in zip(frames, classified, self.segmenter.embed(frames), strict=True):
            boxes = [self.detector.detect(frame, label, options.threshold) for label in labels]
            prompt = Prompt(boxes=np.concatenate(boxes))
            masks, scores = self.segmenter.prompt(embedding, boxes=prompt.boxes, multimask=False)
            of_boxes = masks[:, 0].cpu().numpy()
            names = [label for label, found in zip(labels, boxes, strict=True) for _ in found]
            objects = [
                ObjectMask(mask, score, 1.0, name)
                for mask, score, name in zip(of_boxes, scores[:, 0].tolist(), names, strict=True)
                if mask.any()
            ]
            heard = dict.fromkeys(labels, 1.0)
            predictions.append(
                Prediction(np.logical_or.reduce(of_boxes, axis=0), None, prompt, labels, objects, label_scores=heard)
            )
        return predictions
