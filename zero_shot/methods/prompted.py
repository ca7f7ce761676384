"""Methods that start from the similarity map of audio and frame: a threshold, or prompts for Segment Anything.

Source: Sam4AVS, `zero_shot/*/test_point_prompt.py` and `test_heatmap_box.py`.
"""

from abc import abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from zero_shot.encoders import AudioVisualEncoder, require_maps
from zero_shot.methods.base import ZeroShotMethod
from zero_shot.methods.prediction import ObjectMask, Prediction, mean_over_mask
from zero_shot.options import Options
from zero_shot.prompts import Prompt, choose_mask, component_boxes, dense_points, peak_points, top_points
from zero_shot.segmenters import Segmenter


class SimilarityThreshold(ZeroShotMethod):
    """The similarity map above a threshold, without SAM."""

    def __init__(self, options: Options, encoder: AudioVisualEncoder):
        self.options, self.encoder = options, require_maps(encoder, options)
        self.sample_rate, self.int16_round_trip = encoder.sample_rate, encoder.int16_round_trip

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        threshold = np.float32(self.options.prompt.threshold)
        maps, absolute = self.encoder.similarity_maps(frames, self.encoder.encode_audio(audio))
        return [
            _predict_objects((heatmap >= threshold)[None], [1.0], heatmap, None, audio_map)
            for heatmap, audio_map in zip(maps.numpy(), absolute.numpy(), strict=True)
        ]


class PromptedMethod(SimilarityThreshold):
    """SAM, prompted by the similarity map. If the map gives no prompt, the mask is empty."""

    def __init__(self, options: Options, encoder: AudioVisualEncoder, segmenter: Segmenter):
        super().__init__(options, encoder)
        self.segmenter = segmenter

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        maps, absolute = self.encoder.similarity_maps(frames, self.encoder.encode_audio(audio))
        prompts = [self.make_prompt(heatmap) for heatmap in maps]
        device = self.segmenter.device
        nothing = torch.zeros(0, *frames[0].shape[:2], dtype=torch.bool, device=device), torch.zeros(0, device=device)
        found = [
            nothing if prompt.empty else self.predict_masks(embedding, prompt)
            for embedding, prompt in zip(self.segmenter.embed(frames), prompts, strict=True)
        ]
        counts = [len(scores) for _, scores in found]
        # In one transfer: each makes a GPU wait.
        masks, scores = (torch.cat([pair[part] for pair in found]).cpu().split(counts) for part in (0, 1))
        return [
            _predict_objects(of_frame.numpy(), scores_of_frame.tolist(), heatmap, prompt, audio_map)
            for of_frame, scores_of_frame, heatmap, prompt, audio_map in zip(
                masks, scores, maps.numpy(), prompts, absolute.numpy(), strict=True
            )
        ]

    @abstractmethod
    def make_prompt(self, similarity_map: Tensor) -> Prompt:
        """The prompt that one map (H, W) gives."""

    @abstractmethod
    def predict_masks(self, embedding: object, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """SAM's masks (K, H, W) bool for a prompt, whose union is the answer, and their predicted IoU (K,)."""


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

    def predict_masks(self, embedding: object, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Implements PromptedMethod.predict_masks, by `sam.multimask` and `sam.mask_selection`."""
        options = self.options.sam
        masks, scores = self.segmenter.prompt(
            embedding, points=prompt.points, labels=prompt.labels, multimask=options.multimask
        )
        chosen = [choose_mask(masks[0], scores[0], options.mask_selection)]
        return masks[0, chosen], scores[0, chosen]


class HeatmapBox(PromptedMethod):
    """Boxes around the components of the map above the threshold."""

    def make_prompt(self, similarity_map: Tensor) -> Prompt:
        """Implements PromptedMethod.make_prompt."""
        return component_boxes(similarity_map, self.options.prompt.threshold, self.options.prompt.boxes)

    def predict_masks(self, embedding: object, prompt: Prompt) -> tuple[Tensor, Tensor]:
        """Each box's mask of highest predicted IoU."""
        masks, scores = self.segmenter.prompt(embedding, boxes=prompt.boxes)
        best = torch.arange(len(masks), device=masks.device), scores.argmax(dim=1)
        return masks[best], scores[best]


def _predict_objects(
    masks: np.ndarray, scores: Sequence[float], heatmap: np.ndarray, prompt: Prompt | None, audio_map: np.ndarray
) -> Prediction:
    """The union of masks (K, H, W), each an object with its predicted IoU and the mean of the audio map over it."""
    objects = [
        ObjectMask(mask, score, mean_over_mask(audio_map, mask))
        for mask, score in zip(masks, scores, strict=True)
        if mask.any()
    ]
    return Prediction(np.logical_or.reduce(masks, axis=0), heatmap, prompt, objects=objects, audio_map=audio_map)
