"""No-Prompt: SAM proposes masks, and the audio-visual encoder selects those that match the audio.

Source: Sam4AVS, `zero_shot/*/no_prompt.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.cache import content_hash
from zero_shot.encoders import AudioVisualEncoder
from zero_shot.methods.base import ObjectMask, Prediction, ZeroShotMethod
from zero_shot.options import Options
from zero_shot.proposal_scoring import (
    crop_proposal,
    paint_probabilities,
    prepare_crops,
    proposal_probabilities,
    select_proposals,
    union_masks,
)
from zero_shot.segmenters import Segmenter

PUBLISHED_SAMPLE_RATE = 48_000  # Hz: the original passes audio at CLAP's rate to AudioCLIP


class NoPrompt(ZeroShotMethod):
    """The union of the proposals that score highest, as crops or by the similarity map."""

    def __init__(self, options: Options, encoder: AudioVisualEncoder, segmenter: Segmenter):
        self.options, self.encoder, self.segmenter = options, encoder, segmenter
        # The original encodes one second at 48 kHz with a network that was trained on five seconds at 44.1 kHz.
        published = options.fidelity == "published"
        self.int16_round_trip = published
        self.sample_rate = PUBLISHED_SAMPLE_RATE if published else encoder.sample_rate
        self.audio_repeats = 1 if published else options.audioclip.audio_repeats

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        options = self.options.retrieval
        audio_features = self.encoder.encode_audio(audio, self.audio_repeats)
        maps = self.encoder.similarity_maps(frames, audio_features) if options.score == "map" else None
        predictions = []
        for index, proposals in enumerate(self.segmenter.propose(frames, self.options.proposals)):
            size = frames[index].shape[:2]
            proposals = [p for p in proposals if p["area"] <= options.max_area * size[0] * size[1]]
            if maps is None:
                features, kept = self._encode_crops(frames[index], proposals)
                scores = proposal_probabilities(features, audio_features[index], options.logit_scale)
            else:
                kept = list(range(len(proposals)))
                means = torch.tensor([float(maps[index].numpy()[p["segmentation"]].mean()) for p in proposals])
                scores = torch.softmax(options.logit_scale * means, 0)
            selected = select_proposals(
                scores, kept, len(proposals), options.threshold, options.rule, self.options.fidelity
            )
            mask = union_masks([proposals[i]["segmentation"] for i in selected], size)
            probabilities = dict(zip(kept, scores.tolist(), strict=True))
            objects = [
                ObjectMask(proposals[i]["segmentation"], proposals[i]["predicted_iou"], probabilities.get(i, 0.0))
                for i in selected
            ]
            heatmap = None if maps is None else maps[index].numpy()
            audio_map = paint_probabilities(proposals, probabilities, size)
            predictions.append(Prediction(mask, heatmap, objects=objects, audio_map=audio_map))
        return predictions

    def _encode_crops(self, frame: np.ndarray, proposals: Sequence[dict[str, Any]]) -> tuple[Tensor, list[int]]:
        """Embeddings (K, D) of the proposals that give a crop, and their indices among the proposals."""
        size = self.options.retrieval.crop_size
        all_crops = {i: crop_proposal(frame, proposal, self.options.fidelity) for i, proposal in enumerate(proposals)}
        crops = {i: crop for i, crop in all_crops.items() if crop is not None}
        content = content_hash(np.concatenate([crop.ravel() for crop in crops.values()])) if crops else ""
        parameters = {"size": size, "shapes": [crop.shape[:2] for crop in crops.values()]}
        make = lambda: prepare_crops(list(crops.values()), size, self.encoder.device)  # noqa: E731
        return self.encoder.encode_crops(content, parameters, make), list(crops)
