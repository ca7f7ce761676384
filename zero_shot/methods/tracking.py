"""Tracking: the masks of the most certain second of a clip, carried through the others by SAM 2's memory.

The pivot is the second whose mask is most certain, by predicted IoU × audio score. Its objects are carried forward, or
in both directions, each with an identity of its own. Where the audio of a second does not agree with an object, the
object is left out there. The masks of the pivot itself are not changed.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from utils.cli import InputError
from zero_shot.methods.prediction import ObjectMask, Prediction, Predictions
from zero_shot.options import BASELINES, Options
from zero_shot.segmenters import Segmenter
from zero_shot.segmenters.sam2 import Sam2Segmenter
from zero_shot.segmenters.sam2_families import FAMILIES, family_of, load_network
from zero_shot.segmenters.sam2_tracker import MaskTracker


class ClipTracker:
    """Tracks the objects of a clip's most certain second.

    Args:
        tracker: carries masks.
        backward: whether also to the seconds before the pivot.
        threshold: minimum agreement of a second's audio with an object.
    """

    def __init__(self, tracker: MaskTracker, *, backward: bool, threshold: float) -> None:
        self.tracker, self.backward, self.threshold = tracker, backward, threshold

    def track(self, frames: Sequence[np.ndarray], predictions: Predictions) -> Predictions:
        """Carry the objects of the pivot through a clip.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size, in order.
            predictions: of each frame; None for a silent one, through which objects are carried unseen.

        Returns:
            N predictions. That of the pivot is the one given, and so are None and, without `backward`, those before the
            pivot. If no second has an object, all are.
        """
        certainties = [0.0 if prediction is None else prediction.certainty for prediction in predictions]
        pivot = int(np.argmax(certainties)) if certainties else 0
        start = predictions[pivot] if certainties else None
        if start is None or not start.objects or len(frames) < 2:
            return predictions
        masks = np.stack([each.mask for each in start.objects])
        carried = self.tracker.carry(frames, pivot, masks, backward=self.backward)
        tracked = predictions.copy()
        for index in range(0 if self.backward else pivot + 1, len(frames)):
            prediction = predictions[index]
            if prediction is not None and index != pivot:
                tracked[index] = self._gate(prediction, start.objects, carried[index], pivot)
        return tracked

    def _gate(self, prediction: Prediction, objects: Sequence[ObjectMask], masks: np.ndarray, pivot: int) -> Prediction:
        """A second's prediction with the carried masks (K, H, W) that its audio agrees with."""
        kept = []
        for each, mask in zip(objects, masks, strict=True):
            agreement = prediction.audio_agreement(mask, each.label)
            if mask.any() and agreement >= self.threshold:
                kept.append(replace(each, mask=mask, audio_score=agreement))
        union = np.zeros(prediction.mask.shape, bool)
        for each in kept:
            union |= each.mask
        return replace(prediction, mask=union, objects=kept, pivot=pivot)


def check_tracking(options: Options) -> None:
    """Check, before any network is loaded, whether the method can be tracked and a network for it is named.

    Raises:
        InputError: if not.
    """
    if options.track == "none":
        return
    if options.method in BASELINES:
        raise InputError(f"method {options.method} uses no audio, so there is nothing to track; use --track none")
    options.tracker_folder()


def build_tracker(
    options: Options, device: torch.device | str = "cpu", segmenter: Segmenter | None = None
) -> ClipTracker | None:
    """Build what `track` and `tracking` ask for; None if that is nothing.

    Args:
        options: of the run.
        device: where it computes.
        segmenter: of the method; its network tracks if it can and no other is named.

    Raises:
        InputError: for a method whose masks cannot be tracked, and if the network is missing or cannot track.
    """
    check_tracking(options)
    if options.track == "none":
        return None
    folder = options.tracker_folder()
    family = family_of(folder)
    if options.tracking.weights is not None or not isinstance(segmenter, Sam2Segmenter):
        segmenter = _load(options, folder, family, torch.device(device))
    tracker = MaskTracker(segmenter, FAMILIES[family])
    return ClipTracker(tracker, backward=options.track == "both", threshold=options.tracking.threshold)


def _load(options: Options, folder: Path, family: str, device: torch.device) -> Sam2Segmenter:
    run = options.run
    model, processor = load_network(folder, family, tracks=True)
    return Sam2Segmenter(
        model.to(device),
        processor,
        cache=run.cache if run.use_cache else None,
        precision=run.precision,
        memory_mib=run.memory_mib,
    )
