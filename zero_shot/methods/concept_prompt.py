"""Concept-Prompt: a classifier names the sound, a detector or SAM 3 finds what is named, a segmenter makes masks of it.

It is Box-Prompt with models of today and an open list of labels, which may say what to look for. A label or an object
counts only if its model is sure enough; where nothing is, the mask is empty.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor

from utils.cli import InputError
from zero_shot.encoders.base import SoundClassifier
from zero_shot.finders import ObjectFinder
from zero_shot.methods.base import ZeroShotMethod
from zero_shot.methods.prediction import Prediction
from zero_shot.options import Options
from zero_shot.prompts import Prompt


class ConceptPrompt(ZeroShotMethod):
    """The union of the masks of every object that is found for the labels of the sound.

    Args:
        options: of the run.
        classifier: names sounds.
        targets: what to look for, for each label of the classifier; None for nothing.
        finder: finds it.

    Raises:
        InputError: if `grounding.top_k` exceeds the number of labels.
    """

    def __init__(
        self,
        options: Options,
        classifier: SoundClassifier,
        targets: Mapping[str, str | None],
        finder: ObjectFinder,
    ):
        self.options, self.classifier, self.targets, self.finder = options, classifier, targets, finder
        if not options.grounding.top_k <= len(classifier.labels):
            raise InputError(
                f"grounding.top_k is {options.grounding.top_k}; it must be from 1 to {len(classifier.labels)}, the "
                "number of labels"
            )
        self.sample_rate, self.image_size = classifier.sample_rate, options.concept.image_size
        self.segmenter = finder.segmenter

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        scores = [self._by_target(row) for row in self.classifier.probabilities(audio).tolist()]
        named = [self._confident(each) for each in scores]
        wanted = [
            {label: (target, every[label]) for label in labels if (target := self.targets[label]) is not None}
            for labels, every in zip(named, scores, strict=True)
        ]
        predictions = []
        for frame, labels, every, (objects, boxes) in zip(
            frames, named, scores, self.finder.find(frames, wanted), strict=True
        ):
            mask = np.zeros(frame.shape[:2], bool)
            for each in objects:
                mask |= each.mask
            prompt = Prompt(boxes=boxes) if len(boxes) else None
            predictions.append(Prediction(mask, prompt=prompt, labels=labels, objects=objects, label_scores=every))
        return predictions

    def _by_target(self, probabilities: Sequence[float]) -> dict[str, float]:
        """The probability of each label; labels of the same target share that of the surest one."""
        every = dict(zip(self.classifier.labels, probabilities, strict=True))
        surest: dict[str | None, float] = {}
        for label, probability in every.items():
            target = self.targets[label]
            surest[target] = max(probability, surest.get(target, 0.0))
        shared = {label: surest[target] for label, target in self.targets.items() if target is not None}
        return {**every, **shared}

    def _confident(self, scores: Mapping[str, float]) -> list[str]:
        """The `top_k` most probable labels of different targets that reach `min_confidence`, in order."""
        found: dict[str | None, str] = {}
        for label in sorted(scores, key=lambda label: -scores[label]):
            if scores[label] < self.options.concept.min_confidence or len(found) == self.options.grounding.top_k:
                break
            found.setdefault(self.targets[label], label)
        return list(found.values())
