"""Visual backbones with four feature maps, at strides 4, 8, 16 and 32. `widths` are the channels of the maps.

torchvision's ResNets and timm's PVT-v2, with the public ImageNet checkpoints of the original
(`resnet50-19c8e357.pth`, `pvt_v2_b5.pth`) mapped to their keys, and the image tower of AudioCLIP.
"""

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import timm
import torchvision
from torch import Tensor, nn

if TYPE_CHECKING:  # open_clip takes a second
    from models.clip_resnet import DenseResNet

# Channels of the four maps, finest first. The study uses resnet50 and pvt_v2_b5; the others suit small machines.
WIDTHS: dict[str, tuple[int, int, int, int]] = {
    "resnet18": (64, 128, 256, 512),
    "resnet50": (256, 512, 1024, 2048),
    "pvt_v2_b0": (32, 64, 160, 256),
    "pvt_v2_b5": (64, 128, 320, 512),
}


class ResNet(nn.Module):
    """torchvision's ResNet without its classifier."""

    def __init__(self, name: str):
        super().__init__()
        self.widths = WIDTHS[name]
        network: Any = torchvision.models.get_model(name, weights=None)
        self.conv1, self.bn1, self.relu, self.maxpool = network.conv1, network.bn1, network.relu, network.maxpool
        self.layer1, self.layer2 = network.layer1, network.layer2
        self.layer3, self.layer4 = network.layer3, network.layer4

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps after layer1 ... layer4 of images (N, 3, H, W)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            maps.append(x := layer(x))
        return maps


class PVT(nn.Module):
    """timm's PVT-v2 without its classifier; each map is taken after the norm of its stage.

    Stochastic depth rises linearly to 0.1, as in the original.
    """

    def __init__(self, name: str):
        super().__init__()
        self.widths = WIDTHS[name]
        network: Any = timm.create_model(name, pretrained=False, num_classes=0, drop_path_rate=0.1)
        self.patch_embed: nn.Module = network.patch_embed
        self.stages: nn.Sequential = network.stages

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps after stages 1 ... 4 of images (N, 3, H, W)."""
        x = self.patch_embed(images)
        maps = []
        for stage in self.stages:
            maps.append(x := stage(x))
        return maps


class AudioCLIPBackbone(nn.Module):
    """The image tower of AudioCLIP; its attention pool takes no part."""

    def __init__(self, tower: "DenseResNet"):
        super().__init__()
        self.tower = tower
        tower.attnpool.requires_grad_(False)
        width = tower.layer4[-1].bn3.num_features
        self.widths = (width // 8, width // 4, width // 2, width)

    def forward(self, images: Tensor) -> list[Tensor]:
        """The four maps after layer1 ... layer4 of images (N, 3, H, W)."""
        return self.tower.pyramid(images)


def build_backbone(name: str) -> ResNet | PVT:
    """A randomly initialized backbone.

    Raises:
        ValueError: for an unknown name.
    """
    if name not in WIDTHS:
        raise ValueError(f"unknown backbone '{name}'; choose from {', '.join(WIDTHS)}")
    return PVT(name) if name.startswith("pvt") else ResNet(name)


def rename_pvt_key(key: str) -> str:
    """timm's key for one of the public PVT-v2 code: `stages.1.blocks.0.attn.q.weight` for `block2.0.attn.q.weight`."""
    key = re.sub(r"^patch_embed1\.", "patch_embed.", key)
    key = re.sub(r"^patch_embed(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.downsample.", key)
    key = re.sub(r"^block(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.blocks.", key)
    key = re.sub(r"^norm(\d)\.", lambda m: f"stages.{int(m[1]) - 1}.norm.", key)
    return key.replace(".dwconv.dwconv.", ".dwconv.")


def load_imagenet(backbone: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load a public ImageNet checkpoint of the same architecture without its classifier.

    Raises:
        RuntimeError: naming missing, unexpected and misshapen keys.
    """
    kept = {key: value for key, value in state.items() if not key.startswith(("fc.", "head."))}
    if isinstance(backbone, PVT):
        kept = {rename_pvt_key(key): value for key, value in kept.items()}
    # torchvision's older files have no num_batches_tracked, which nothing here uses.
    counters = {k: v for k, v in backbone.state_dict().items() if k.endswith("num_batches_tracked")}
    backbone.load_state_dict(counters | kept, strict=True)
