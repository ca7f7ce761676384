"""What a method needs of an audio-visual encoder."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor


class AudioVisualEncoder(Protocol):
    """Embeds audio, frames and crops of frames in one space. Embeddings and maps are float32 on the CPU.

    Attributes:
        device: where it computes.
        sample_rate: Hz, of the audio that it encodes.
    """

    device: torch.device
    sample_rate: int

    def encode_audio(self, audio: Tensor, repeats: int) -> Tensor:
        """Embed audio.

        Args:
            audio: (N, samples) float32 in [-1, 1].
            repeats: how many times each waveform is repeated before it is encoded.

        Returns:
            Normalized embeddings (N, D).
        """
        ...

    def encode_crops(self, content: str, parameters: dict[str, Any], make_crops: Callable[[], Tensor]) -> Tensor:
        """Embed crops of one frame.

        Args:
            content: hash of the pixels of the crops, their key in the cache.
            parameters: what else `make_crops` depends on, part of the key.
            make_crops: returns the crops (K, 3, size, size), normalized for CLIP; called only if the embeddings are not
                in the cache.

        Returns:
            Normalized embeddings (K, D).
        """
        ...

    def similarity_maps(self, frames: Sequence[np.ndarray], audio_features: Tensor) -> Tensor:
        """Compare each frame with its audio.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size.
            audio_features: (N, D), by `encode_audio`.

        Returns:
            Similarity maps (N, H, W) in [0, 1].
        """
        ...
