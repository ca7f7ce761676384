"""What a supervised run trains: VGGish (frozen, unless asked) and the TPAVI segmentor, as one module."""

from typing import Any

import torch
from torch import Tensor, nn

from models.backbones import load_imagenet
from models.checkpoints import load_checkpoint
from models.tpavi_segmentor import Segmentation, TPAVISegmentor
from models.vggish import VGGish
from supervised.options import ModelOptions


def _keep_scale(layer: nn.Module) -> None:
    # Under PyTorch's own initialisation activations shrink at every layer, until VGGish gives its biases and
    # next to nothing of the sound.
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


class ListeningSegmentor(nn.Module):
    """Frames and log-mel examples -> masks. Built with random weights; see `load_pretrained`."""

    def __init__(self, options: ModelOptions):
        super().__init__()
        self.options = options
        ear = options.ear
        self.ear = None if options.attention == "vv" else VGGish(ear.widths, ear.hidden, ear.features)
        if self.ear is not None:
            self.ear.requires_grad_(ear.train)
            if ear.weights == "random":
                self.ear.apply(_keep_scale)
        self.segmentor = TPAVISegmentor(
            options.backbone, options.stages, options.attention, options.channels, ear.features
        )

    def load_pretrained(self) -> list[str]:
        """Load the public checkpoints that the options name; returns their paths. Raises InputError."""
        loaded = []
        if self.options.weights != "random":
            backbone = self.segmentor.backbone
            load_checkpoint(backbone, self.options.weights, lambda state: load_imagenet(backbone, state))
            loaded.append(self.options.weights)
        if self.ear is not None and self.options.ear.weights != "random":
            load_checkpoint(self.ear, self.options.ear.weights)
            loaded.append(self.options.ear.weights)
        return loaded

    def forward(self, batch: dict[str, Any]) -> Segmentation:
        """batch: frames (B, 5, 3, H, W) and log_mel (B, 5, 1, 96, 64) of utils.dataset."""
        return self.segmentor.segment(batch["frames"], self.listen(batch["log_mel"]))

    def listen(self, log_mel: Tensor) -> Tensor | None:
        """(B, 5, 1, 96, 64) -> (B, 5, features); None for a model without audio."""
        if self.ear is None:
            return None
        with torch.set_grad_enabled(self.options.ear.train and torch.is_grad_enabled()):
            return self.ear(log_mel.flatten(0, 1)).unflatten(0, log_mel.shape[:2])
