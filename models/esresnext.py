"""ESResNeXt-FBSP: AudioCLIP's audio tower, a ResNeXt with attention on a learnable dB spectrogram.

Source: Guzhov et al., "ESResNe(X)t-fbsp: Learning Robust Time-Frequency Transformation of Audio" (2021). The
state-dict names are those of the published AudioCLIP weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.resnet import Bottleneck

from models.fbsp import FBSP

# Kernels (frequency, time) of the five attention branches: along one axis in turn, then along both.
ATTENTION_KERNELS = ((3, 1), (1, 5), (3, 1), (1, 5), (3, 5))
POWER_FLOOR = 1e-18  # a power of zero becomes -180 dB


class Attention2d(nn.Module):
    """Attention map in (0, 1) for the output of a stage, computed from the stage's input."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.conv_depth = nn.Conv2d(in_channels, in_channels, kernel, padding=padding, groups=in_channels)
        self.conv_point = nn.Conv2d(in_channels, out_channels, 1)
        self.bn = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Map (N, out_channels, *size) from features ``x`` (N, in_channels, F, M)."""
        x = F.adaptive_max_pool2d(x, size)
        return self.bn(self.conv_point(self.conv_depth(x))).sigmoid()


class ESResNeXtFBSP(nn.Module):
    """From a mono waveform in the range of 16-bit integers to an embedding.

    The defaults are the published network for 44.1 kHz audio (32 104 771 parameters).

    Args:
        embed_dim: length of the embedding.
        n_fft: length of the spectral filters, in samples.
        hop: step from frame to frame, in samples.
        win: frame length, in samples, at most ``n_fft``.
        layers: bottleneck blocks in each of the four stages.
        width: channels of the stem; stage s = 0..3 ends with ``4 * width * 2**s`` channels.
        groups: groups of the 3x3 convolutions.
        width_per_group: channels per group where ``width * 2**s`` is 64 (in proportion elsewhere).
    """

    def __init__(
        self,
        embed_dim: int = 1024,
        n_fft: int = 2048,
        hop: int = 561,
        win: int = 1654,
        layers: Sequence[int] = (3, 4, 6, 3),
        width: int = 64,
        groups: int = 32,
        width_per_group: int = 4,
    ) -> None:
        super().__init__()
        if not 0 < win <= n_fft or hop <= 0:
            raise ValueError(f"expected 0 < win <= n_fft and hop > 0, got win={win}, n_fft={n_fft}, hop={hop}")
        if len(layers) != 4:
            raise ValueError(f"layers must name the blocks of four stages, got {tuple(layers)}")
        if width * width_per_group < 64:
            raise ValueError(f"width {width} with width_per_group {width_per_group} leaves groups without channels")
        self.hop, self.win = hop, win
        self.window: Tensor
        self.register_buffer("window", blackman_harris(win))
        self.fbsp = FBSP(n_fft)

        self.conv1 = nn.Conv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        channels = [width] + [Bottleneck.expansion * width * 2**s for s in range(4)]
        for s in range(4):
            stage = _stage(channels[s], width * 2**s, layers[s], 1 if s == 0 else 2, groups, width_per_group)
            self.add_module(f"layer{s + 1}", stage)
            self.add_module(f"att{s + 1}", Attention2d(channels[s], channels[s + 1], ATTENTION_KERNELS[s]))
        self.att5 = Attention2d(channels[4], channels[4], ATTENTION_KERNELS[4])
        self.fc = nn.Linear(channels[4], embed_dim)

        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, waveform: Tensor) -> Tensor:
        """Embeddings (N, embed_dim), not normalized, of a ``waveform`` as in :meth:`spectrogram`."""
        return self.fc(self.pool(waveform))

    def pool(self, waveform: Tensor) -> Tensor:
        """The features (N, channels of the last stage) that ``fc`` projects, of such a ``waveform``."""
        x = self.spectrogram(waveform).squeeze(1).to(self.conv1.weight.dtype)
        # On a CPU PyTorch's grouped convolution in bfloat16 now and then gives NaN for finite inputs (2.12).
        with torch.autocast("cpu", enabled=False) if x.device.type == "cpu" else nullcontext():
            x = F.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, stride=2, padding=1)
            for s in range(1, 5):
                y = self.get_submodule(f"layer{s}")(x)
                # Not in place: y is needed for the gradient of the ReLU that computed it.
                x = y * self.get_submodule(f"att{s}")(x, y.shape[-2:])
            pooled = F.adaptive_avg_pool2d(x, 1) * self.att5(x, (1, 1))
        return pooled.flatten(1)

    def spectrogram(self, waveform: Tensor) -> Tensor:
        """Power in dB, the spectrum's low, middle and high third as three channels.

        Args:
            waveform: (N, samples) or (N, 1, samples), in [-32768, 32767].

        Returns:
            (N, 1, 3, R, M) in float32 (float64 for a double model), frequencies rising with the row. R is a
            third of the ``n_fft // 2 + 1`` bins, rounded down; M = 1 + ceil((samples - win) / hop), at least
            1. The published sizes give (N, 1, 3, 341, 392) for five seconds.

        Raises:
            ValueError: another shape, or no samples.
        """
        mono = waveform.squeeze(1) if waveform.ndim == 3 and waveform.shape[1] == 1 else waveform
        if mono.ndim != 2 or mono.shape[1] == 0:
            shape = tuple(waveform.shape)
            raise ValueError(f"waveform must be mono, (N, samples) or (N, 1, samples), samples > 0, got {shape}")
        # Half precision cannot represent the powers or the frequencies.
        with torch.autocast(waveform.device.type, enabled=False):
            spectra = self.fbsp(self._frames(to_unit_range(mono)))
            power = spectra.square().sum(dim=-2)  # (N, M, bins)
            rows = power.shape[-1] // 3
            power = power[..., : 3 * rows].transpose(1, 2)
            decibels = 10 * torch.where(power > 0, power, POWER_FLOOR).log10()
        return decibels.unflatten(1, (1, 3, rows))

    def _frames(self, samples: Tensor) -> Tensor:
        """Windowed frames (N, M, win) of (N, samples), zero-padded on both sides to whole hops."""
        length = samples.shape[1]
        hops = max(0, math.ceil((length - self.win) / self.hop))
        missing = hops * self.hop + self.win - length
        padded = F.pad(samples, (missing // 2, missing - missing // 2))
        return padded.unfold(1, self.win, self.hop) * self.window


def to_unit_range(waveform: Tensor) -> Tensor:
    """Map samples in [-32768, 32767] to [-1, 1], in float32.

    The order of the four operations is part of the model: on input that is already in [-1, 1] (the
    input of the published segmentation code) the sum rounds to steps of 1/256; a simplified formula would not.
    """
    return ((waveform.float() + 32768) * 2) / 65535 - 1


def blackman_harris(length: int) -> Tensor:
    """Periodic four-term Blackman-Harris window (length,) in float32."""
    terms = (0.35875, 0.48829, 0.14128, 0.01168)
    # On the CPU first: torch's windows mix devices under a meta device context.
    window = torch.signal.windows.general_cosine(
        length, a=terms, sym=False, dtype=torch.float64, device=torch.device("cpu")
    )
    return window.float().to(torch.get_default_device())


def _stage(in_channels: int, planes: int, blocks: int, stride: int, groups: int, width_per_group: int) -> nn.Sequential:
    """A stage of torchvision's bottlenecks; the first one has the stride and always a projected shortcut."""
    out_channels = planes * Bottleneck.expansion
    shortcut = nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
    )
    first = Bottleneck(in_channels, planes, stride, shortcut, groups, width_per_group)
    rest = (Bottleneck(out_channels, planes, 1, None, groups, width_per_group) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
