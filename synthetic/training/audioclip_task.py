"""The training of AudioCLIP's small weights as a task of `Trainer`."""

import argparse
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn
from torch.utils.data import Dataset

from models.audioclip import AudioCLIP
from models.registry import create_model
from synthetic.training.audioclip_data import (
    BLACK_FRACTION,
    CLOSE_UP_FRACTION,
    EASY_SIDE,
    ClipPairs,
    PairSource,
    ScenePairs,
)
from synthetic.training.audioclip_eval import (
    AUDIO_REPEATS,
    clip_eval_rounds,
    evaluate_retrieval,
    scene_eval_rounds,
)
from synthetic.training.audioclip_training import (
    SIZES,
    Curriculum,
    PairDataset,
    build_audioclip,
    contrastive_loss,
    set_train_mode,
)
from synthetic.training.task import Metrics, Task
from utils.cli import InputError
from utils.layout import BENCHMARKS, FRAME_SIZE, AVSBench

EVAL_SECONDS = (0, 2, 4)  # of the test clips


def open_benchmark(root: Path) -> AVSBench:
    """The benchmark whose meta CSV a folder holds; InputError if there is none."""
    for name, benchmark in BENCHMARKS.items():
        if (root / benchmark.meta).is_file():
            return AVSBench(root, name)
    raise InputError(f"{root}: contains no s4_meta_data.csv or ms3_meta_data.csv; see avsbench_data/README.md")


class AudioCLIPTask(Task):
    """AudioCLIP, trained contrastively on rendered scenes or on the clips of --data."""

    name, loss_name, sizes = "audioclip", "contrastive loss", SIZES

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        self.curriculum = Curriculum.of(args.steps, easy=not args.data)

    def recipe(self) -> dict[str, Any]:
        """What the weights depend on."""
        data = self.describe_assets()
        if self.args.data:
            data = f"{open_benchmark(self.args.data).benchmark.name} clips of {self.args.data}, train split"
        return {
            "data": data,
            "easy_until": self.curriculum.easy_until,
            "mosaics_from": self.curriculum.mosaics_from,
            **self.schedule(),
            "supervision": "which audio belongs to which frame (InfoNCE); no category, mask or position",
            "audio": f"1 s at 44.1 kHz, resampled from 16 kHz; repeated {AUDIO_REPEATS} times in evaluation",
            "frames": f"{FRAME_SIZE[0]} px; easy scenes {EASY_SIDE} px at the same scale, "
            f"{CLOSE_UP_FRACTION:.0%} close-ups, {BLACK_FRACTION:.0%} with a black background",
        }

    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """A new AudioCLIP."""
        return build_audioclip(sizes, self.args.seed)

    def load(self, folder: Path) -> nn.Module:
        """The AudioCLIP of a folder."""
        return create_model("audioclip", folder)

    def dataset(self, start: int) -> Dataset[Any]:
        """Pairs of scenes, or of clips."""
        return PairDataset(self._pairs(), self.curriculum, self.args.batch, start)

    def _pairs(self) -> PairSource:
        args = self.args
        if args.data:
            data = open_benchmark(args.data)
            ClipPairs(data, "test", 0, 1)  # reports what the evaluation lacks before the training, not after it
            return ClipPairs(data, "train", args.seed, args.batch)
        return ScenePairs(self.assets(), args.seed)

    def set_train_mode(self, model: nn.Module) -> None:
        """Put the network into train mode, with fixed filters."""
        set_train_mode(cast(AudioCLIP, model))

    def loss(self, model: nn.Module, heads: nn.Module, batch: Any, step: int) -> Tensor:
        """The contrastive loss; in mosaics where the curriculum says so."""
        frames, audio = batch
        return contrastive_loss(cast(AudioCLIP, model), frames, audio, self.curriculum.is_mosaic(step))

    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate in a step."""
        return self.curriculum.lr_factor(step)

    def extra_metadata(self, model: nn.Module) -> dict[str, Any]:
        """The learned scale of the logits."""
        return {"logit_scale": round(cast(AudioCLIP, model).logit_scale_ai.exp().item(), 2)}

    def stages(self) -> dict[str, int]:
        """The first steps with whole frames and with mosaics."""
        return {"whole frames": self.curriculum.easy_until, "mosaics": self.curriculum.mosaics_from}

    def evaluate(self) -> Metrics:
        """Retrieval and localization on the test split of --data, or on unseen scenes."""
        args, model = self.args, create_model("audioclip", self.args.out)
        if args.data:
            pairs = ClipPairs(open_benchmark(args.data), "test", 0, 1)
            return {
                f"test clips, second {k}": evaluate_retrieval(model, clip_eval_rounds(pairs, k)) for k in EVAL_SECONDS
            }
        scenes = ScenePairs(self.assets(), 0)
        metrics = {}
        for easy, title in ((True, "single objects"), (False, "whole frames")):
            for seed in args.evaluation_seeds:
                rounds = scene_eval_rounds(scenes, seed, args.rounds, easy)
                metrics[f"{title}, seed {seed}"] = evaluate_retrieval(model, rounds)
        return metrics
