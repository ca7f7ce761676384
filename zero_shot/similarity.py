"""Where in the frame the sound is: the cosines of a sound with every cell of a frame, as a map.

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
ROUNDING = 1e-6  # cosines that differ by less differ by the rounding of float32 alone


def noise_waveform(kind: Noise, samples: int = NOISE_SAMPLES) -> Tensor:
    """A sound that says nothing, (1, samples) float32: 0.1·U[0, 1), 0.1·N(0, 1) ("gaussian", as published) or zeros.

    The draws are those of NumPy's global generator after `seed(0)`. Raises ValueError on another kind.
    """
    draw = np.random.RandomState(0)  # the legacy generator, for its stream
    if kind == "rand":
        noise = 0.1 * draw.rand(1, samples)
    elif kind == "gaussian":
        noise = 0.1 * draw.randn(1, samples)
    elif kind == "zero":
        noise = np.zeros((1, samples))
    else:
        raise ValueError(f"noise must be 'rand', 'gaussian' or 'zero', got {kind!r}")
    return torch.from_numpy(noise.astype(np.float32))


@torch.no_grad()
def redundant_feature(model: AudioCLIP, kind: Noise) -> Tensor:
    """What a sound embedding has in common with noise: the noise's normalised embedding (D,), zeros for "none".

    The noise is heard at the amplitude of the model's fidelity. On the model's device; it changes with the model
    only, so compute it once. Raises ValueError on another kind.
    """
    device = model.logit_scale_ai.device
    if kind == "none":
        return torch.zeros(model.embed_dim, device=device)
    return F.normalize(model.encode_audio(noise_waveform(kind).to(device)).float(), dim=1)[0]


def similarity_map(
    audio: Tensor,
    dense: Tensor,
    *,
    redundant: Tensor | None = None,
    reverse: bool = False,
    size: tuple[int, int] = FRAME_SIZE,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
) -> Tensor:
    """Maps (N, H, W) float32, each stretched to 0 ... 1 over its cells before it is resized.

    A map without contrast (its cosines differ by rounding alone) is all zeros; the original makes it NaN.

    Args:
        audio: (N, D) normalised embeddings of sounds.
        dense: (N, D, h, w) embeddings of every cell of N frames, of any length, on any grid.
        redundant: (D,) what to take off every sound, which is not normalised again.
        reverse: make the map highest where sound and frame agree least, as all published rows do.
        size: (H, W) of the maps.
        mode: of resizing, with cells centred (align_corners off). Bilinear stays within 0 ... 1 and seldom
            reaches its ends; bicubic may leave them a little.

    Raises:
        ValueError: shapes that do not fit each other, NaN or infinity.
    """
    if audio.ndim != 2 or dense.ndim != 4 or audio.shape != dense.shape[:2]:
        raise ValueError(f"expected (N, D) sounds and (N, D, h, w) cells, got {_shape(audio)} and {_shape(dense)}")
    audio, dense = audio.float(), dense.float().contiguous()
    if redundant is not None:
        if redundant.shape != audio.shape[1:]:
            raise ValueError(f"expected a redundant feature ({audio.shape[1]},), got {_shape(redundant)}")
        audio = audio - redundant.to(audio)
    if not (audio.isfinite().all() and dense.isfinite().all()):
        raise ValueError("embeddings hold NaN or infinity")
    # Not a batched matrix product: that sums in another order for another N, and ties hang on the last bit.
    cosines = (audio[:, :, None, None] * F.normalize(dense, dim=1)).sum(dim=1)
    if reverse:
        cosines = 1 - cosines
    lowest, highest = cosines.amin(dim=(1, 2), keepdim=True), cosines.amax(dim=(1, 2), keepdim=True)
    contrast = highest - lowest
    cells = torch.where(contrast > ROUNDING, (cosines - lowest) / contrast.clamp_min(ROUNDING), 0.0)
    return F.interpolate(cells[:, None], size, mode=mode, align_corners=False)[:, 0]


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
