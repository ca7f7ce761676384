"""Contestants: AudioCLIP's towers, similarity and prompts, and SAM's proposals."""

from typing import Any

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator

import reference.prompts
from benchmarks.harness import Output, Work
from models.audioclip import AudioCLIP
from models.registry import create_model
from models.sam import SAM_CONFIGS
from reference.random_sam import MINI, random_sam
from zero_shot.encoders.audioclip import SAMPLE_RATE
from zero_shot.options import ProposalOptions
from zero_shot.prompts import peak_points
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.segmenters.sam_proposals import generate_proposals
from zero_shot.similarity import similarity_map

STABILITY = 0.5  # random weights make masks less sure of themselves than trained ones
SHARE = 0.1  # of the candidates that are to be above the threshold


def _audioclip(size: str) -> AudioCLIP:
    torch.manual_seed(0)
    return AudioCLIP(text=False).eval() if size == "full" else create_model("audioclip", "mini")


def audio_reference(size: str) -> Work:
    """Filters are made anew at every call, as in the original."""
    model = _audioclip(size)
    model.audio.fbsp.train()  # this layer alone
    return _hear(model)


def audio_optimized(size: str) -> Work:
    """Filters are made once."""
    return _hear(_audioclip(size))


def _hear(model: AudioCLIP) -> Work:
    sound = 0.2 * torch.randn(1, 5 * SAMPLE_RATE).clamp(-3, 3)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.encode_audio(sound).numpy()}

    return work


def image_reference(size: str) -> Work:
    """The pooled embedding alone, by `encode_image`."""
    model, image = _audioclip(size), torch.randn(1, 3, 224, 224)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.encode_image(image).numpy()}

    return work


def image_optimized(size: str) -> Work:
    """The pooled embedding with the four maps and an embedding for each of 49 places."""
    model, image = _audioclip(size), torch.randn(1, 3, 224, 224)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.image_pyramid(image)[2].numpy()}

    return work


def _pairs(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(frames, 1024), torch.randn(frames, 1024, 7, 7)


def prompts_reference(frames: int) -> Work:
    """Peaks and troughs pixel by pixel, in Python as in the original."""
    sounds, dense = _pairs(frames)

    def work() -> Output:
        found = [reference.prompts.peak_points(heat.numpy(), 0.6) for heat in similarity_map(sounds, dense)]
        return {"points": np.concatenate([np.array(points, float).reshape(-1, 2) for pair in found for points in pair])}

    return work


def prompts_optimized(frames: int) -> Work:
    """The same, array by array."""
    sounds, dense = _pairs(frames)

    def work() -> Output:
        found = [peak_points(heat, 0.6).points for heat in similarity_map(sounds, dense)]
        return {"points": np.concatenate([points for points in found if points is not None])}

    return work


def _frame(seed: int) -> np.ndarray:
    """Plain fields, (224, 224, 3)."""
    fields = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return fields.repeat(32, axis=0).repeat(32, axis=1)


def _sam(model: str, device: str) -> Any:
    return random_sam(MINI if model == "mini" else SAM_CONFIGS[model], seed=2).to(device)


def threshold(model: str, side: int, device: str = "cpu") -> dict[str, float]:
    """A predicted IoU that a share of the candidates is above, in the widest gap near there."""
    everything = ProposalOptions(min(side, 8), -1e9, 0.0, 1.0, 1.0)
    records = generate_proposals(SamSegmenter(_sam(model, device)), [_frame(0)], everything)[0]
    scores = np.sort([record["predicted_iou"] for record in records])
    place = round((1 - SHARE) * (len(scores) - 1))
    near = scores[max(0, place - 3) : place + 4]
    widest = np.diff(near).argmax()
    return {"above": float(near[widest : widest + 2].mean())}


def _proposals(side: int, above: float) -> ProposalOptions:
    return ProposalOptions(side, above, STABILITY, 1.0, 1.0)  # boxes are not suppressed: all masks are compared


def _records(records: list[dict[str, Any]]) -> Output:
    return {
        "masks": np.array([record["segmentation"] for record in records]),
        "scores": np.array([record["predicted_iou"] for record in records]),
    }


def proposals_reference(model: str, side: int, above: float, device: str = "cpu") -> Work:
    """segment-anything's SamAutomaticMaskGenerator."""
    generator = SamAutomaticMaskGenerator(_sam(model, device), **vars(_proposals(side, above)))
    return lambda: _records(generator.generate(_frame(1)))


def proposals_optimized(model: str, side: int, above: float, device: str = "cpu") -> Work:
    """zero_shot.segmenters.sam_proposals, without a cache."""
    segmenter = SamSegmenter(_sam(model, device))
    return lambda: _records(generate_proposals(segmenter, [_frame(1)], _proposals(side, above))[0])
