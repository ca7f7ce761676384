"""The settings of the zero-shot study, each a class that answers frames and their seconds with masks.

    NoPrompt      SAM proposes, AudioCLIP finds the proposal that the sound belongs to
    PointPrompt   the similarity map gives points, SAM a mask         (local = peak, global = top, dense)
    HeatmapBox    the similarity map gives boxes, SAM a mask for each
    BoxPrompt     CLAP names the sound, GroundingDINO finds boxes, SAM gives a mask for each
    Heatmap       the similarity map above a threshold, without SAM   (for comparison)
    Floor         masks that do not listen                            (for comparison)

Frames are independent of each other. Source: SAM4AVS (BMVC 2023); docs/deviations.md says what `fidelity` changes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from utils.cache import content_hash
from zero_shot.encoders.audioclip import AudioCLIPEncoder
from zero_shot.grounding import ClapClassifier, GroundingDinoDetector
from zero_shot.options import Options
from zero_shot.prompts import Prompt, choose_mask, component_boxes, dense_points, peak_points, top_points
from zero_shot.proposal_scoring import (
    crop_proposal,
    prepare_crops,
    proposal_probabilities,
    select_proposals,
    union_masks,
)
from zero_shot.segmenters.proposals import generate_proposals
from zero_shot.segmenters.sam import ImageEmbedding, SamSegmenter

AUDIOCLIP_RATE, CLAP_RATE = 44_100, 48_000  # Hz
HALF = 0.5  # of the frame: a larger proposal counts as background for the floors


@dataclass
class Prediction:
    """What a setting says of one frame."""

    mask: np.ndarray  # (H, W) bool
    similarity_map: np.ndarray | None = None  # (H, W) float32, the similarity map, where the setting has one
    prompt: Prompt | None = None
    labels: Sequence[str] = ()  # what box_prompt takes the sound for


class ZeroShotMethod:
    """How frames and their sounds become masks.

    sample_rate: Hz, of the seconds it wants. int16_round_trip: whether they are to go through 16 bits first.
    """

    sample_rate = AUDIOCLIP_RATE
    int16_round_trip = False

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """frames: N of (H, W, 3) uint8 RGB, all of one size; seconds: (N, samples) in [-1, 1]."""
        raise NotImplementedError


class NoPrompt(ZeroShotMethod):
    """SAM's proposals, scored by AudioCLIP."""

    def __init__(self, options: Options, audiovisual: AudioCLIPEncoder, segmenter: SamSegmenter):
        self.options, self.audiovisual, self.segmenter = options, audiovisual, segmenter
        # The original gives each second once, at 48 kHz, to a network that was trained on five of them at 44.1 kHz.
        self.int16_round_trip = options.fidelity == "published"
        self.sample_rate = CLAP_RATE if options.fidelity == "published" else AUDIOCLIP_RATE
        self.tile = 1 if options.fidelity == "published" else options.audioclip.audio_repeats

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """See Setting."""
        options = self.options.retrieval
        sounds = self.audiovisual.encode_audio(seconds, self.tile)
        maps = self.audiovisual.similarity_maps(frames, sounds) if options.score == "map" else None
        answers = []
        for index, records in enumerate(generate_proposals(self.segmenter, frames, self.options.proposals)):
            size = frames[index].shape[:2]
            records = [record for record in records if record["area"] <= options.max_area * size[0] * size[1]]
            if maps is None:
                features, kept = self._crops(frames[index], records)
                scores = proposal_probabilities(features, sounds[index], options.logit_scale)
            else:
                kept = list(range(len(records)))
                scores = torch.tensor([float(maps[index].numpy()[r["segmentation"]].mean()) for r in records])
                scores = torch.softmax(options.logit_scale * scores, 0)
            chosen = select_proposals(
                scores, kept, len(records), options.threshold, options.rule, self.options.fidelity
            )
            mask = union_masks([records[i]["segmentation"] for i in chosen], size)
            answers.append(Prediction(mask, None if maps is None else maps[index].numpy()))
        return answers

    def _crops(self, frame: np.ndarray, records: Sequence[dict[str, Any]]) -> tuple[Tensor, list[int]]:
        """Embeddings (K, D) of the proposals that can be cut out, and their places among the records."""
        size = self.options.retrieval.crop_size
        cut = {i: crop_proposal(frame, record, self.options.fidelity) for i, record in enumerate(records)}
        crops = {i: crop for i, crop in cut.items() if crop is not None}
        content = content_hash(np.concatenate([crop.ravel() for crop in crops.values()])) if crops else ""
        facts = {"size": size, "shapes": [crop.shape[:2] for crop in crops.values()]}
        make = lambda: prepare_crops(list(crops.values()), size, self.audiovisual.device)  # noqa: E731
        return self.audiovisual.encode_crops(content, facts, make), list(crops)


class SimilarityThreshold(ZeroShotMethod):
    """The similarity map above a threshold. The prompting settings start from the map, too."""

    def __init__(self, options: Options, audiovisual: AudioCLIPEncoder):
        self.options, self.audiovisual = options, audiovisual

    def similarity_maps(self, frames: Sequence[np.ndarray], seconds: Tensor) -> Tensor:
        """Similarity maps (N, H, W), 0 to 1."""
        return self.audiovisual.similarity_maps(
            frames, self.audiovisual.encode_audio(seconds, self.options.audioclip.audio_repeats)
        )

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """See Setting."""
        maps = self.similarity_maps(frames, seconds).numpy()
        return [Prediction(heat >= np.float32(self.options.prompt.threshold), heat) for heat in maps]


class PromptedMethod(SimilarityThreshold):
    """SAM, prompted by what the map says."""

    def __init__(self, options: Options, audiovisual: AudioCLIPEncoder, segmenter: SamSegmenter):
        super().__init__(options, audiovisual)
        self.segmenter = segmenter

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """See Setting."""
        maps = self.similarity_maps(frames, seconds)
        prompts = [self.make_prompt(heat) for heat in maps]
        nothing = torch.zeros(frames[0].shape[:2], dtype=torch.bool, device=self.segmenter.device)
        masks = [
            nothing if prompt.empty else self.predict_mask(embedded, prompt)
            for embedded, prompt in zip(self.segmenter.embed(frames), prompts, strict=True)
        ]
        together = torch.stack(masks).cpu().numpy()  # once: a GPU would stand idle at every transfer
        return [Prediction(*of_frame) for of_frame in zip(together, maps.numpy(), prompts, strict=True)]

    def make_prompt(self, heat: Tensor) -> Prompt:
        """What one map (H, W) prompts SAM with."""
        raise NotImplementedError

    def predict_mask(self, embedded: ImageEmbedding, prompt: Prompt) -> Tensor:
        """SAM's mask (H, W) bool, on its device."""
        raise NotImplementedError


class PointPrompt(PromptedMethod):
    """Points, all in one prompt."""

    def make_prompt(self, heat: Tensor) -> Prompt:
        """See Prompted."""
        options = self.options.prompt
        if options.points == "global":
            return top_points(heat)
        if options.points == "dense":
            return dense_points(heat, options.threshold)
        return peak_points(heat, options.threshold, self.options.fidelity)

    def predict_mask(self, embedded: ImageEmbedding, prompt: Prompt) -> Tensor:
        """The best of SAM's masks by `sam.mask_selection`."""
        sam = self.options.sam
        masks, scores = self.segmenter.prompt(
            embedded, points=prompt.points, labels=prompt.labels, multimask=sam.multimask
        )
        return masks[0, choose_mask(masks[0], scores[0], sam.mask_selection)]


class HeatmapBox(PromptedMethod):
    """Boxes around what is above the threshold."""

    def make_prompt(self, heat: Tensor) -> Prompt:
        """See Prompted."""
        return component_boxes(heat, self.options.prompt.threshold, self.options.prompt.boxes)

    def predict_mask(self, embedded: ImageEmbedding, prompt: Prompt) -> Tensor:
        """For each box the mask of highest predicted IoU, all together; `sam.mask_selection` is for points."""
        masks, scores = self.segmenter.prompt(embedded, boxes=prompt.boxes)
        best = masks[torch.arange(len(masks), device=masks.device), scores.argmax(dim=1)]
        return best.any(dim=0)


class BoxPrompt(ZeroShotMethod):
    """Words for the sound, boxes for the words, masks for the boxes."""

    sample_rate = CLAP_RATE
    int16_round_trip = True

    def __init__(
        self, options: Options, labeller: ClapClassifier, finder: GroundingDinoDetector, segmenter: SamSegmenter
    ):
        self.options, self.labeller, self.finder, self.segmenter = options, labeller, finder, segmenter

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """See Setting."""
        answers = []
        words = self.labeller.classify(seconds, self.options.grounding.top_k)
        for frame, names, embedded in zip(frames, words, self.segmenter.embed(frames), strict=True):
            boxes = [self.finder.detect(frame, name, self.options.grounding.threshold) for name in names]
            prompt = Prompt(boxes=np.concatenate(boxes))
            mask = np.zeros(frame.shape[:2], bool)
            if not prompt.empty:
                masks, _ = self.segmenter.prompt(embedded, boxes=prompt.boxes, multimask=False)
                mask = masks[:, 0].any(dim=0).cpu().numpy()
            answers.append(Prediction(mask, prompt=prompt, labels=names))
        return answers


class Baseline(ZeroShotMethod):
    """Masks that do not listen: everything, or the largest or a random one of the proposals under half the frame."""

    def __init__(self, options: Options, segmenter: SamSegmenter | None):
        self.options, self.segmenter = options, segmenter

    def predict(self, frames: Sequence[np.ndarray], seconds: Tensor) -> list[Prediction]:
        """See Setting."""
        if self.segmenter is None:
            return [Prediction(np.ones(frame.shape[:2], bool)) for frame in frames]
        answers = []
        for frame, records in zip(
            frames, generate_proposals(self.segmenter, frames, self.options.proposals), strict=True
        ):
            small = [r for r in records if r["area"] < HALF * frame.shape[0] * frame.shape[1]]
            if self.options.method == "random_proposal":
                # Drawn by the frame's content: the same whatever the batch, the order or the number of processes.
                small = small and [small[int(content_hash(frame)[:12], 16) % len(small)]]
            best = max(small, key=lambda record: record["area"], default=None)
            answers.append(Prediction(best["segmentation"] if best else np.zeros(frame.shape[:2], bool)))
        return answers
