"""The networks of many option sets that name the same weights, each built once, with results that the sets share."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.memo import Memo
from zero_shot.components import Components
from zero_shot.detectors.grounding_dino import GroundingDinoDetector
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.encoders import AudioVisualEncoder
from zero_shot.encoders.base import SoundClassifier
from zero_shot.encoders.clap import ClapClassifier
from zero_shot.method_options import ProposalOptions
from zero_shot.options import Options
from zero_shot.segmenters import Segmenter


class SharedComponents(Components):
    """The components of many option sets that name the same weights.

    Args:
        options: of the first set.
        device: of the networks.
        memo: where results are kept for the other sets.
    """

    def __init__(self, options: Options, device: torch.device | str, memo: Memo):
        super().__init__(options, device)
        self.memo, self._built = memo, dict[str, Any]()

    def with_options(self, options: Options) -> "SharedComponents":
        """The same networks under other options."""
        other = copy.copy(self)
        other.options = options
        return other

    def encoder(self) -> AudioVisualEncoder:
        """The encoder of the first set under the options of this one."""
        return self._once("encoder", super().encoder).with_options(self.options)

    def segmenter(self) -> Segmenter:
        """The one segmenter, which gets its options with each call."""
        return self._once("segmenter", lambda: SharedSegmenter(Components.segmenter(self), self.memo))

    def classifier(self) -> ClapClassifier:
        """The one classifier, which gets its options with each call."""
        return self._once("classifier", super().classifier)

    def detector(self) -> GroundingDinoDetector:
        """The one detector, which gets its options with each call."""
        return self._once("detector", super().detector)

    def sound_classifier(self) -> SoundClassifier:
        """The one classifier of concept_prompt, which has no options."""
        return self._once("sound_classifier", super().sound_classifier)

    def text_detector(self) -> Sam3Detector:
        """The one detector of that kind, which gets its options with each call."""
        return self._once("text_detector", super().text_detector)

    def _once(self, name: str, build: Callable[[], Any]) -> Any:
        if name not in self._built:
            self._built[name] = build()
            self._built[name].memo = self.memo
        return self._built[name]


class SharedSegmenter:
    """A segmenter that embeds, prompts and proposes once for all option sets; implements Segmenter.

    Args:
        segmenter: which computes.
        memo: where results are kept.
    """

    def __init__(self, segmenter: Segmenter, memo: Memo):
        self.inner, self.memo = segmenter, memo

    @property
    def device(self) -> torch.device:
        """The device of the segmenter."""
        return self.inner.device

    def embed(self, frames: Sequence[np.ndarray]) -> Sequence[Any]:
        """Implements Segmenter.embed."""
        return self.memo("embed", None, [frames], lambda: self.inner.embed(frames))

    def prompt(
        self,
        embedding: Any,
        *,
        points: np.ndarray | None = None,
        labels: np.ndarray | None = None,
        boxes: np.ndarray | None = None,
        multimask: bool = True,
    ) -> tuple[Tensor, Tensor]:
        """Implements Segmenter.prompt."""
        given = [None if part is None else (part.shape, part.tobytes()) for part in (points, labels, boxes)]
        compute = lambda: self.inner.prompt(  # noqa: E731
            embedding, points=points, labels=labels, boxes=boxes, multimask=multimask
        )
        return self.memo("prompt", (*given, multimask), [embedding], compute)

    def propose(self, frames: Sequence[np.ndarray], options: ProposalOptions) -> list[list[dict[str, Any]]]:
        """Implements Segmenter.propose."""
        return self.memo("proposals", options, [frames], lambda: self.inner.propose(frames, options))
