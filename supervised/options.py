"""The options of a supervised run; supervised/configs holds one YAML file for each row of the study."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from supervised.model_options import ModelOptions
from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.labels import UnknownColors
from utils.layout import BenchmarkName, SoftMasks
from utils.option_ranges import MAX_IMAGE_SIZE, MAX_SEED, MAX_WORKERS, DeviceName, bounded, check_ranges

# Options that change no number and may change when a run is resumed.
RUNTIME_ONLY = (
    "data.root",
    "data.num_workers",
    "data.cache",
    "train.checkpoint_minutes",
    "train.grad_checkpointing",
    "train.device",
)
# Checkpoints of whole networks. A run is identified by the content of these files, not by their paths.
WEIGHTS = ("model.weights", "model.vggish.weights", "model.init_from")


@dataclass
class DataOptions:
    """The data.

    Args:
        benchmark: s4 (single source; only the first frame is labeled in training), ms3 (multiple sources), or avss
            (semantic: a class for each pixel; clips of five and ten seconds).
        root: folder that holds the meta CSV.
        fraction: of the training clips, sampled as in the study.
        image_size: side in pixels of the frames given to the model, a multiple of 32; frames on disk have 224.
        mask_size: side in pixels of the masks that the model is trained on; masks on disk have 224, other sizes are
            their nearest pixels. Logits are resized to it. Metrics are computed at 224, or at this size under fidelity
            published, as AVSegFormer does.
        audio_repeats: how often AudioCLIP's input repeats each second of audio.
        num_workers: processes that load clips; 0 loads in the main process.
        cache: folder that keeps the audio features of a frozen tower for later runs; null computes them once per run.
        soft_masks: what to do with masks that have gray levels: refuse them, or dither them to black and white, as
            the original's loader of S4 does. `python -m avsbench_data.check` counts the pixels concerned.
        unknown_colors: what to do with labels of AVSS that are no class: refuse them, or take their pixels for
            background, as the original does.
    """

    benchmark: BenchmarkName = "s4"
    root: Path = Path("avsbench_data/Single-source")
    fraction: float = bounded(1.0, 0, 1, exclude_minimum=True)
    image_size: int = bounded(224, 32, MAX_IMAGE_SIZE, multiple_of=32)
    mask_size: int = bounded(224, 1, MAX_IMAGE_SIZE)
    audio_repeats: int = bounded(5, 1, 100)
    num_workers: int = bounded(min(8, os.cpu_count() or 1), 0, MAX_WORKERS)
    cache: Path | None = None
    soft_masks: SoftMasks = "refuse"
    unknown_colors: UnknownColors = "refuse"


@dataclass
class AVMOptions:
    """The audio-visual mapping (AVM) loss of the tpavi segmentor.

    Args:
        distance: none leaves the loss out. cosine is S4's `--sa_loss_flag`; kl and euclidean are MS3's
            `--masked_av_flag` with `--kl_flag` or `--euclidean_flag`. MS3's published rows use kl.
        weight: factor of the loss, λ₁ in the paper.
        stages: feature maps that it reads, 0 (finest) to 3.
        pool: pooling of the logits to the size of a map.
        binarize: threshold the predicted mask instead of weighting by probability (cosine always does).
        normalize: L2-normalize both features first (cosine always does).
        avm_vv: add AVM-VV, the same distance between a frame and the frame of the batch with the most similar audio. In
            AVSS it takes the place of the distance to the audio, as in the original.
        background: of AVSS, the class that the predicted mask leaves out. The original had 70 (woman) by mistake when
            its results were published, and has had 0 (background) since September 2024. null: 70 under fidelity
            published, else 0.
    """

    distance: Literal["none", "cosine", "kl", "euclidean"] = "none"
    weight: float = bounded(0.5, 0)
    stages: Sequence[int] = bounded([0, 1, 2, 3], 0, 3)
    pool: Literal["avg", "max"] = "avg"
    binarize: bool = False
    normalize: bool = False
    avm_vv: bool = False
    background: Literal[0, 70] | None = None


@dataclass
class TrainOptions:
    """Training. The defaults are the study's: Adam at a constant rate. configs/recipes/modern.yaml, given as a second
    --config, has AdamW with warmup, a cosine schedule and an EMA.

    Args:
        epochs: passes over the training clips.
        freeze_backbone_epochs: the first so many epochs do not train the image tower. Under fidelity published its
            batch normalization still uses and updates batch statistics, and stochastic depth is active.
        batch_size: videos per step, over all processes together.
        lr: learning rate of the head, which is everything but the backbone.
        backbone_lr_mult: factor of the backbone's learning rate. The backbone is the visual one in tpavi and
            AudioCLIP's towers in fpn.
        optimizer: adam, or adamw with weight decay.
        weight_decay: of adamw.
        warmup_steps: steps over which the learning rate rises linearly to its value.
        schedule: of the learning rate after warmup: constant, or cosine down to 0 at the last step.
        max_grad_norm: gradients are clipped to this norm; 0 does not clip.
        ema_decay: decay per step of an exponential moving average of the weights, which is then validated and saved
            in place of the weights; 0 keeps none.
        precision: fp32 is float32 throughout; tf32 rounds factors to 10 bits of fraction on a GPU; bf16 and fp16 are
            mixed precision.
        channels_last: use the channels-last memory format, which suits GPU tensor cores.
        negatives: fraction of the training clips that get another sound in an epoch (silence, noise, or the sound of
            a clip of another category, a third each) and an empty mask, so that the model learns to segment nothing
            when nothing in the picture sounds. They are drawn anew in every epoch.
        grad_checkpointing: recompute the activations of the image tower in the backward pass: the same numbers with
            less memory and more time. Not together with compile.
        compile: use torch.compile; the first steps then take minutes.
        validate_from: epochs before the first validation.
        validate_every: validate after the epochs, counted from 0, that are multiples of this, and after the last. Under
            fidelity published not after the last, which AVSBench's program for AVSS never validates.
        seed: of initial weights, order of clips and stochastic depth.
        checkpoint_minutes: minutes between saved states within an epoch, from which a killed run resumes; 0 saves
            after every step.
        device: auto takes a GPU if there is one; cpu and cuda insist on theirs.
    """

    epochs: int = bounded(15, 1)
    freeze_backbone_epochs: int = bounded(0, 0)
    batch_size: int = bounded(4, 1)
    lr: float = bounded(1e-4, 0, exclude_minimum=True)
    backbone_lr_mult: float = bounded(1.0, 0)
    optimizer: Literal["adam", "adamw"] = "adam"
    weight_decay: float = bounded(5e-4, 0)
    warmup_steps: int = bounded(0, 0)
    schedule: Literal["constant", "cosine"] = "constant"
    max_grad_norm: float = bounded(0.0, 0)
    ema_decay: float = bounded(0.0, 0, 1, exclude_maximum=True)
    precision: Literal["fp32", "tf32", "bf16", "fp16"] = "fp32"
    negatives: float = bounded(0.0, 0, 1, exclude_maximum=True)
    channels_last: bool = False
    grad_checkpointing: bool = False
    compile: bool = False
    validate_from: int = bounded(0, 0)
    validate_every: int = bounded(1, 1)
    seed: int = bounded(123, 0, MAX_SEED)
    checkpoint_minutes: float = bounded(10.0, 0)
    device: DeviceName = "auto"


@dataclass
class Options:
    """A supervised run.

    Args:
        fidelity: published reproduces the original program with its defects; corrected fixes them
            (docs/deviations.md). How they compare is known of small weights only.
        data: the data.
        model: the segmentor.
        loss: the audio-visual mapping (AVM) loss of the tpavi segmentor.
        train: training.
        metric_batch: videos that share one threshold in M_F on the test split: 4 in tpavi's rows, 1 in fpn's, 2 in
            avsegformer's.
    """

    fidelity: Fidelity = "corrected"
    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: AVMOptions = field(default_factory=AVMOptions)
    train: TrainOptions = field(default_factory=TrainOptions)
    metric_batch: int = bounded(4, 1)


def check_options(options: Options) -> None:
    """Raise InputError for options that are out of range or contradict each other."""
    check_ranges(options)
    model, train, loss = options.model, options.train, options.loss
    if train.grad_checkpointing and train.compile:
        raise InputError("train.grad_checkpointing and train.compile cannot be combined")
    if train.negatives and (not model.has_audio or loss.distance != "none"):
        raise InputError("train.negatives needs a model with audio, and loss.distance none")
    if model.segmentor == "avsegformer" and (model.channels % 32 or model.channels % model.avsegformer.heads):
        raise InputError(
            f"model.channels is {model.channels}; it must be a multiple of 32 and of model.avsegformer.heads"
        )
    if loss.distance == "none":
        return
    if model.segmentor != "tpavi":
        raise InputError(
            f"loss.distance needs an audio feature at each stage, which the {model.segmentor} segmentor does not have"
        )
    if model.attention == "vv":
        raise InputError("loss.distance needs audio, which model.attention vv does not use")
    if not set(loss.stages) <= set(model.stages):
        raise InputError("loss.stages must be among model.stages; other stages have no audio feature")
