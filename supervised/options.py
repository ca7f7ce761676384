"""The options of a supervised run; supervised/configs holds one YAML file for each row of the study."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from supervised.losses import AVM
from utils.layout import BenchmarkName


@dataclass
class DataOptions:
    """Which clips.

    Args:
        benchmark: s4 (one source; only the first frame is labelled in training) or ms3 (several).
        root: the folder that holds the meta CSV.
        fraction: of the training clips, drawn as the study draws them.
        image_size: side of the frames given to the model, a multiple of 32; 224 is the size on disk. Metrics are
            always taken at the size of the masks.
        workers: processes that read clips; 0 reads in the training process.
    """

    benchmark: BenchmarkName = "s4"
    root: Path = Path("avsbench_data/Single-source")
    fraction: float = 1.0
    image_size: int = 224
    workers: int = min(8, os.cpu_count() or 1)


@dataclass
class EarOptions:
    """VGGish, which turns log-mel examples into audio features.

    Args:
        weights: the public checkpoint, or "random".
        widths: channels of its four levels.
        hidden: width of its hidden layers.
        features: size of the audio feature.
        train: train it along with the segmentor; the study keeps it frozen.
    """

    weights: str = "pretrained/vggish-10086976.pth"
    widths: Sequence[int] = field(default_factory=lambda: [64, 128, 256, 512])
    hidden: int = 4096
    features: int = 128
    train: bool = False


@dataclass
class ModelOptions:
    """The TPAVI segmentor.

    Args:
        backbone: resnet50 and pvt_v2_b5 are the study's; resnet18 and pvt_v2_b0 are for small machines.
        weights: the backbone's ImageNet checkpoint, or "random".
        stages: where TPAVI works, 0 (finest) to 3.
        attention: keys from audio (va), from the frames themselves without any audio (vv), or both.
        channels: width of the fused maps.
        ear: the audio network.
    """

    backbone: Literal["resnet18", "resnet50", "pvt_v2_b0", "pvt_v2_b5"] = "resnet50"
    weights: str = "pretrained/resnet50-19c8e357.pth"
    stages: Sequence[int] = field(default_factory=lambda: [0, 1, 2, 3])
    attention: Literal["va", "vv", "both"] = "va"
    channels: int = 256
    ear: EarOptions = field(default_factory=EarOptions)


@dataclass
class TrainOptions:
    """How it is trained: Adam at a constant rate, as AVSBench does.

    Args:
        epochs: passes over the training clips.
        batch: videos per step, over all processes together.
        lr: learning rate.
        seed: of the initial weights, the order of the clips and stochastic depth.
        precision: fp32, or mixed precision.
        cpu: stay on the CPU even where there is a GPU.
    """

    epochs: int = 15
    batch: int = 4
    lr: float = 1e-4
    seed: int = 123
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    cpu: bool = False


@dataclass
class Options:
    """A supervised run.

    Args:
        data: which clips.
        model: the segmentor.
        loss: the audio-visual mapping term beside the cross-entropy.
        train: how it is trained.
        metric_batch: videos that share one threshold in M_F on the test split.
    """

    data: DataOptions = field(default_factory=DataOptions)
    model: ModelOptions = field(default_factory=ModelOptions)
    loss: AVM = field(default_factory=AVM)
    train: TrainOptions = field(default_factory=TrainOptions)
    metric_batch: int = 4
