"""TPAVI: temporal pixel-wise audio-visual interaction.

Every pixel of every second attends to all pixels of all seconds, with audio as the key. The attention is a dot product
divided by the number of pixels n, without softmax. It is therefore linear, and the n × n matrix (n = 15 680 at 56×56)
is never formed: (θᵀφ) gᵀ / n = θᵀ (φ gᵀ / n), where φ gᵀ is only 128 × 128. With audio, φ is constant over space, so
that φ gᵀ needs only the spatial sums of g, and thus, g being linear, of the maps.

Source: Zhou et al., "Audio-Visual Segmentation" (ECCV 2022), section 4; AVSBench, `model/TPAVI.py`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TPAVI(nn.Module):
    """One TPAVI block, with AVSBench's state-dict keys.

    Args:
        channels: of the maps, even.
        audio_features: length of an audio feature.
        bias: of the layer that aligns audio features, which has one in S4 and MS3 and none in AVSS.
    """

    def __init__(self, channels: int = 256, audio_features: int = 128, bias: bool = True):
        super().__init__()
        inner = channels // 2
        self.align_channel = nn.Linear(audio_features, channels, bias=bias)
        self.theta = nn.Conv3d(channels, inner, 1)
        self.phi = nn.Conv3d(channels, inner, 1)
        self.g = nn.Conv3d(channels, inner, 1)
        norm = nn.BatchNorm3d(channels)
        nn.init.zeros_(norm.weight)  # the block starts as the identity
        nn.init.zeros_(norm.bias)
        self.W_z = nn.Sequential(nn.Conv3d(inner, channels, 1), norm)
        self.norm_layer = nn.LayerNorm(channels)

    def forward(self, maps: Tensor, audio: Tensor | None, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Fuse maps with audio.

        Args:
            maps: (B, T, C, H, W).
            audio: (B, T, A); None takes the maps themselves as keys (AVSBench's `vv`).
            valid: (B, T) bool, False for frames that only pad a clip, whose maps are 0. Attention and batch statistics
                leave them out, and their fused maps are 0. None: all are real.

        Returns:
            Fused maps (B, T, C, H, W) and the aligned audio feature (B, T, C), None without audio.
        """
        batch, seconds, channels, height, width = maps.shape
        pixels: int | Tensor = seconds * height * width
        if valid is not None:
            pixels = height * width * valid.sum(1).clamp(min=1)[:, None, None]
        aligned = None
        if audio is None:
            values, keys = (conv(maps.transpose(1, 2)).flatten(2) for conv in (self.g, self.phi))
            if valid is not None:  # the keys of padding are the bias of φ
                keys = keys * valid.repeat_interleave(height * width, 1)[:, None]
            memory = values @ keys.mT
        else:
            aligned = self.align_channel(audio)
            keys = F.linear(aligned, _matrix(self.phi), self.phi.bias)  # (B, T, C/2), the same at every pixel
            if valid is not None:
                keys = keys * valid[:, :, None]
            assert self.g.bias is not None
            values = F.linear(maps.sum((3, 4)), _matrix(self.g), height * width * self.g.bias)  # summed over pixels
            memory = values.mT @ keys
        # θ, φ gᵀ and W_z's convolution make one C × C matrix per clip, applied at every pixel.
        after = _matrix(self.W_z[0]) @ memory / pixels  # (B, C, C/2)
        matrix = after @ _matrix(self.theta)
        bias = after @ self.theta.bias + self.W_z[0].bias
        if valid is None:
            attended = (matrix[:, None] @ maps.flatten(3)).add_(bias[:, None, :, None])  # (B, T, C, HW)
            frames = maps.flatten(0, 1)
        else:
            clip, frames = valid.nonzero()[:, 0], maps[valid]
            attended = torch.baddbmm(bias[clip, :, None], matrix[clip], frames.flatten(2))
        normed = self.W_z[1](attended.view(-1, channels, 1, height, width))
        fused = normed.view_as(frames).add_(frames)
        fused = self.norm_layer(fused.movedim(1, -1)).movedim(-1, 1)
        return fused.unflatten(0, (batch, seconds)) if valid is None else scatter(fused, valid), aligned


def scatter(frames: Tensor, valid: Tensor) -> Tensor:
    """Put frames (n, ...) in the n places of a batch where `valid` (B, T) is True: (B, T, ...), 0 elsewhere."""
    places = frames.new_zeros(*valid.shape, *frames.shape[1:])
    return places.index_put((valid,), frames)


def _matrix(conv: nn.Module) -> Tensor:
    """The weight of a 1×1×1 convolution as a matrix (out, in)."""
    assert isinstance(conv, nn.Conv3d)
    return conv.weight.flatten(1)
