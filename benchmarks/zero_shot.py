"""Implementations of AudioCLIP's towers, similarity maps with prompts, and SAM's proposals."""

from typing import Any

import numpy as np
import torch
from segment_anything import SamAutomaticMaskGenerator
from sklearn.datasets import load_sample_image

import reference.prompts
from benchmarks.harness import Output, Work
from models.audioclip import AudioCLIP
from models.registry import create_model
from models.sam import SAM_CONFIGS
from reference.random_sam import MINI, random_sam
from utils.video_frame import resize_frame
from zero_shot.encoders.audioclip import SAMPLE_RATE
from zero_shot.method_options import ProposalOptions
from zero_shot.prompts import peak_points
from zero_shot.segmenters.proposals import generate_proposals
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.similarity import similarity_map

STABILITY = 0.5  # stability_score_thresh: masks of random weights are less stable than those of trained ones
FRACTION_KEPT = 0.1  # of the candidate masks, above the threshold of predicted IoU


def _audioclip(size: str) -> AudioCLIP:
    torch.manual_seed(0)
    return AudioCLIP(text=False).eval() if size == "full" else create_model("audioclip", "mini")


def audio_reference(size: str) -> Work:
    """The fbsp filters are rebuilt in every call, as in the original."""
    model = _audioclip(size)
    model.audio.fbsp.train()  # rebuilds its filters in training mode; the other layers stay in eval mode
    return _encode_audio(model)


def audio_optimized(size: str) -> Work:
    """The fbsp filters are built once."""
    return _encode_audio(_audioclip(size))


def _encode_audio(model: AudioCLIP) -> Work:
    waveform = 0.2 * torch.randn(1, 5 * SAMPLE_RATE).clamp(-3, 3)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.encode_audio(waveform).numpy()}

    return work


def image_reference(size: str) -> Work:
    """Only the pooled embedding, by `encode_image`."""
    model, image = _audioclip(size), torch.randn(1, 3, 224, 224)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.encode_image(image).numpy()}

    return work


def image_optimized(size: str) -> Work:
    """The pooled embedding together with four feature maps and a 7×7 map of embeddings."""
    model, image = _audioclip(size), torch.randn(1, 3, 224, 224)

    @torch.inference_mode()
    def work() -> Output:
        return {"embedding": model.image_pyramid(image)[2].numpy()}

    return work


def _embeddings(frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return torch.randn(frames, 1024), torch.randn(frames, 1024, 7, 7)


def prompts_reference(frames: int) -> Work:
    """Local maxima and minima pixel by pixel in Python, as in the original."""
    audio, dense = _embeddings(frames)

    def work() -> Output:
        found = [reference.prompts.peak_points(map_.numpy(), 0.6) for map_ in similarity_map(audio, dense)]
        return {"points": np.concatenate([np.array(points, float).reshape(-1, 2) for pair in found for points in pair])}

    return work


def prompts_optimized(frames: int) -> Work:
    """Local maxima and minima with array operations."""
    audio, dense = _embeddings(frames)

    def work() -> Output:
        found = [peak_points(map_, 0.6).points for map_ in similarity_map(audio, dense)]
        return {"points": np.concatenate([points for points in found if points is not None])}

    return work


def _frame(seed: int, photograph: bool = False) -> np.ndarray:
    """A photograph that comes with scikit-learn, or 7×7 squares of random colors, (224, 224, 3)."""
    if photograph:
        return resize_frame(load_sample_image("china.jpg"))
    squares = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return squares.repeat(32, axis=0).repeat(32, axis=1)


def _sam(model: str, device: str) -> Any:
    return random_sam(MINI if model == "mini" else SAM_CONFIGS[model], seed=2).to(device)


def iou_threshold(model: str, side: int, photograph: bool = False, device: str = "cpu") -> dict[str, float]:
    """A threshold of predicted IoU that FRACTION_KEPT of the candidates exceed: the middle of the widest gap nearby."""
    keep_all = ProposalOptions(min(side, 8), -1e9, 0.0, 1.0, 1.0)
    records = generate_proposals(SamSegmenter(_sam(model, device)), [_frame(0, photograph)], keep_all)[0]
    scores = np.sort([record["predicted_iou"] for record in records])
    index = round((1 - FRACTION_KEPT) * (len(scores) - 1))
    near = scores[max(0, index - 3) : index + 4]
    widest = np.diff(near).argmax()
    return {"threshold": float(near[widest : widest + 2].mean())}


def _proposals(side: int, threshold: float) -> ProposalOptions:
    return ProposalOptions(side, threshold, STABILITY, 1.0, 1.0)  # no non-maximum suppression: all masks are compared


def _records(records: list[dict[str, Any]]) -> Output:
    return {
        "masks": np.array([record["segmentation"] for record in records]),
        "scores": np.array([record["predicted_iou"] for record in records]),
    }


def proposals_reference(model: str, side: int, threshold: float, photograph: bool = False, device: str = "cpu") -> Work:
    """segment-anything's SamAutomaticMaskGenerator."""
    generator = SamAutomaticMaskGenerator(_sam(model, device), **vars(_proposals(side, threshold)))
    return lambda: _records(generator.generate(_frame(1, photograph)))


def proposals_optimized(model: str, side: int, threshold: float, photograph: bool = False, device: str = "cpu") -> Work:
    """zero_shot.segmenters.proposals, without a cache."""
    segmenter = SamSegmenter(_sam(model, device))
    return lambda: _records(generate_proposals(segmenter, [_frame(1, photograph)], _proposals(side, threshold))[0])
