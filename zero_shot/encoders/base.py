"""What a method needs of an audio-visual encoder, or of a classifier of sounds."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from utils.fidelity import Fidelity
from utils.memo import Memo
from zero_shot.options import Options


@runtime_checkable
class AudioVisualEncoder(Protocol):
    """Embeds audio and crops of frames in one space. Embeddings and maps are float32 on the CPU.

    How audio and images are preprocessed is the encoder's own affair: a method passes waveforms at `sample_rate` and
    pixels, so that another encoder changes nothing else.

    Attributes:
        device: where it computes.
        sample_rate: Hz, of the audio that it encodes.
        int16_round_trip: whether that audio must be quantized to 16 bits first.
        memo: where it keeps results for encoders `with_options`.
    """

    device: torch.device
    sample_rate: int
    int16_round_trip: bool
    memo: Memo

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Embed audio.

        Args:
            audio: (N, samples) float32 in [-1, 1], one second each.

        Returns:
            Normalized embeddings (N, D).
        """
        ...

    def encode_crops(
        self, frame: np.ndarray, proposals: Sequence[dict[str, Any]], fidelity: Fidelity
    ) -> tuple[Tensor, list[int]]:
        """Embed crops of one frame (`zero_shot.proposal_scoring.crop_proposals`).

        Args:
            frame: (H, W, 3) uint8 RGB.
            proposals: records of `Segmenter.propose`.
            fidelity: how crops are cut out.

        Returns:
            Normalized embeddings (K, D) of the proposals that give a crop, and their indices.
        """
        ...

    def with_options(self, options: Options) -> "AudioVisualEncoder":
        """The same networks under other options, for `zero_shot.tune`. The options name the same weights."""
        ...


@runtime_checkable
class DenseEncoder(AudioVisualEncoder, Protocol):
    """An encoder that also compares audio with every place of a frame."""

    def similarity_maps(self, frames: Sequence[np.ndarray], audio_features: Tensor) -> tuple[Tensor, Tensor]:
        """Compare each frame with its audio.

        Args:
            frames: N frames (H, W, 3) uint8 RGB of one size.
            audio_features: (N, D), by `encode_audio`.

        Returns:
            Similarity maps (N, H, W) in [0, 1], each scaled by itself, and the same maps without that scaling, so that
            they can be compared with each other.
        """
        ...


class SoundClassifier(Protocol):
    """Names sounds by a list of labels.

    Attributes:
        labels: the names.
        sample_rate: Hz, of the audio that it takes.
    """

    labels: list[str]
    sample_rate: int

    def probabilities(self, audio: Tensor) -> Tensor:
        """How sure it is that each label names the sound.

        Args:
            audio: (N, samples) floats in [-1, 1], one second each.

        Returns:
            Probabilities (N, labels) float32 on the CPU.

        Raises:
            ValueError: for another shape, NaN or infinity.
        """
        ...
