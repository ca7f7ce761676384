"""The RefineNet-style decoder of AVSBench's segmentor, from four maps to one of logits.

Source: AVSBench, `model/ResNet_AVSModel.py`. The skip connection of a ResidualConv carries ReLU(x) instead of x,
because the original's first ReLU works in place; trained weights depend on it (docs/deviations.md).
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class Atrous(nn.Module):
    """Sum of four 3×3 convolutions with dilations 3, 6, 12 and 18: (N, width, H, W) to (N, channels, H, W)."""

    def __init__(self, width: int, channels: int):
        super().__init__()
        convs = [nn.Conv2d(width, channels, 3, padding=d, dilation=d) for d in (3, 6, 12, 18)]
        for conv in convs:
            nn.init.normal_(conv.weight, 0, 0.01)
        self.conv2d_list = nn.ModuleList(convs)

    def forward(self, x: Tensor) -> Tensor:
        return sum((conv(x) for conv in self.conv2d_list[1:]), self.conv2d_list[0](x))


class ResidualConv(nn.Module):
    """conv(ReLU(conv(ReLU(x)))) + ReLU(x)."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(x)
        return self.conv2(F.relu(self.conv1(x))) + x


class Fusion(nn.Module):
    """Add a finer map to the coarser stream, refine, and double the resolution."""

    def __init__(self, channels: int, lateral: bool = True):
        super().__init__()
        if lateral:  # the coarsest level has no coarser stream to be added to
            self.resConfUnit1 = ResidualConv(channels)
        self.resConfUnit2 = ResidualConv(channels)

    def forward(self, stream: Tensor, lateral: Tensor | None = None) -> Tensor:
        if lateral is not None:
            stream = stream + self.resConfUnit1(lateral)
        return F.interpolate(self.resConfUnit2(stream), scale_factor=2, mode="bilinear", align_corners=True)


class Upsample2(nn.Module):
    """Double the resolution (bilinear, corners not aligned)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class Decoder(nn.Module):
    """Logits (N, classes, H, W) from four maps (N, channels, H/4 ... H/32, ·), finest first; (N, H, W) of one class."""

    def __init__(self, channels: int = 256, classes: int = 1):
        super().__init__()
        self.classes = classes
        self.path4 = Fusion(channels, lateral=False)
        self.path3 = Fusion(channels)
        self.path2 = Fusion(channels)
        self.path1 = Fusion(channels)
        half, last = channels // 2, max(1, channels // 8)
        self.output_conv = nn.Sequential(
            nn.Conv2d(channels, half, 3, padding=1),
            Upsample2(),
            nn.Conv2d(half, last, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(last, classes, 1),
        )

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        stream = self.path4(maps[3])
        for path, lateral in ((self.path3, maps[2]), (self.path2, maps[1]), (self.path1, maps[0])):
            stream = path(stream, lateral)
        logits = self.output_conv(stream)
        return logits[:, 0] if self.classes == 1 else logits
