"""Options of the segmentors of a supervised run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.weights import checkpoint_name, find_weights
from utils.option_ranges import MAX_CHANNELS, bounded

Tower = Literal["audio", "visual"]


@dataclass
class VGGishOptions:
    """VGGish, the network from log-mel spectrograms to audio features.

    Args:
        weights: "vggish" (the public checkpoint), "random", or a path.
        widths: channels of its four levels.
        hidden: width of its hidden layers.
        features: length of the audio feature.
    """

    weights: str = "vggish"
    widths: Sequence[int] = bounded([64, 128, 256, 512], 1, MAX_CHANNELS, length=4)
    hidden: int = bounded(4096, 1, MAX_CHANNELS)
    features: int = bounded(128, 1, MAX_CHANNELS)


@dataclass
class FPNOptions:
    """The AudioCLIP segmentor with a semantic FPN (segmentor fpn).

    Args:
        fusion: how audio joins the coarsest map (docs in models/audioclip_segmentor.py); "none" uses no audio.
        upsample: interpolation in the neck; bilinear in every published row.
        visual: checkpoint of the image tower: a name in pretrained/checkpoints.yaml, "mini", "random" or a path. With
            resnet50, the stem and the attention pool keep random weights.
        audio: checkpoint of the audio tower. With esresnext-fbsp, the last layer keeps random weights and is trained
            with the head even if the tower is frozen. "vggish" replaces the tower by VGGish (model.vggish).
        variant: sizes of AudioCLIP's towers: published, mini, or a folder of small weights with the sizes.
    """

    fusion: Literal["concate", "normed_concate", "naive_concate", "score_fusion", "skip", "noprior", "none"] = "concate"
    upsample: Literal["bilinear", "nearest"] = "bilinear"
    visual: str = "audioclip-full"
    audio: str = "audioclip-full"
    variant: str = "published"


@dataclass
class AVSegFormerOptions:
    """The transformer of AVSegFormer (segmentor avsegformer); the defaults are the published sizes.

    Args:
        heads: heads of every attention.
        layers: layers of encoder, query generator and decoder.
        queries: number of queries.
        hidden: width inside the feed-forward networks; half of it in the query generator.
        dropout: fraction of activations that encoder and decoder drop in training.
        loss: of the masks and of the mix term: dice in every published row, or bce.
    """

    heads: int = bounded(8, 1, 256)
    layers: int = bounded(6, 1, 100)
    queries: int = bounded(300, 1, MAX_CHANNELS)
    hidden: int = bounded(2048, 2, MAX_CHANNELS, multiple_of=2)
    dropout: float = bounded(0.1, 0, 1, exclude_maximum=True)
    loss: Literal["dice", "bce"] = "dice"


@dataclass
class ModelOptions:
    """The segmentor.

    Args:
        segmentor: tpavi (AVSBench's), fpn (SAM4AVS's, on AudioCLIP) or avsegformer.
        freeze: towers that are not trained. Under fidelity published their batch normalization still uses and updates
            batch statistics.
        channels: width of the fused maps; in avsegformer a multiple of 32 and of its heads.
        vggish: the audio tower of tpavi and avsegformer if `audio` is vggish, and of fpn if fpn.audio is.
        backbone: visual backbone of tpavi and avsegformer: resnet50 and pvt_v2_b5 in the published rows, resnet18 and
            pvt_v2_b0 for small machines, or audioclip, AudioCLIP's image tower.
        weights: ImageNet checkpoint of the backbone: a name in pretrained/checkpoints.yaml, "random" or a path. For
            backbone audioclip, a checkpoint as in fpn.visual.
        audio: audio tower of tpavi and avsegformer: vggish, or a checkpoint of AudioCLIP's audio tower as in fpn.audio,
            whose embedding then takes the place of VGGish's feature.
        variant: sizes of AudioCLIP's towers in tpavi and avsegformer, as fpn.variant.
        stages: stages of tpavi's backbone that get a TPAVI block, 0 (finest) to 3.
        attention: keys of TPAVI: audio (va), the frames themselves without any audio (vv), or the mean of both.
        fpn: options of the fpn segmentor.
        avsegformer: options of the avsegformer segmentor.
        init_from: start from a whole model instead of a checkpoint for each tower, such as MS3 from S4: a run folder,
            its best.safetensors, or a state dict of the original's or AVSBench's code. Every parameter must fit.
    """

    segmentor: Literal["tpavi", "fpn", "avsegformer"] = "tpavi"
    freeze: Sequence[Tower] = field(default_factory=lambda: ["audio"])
    channels: int = bounded(256, 1, MAX_CHANNELS)
    vggish: VGGishOptions = field(default_factory=VGGishOptions)
    backbone: Literal["resnet18", "resnet50", "pvt_v2_b0", "pvt_v2_b5", "audioclip"] = "resnet50"
    weights: str = "resnet50"
    audio: str = "vggish"
    variant: str = "published"
    stages: Sequence[int] = bounded([0, 1, 2, 3], 0, 3)
    attention: Literal["va", "vv", "both"] = "va"
    fpn: FPNOptions = field(default_factory=FPNOptions)
    avsegformer: AVSegFormerOptions = field(default_factory=AVSegFormerOptions)
    init_from: Path | None = None

    @property
    def has_audio(self) -> bool:
        """Whether the segmentor takes audio."""
        if self.segmentor == "fpn":
            return self.fpn.fusion != "none"
        return self.segmentor != "tpavi" or self.attention != "vv"

    @property
    def audio_weights(self) -> str:
        """The checkpoint of the audio tower: "vggish", for `vggish.weights`, or one of AudioCLIP's tower."""
        return self.fpn.audio if self.segmentor == "fpn" else self.audio

    @property
    def init_file(self) -> Path | None:
        """The file that `init_from` stands for, whether it exists or not."""
        path = self.init_from
        return path / "best.safetensors" if path is not None and path.is_dir() else path

    def checkpoint_files(self) -> list[Path]:
        """Paths of the checkpoints that a run starts from, whether they exist or not."""
        init = self.init_file
        vggish = self.has_audio and checkpoint_name(self.audio_weights) == "vggish"
        if init is not None:
            lacks_vggish = self.segmentor == "tpavi" and init.suffix != ".safetensors"  # AVSBench's files do
            found = [init, find_weights(self.vggish.weights) if vggish and lacks_vggish else None]
        else:
            fpn = self.segmentor == "fpn"
            small = "audioclip" if fpn or self.backbone == "audioclip" else ""
            found = [find_weights(self.fpn.visual if fpn else self.weights, small)]
            if self.has_audio:
                audio = (self.vggish.weights,) if vggish else (self.audio_weights, "audioclip")
                found.append(find_weights(*audio))
            if (variant := self.fpn.variant if fpn else self.variant) != "published":
                found.append(find_weights(variant, "audioclip"))
        return list(dict.fromkeys(path for path in found if path is not None))
