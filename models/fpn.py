"""A semantic feature pyramid network (FPN), from four maps of a backbone to one of logits.

Source: Lin et al., "Feature Pyramid Networks for Object Detection" (CVPR 2017); Kirillov et al., "Panoptic Feature
Pyramid Networks" (CVPR 2019); as Sam4AVS (BMVC 2023) builds them, without normalization in the neck and with 1×1
convolutions in the head, under its state-dict keys.
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

CHANNELS_PER_GROUP = 4  # of GroupNorm in the head: 32 groups at the published width


class FeaturePyramid(nn.Module):
    """The neck: projects maps to a common width and adds coarser to finer ones.

    Args:
        widths: channels of the input maps, finest first.
        channels: of the outputs.
        upsample: interpolation of a coarser map to the next finer size ("bilinear" in every published row).

    Raises:
        ValueError: for another upsampling.
    """

    def __init__(
        self, widths: Sequence[int], channels: int = 256, upsample: Literal["bilinear", "nearest"] = "bilinear"
    ):
        super().__init__()
        if upsample not in ("bilinear", "nearest"):
            raise ValueError(f"upsample must be 'bilinear' or 'nearest', got {upsample!r}")
        self.upsample = upsample
        self.lateral_convs = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in widths)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in widths)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps (N, channels, H/2^i, W/2^i) from maps (N, widths[i], H/2^i, W/2^i)."""
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for level in range(len(laterals) - 1, 0, -1):
            coarse = F.interpolate(laterals[level], scale_factor=2, mode=self.upsample)
            laterals[level - 1] = laterals[level - 1] + coarse
        return [conv(x) for conv, x in zip(self.fpn_convs, laterals, strict=True)]


class SemanticHead(nn.Module):
    """The head: upsamples the four maps to the finest size, sums them and predicts the logits of each pixel.

    Args:
        channels: of the input maps.
        width: of the head, a multiple of 4.
        classes: logits per pixel.

    Raises:
        ValueError: for another width.
    """

    def __init__(self, channels: int = 256, width: int = 128, classes: int = 1):
        super().__init__()
        if width % CHANNELS_PER_GROUP:
            raise ValueError(f"width {width} is not a multiple of {CHANNELS_PER_GROUP}")
        self.scale_heads = nn.ModuleList(_scale_head(level, channels, width) for level in range(4))
        self.classes = classes
        self.seg_conv = nn.Conv2d(width, classes, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (N, classes, 4h, 4w) from four maps (N, channels, h/2^i, w/2^i); (N, 4h, 4w) of one class."""
        total = sum(
            (head(x) for head, x in zip(self.scale_heads[1:], maps[1:], strict=True)), self.scale_heads[0](maps[0])
        )
        logits = F.interpolate(self.seg_conv(total), scale_factor=4, mode="bilinear", align_corners=True)
        return logits[:, 0] if self.classes == 1 else logits


def _scale_head(level: int, channels: int, width: int) -> nn.Sequential:
    """One unit for the two finest levels, two and three for the others; all but the finest level's double the size."""
    layers: list[nn.Module] = []
    for unit in range(max(1, level)):
        layers += [
            nn.Conv2d(width if unit else channels, width, 1),
            nn.GroupNorm(width // CHANNELS_PER_GROUP, width),
            nn.ReLU(),
        ]
        if level:
            layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True))
    return nn.Sequential(*layers)
