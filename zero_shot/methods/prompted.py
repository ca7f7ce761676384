"""Methods that start from the similarity map of audio and frame: a threshold, or prompts for Segment Anything.

Source: Sam4AVS, `zero_shot/*/test_point_prompt.py` and `test_heatmap_box.py`.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zero_shot.encoders import AudioVisualEncoder
from zero_shot.methods.base import Prediction, ZeroShotMethod
from zero_shot.options import Options
from zero_shot.prompts import Prompt, choose_mask, component_boxes, dense_points, peak_points, top_points
from zero_shot.segmenters import Segmenter


class SimilarityThreshold(ZeroShotMethod):
    """The similarity map above a threshold, without SAM."""

    def __init__(self, options: Options, encoder: AudioVisualEncoder):
        self.options, self.encoder = options, encoder
        self.sample_rate = encoder.sample_rate

    def similarity_maps(self, frames: Sequence[np.ndarray], audio: Tensor) -> Tensor:
        """Similarity maps (N, H, W) in [0, 1]; arguments as of `predict`."""
        audio_features = self.encoder.encode_audio(audio, self.options.audioclip.audio_repeats)
        return self.encoder.similarity_maps(frames, audio_features)

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        threshold = np.float32(self.options.prompt.threshold)
        return [Prediction(heatmap >= threshold, heatmap) for heatmap in self.similarity_maps(frames, audio).numpy()]


class PromptedMethod(SimilarityThreshold):
    """SAM, prompted by the similarity map. If the map gives no prompt, the mask is empty."""

    def __init__(self, options: Options, encoder: AudioVisualEncoder, segmenter: Segmenter):
        super().__init__(options, encoder)
        self.segmenter = segmenter

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        maps = self.similarity_maps(frames, audio)
        prompts = [self.make_prompt(heatmap) for heatmap in maps]
        empty = torch.zeros(frames[0].shape[:2], dtype=torch.bool, device=self.segmenter.device)
        masks = [
            empty if prompt.empty else self.predict_mask(embedding, prompt)
            for embedding, prompt in zip(self.segmenter.embed(frames), prompts, strict=True)
        ]
        on_cpu = torch.stack(masks).cpu().numpy()  # in one transfer: each makes a GPU wait
        return [Prediction(*parts) for parts in zip(on_cpu, maps.numpy(), prompts, strict=True)]

    @abstractmethod
    def make_prompt(self, similarity_map: Tensor) -> Prompt:
        """The prompt that one map (H, W) gives."""

    @abstractmethod
    def predict_mask(self, embedding: object, prompt: Prompt) -> Tensor:
        """SAM's mask (H, W) bool for a prompt, on its device."""


class PointPrompt(PromptedMethod):
    """Points, all in one prompt: highest and lowest (global), peaks and troughs (local), or the grid (dense)."""

    def make_prompt(self, similarity_map: Tensor) -> Prompt:
        """Implements PromptedMethod.make_prompt."""
        options = self.options.prompt
        if options.points == "global":
            return top_points(similarity_map)
        if options.points == "dense":
            return dense_points(similarity_map, options.threshold)
        return peak_points(similarity_map, options.threshold, self.options.fidelity)

    def predict_mask(self, embedding: object, prompt: Prompt) -> Tensor:
        """Implements PromptedMethod.predict_mask, by `sam.multimask` and `sam.mask_selection`."""
        options = self.options.sam
        masks, scores = self.segmenter.prompt(
            embedding, points=prompt.points, labels=prompt.labels, multimask=options.multimask
        )
        return masks[0, choose_mask(masks[0], scores[0], options.mask_selection)]


class HeatmapBox(PromptedMethod):
    """Boxes around the components of the map above the threshold."""

    def make_prompt(self, similarity_map: Tensor) -> Prompt:
        """Implements PromptedMethod.make_prompt."""
        return component_boxes(similarity_map, self.options.prompt.threshold, self.options.prompt.boxes)

    def predict_mask(self, embedding: object, prompt: Prompt) -> Tensor:
        """The union of each box's mask of highest predicted IoU."""
        masks, scores = self.segmenter.prompt(embedding, boxes=prompt.boxes)
        best = masks[torch.arange(len(masks), device=masks.device), scores.argmax(dim=1)]
        return best.any(dim=0)
