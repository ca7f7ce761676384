"""AVSegFormer: a visual backbone, a deformable encoder, and queries made from audio.

Source: Gao et al., "AVSegFormer: Audio-Visual Segmentation with Transformer" (AAAI 2024); AVSegFormer at commit
7083cb6 (August 2023), `model/AVSegFormer.py`, whose published checkpoints `load_reference` takes.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.avsegformer_head import AVSegFormerHead
from models.backbones import AudioCLIPBackbone, ResNet, build_backbone, rename_pvt_key
from models.checkpoints import load_strict
from models.tpavi import scatter
from models.vggish import VGGish
from utils.fidelity import Fidelity


@dataclass
class MaskPrediction:
    """What AVSegFormer's losses need.

    logits: (B, T, H, W), or (B, T, classes, H, W) for more than one class. mask_feature: (B, T, channels, H/4, W/4),
    the map that queries are compared with, non-negative.
    """

    logits: Tensor
    mask_feature: Tensor


class AVSegFormer(nn.Module):
    """Frames and VGGish features -> mask logits. Every second is segmented alone.

    Args:
        backbone: A name of `models.backbones.WIDTHS`; resnet50 and pvt_v2_b5 are the published ones. Or the image tower
            of AudioCLIP.
        classes: 1 for the mask of what sounds (S4, MS3), 71 for AVSS.
        channels: Width of the head, a multiple of 32.
        heads: Heads of every attention.
        layers: Layers of the encoder, of the query generator and of the decoder.
        queries: Number of queries.
        hidden: Width inside the feed-forward networks.
        dropout: Share that encoder and decoder drop in training.
        audio_features: Size of an audio feature (VGGish: 128).
        fidelity: How the clips of AVSS are treated. "corrected" leaves padding out of the network. Under "published" it
            passes the backbone in training, whose batch statistics it enters.

    Raises:
        ValueError: Unknown backbone.
    """

    def __init__(
        self,
        backbone: str | AudioCLIPBackbone = "resnet50",
        classes: int = 1,
        channels: int = 256,
        heads: int = 8,
        layers: int = 6,
        queries: int = 300,
        hidden: int = 2048,
        dropout: float = 0.1,
        audio_features: int = 128,
        fidelity: Fidelity = "corrected",
    ):
        super().__init__()
        self.classes, self.fidelity = classes, fidelity
        self.backbone = build_backbone(backbone) if isinstance(backbone, str) else backbone
        self.audio_proj = nn.Linear(audio_features, channels)
        self.head = AVSegFormerHead(self.backbone.widths, classes, channels, heads, layers, queries, hidden, dropout)

    def forward(self, frames: Tensor, audio: Tensor, valid: Tensor | None = None) -> Tensor:
        """Segment clips.

        Args:
            frames: (B, T, 3, H, W) normalized; H and W multiples of 32.
            audio: (B, T, audio_features).
            valid: (B, T), zero where a clip is padded (AVSS); logits there are 0.

        Returns:
            Logits (B, T, H, W), or (B, T, classes, H, W) for more than one class.

        Raises:
            ValueError: Sides that are no multiples of 32, or audio for other frames.
        """
        return self.segment(frames, audio, valid=valid).logits

    def segment(
        self,
        frames: Tensor,
        audio: Tensor,
        num_labeled: int | None = None,
        *,
        valid: Tensor | None = None,
        decoded: Tensor | None = None,
    ) -> MaskPrediction:
        """As `forward`, with what the losses need.

        num_labeled: give only each clip's first so many frames (S4 training: 1).
        decoded: (B, T), nonzero for the frames to decode (AVSS training: the labeled ones); default: those that are
            valid. The head sees no others. The backbone sees all that are valid, for its batch statistics.
        """
        height, width = frames.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(f"frames are {width}×{height}; both sides must be multiples of 32")
        if audio.shape[:2] != frames.shape[:2]:
            raise ValueError(
                f"audio is for {tuple(audio.shape[:2])} (clips, seconds), frames {tuple(frames.shape[:2])}"
            )
        # In the original padding passes the backbone, for its batch statistics, and its maps are multiplied by 0.
        shown = None if valid is None or (self.training and self.fidelity == "published") else valid.bool()
        if shown is None:
            maps = [x.unflatten(0, frames.shape[:2])[:, :num_labeled] for x in self.backbone(frames.flatten(0, 1))]
        else:
            maps = [scatter(x, shown)[:, :num_labeled] for x in self.backbone(frames[shown])]
        queried = self.audio_proj(audio[:, :num_labeled])
        decoded = valid if decoded is None else decoded
        if decoded is None:
            outputs = self.head([x.flatten(0, 1) for x in maps], queried.flatten(0, 1))
            logits, feature = (x.unflatten(0, queried.shape[:2]) for x in outputs)
        else:
            kept = decoded[:, :num_labeled].bool()
            outputs = self.head([x[kept] for x in maps], queried[kept])
            logits, feature = (scatter(x, kept) for x in outputs)
        return MaskPrediction(logits[:, :, 0] if self.classes == 1 else logits, feature)

    def load_reference(self, state: Mapping[str, Tensor]) -> "AVSegFormer":
        """Load a state dict in AVSegFormer's names, strictly; returns the model.

        What AVSegFormer saves but does not use for a prediction (the second ResNet branch, `head.fpn`, `head.attn_fc`)
        and VGGish, whose public weights it holds, are left out. Of several classes, `fidelity` becomes "published",
        which such weights were trained with.

        Raises:
            RuntimeError: One line that says what the state dict is instead, or names missing, unexpected and misshapen
                keys. Nothing is changed then.
        """
        if problem := self._mismatch(state):
            raise RuntimeError(problem)
        unused = self._unused()
        load_strict(self, {_rename(key): value for key, value in state.items() if unused.get(key) != value.shape})
        if self.classes > 1:
            self.fidelity = "published"
        return self

    def _mismatch(self, state: Mapping[str, Tensor]) -> str:
        """Which other AVSegFormer a state dict belongs to, in a line; empty if to none."""
        last = state.get("head.fc.4.weight")
        if last is None:
            return ""
        if not any(key.startswith("head.query_generator.") for key in state):
            return (
                "the weights are of an AVSegFormer before August 2023, without query generator, which is another model"
            )
        theirs = "pvt_v2" if any(key.startswith("backbone.patch_embed") for key in state) else "resnet"
        ours = "resnet" if isinstance(self.backbone, ResNet) else "pvt_v2"
        if theirs != ours:
            return f"the weights are of an AVSegFormer with a {theirs} backbone; this model has a {ours}"
        if last.shape[0] != self.classes:
            return (
                f"the weights are of an AVSegFormer with classes={last.shape[0]}; this model has classes={self.classes}"
            )
        return ""

    def _unused(self) -> dict[str, torch.Size]:
        """Names and shapes of what AVSegFormer saves beside the parts of this model."""
        with torch.device("meta"):
            unused = {f"vggish.{key}": value.shape for key, value in VGGish().state_dict().items()}
        for key, value in self.state_dict().items():
            if key.startswith(("backbone.layer3.", "backbone.layer4.")):
                unused[re.sub(r"\.(layer\d)\.", r".\1_2.", key, count=1)] = value.shape
            if key.startswith("head.fc."):
                unused[key.replace(".fc.", ".attn_fc.")] = value.shape
            if key.startswith("head.out_conv.0."):  # the size of each of the pyramid's convolutions too
                kind = key.rpartition(".")[2]
                unused |= {f"head.fpn.up{level}.1.{kind}": value.shape for level in (1, 2, 3)}
        return unused


def _rename(key: str) -> str:
    if key.startswith("backbone.conv1.") or re.match(r"backbone\.(bn1|layer)", key):
        return re.sub(r"\.(layer\d)_1\.", r".\1.", key)
    if key.startswith("backbone."):
        return "backbone." + rename_pvt_key(key.removeprefix("backbone."))
    if key.startswith("head.transformer.decoder."):
        key = key.replace(".cross_attn.", ".multihead_attn.")
    renames = {"head.transformer.": "head.", "head.fusion_block.": "head.mixer.", "head.mlp.layers.": "head.mlp."}
    for theirs, ours in renames.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
