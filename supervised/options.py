"""The options of a supervised run; supervised/configs holds one YAML file for each row of the study."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from models.registry import checkpoint_name, find_weights
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import BenchmarkName, SoftMasks
from utils.option_ranges import MAX_CHANNELS, MAX_IMAGE_SIZE, MAX_SEED, MAX_WORKERS, DeviceName, bounded, check_ranges

Tower = Literal["audio", "visual"]

# Options that change no number and may change when a run is resumed.
RUNTIME_ONLY = (
    "data.root",
    "data.num_workers",
    "data.cache",
    "train.checkpoint_minutes",
    "train.grad_checkpointing",
    "train.device",
)
WEIGHTS = ("model.weights", "model.vggish.weights")  # where files lie, which count by their content


@dataclass
class DataOptions:
    """Which clips.

    Args:
        benchmark: s4 (one source; only the first frame is labelled in training) or ms3 (several).
        root: the folder that holds the meta CSV.
        fraction: of the training clips, drawn as the study draws them.
        image_size: side of the frames given to the model, a multiple of 32; 224 is the size on disk. Metrics are
            always taken at the size of the masks.
        tile: how often AudioCLIP hears each second in a row.
        workers: processes that read clips; 0 reads in the training process.
        cache: a folder that keeps what frozen towers hear for later runs; without one it is kept in memory only.
        soft_masks: what is done with masks in grey: refuse them, or dither them to black and white, as the original's
            loader of S4 does. `avsbench_data.check` says how many pixels are in question.
    """

    benchmark: BenchmarkName = "s4"
    root: Path = Path("avsbench_data/Single-source")
    fraction: float = bounded(1.0, 0, 1, above=True)
    image_size: int = bounded(224, 32, MAX_IMAGE_SIZE, multiple=32)
    audio_repeats: int = bounded(5, 1, 100)
    num_workers: int = bounded(min(8, os.cpu_count() or 1), 0, MAX_WORKERS)
    cache: Path | None = None
    soft_masks: SoftMasks = "refuse"


@dataclass
class VGGishOptions:
    """VGGish, which turns log-mel examples into audio features.

    Args:
        weights: the public checkpoint, or "random".
        widths: channels of its four levels.
        hidden: width of its hidden layers.
        features: size of the audio feature.
    """

    weights: str = "vggish"
    widths: Sequence[int] = bounded([64, 128, 256, 512], 1, MAX_CHANNELS, length=4)
    hidden: int = bounded(4096, 1, MAX_CHANNELS)
    features: int = bounded(128, 1, MAX_CHANNELS)


@dataclass
class FPNOptions:
    """The AudioCLIP segmentor with its semantic FPN.

    Args:
        fusion: how audio joins the coarsest map, see models.audioclip_segmentor; "none" uses no audio.
        upsample: in the neck; bilinear in every published row.
        visual: checkpoint of the image tower, a name of pretrained/checkpoints.yaml, "mini", "random" or a path.
            From resnet50 the stem and the attention pool stay random.
        audio: checkpoint of the audio tower. From esresnext-fbsp the last layer stays random, and is trained with the
            head even if the tower is frozen. vggish replaces the tower by VGGish with the options `model.vggish`.
        variant: sizes of AudioCLIP's towers: published, mini, or those of a folder of small weights.
    """

    fusion: Literal["concate", "normed_concate", "naive_concate", "score_fusion", "skip", "noprior", "none"] = "concate"
    upsample: Literal["bilinear", "nearest"] = "bilinear"
    visual: str = "audioclip-full"
    audio: str = "audioclip-full"
    variant: str = "published"


@dataclass
class ModelOptions:
    """The segmentor.

    Args:
        segmentor: tpavi is AVSBench's, fpn is Sam4AVS's.
        freeze: towers that are not trained. Under `fidelity: published` their batch normalisation goes on counting.
        channels: width of the fused maps.
        ear: VGGish, the audio tower of tpavi, and of fpn where `fpn.audio` says so.
        backbone: of tpavi; resnet50 and pvt_v2_b5 are the study's, resnet18 and pvt_v2_b0 are for small machines.
        weights: of tpavi: the backbone's ImageNet checkpoint, or "random".
        stages: of tpavi: where TPAVI works, 0 (finest) to 3.
        attention: of tpavi: keys from audio (va), from the frames themselves without any audio (vv), or both.
        fpn: everything else of fpn.
    """

    segmentor: Literal["tpavi", "fpn"] = "tpavi"
    freeze: Sequence[Tower] = field(default_factory=lambda: ["audio"])
    channels: int = bounded(256, 1, MAX_CHANNELS)
    vggish: VGGishOptions = field(default_factory=VGGishOptions)
    backbone: Literal["resnet18", "resnet50", "pvt_v2_b0", "pvt_v2_b5"] = "resnet50"
    weights: str = "resnet50"
    stages: Sequence[int] = bounded([0, 1, 2, 3], 0, 3)
    attention: Literal["va", "vv", "both"] = "va"
    fpn: FPNOptions = field(default_factory=FPNOptions)

    def checkpoint_files(self) -> list[Path]:
        """The checkpoints that a run starts from, whether they exist or not."""
        if self.segmentor == "tpavi":
            found = [find_weights(self.weights)]
            found += [find_weights(self.vggish.weights)] if self.attention != "vv" else []
        else:
            towers = [self.fpn.visual] + ([self.fpn.audio] if self.fpn.fusion != "none" else [])
            found = [find_weights(name, "audioclip") for name in towers if checkpoint_name(name) != "vggish"]
            if "vggish" in map(checkpoint_name, towers):
                found.append(find_weights(self.vggish.weights))
            if self.fpn.variant != "published":
                found.append(find_weights(self.fpn.variant, "audioclip"))
        return list(dict.fromkeys(path for path in found if path is not None))


@dataclass
class AVMOptions:
    """The audio-visual mapping term.

    Args:
        distance: "none" leaves the term out; "cosine" is S4's `--sa_loss_flag`; "kl" and "euclidean" are MS3's
            `--masked_av_flag` with `--kl_flag` or `--euclidean_flag`. MS3's published rows use "kl".
        weight: λ₁, what the term is multiplied by.
        stages: which of the four maps it reads, 0 (finest) to 3.
        pool: how the logits are brought to a map's size.
        threshold: read a map under the binary mask, rather than weighted by probability ("cosine" always does).
        normalise: L2-normalise both features first ("cosine" always does).
        closer: add the same distance between a frame and the frame of the batch that sounds most like it (AVMOptions-VV).
    """

    distance: Literal["none", "cosine", "kl", "euclidean"] = "none"
    weight: float = bounded(0.5, 0)
    stages: Sequence[int] = bounded([0, 1, 2, 3], 0, 3)
    pool: Literal["avg", "max"] = "avg"
    binarize: bool = False
    normalize: bool = False
    avm_vv: bool = False


@dataclass
class TrainOptions:
    """How it is trained. As it stands this is the study's recipe: Adam at a constant rate. configs/recipes/modern.yaml
    has another, for a second --config.

    Args:
        epochs: passes over the training clips.
        batch: videos per step, over all processes together.
        lr: learning rate of the head: everything but the backbone.
        backbone_lr_mult: the backbone's is so many times that. The backbone is tpavi's visual one, and AudioCLIP's
            towers in fpn.
        optimizer: adamw decays weights by `weight_decay` (times the learning rate).
        weight_decay: of adamw only.
        warmup: steps over which the learning rate rises linearly to its value.
        schedule: of the learning rate after that: constant, or half a cosine down to 0 at the last step.
        clip: largest norm of the gradient; 0 leaves it.
        ema: decay per step of a moving average of the weights, which then is validated and kept; 0 has none.
        precision: fp32 is float32 throughout; on a GPU tf32 rounds what is multiplied to 10 bits of fraction; bf16
            and fp16 are mixed precision.
        channels_last: lay maps out channel by channel at each pixel, which GPUs' tensor cores prefer.
        recompute: keep only what enters each block of the image tower and compute the rest again on the way back:
            the same numbers in less memory and more time. Not together with compile, which weighs that itself.
        compile: have torch compile the model; it takes minutes first.
        seed: of the initial weights, the order of the clips and stochastic depth.
        save_minutes: how often the state is saved within an epoch, for a killed run to go on from; 0 saves it after
            every step.
        device: auto takes a GPU if there is one; cpu and cuda demand theirs.
    """

    epochs: int = bounded(15, 1)
    batch_size: int = bounded(4, 1)
    lr: float = bounded(1e-4, 0, above=True)
    backbone_lr_mult: float = bounded(1.0, 0)
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = bounded(5e-4, 0)
    warmup_steps: int = bounded(0, 0)
    schedule: Literal["constant", "cosine"] = "constant"
    max_grad_norm: float = bounded(0.0, 0)
    ema_decay: float = bounded(0.0, 0, 1, below=True)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    channels_last: bool = False
    grad_checkpointing: bool = False
    compile: bool = False
    seed: int = bounded(123, 0, MAX_SEED)
    checkpoint_minutes: float = bounded(10.0, 0)
    device: DeviceName = "auto"


@dataclass
class Options:
    """A supervised run.

    Args:
        fidelity: published repeats the original's oddities, corrected does what was meant (docs/deviations.md).
        data: which clips.
        model: the segmentor.
        loss: the audio-visual mapping term beside the cross-entropy.
        train: how it is trained.
        metric_batch: videos that share one threshold in M_F on the test split: 4 in tpavi's rows, 1 in fpn's.
    """

    fidelity: Fidelity = "corrected"
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: AVMOptions = field(default_factory=AVMOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    metric_batch: int = bounded(4, 1)


def check_options(options: Options) -> None:
    """Raise InputError for options that lie outside their ranges or contradict each other."""
    check_ranges(options)
    model, train, loss = options.model, options.train, options.loss
    if train.grad_checkpointing and train.compile:
        raise InputError("train.grad_checkpointing and train.compile do not go together")
    if loss.distance == "none":
        return
    if model.segmentor == "fpn":
        raise InputError("loss.distance compares maps with sounds stage by stage; the fpn segmentor has no such sounds")
    if model.attention == "vv":
        raise InputError("loss.distance compares masks with sound, which model.attention vv does not hear")
    if not set(loss.stages) <= set(model.stages):
        raise InputError("loss.stages must be among model.stages: elsewhere there is no audio feature")
