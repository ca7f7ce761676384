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
from models.tpavi import TPAVI, scatter
from utils.fidelity import Fidelity
from utils.words import counted


@dataclass
class Segmentation:
    """The outputs of a segmentor in training.

    Attributes:
        logits: (B, T, H, W), or (B, M, H, W) if only the first M frames were decoded; of several classes
            (B, T, classes, H, W), 0 for frames that were not decoded.
        maps: the four fused maps (B, T, C, h, w) after ReLU, finest first, for the AVM loss.
        audio: the aligned audio feature (B, T, C) of each stage; None for a stage without audio.
    """

    logits: Tensor
    maps: list[Tensor]
    audio: list[Tensor | None]


GROUP = 5  # frames that attend to each other in the original, whatever the length of the clip


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
        classes: 1 for masks of what sounds (S4, MS3), 71 for AVSS.
        fidelity: how the clips of AVSS are treated. "corrected" attends within a clip and leaves padding out of
            attention and batch statistics. "published" attends within groups of five frames, so that the halves of a
            ten-second clip are independent, and the padding of shorter clips enters batch statistics.

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
        classes: int = 1,
        fidelity: Fidelity = "corrected",
    ):
        super().__init__()
        self.classes, self.fidelity = classes, fidelity
        if not set(stages) <= {0, 1, 2, 3}:
            raise ValueError(f"stages {tuple(stages)} must be among 0, 1, 2, 3")
        if attention not in ("va", "vv", "both"):
            raise ValueError(f"attention '{attention}' must be va, vv or both")
        self.stages, self.attention = tuple(sorted(set(stages))), attention
        self.backbone = build_backbone(backbone) if isinstance(backbone, str) else backbone
        for level, width in enumerate(self.backbone.widths, 1):
            self.add_module(f"conv{level}", Atrous(width, channels))
        for stage in self.stages:
            self.add_module(f"tpavi_b{stage + 1}", TPAVI(channels, audio_features, bias=classes == 1))
            if attention == "vv":
                del getattr(self, f"tpavi_b{stage + 1}").align_channel  # without audio there is nothing to align
        self.decoder = Decoder(channels, classes)

    def forward(self, frames: Tensor, audio: Tensor | None, valid: Tensor | None = None) -> Tensor:
        """Segment clips.

        Args:
            frames: (B, T, 3, H, W), normalized by ImageNet's statistics; H and W multiples of 32.
            audio: features (B, T, A); None if attention is "vv".
            valid: (B, T), 0 for frames that only pad a clip; None if all are real.

        Returns:
            Logits (B, T, H, W), or (B, T, classes, H, W) of several classes; 0 for padding.

        Raises:
            ValueError: for other sizes, or if audio is missing.
        """
        return self.segment(frames, audio, valid=valid).logits

    def segment(
        self,
        frames: Tensor,
        audio: Tensor | None,
        num_labeled: int | None = None,
        *,
        valid: Tensor | None = None,
        decoded: Tensor | None = None,
    ) -> Segmentation:
        """Like `forward`, but also returns the maps and audio features for the AVM loss.

        Args:
            frames: as in `forward`.
            audio: as in `forward`.
            num_labeled: decode only the first frames of each clip: logits (B, num_labeled, H, W).
            valid: as in `forward`.
            decoded: (B, T), nonzero for the frames to decode: in training on AVSS, those with labels. Default: `valid`.
        """
        shape = frames.shape[:2]
        if frames.shape[-1] % 32 or frames.shape[-2] % 32:
            raise ValueError(f"frames are {frames.shape[-1]}×{frames.shape[-2]}; both sides must be multiples of 32")
        if audio is None and self.attention != "vv":
            raise ValueError("this model needs audio features; attention='vv' builds one without audio")
        real = None if valid is None else valid.bool()
        # In the original padding passes the backbone, for its batch statistics, and its maps are multiplied by 0.
        shown = None if self.training and self.fidelity == "published" else real
        if real is not None and audio is not None:
            audio = audio * real[..., None]
        maps: list[Tensor] = []
        aligned: list[Tensor | None] = [None] * 4
        for stage, raw in enumerate(self.backbone(frames.flatten(0, 1) if shown is None else frames[shown])):
            fused = getattr(self, f"conv{stage + 1}")(raw)
            clips = fused.unflatten(0, shape) if shown is None else scatter(fused, shown)
            if real is not None and shown is None:
                clips = clips * real[:, :, None, None, None]
            if stage in self.stages:
                clips, aligned[stage] = self._attend(stage, clips, audio, real)
            # In the original, the decoder's in-place ReLU changes these maps before the losses read them.
            maps.append(clips.relu())
        kept = real if decoded is None else decoded.bool()
        if kept is not None:
            logits = scatter(self.decoder([m[kept] for m in maps]), kept)
        else:
            logits = self.decoder([m[:, :num_labeled].flatten(0, 1) for m in maps]).unflatten(0, (len(frames), -1))
        return Segmentation(logits, maps, aligned)

    def _attend(
        self, stage: int, maps: Tensor, audio: Tensor | None, real: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        """Fuse maps (B, T, C, h, w) with audio (B, T, A), within clips or the original's groups of frames."""
        if self.classes == 1 or self.fidelity == "corrected":
            return self._fuse(stage, maps, audio, real)
        seconds = maps.shape[1]
        if seconds % GROUP:
            raise ValueError(f"clips have {counted(seconds, 'frame')}; fidelity published needs a multiple of {GROUP}")
        groups = [None if x is None else x.reshape(-1, GROUP, *x.shape[2:]) for x in (maps, audio)]
        assert groups[0] is not None
        fused, aligned = self._fuse(stage, groups[0], groups[1], None)
        fused = fused.reshape(maps.shape)
        if real is not None:
            fused = fused * real[:, :, None, None, None]
        return fused, None if aligned is None else aligned.reshape(*maps.shape[:3])

    def _fuse(
        self, stage: int, maps: Tensor, audio: Tensor | None, valid: Tensor | None
    ) -> tuple[Tensor, Tensor | None]:
        block = getattr(self, f"tpavi_b{stage + 1}")
        if self.attention == "both":
            (visual, _), (audiovisual, aligned) = block(maps, None, valid), block(maps, audio, valid)
            return (visual + audiovisual) / 2, aligned
        return block(maps, None if self.attention == "vv" else audio, valid)

    def load_reference(self, state: Mapping[str, Tensor]) -> "TPAVISegmentor":
        """Load a state dict of AVSBench's code strictly.

        Parameters that AVSBench builds but never uses (the second ResNet branch, path4.resConfUnit1) are left out.

        Of several classes, `fidelity` becomes "published", which such weights were trained with.

        Returns:
            The model itself.

        Raises:
            RuntimeError: naming missing, unexpected and misshapen keys. Nothing is changed then.
        """
        load_strict(self, {_rename(key): value for key, value in state.items() if not _UNUSED.match(key)})
        if self.classes > 1:
            self.fidelity = "published"
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
