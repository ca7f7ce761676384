"""Similarity maps: the cosine similarities of audio with every cell of a frame.

Source: Sam4AVS, `avs_scripts/avs_*_zero_shot_sam/`; the redundant feature follows Li et al., "CLIP Surgery" (2023).
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models.audioclip import AudioCLIP
from utils.layout import FRAME_SIZE

Noise = Literal["none", "rand", "gaussian", "zero"]
NOISE_SAMPLES = 220_500  # five seconds at 44.1 kHz
MIN_CONTRAST = 1e-6  # smaller differences of cosines are rounding errors of float32


def noise_waveform(noise: Noise, samples: int = NOISE_SAMPLES) -> Tensor:
    """Noise, drawn as by NumPy's global generator after `seed(0)`.

    Args:
        noise: "rand" is 0.1·U[0, 1), "gaussian" 0.1·N(0, 1), as published, "zero" silence.
        samples: length of the waveform.

    Returns:
        A waveform (1, samples) float32.

    Raises:
        ValueError: for another value.
    """
    draw = np.random.RandomState(0)  # the legacy generator, for the same numbers
    if noise == "rand":
        waveform = 0.1 * draw.rand(1, samples)
    elif noise == "gaussian":
        waveform = 0.1 * draw.randn(1, samples)
    elif noise == "zero":
        waveform = np.zeros((1, samples))
    else:
        raise ValueError(f"noise must be 'rand', 'gaussian' or 'zero', got {noise!r}")
    return torch.from_numpy(waveform.astype(np.float32))


@torch.no_grad()
def redundant_feature(model: AudioCLIP, noise: Noise) -> Tensor:
    """What an audio embedding has in common with noise (CLIP Surgery's redundant feature).

    The noise is encoded at the amplitude of the model's fidelity. The result depends on the model only, so compute it
    once.

    Returns:
        The normalized embedding (D,) of the noise, zeros for "none", on the model's device.

    Raises:
        ValueError: for another value.
    """
    device = model.logit_scale_ai.device
    if noise == "none":
        return torch.zeros(model.embed_dim, device=device)
    return F.normalize(model.encode_audio(noise_waveform(noise).to(device)).float(), dim=1)[0]


def similarity_map(
    audio: Tensor,
    dense: Tensor,
    *,
    redundant: Tensor | None = None,
    reverse: bool = False,
    absolute: bool = False,
    size: tuple[int, int] = FRAME_SIZE,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Similarity maps, each scaled to [0, 1] over its cells before it is resized.

    A map without contrast (its cosines differ by rounding errors only) is all zeros; the original gives NaN.

    Args:
        audio: (N, D) normalized embeddings of audio.
        dense: (N, D, h, w) embeddings of every cell of N frames, of any norm, on any grid.
        redundant: (D,) subtracted from every audio embedding, which is not normalized again.
        reverse: invert the map, as all published rows do: it is highest where audio and frame are least similar.
        absolute: (1 + cosine) / 2 instead of scaling each map by itself, so that maps can be compared with each other.
        size: (H, W) of the maps.
        mode: of resizing, with align_corners off. Bilinear stays within [0, 1]; bicubic may overshoot slightly.

    Returns:
        Maps (N, H, W) float32.

    Raises:
        ValueError: for shapes that do not fit each other, NaN or infinity.
    """
    return scale_cosines(
        cell_cosines(audio, dense, redundant), reverse=reverse, absolute=absolute, size=size, mode=mode
    )


def cell_cosines(audio: Tensor, dense: Tensor, redundant: Tensor | None = None) -> Tensor:
    """Similarities (N, h, w), from which `scale_cosines` makes maps; the arguments are those of `similarity_map`."""
    if audio.ndim != 2 or dense.ndim != 4 or audio.shape != dense.shape[:2]:
        raise ValueError(f"expected audio (N, D) and cells (N, D, h, w), got {_shape(audio)} and {_shape(dense)}")
    audio, dense = audio.float(), dense.float().contiguous()
    if redundant is not None:
        if redundant.shape != audio.shape[1:]:
            raise ValueError(f"expected a redundant feature ({audio.shape[1]},), got {_shape(redundant)}")
        audio = audio - redundant.to(audio)
    if not (audio.isfinite().all() and dense.isfinite().all()):
        raise ValueError("the embeddings contain NaN or infinity")
    # Not a batched matrix product, whose order of summation depends on N: ties depend on the last bit.
    return (audio[:, :, None, None] * F.normalize(dense, dim=1)).sum(dim=1)


def scale_cosines(
    cosines: Tensor,
    *,
    reverse: bool,
    absolute: bool,
    size: tuple[int, int],
    mode: Literal["bilinear", "bicubic"],
) -> Tensor:
    """Maps (N, H, W) of similarities (N, h, w); the other arguments are those of `similarity_map`."""
    if absolute:
        cells = ((1 - cosines if reverse else 1 + cosines) / 2).clamp(0, 1)
    else:
        if reverse:
            cosines = 1 - cosines
        lowest, highest = cosines.amin(dim=(1, 2), keepdim=True), cosines.amax(dim=(1, 2), keepdim=True)
        contrast = highest - lowest
        cells = torch.where(contrast > MIN_CONTRAST, (cosines - lowest) / contrast.clamp_min(MIN_CONTRAST), 0.0)
    return F.interpolate(cells[:, None], size, mode=mode, align_corners=False)[:, 0]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
