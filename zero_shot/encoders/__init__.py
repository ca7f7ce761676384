"""Audio-visual encoders, which embed audio, frames and cut-outs in one space. One file each."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class AudioVisualEncoder(Protocol):
    """What a method needs of an encoder. Embeddings and maps are float32 on the CPU.

    Attributes:
        device: where it computes.
    """

    device: torch.device

    def encode_audio(self, audio: Tensor, repeats: int) -> Tensor:
        """Normalized embeddings (N, D) of waveforms (N, samples) in [-1, 1], each repeated in time before it is
        encoded."""
        ...

    def encode_crops(self, content: str, parameters: dict[str, Any], crops: Callable[[], Tensor]) -> Tensor:
        """Normalized embeddings (K, D) of the cut-outs (K, 3, s, s) that `crops` makes of a frame.

        `content` and `parameters` identify the cut-outs, so that embeddings in the cache spare making them.
        """
        ...

    def similarity_maps(self, frames: Sequence[np.ndarray], audio_features: Tensor) -> Tensor:
        """Similarity maps (N, H, W) in [0, 1] of frames (H, W, 3) uint8 RGB with embeddings of audio (N, D)."""
        ...
