"""AVSBench's segmentor: a visual backbone, TPAVI at chosen stages, and a RefineNet-style decoder.

Source: Zhou et al., "Audio-Visual Segmentation" (ECCV 2022); AVSBench, `model/{ResNet,PVT}_AVSModel.py`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from models.backbones import AudioCLIPBackbone, build_backbone, rename_pvt_key
from models.checkpoints import load_strict
from models.decoder import Atrous, Decoder
from models.tpavi import TPAVI


@dataclass
class Segmentation:
    """The outputs of a segmentor in training.

    Attributes:
        logits: (B, 5, H, W), or (B, M, H, W) if only the first M frames were decoded.
        maps: the four fused maps (B, 5, C, h, w) after ReLU, finest first, for the AVM loss.
        audio: the aligned audio feature (B, 5, C) of each stage; None for a stage without audio.
    """

    logits: Tensor
    maps: list[Tensor]
    audio: list[Tensor | None]


class TPAVISegmentor(nn.Module):
    """From frames and audio features to mask logits.

    Parameters have AVSBench's names except in the backbone; `load_reference` takes AVSBench's state dicts.

    Args:
        backbone: a key of models.backbones.WIDTHS, or the image tower of AudioCLIP.
        stages: stages of the backbone that get a TPAVI block, 0 (finest) to 3.
        attention: keys from audio ("va", published), from the frames themselves without audio ("vv"), or the mean of
            the two outputs ("both").
        channels: width of the fused maps.
        audio_features: length of an audio feature (VGGish: 128).

    Raises:
        ValueError: for an unknown backbone, stage or attention.
    """

    def __init__(
        self,
        backbone: str | AudioCLIPBackbone = "resnet50",
        stages: Sequence[int] = (0, 1, 2, 3),
        attention: Literal["va", "vv", "both"] = "va",
        channels: int = 256,
        audio_features: int = 128,
    ):
        super().__init__()
        if not set(stages) <= {0, 1, 2, 3}:
            raise ValueError(f"stages {tuple(stages)} must be among 0, 1, 2, 3")
        if attention not in ("va", "vv", "both"):
            raise ValueError(f"attention '{attention}' must be va, vv or both")
        self.stages, self.attention = tuple(sorted(set(stages))), attention
        self.backbone = build_backbone(backbone) if isinstance(backbone, str) else backbone
        for level, width in enumerate(self.backbone.widths, 1):
            self.add_module(f"conv{level}", Atrous(width, channels))
        for stage in self.stages:
            self.add_module(f"tpavi_b{stage + 1}", TPAVI(channels, audio_features))
            if attention == "vv":
                del getattr(self, f"tpavi_b{stage + 1}").align_channel  # without audio there is nothing to align
        self.decoder = Decoder(channels)

    def forward(self, frames: Tensor, audio: Tensor | None) -> Tensor:
        """Segment clips.

        Args:
            frames: (B, T, 3, H, W), normalized by ImageNet's statistics; H and W multiples of 32.
            audio: features (B, T, A); None if attention is "vv".

        Returns:
            Logits (B, T, H, W).

        Raises:
            ValueError: for other sizes, or if audio is missing.
        """
        return self.segment(frames, audio).logits

    def segment(self, frames: Tensor, audio: Tensor | None, num_labeled: int | None = None) -> Segmentation:
        """Like `forward`, but also returns the maps and audio features for the AVM loss.

        Args:
            frames: as in `forward`.
            audio: as in `forward`.
            num_labeled: decode only the first frames of each clip: logits (B, num_labeled, H, W).
        """
        batch, seconds = frames.shape[:2]
        if frames.shape[-1] % 32 or frames.shape[-2] % 32:
            raise ValueError(f"frames are {frames.shape[-1]}×{frames.shape[-2]}; both sides must be multiples of 32")
        if audio is None and self.attention != "vv":
            raise ValueError("this model needs audio features; attention='vv' builds one without audio")
        maps: list[Tensor] = []
        aligned: list[Tensor | None] = [None] * 4
        for stage, raw in enumerate(self.backbone(frames.flatten(0, 1))):
            fused = getattr(self, f"conv{stage + 1}")(raw)
            if stage in self.stages:
                fused, aligned[stage] = self._attend(stage, fused.unflatten(0, (batch, seconds)), audio)
                fused = fused.flatten(0, 1)
            # In the original, the decoder's in-place ReLU changes these maps before the losses read them.
            maps.append(fused.relu())
        clips = [m.unflatten(0, (batch, seconds)) for m in maps]
        decoded = maps if num_labeled is None else [m[:, :num_labeled].flatten(0, 1) for m in clips]
        return Segmentation(self.decoder(decoded).unflatten(0, (batch, -1)), clips, aligned)

    def _attend(self, stage: int, maps: Tensor, audio: Tensor | None) -> tuple[Tensor, Tensor | None]:
        block = getattr(self, f"tpavi_b{stage + 1}")
        if self.attention == "both":
            (visual, _), (audiovisual, aligned) = block(maps, None), block(maps, audio)
            return (visual + audiovisual) / 2, aligned
        return block(maps, None if self.attention == "vv" else audio)

    def load_reference(self, state: Mapping[str, Tensor]) -> "TPAVISegmentor":
        """Load a state dict of AVSBench's code strictly.

        Parameters that AVSBench builds but never uses (the second ResNet branch, path4.resConfUnit1) are left out.

        Returns:
            The model itself.

        Raises:
            RuntimeError: naming missing, unexpected and misshapen keys. Nothing is changed then.
        """
        load_strict(self, {_rename(key): value for key, value in state.items() if not _UNUSED.match(key)})
        return self


_UNUSED = re.compile(r"resnet\.layer\d_2\.|path4\.resConfUnit1\.")


def _rename(key: str) -> str:
    if key.startswith("resnet."):
        return re.sub(r"\.(layer\d)_1\.", r".\1.", key.replace("resnet.", "backbone.", 1))
    if key.startswith("encoder_backbone."):
        return "backbone." + rename_pvt_key(key.removeprefix("encoder_backbone."))
    if key.startswith(("path", "output_conv")):
        return "decoder." + key
    return key
