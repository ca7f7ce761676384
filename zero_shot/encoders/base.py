"""What a method needs of an audio-visual encoder."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from utils.fidelity import Fidelity
from utils.memo import Memo
from zero_shot.options import Options


class AudioVisualEncoder(Protocol):
    """Embeds audio, frames and crops of frames in one space. Embeddings and maps are float32 on the CPU.

    Attributes:
        device: where it computes.
        sample_rate: Hz, of the audio that it encodes.
        memo: where it keeps results for encoders `with_options`.
    """

    device: torch.device
    sample_rate: int
    memo: Memo

    def encode_audio(self, audio: Tensor, repeats: int) -> Tensor:
        """Embed audio.

        Args:
            audio: (N, samples) float32 in [-1, 1].
            repeats: how many times each waveform is repeated before it is encoded.

        Returns:
            Normalized embeddings (N, D).
        """
        ...

    def encode_crops(
        self, frame: np.ndarray, proposals: Sequence[dict[str, Any]], size: int, fidelity: Fidelity
    ) -> tuple[Tensor, list[int]]:
        """Embed crops of one frame (`zero_shot.proposal_scoring.crop_proposals`).

        Args:
            frame: (H, W, 3) uint8 RGB.
            proposals: records of `Segmenter.propose`.
            size: side of the network's input in pixels.
            fidelity: how crops are cut out.

        Returns:
            Normalized embeddings (K, D) of the proposals that give a crop, and their indices.
        """
        ...

    def with_options(self, options: Options) -> "AudioVisualEncoder":
        """The same networks under other options, for `zero_shot.tune`. The options name the same weights."""
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
