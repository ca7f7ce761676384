"""The model that a run trains: a segmentor with its image and audio towers."""

from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from models.audioclip import AudioCLIP, scale_waveform
from models.audioclip_segmentor import AudioCLIPSegmentor
from models.avsegformer import AVSegFormer, MaskPrediction
from models.backbones import AudioCLIPBackbone, load_imagenet
from models.esresnext import ESResNeXtFBSP
from models.small_weights import read_sizes
from models.tpavi import scatter
from models.tpavi_segmentor import Segmentation, TPAVISegmentor
from models.vggish import VGGish
from models.weights import checkpoint_name, find_weights, require_downloads
from supervised.initialization import InitRecord, init_module, init_tower
from supervised.model_options import ModelOptions
from supervised.options import Fidelity


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
        classes: of the benchmark: 1 for masks of what sounds.
    """

    def __init__(self, options: ModelOptions, fidelity: Fidelity = "corrected", classes: int = 1):
        super().__init__()
        self.options, self.fidelity, self.classes = options, fidelity, classes
        self.vggish: VGGish | None = None
        self.audioclip_audio: ESResNeXtFBSP | None = None  # of tpavi and avsegformer; that of fpn is in the segmentor
        self.segmentor: TPAVISegmentor | AudioCLIPSegmentor | AVSegFormer
        self.backbone_frozen = False
        if options.segmentor == "tpavi":
            backbone, size = self._build_towers()
            self.segmentor = TPAVISegmentor(
                *(backbone, options.stages, options.attention, options.channels, size),
                classes=classes,
                fidelity=fidelity,
            )
        elif options.segmentor == "avsegformer":
            backbone, size = self._build_towers()
            head = vars(options.avsegformer)
            sizes = {name: head[name] for name in ("heads", "layers", "queries", "hidden", "dropout")}
            self.segmentor = AVSegFormer(
                *(backbone, classes, options.channels), audio_features=size, fidelity=fidelity, **sizes
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
                classes=classes,
            )
        for tower in self.frozen_towers():
            tower.requires_grad_(False)
        if self.trains_projection:
            self.projection.requires_grad_(True)
        self._trained_backbone = [p for p in self.visual_tower.parameters() if p.requires_grad]

    def _build_towers(self) -> tuple[str | AudioCLIPBackbone, int]:
        """The backbone of tpavi or avsegformer, and the length of its audio features, whose tower this sets."""
        options = self.options
        backbone: str | AudioCLIPBackbone = options.backbone
        uses_vggish = checkpoint_name(options.audio) == "vggish"
        if options.backbone == "audioclip" or (options.has_audio and not uses_vggish):
            towers = AudioCLIP(**{**(_audioclip_sizes(options.variant) or {}), "text": False})
            if options.backbone == "audioclip":
                backbone = AudioCLIPBackbone(towers.visual)
        if options.has_audio and uses_vggish:
            self.vggish = self._vggish()
        elif options.has_audio:
            self.audioclip_audio = towers.audio
            towers.audio.fbsp.bias.requires_grad_(False)  # has no elements
            return backbone, towers.embed_dim
        return backbone, options.vggish.features

    def _vggish(self) -> VGGish:
        options = self.options.vggish
        network = VGGish(options.widths, options.hidden, options.features)
        if options.weights == "random":
            network.apply(_init_he)
        return network

    @property
    def visual_tower(self) -> nn.Module:
        """The network of the frames."""
        if isinstance(self.segmentor, AudioCLIPSegmentor):
            return self.segmentor.visual
        backbone = self.segmentor.backbone
        return backbone.tower if isinstance(backbone, AudioCLIPBackbone) else backbone

    @property
    def audio_tower(self) -> VGGish | ESResNeXtFBSP | None:
        """The network of the audio; None for a model without audio."""
        if isinstance(self.segmentor, AudioCLIPSegmentor):
            return self.segmentor.audio
        return self.vggish or self.audioclip_audio

    @property
    def projection(self) -> nn.Linear:
        """The layer from features of an audio tower of AudioCLIP, or of an fpn segmentor, to embeddings."""
        if isinstance(self.segmentor, AudioCLIPSegmentor):
            return self.segmentor.projection
        if self.audioclip_audio is None:
            raise ValueError("this model has no audio embeddings")
        return self.audioclip_audio.fc

    @property
    def audio_feature_size(self) -> int:
        """The length of the output of `encode_audio`."""
        own = self.audioclip_audio is None and not isinstance(self.segmentor, AudioCLIPSegmentor)
        return self.options.vggish.features if own else self.projection.in_features

    @property
    def trains_projection(self) -> bool:
        """Whether the last layer of a frozen audio tower is trained, since its checkpoint (esresnext-fbsp) has none."""
        lacks_projection = checkpoint_name(self.options.audio_weights) == "esresnext-fbsp"
        return lacks_projection and isinstance(self.audio_tower, ESResNeXtFBSP) and "audio" in self.options.freeze

    @property
    def inputs(self) -> InputSpec:
        """The inputs that the model needs.

        Frames are normalized by the statistics of the visual weights; under fidelity "published", by those of the
        original's loader: CLIP's with waveforms, ImageNet's with log-mel spectrograms.
        """
        audio: Literal["log_mel", "waveform", "none"]
        audio = "log_mel" if isinstance(self.audio_tower, VGGish) else "waveform" if self.audio_tower else "none"
        if self.options.segmentor == "fpn" and self.fidelity == "published":
            return InputSpec("imagenet" if audio == "log_mel" else "clip", audio)
        weights = self.options.fpn.visual if self.options.segmentor == "fpn" else self.options.weights
        uses_clip = self.options.segmentor == "fpn" or self.options.backbone == "audioclip"
        return InputSpec("clip" if uses_clip and checkpoint_name(weights) != "resnet50" else "imagenet", audio)

    @property
    def audio_is_static(self) -> bool:
        """Whether the audio features of a clip stay the same throughout a run, so that they can be computed once."""
        tower = self.audio_tower
        drifts = self.fidelity == "published" and isinstance(tower, ESResNeXtFBSP)
        return tower is not None and "audio" in self.options.freeze and not drifts

    def frozen_towers(self) -> Iterator[nn.Module]:
        """The towers that the options freeze, and the image tower while it is frozen for some epochs."""
        if "visual" in self.options.freeze or self.backbone_frozen:
            yield self.visual_tower
        if "audio" in self.options.freeze and self.audio_tower is not None:
            yield self.audio_tower

    def freeze_backbone(self, frozen: bool) -> None:
        """Freeze the image tower, or train it again, from the next call of `train` on."""
        self.backbone_frozen = frozen
        for parameter in self._trained_backbone:
            parameter.requires_grad_(not frozen)

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
        require_downloads(self.options.checkpoint_files())
        options, records = self.options, []
        tower = self.visual_tower
        if isinstance(self.segmentor, AudioCLIPSegmentor):
            records.append(init_tower("visual", tower, options.fpn.visual))
        elif options.backbone == "audioclip":
            records.append(init_tower("visual", tower, options.weights))
        else:
            records.append(init_module("visual", tower, options.weights, lambda state: load_imagenet(tower, state)))
        if isinstance(self.audio_tower, VGGish):
            records.append(init_module("audio", self.audio_tower, options.vggish.weights))
        elif self.audio_tower is not None:
            records.append(init_tower("audio", self.audio_tower, options.audio_weights))
        return records

    def forward(
        self, batch: dict[str, Any], num_labeled: int | None = None, decoded: Tensor | None = None
    ) -> Segmentation | MaskPrediction:
        """Segment a batch.

        Args:
            batch: frames (B, T, 3, H, W), and either audio_features (B, T, A), the output of `encode_audio`, or its
                input: log_mel (B, T, 1, 96, 64) or waveform (B, T, samples), according to `inputs`. In AVSS also valid
                (B, T), 0 for padding.
            num_labeled: decode only the first frames of each video; default: all.
            decoded: (B, T), nonzero for the frames of AVSS to decode; default: all that are valid.

        Returns:
            Logits (B, T or num_labeled, H, W), of several classes (B, T, classes, H, W), and what the segmentor's loss
            needs.
        """
        features, valid = batch.get("audio_features"), batch.get("valid")
        if features is None and self.audio_tower is not None:
            audio = batch[self.inputs.audio]
            if valid is None:
                features = self.encode_audio(audio)
            else:  # padding must not enter batch statistics
                features = scatter(self.encode_audio(audio[valid.bool()][None])[0], valid.bool())
        if features is not None and self.audioclip_audio is not None:
            features = self.projection(features)
        if isinstance(self.segmentor, AVSegFormer):
            assert features is not None
            return self.segmentor.segment(batch["frames"], features, num_labeled, valid=valid, decoded=decoded)
        return self.segmentor.segment(batch["frames"], features, num_labeled, valid=valid, decoded=decoded)

    def encode_audio(self, audio: Tensor) -> Tensor:
        """Audio features (B, T, A), before the projection to embeddings if there is one.

        Args:
            audio: log_mel (B, T, 1, 96, 64) or waveform (B, T, samples), according to `inputs`.

        Raises:
            ValueError: if the model takes no audio.
        """
        features = None
        with torch.set_grad_enabled("audio" not in self.options.freeze and torch.is_grad_enabled()):
            if isinstance(self.segmentor, AudioCLIPSegmentor):
                features = self.segmentor.encode_audio(audio)
            elif self.vggish is not None:
                features = self.vggish(audio.flatten(0, 1)).unflatten(0, audio.shape[:2])
            elif self.audioclip_audio is not None:
                waveform = scale_waveform(audio.flatten(0, 1), self.fidelity)
                features = self.audioclip_audio.pool(waveform).unflatten(0, audio.shape[:2])
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


def architecture(options: ModelOptions, classes: int = 1) -> dict[str, str]:
    """What weights are trained for beyond their shapes: saved as metadata with them, and compared on loading."""
    named: dict[str, object] = {"segmentor": options.segmentor, "classes": classes}
    if options.segmentor == "tpavi":
        named |= {"backbone": options.backbone, "attention": options.attention, "stages": list(options.stages)}
        named |= {"vggish": checkpoint_name(options.audio) == "vggish"}
    elif options.segmentor == "avsegformer":
        named |= {"backbone": options.backbone, "vggish": checkpoint_name(options.audio) == "vggish"}
    else:
        fpn = options.fpn
        named |= {"fusion": fpn.fusion, "upsample": fpn.upsample, "vggish": checkpoint_name(fpn.audio) == "vggish"}
    return {name: str(value) for name, value in named.items()}
