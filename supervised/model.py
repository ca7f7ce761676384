"""The model that a run trains: a segmentor of either family with its image and audio towers."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.audioclip_segmentor import AudioCLIPSegmentor
from models.backbones import load_imagenet
from models.esresnext import ESResNeXtFBSP
from models.registry import checkpoint_name, find_weights
from models.small_weights import read_sizes
from models.tpavi_segmentor import Segmentation, TPAVISegmentor
from models.vggish import VGGish
from supervised.initialization import InitRecord, init_module, init_tower
from supervised.options import Fidelity, ModelOptions


class InputSpec(NamedTuple):
    """The inputs that a model needs from utils.dataset.

    Attributes:
        images: statistics by which frames are normalized.
        audio: representation of the audio.
    """

    images: Literal["imagenet", "clip"]
    audio: Literal["log_mel", "waveform", "none"]


class AVSModel(nn.Module):
    """From frames and audio to masks. Built with random weights; `load_pretrained` fills them.

    Frozen towers get no gradient. Under fidelity "corrected" they stay in eval mode. Under "published" they are only
    left out of the optimizer: their batch normalization uses and updates batch statistics, so their outputs drift.

    Args:
        options: the segmentor.
        fidelity: "published" or "corrected".
    """

    def __init__(self, options: ModelOptions, fidelity: Fidelity = "corrected"):
        super().__init__()
        self.options, self.fidelity = options, fidelity
        self.vggish: VGGish | None = None
        self.segmentor: TPAVISegmentor | AudioCLIPSegmentor
        if options.segmentor == "tpavi":
            if options.attention != "vv":
                self.vggish = self._vggish()
            self.segmentor = TPAVISegmentor(
                options.backbone, options.stages, options.attention, options.channels, options.vggish.features
            )
        else:
            fpn = options.fpn
            vggish = self._vggish() if checkpoint_name(fpn.audio) == "vggish" and fpn.fusion != "none" else None
            self.segmentor = AudioCLIPSegmentor(
                fpn.fusion,
                fpn.upsample,
                audioclip=_audioclip_sizes(fpn.variant),
                audio="vggish" if checkpoint_name(fpn.audio) == "vggish" else "audioclip",
                vggish=vggish,
                channels=options.channels,
                fidelity=fidelity,
            )
        for tower in self.frozen_towers():
            tower.requires_grad_(False)
        if self.trains_projection:
            self.segmentor.projection.requires_grad_(True)

    def _vggish(self) -> VGGish:
        options = self.options.vggish
        network = VGGish(options.widths, options.hidden, options.features)
        if options.weights == "random":
            network.apply(_init_he)
        return network

    @property
    def visual_tower(self) -> nn.Module:
        """The network of the frames."""
        return self.segmentor.backbone if isinstance(self.segmentor, TPAVISegmentor) else self.segmentor.visual

    @property
    def audio_tower(self) -> VGGish | ESResNeXtFBSP | None:
        """The network of the audio; None for a model without audio."""
        return self.vggish if isinstance(self.segmentor, TPAVISegmentor) else self.segmentor.audio

    @property
    def trains_projection(self) -> bool:
        """Whether the last layer of a frozen audio tower is trained, since its checkpoint (esresnext-fbsp) has none."""
        fpn = self.options.segmentor == "fpn" and checkpoint_name(self.options.fpn.audio) == "esresnext-fbsp"
        return fpn and isinstance(self.audio_tower, ESResNeXtFBSP) and "audio" in self.options.freeze

    @property
    def inputs(self) -> InputSpec:
        """The inputs that the model needs.

        Frames are normalized by the statistics of the visual weights; under fidelity "published", by those of the
        original's loader: CLIP's with waveforms, ImageNet's with log-mel spectrograms.
        """
        audio: Literal["log_mel", "waveform", "none"]
        audio = "log_mel" if isinstance(self.audio_tower, VGGish) else "waveform" if self.audio_tower else "none"
        if self.options.segmentor == "tpavi":
            return InputSpec("imagenet", audio)
        if self.fidelity == "published":
            return InputSpec("imagenet" if audio == "log_mel" else "clip", audio)
        return InputSpec("imagenet" if checkpoint_name(self.options.fpn.visual) == "resnet50" else "clip", audio)

    @property
    def audio_is_static(self) -> bool:
        """Whether the audio features of a clip stay the same throughout a run, so that they can be computed once."""
        tower = self.audio_tower
        drifts = self.fidelity == "published" and isinstance(tower, ESResNeXtFBSP)
        return tower is not None and "audio" in self.options.freeze and not drifts

    def frozen_towers(self) -> Iterator[nn.Module]:
        """The towers that the options freeze."""
        if "visual" in self.options.freeze:
            yield self.visual_tower
        if "audio" in self.options.freeze and self.audio_tower is not None:
            yield self.audio_tower

    def train(self, mode: bool = True) -> "AVSModel":
        """Switch mode; frozen towers stay in eval mode, unless fidelity is "published"."""
        super().train(mode)
        for tower in self.frozen_towers():
            if self.fidelity == "corrected":
                tower.eval()
            elif isinstance(tower, ESResNeXtFBSP):
                tower.fbsp.eval()  # it has no statistics; in eval mode its filters are built only once
        return self

    def load_pretrained(self) -> list[InitRecord]:
        """Load the checkpoints of the options.

        Returns:
            What each tower starts from.

        Raises:
            InputError: if a checkpoint is missing or does not fit.
        """
        options, records = self.options, []
        if isinstance(self.segmentor, TPAVISegmentor):
            backbone = self.segmentor.backbone
            records.append(
                init_module("visual", backbone, options.weights, lambda state: load_imagenet(backbone, state))
            )
        else:
            records.append(init_tower("visual", self.segmentor.visual, options.fpn.visual))
        if isinstance(self.audio_tower, VGGish):
            records.append(init_module("audio", self.audio_tower, options.vggish.weights))
        elif self.audio_tower is not None:
            records.append(init_tower("audio", self.audio_tower, options.fpn.audio))
        return records

    def forward(self, batch: dict[str, Any], num_labeled: int | None = None) -> Segmentation:
        """Segment a batch.

        Args:
            batch: frames (B, 5, 3, H, W), and either audio_features (B, 5, A), the output of `encode_audio`, or its
                input: log_mel (B, 5, 1, 96, 64) or waveform (B, 5, samples), according to `inputs`.
            num_labeled: decode only the first frames of each video; default: all.

        Returns:
            Logits (B, 5 or num_labeled, H, W), and the maps for the AVM loss.
        """
        features = batch.get("audio_features")
        if features is None and self.audio_tower is not None:
            features = self.encode_audio(batch[self.inputs.audio])
        return self.segmentor.segment(batch["frames"], features, num_labeled)

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Audio features (B, 5, A), before the projection of the fpn segmentor.

        Args:
            audio: log_mel (B, 5, 1, 96, 64) or waveform (B, 5, samples), according to `inputs`.

        Raises:
            ValueError: if the model takes no audio.
        """
        features = None
        with torch.set_grad_enabled("audio" not in self.options.freeze and torch.is_grad_enabled()):
            if isinstance(self.segmentor, AudioCLIPSegmentor):
                features = self.segmentor.encode_audio(audio)
            elif self.vggish is not None:
                features = self.vggish(audio.flatten(0, 1)).unflatten(0, audio.shape[:2])
        if features is None:
            raise ValueError("this model takes no audio")
        return features


def _audioclip_sizes(variant: str) -> dict[str, Any] | None:
    """Constructor arguments of AudioCLIP for `model.fpn.variant`; None for the published sizes."""
    path = None if variant == "published" else find_weights(variant, "audioclip")
    return None if path is None else read_sizes(path)


def _init_he(layer: nn.Module) -> None:
    # Under PyTorch's default initialization, activations shrink at every layer, until the output of VGGish hardly
    # depends on its input.
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def architecture(options: ModelOptions) -> dict[str, str]:
    """What weights are trained for beyond their shapes: saved as metadata with them, and compared on loading."""
    named: dict[str, object] = {"segmentor": options.segmentor}
    if options.segmentor == "tpavi":
        named |= {"backbone": options.backbone, "attention": options.attention, "stages": list(options.stages)}
    else:
        fpn = options.fpn
        named |= {"fusion": fpn.fusion, "upsample": fpn.upsample, "vggish": checkpoint_name(fpn.audio) == "vggish"}
    return {name: str(value) for name, value in named.items()}
