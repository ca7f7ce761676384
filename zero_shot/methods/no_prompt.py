"""No-Prompt: SAM proposes masks, and the audio-visual encoder selects those that match the audio.

Source: Sam4AVS, `zero_shot/*/no_prompt.py`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zero_shot.encoders import AudioVisualEncoder, require_maps
from zero_shot.methods.base import ZeroShotMethod
from zero_shot.methods.prediction import ObjectMask, Prediction
from zero_shot.options import Options
from zero_shot.proposal_scoring import (
    mean_in_mask,
    paint_probabilities,
    proposal_probabilities,
    select_proposals,
    union_masks,
)
from zero_shot.segmenters import Segmenter


class NoPrompt(ZeroShotMethod):
    """The union of the proposals that score highest, as crops or by the similarity map."""

    def __init__(self, options: Options, encoder: AudioVisualEncoder, segmenter: Segmenter):
        self.options, self.encoder, self.segmenter = options, encoder, segmenter
        self.dense = require_maps(encoder, options) if options.retrieval.score == "map" else None
        self.sample_rate, self.int16_round_trip = encoder.sample_rate, encoder.int16_round_trip

    def predict(self, frames: Sequence[np.ndarray], audio: Tensor) -> list[Prediction]:
        """Implements ZeroShotMethod.predict."""
        options = self.options.retrieval
        audio_features = self.encoder.encode_audio(audio)
        maps = self.dense.similarity_maps(frames, audio_features)[0] if self.dense else None
        predictions = []
        for index, proposals in enumerate(self.segmenter.propose(frames, self.options.proposals)):
            size = frames[index].shape[:2]
            small = [i for i, p in enumerate(proposals) if p["area"] <= options.max_area * size[0] * size[1]]
            if maps is None:
                features, kept = self._encode_crops(frames[index], proposals, small)
                scores = proposal_probabilities(features, audio_features[index], options.logit_scale)
            else:
                kept = list(range(len(small)))
                means = torch.tensor([mean_in_mask(maps[index].numpy(), proposals[i]) for i in small])
                scores = torch.softmax(options.logit_scale * means, 0)
            selected = select_proposals(
                scores, kept, len(small), options.threshold, options.rule, self.options.fidelity
            )
            candidates = [proposals[i] for i in small]
            mask = union_masks([candidates[i]["segmentation"] for i in selected], size)
            probabilities = dict(zip(kept, scores.tolist(), strict=True))
            objects = [
                ObjectMask(candidates[i]["segmentation"], candidates[i]["predicted_iou"], probabilities.get(i, 0.0))
                for i in selected
            ]
            heatmap = None if maps is None else maps[index].numpy()
            audio_map = paint_probabilities(candidates, probabilities, size) if self.tracker else None
            predictions.append(Prediction(mask, heatmap, objects=objects, audio_map=audio_map))
        return predictions

    def _encode_crops(
        self, frame: np.ndarray, proposals: Sequence[dict[str, Any]], small: Sequence[int]
    ) -> tuple[Tensor, list[int]]:
        """Embeddings (K, D) of those of the `small` proposals that give a crop, and their indices in `small`.

        All proposals are embedded, so that another `max_area` needs no network.
        """
        features, given = self.encoder.encode_crops(frame, proposals, self.options.fidelity)
        rows = {index: row for row, index in enumerate(given)}
        kept = [place for place, index in enumerate(small) if index in rows]
        return features[[rows[small[place]] for place in kept]], kept
