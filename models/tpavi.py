"""TPAVI: temporal pixel-wise audio-visual interaction.

Every pixel of every second attends to all pixels of the five seconds, with audio as the key. The attention is
a dot product divided by the number of pixels n, without softmax, so it is linear and the n × n matrix
(n = 15 680 at 56×56) need not exist: (θᵀφ) gᵀ / n = θᵀ (φ gᵀ / n), where the memory φ gᵀ is only 128 × 128.
With audio, φ is constant over space, so the memory needs just the spatial sums of g, and, g being linear, of the maps.

Source: Zhou et al., "Audio-Visual Segmentation" (ECCV 2022), section 4; AVSBench, `model/TPAVI.py`.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class TPAVI(nn.Module):
    """State-dict keys are AVSBench's. channels: of the maps; audio_features: size of an audio feature."""

    def __init__(self, channels: int = 256, audio_features: int = 128):
        super().__init__()
        inner = channels // 2
        self.align_channel = nn.Linear(audio_features, channels)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        norm = nn.BatchNorm3d(channels)
        nn.init.zeros_(norm.weight)  # the block starts as the identity
        nn.init.zeros_(norm.bias)
        self.W_z = nn.Sequential(nn.Conv3d(inner, channels, 1), norm)
        self.norm_layer = nn.LayerNorm(channels)

    def forward(self, maps: Tensor, audio: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """maps (B, T, C, H, W), audio (B, T, A) or None -> maps of the same shape, aligned audio (B, T, C).

        Without audio the maps are their own keys (AVSBench's `vv`).
        """
        batch, seconds, channels, height, width = maps.shape
        pixels = seconds * height * width
        aligned = None
        if audio is None:
            values, keys = (conv(maps.transpose(1, 2)).flatten(2) for conv in (self.g, self.phi))
            memory = values @ keys.mT
        else:
            aligned = self.align_channel(audio)
            keys = F.linear(aligned, _matrix(self.phi), self.phi.bias)  # (B, T, C/2), the same at every pixel
            assert self.g.bias is not None
            values = F.linear(maps.sum((3, 4)), _matrix(self.g), height * width * self.g.bias)  # summed over pixels
            memory = values.mT @ keys
        # θ, the memory and W_z's convolution are one C × C matrix per clip, applied at every pixel.
        after = _matrix(self.W_z[0]) @ memory / pixels  # (B, C, C/2)
        matrix = after @ _matrix(self.theta)
        bias = after @ self.theta.bias + self.W_z[0].bias
        attended = (matrix[:, None] @ maps.flatten(3)).add_(bias[:, None, :, None])  # (B, T, C, HW)
        normed = self.W_z[1](attended.view(batch * seconds, channels, 1, height, width))
        fused = normed.view_as(maps).add_(maps)
        return self.norm_layer(fused.movedim(2, -1)).movedim(-1, 2), aligned


def _matrix(conv: nn.Module) -> Tensor:
    """The weight of a convolution of kernel 1 as (out, in)."""
    assert isinstance(conv, nn.Conv3d)
    return conv.weight.flatten(1)
