"""What a run trains: either family's segmentor with the towers that it sees and hears by, as one module."""

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
    """What a model wants of utils.dataset: statistics of the frames, and kind of sound."""

    images: Literal["imagenet", "clip"]
    audio: Literal["log_mel", "waveform", "none"]


class AVSModel(nn.Module):
    """Frames and sounds -> masks. Built with random weights; see `load_pretrained`.

    Towers that the options freeze get no gradient. Under fidelity "corrected" they stay in eval mode; under
    "published" only the optimiser leaves them alone, and their batch normalisation goes on using and counting the
    training batches, which changes what they compute.
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
        ear = self.options.vggish
        network = VGGish(ear.widths, ear.hidden, ear.features)
        if ear.weights == "random":
            network.apply(_init_he)
        return network

    @property
    def visual_tower(self) -> nn.Module:
        """The image network."""
        return self.segmentor.backbone if isinstance(self.segmentor, TPAVISegmentor) else self.segmentor.visual

    @property
    def audio_tower(self) -> VGGish | ESResNeXtFBSP | None:
        """The sound network; None for a model that does not listen."""
        return self.vggish if isinstance(self.segmentor, TPAVISegmentor) else self.segmentor.audio

    @property
    def trains_projection(self) -> bool:
        """Whether the last layer of a frozen audio tower is trained: ESRNXFBSP.pt has none that would fit."""
        fpn = self.options.segmentor == "fpn" and checkpoint_name(self.options.fpn.audio) == "esresnext-fbsp"
        return fpn and isinstance(self.audio_tower, ESResNeXtFBSP) and "audio" in self.options.freeze

    @property
    def inputs(self) -> InputSpec:
        """What it wants of the data set. Frames are normalised as the visual weights expect it; in the published
        programs, as the loader for waveforms (CLIP) or that for log-mels (ImageNet) does."""
        kind: Literal["log_mel", "waveform", "none"]
        kind = "log_mel" if isinstance(self.audio_tower, VGGish) else "waveform" if self.audio_tower else "none"
        if self.options.segmentor == "tpavi":
            return InputSpec("imagenet", kind)
        if self.fidelity == "published":
            return InputSpec("imagenet" if kind == "log_mel" else "clip", kind)
        return InputSpec("imagenet" if checkpoint_name(self.options.fpn.visual) == "resnet50" else "clip", kind)

    @property
    def audio_is_static(self) -> bool:
        """Whether a sound gives the same features throughout a run, so that they need computing only once."""
        tower = self.audio_tower
        counts = self.fidelity == "published" and isinstance(tower, ESResNeXtFBSP)
        return tower is not None and "audio" in self.options.freeze and not counts

    def frozen_towers(self) -> Iterator[nn.Module]:
        """The towers that are not trained."""
        if "visual" in self.options.freeze:
            yield self.visual_tower
        if "audio" in self.options.freeze and self.audio_tower is not None:
            yield self.audio_tower

    def train(self, mode: bool = True) -> "AVSModel":
        """Switch mode; a frozen tower keeps to eval mode, unless fidelity is "published"."""
        super().train(mode)
        for tower in self.frozen_towers():
            if self.fidelity == "corrected":
                tower.eval()
            elif isinstance(tower, ESResNeXtFBSP):
                tower.fbsp.eval()  # it counts nothing, and in eval mode builds its filters once
        return self

    def load_pretrained(self) -> list[InitRecord]:
        """Load the checkpoints that the options name; returns what each tower started from. Raises InputError."""
        options, found = self.options, []
        if isinstance(self.segmentor, TPAVISegmentor):
            backbone = self.segmentor.backbone
            found.append(init_module("visual", backbone, options.weights, lambda state: load_imagenet(backbone, state)))
        else:
            found.append(init_tower("visual", self.segmentor.visual, options.fpn.visual))
        if isinstance(self.audio_tower, VGGish):
            found.append(init_module("audio", self.audio_tower, options.vggish.weights))
        elif self.audio_tower is not None:
            found.append(init_tower("audio", self.audio_tower, options.fpn.audio))
        return found

    def forward(self, batch: dict[str, Any], labelled: int | None = None) -> Segmentation:
        """Segment a batch.

        Args:
            batch: frames (B, 5, 3, H, W), with either audio_features (B, 5, A), what `encode_audio` gives, or the audio
                itself: log_mel (B, 5, 1, 96, 64) or waveform (B, 5, samples), by `inputs`.
            labelled: give the logits of the first so many frames only, which is all that a loss may read.
        """
        features = batch.get("audio_features")
        if features is None and self.audio_tower is not None:
            features = self.encode_audio(batch[self.inputs.audio])
        return self.segmentor.segment(batch["frames"], features, labelled)

    def encode_audio(self, sounds: Tensor) -> Tensor:
        """Sounds, as `forward` takes them -> features (B, 5, A), before AudioCLIP's or VGGish's projection."""
        with torch.set_grad_enabled("audio" not in self.options.freeze and torch.is_grad_enabled()):
            if isinstance(self.segmentor, AudioCLIPSegmentor):
                heard = self.segmentor.encode_audio(sounds)
            else:
                heard = (
                    None if self.vggish is None else self.vggish(sounds.flatten(0, 1)).unflatten(0, sounds.shape[:2])
                )
        if heard is None:
            raise ValueError("this model does not listen")
        return heard


def _audioclip_sizes(variant: str) -> dict[str, Any] | None:
    """The sizes of AudioCLIP's towers; None for the published ones."""
    path = None if variant == "published" else find_weights(variant, "audioclip")
    return None if path is None else read_sizes(path)


def _init_he(layer: nn.Module) -> None:
    # Under PyTorch's own initialisation activations shrink at every layer, until VGGish gives its biases and
    # next to nothing of the sound.
    if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        nn.init.zeros_(layer.bias)


def architecture(options: ModelOptions) -> dict[str, str]:
    """What the weights of a model were trained for, beyond their shapes: kept beside them, and compared on loading."""
    named: dict[str, object] = {"segmentor": options.segmentor}
    if options.segmentor == "tpavi":
        named |= {"backbone": options.backbone, "attention": options.attention, "stages": list(options.stages)}
    else:
        fpn = options.fpn
        named |= {"fusion": fpn.fusion, "upsample": fpn.upsample, "vggish": checkpoint_name(fpn.audio) == "vggish"}
    return {name: str(value) for name, value in named.items()}
