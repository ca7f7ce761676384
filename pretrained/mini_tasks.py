"""What each miniature is and how it learns, for pretrained.mini_run."""

import argparse
from pathlib import Path
from typing import Any, cast

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.audioclip import AudioCLIP
from models.mini import load_mini_audioclip, load_mini_sam
from models.sam import SamSizes
from pretrained import mini_audioclip, mini_pairs, mini_sam, mini_sam_data
from pretrained import mini_sam_measures as measures
from pretrained.mini_run import Figures, Task
from utils.cli import InputError
from utils.layout import BENCHMARKS, FRAME_SIZE, AVSBench


def open_benchmark(root: Path) -> AVSBench:
    """The benchmark whose meta CSV a folder holds."""
    for name, benchmark in BENCHMARKS.items():
        if (root / benchmark.meta).is_file():
            return AVSBench(root, name)
    raise InputError(f"{root}: holds no s4_meta_data.csv or ms3_meta_data.csv; see avsbench_data/README.md")


class AudioCLIPTask(Task):
    """The contrastive AudioCLIP."""

    name, loss_name, sizes = "audioclip", "contrastive loss", mini_audioclip.SIZES

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        self.plan = mini_audioclip.Plan.of(args.steps, easy=not args.data)

    def recipe(self) -> dict[str, Any]:
        """See Task."""
        data = self.scenes()
        if self.args.data:
            data = f"{open_benchmark(self.args.data).benchmark.name} clips of {self.args.data}, the train split"
        return {
            "data": data,
            "easy_until": self.plan.easy_until,
            "mosaics_from": self.plan.mosaics_from,
            **self.course(),
            "supervision": "which sound belongs to which frame (InfoNCE); no category, mask or position",
            "sound": "1 s at 44.1 kHz that has been through a 16 kHz file; trained on 1 s, "
            "measured on 1 s tiled 5 times",
            "frames": f"{FRAME_SIZE[0]} px; easy scenes {mini_pairs.EASY_SCENES}",
        }

    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """See Task."""
        return mini_audioclip.build(sizes, self.args.seed)

    def load(self, folder: Path) -> nn.Module:
        """See Task."""
        return load_mini_audioclip(folder)

    def stream(self, start: int) -> Dataset[Any]:
        """Pairs of scenes, or of clips."""
        return mini_audioclip.Stream(self.pairs(), self.plan, self.args.batch, start)

    def pairs(self) -> mini_pairs.Pairs:
        """Where the pairs come from."""
        args = self.args
        if args.data:
            data = open_benchmark(args.data)
            # What is missing for the measures is told now, not after the training.
            mini_pairs.ClipPairs(data, "test", 0, 1)
            return mini_pairs.ClipPairs(data, "train", args.seed, args.batch)
        return mini_pairs.ScenePairs(self.cast(), args.seed)

    def training_mode(self, model: nn.Module) -> None:
        """See Task."""
        mini_audioclip.training_mode(cast(AudioCLIP, model))

    def loss(self, model: nn.Module, teacher: nn.Module, batch: Any, step: int) -> Tensor:
        """See Task."""
        frames, sounds = batch
        return mini_audioclip.contrastive_loss(cast(AudioCLIP, model), frames, sounds, self.plan.mosaic(step))

    def rate(self, step: int) -> float:
        """See Task."""
        return self.plan.rate(step)

    def notes(self, model: nn.Module) -> dict[str, Any]:
        """See Task."""
        return {"logit_scale": round(cast(AudioCLIP, model).logit_scale_ai.exp().item(), 2)}

    def stages(self) -> dict[str, int]:
        """See Task."""
        return {"whole frames": self.plan.easy_until, "mosaics": self.plan.mosaics_from}

    def evaluate(self) -> Figures:
        """On unseen seconds, of clips (their test split) or of scenes."""
        args, model = self.args, load_mini_audioclip(self.args.out)
        if args.data:
            data = open_benchmark(args.data)
            pairs = mini_pairs.ClipPairs(data, "test", 0, 1)
            return {
                f"test clips, second {k}": mini_audioclip.measure(model, mini_pairs.clip_rounds(pairs, k))
                for k in (0, 2, 4)
            }
        scenes = mini_pairs.ScenePairs(self.cast(), 0)
        found = {}
        for easy, title in ((True, "one thing a frame"), (False, "whole frames")):
            for seed in args.evaluation_seeds:
                rounds = mini_pairs.scene_rounds(scenes, seed, args.rounds, easy)
                found[f"{title}, seed {seed}"] = mini_audioclip.measure(model, rounds)
        return found


class SamTask(Task):
    """SAM, from exact masks."""

    name, loss_name, sizes = "sam", "loss", mini_sam.SIZES

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        self.plan = mini_sam_data.Plan(args.steps, args.seed)

    def recipe(self) -> dict[str, Any]:
        """See Task."""
        return {
            "data": self.scenes(),
            "background_from": self.plan.background_from,
            **self.course(),
            "supervision": "exact masks of every visible thing, sounding or silent; no category",
            "prompts": mini_sam_data.PROMPTS,
            "sharpness": mini_sam.SHARPNESS,
        }

    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """See Task."""
        return mini_sam.build(sizes, self.args.seed)

    def teacher(self, model: nn.Module) -> nn.Module:
        """See Task."""
        return mini_sam.Teacher(cast(Sam, model).prompt_encoder.embed_dim)

    def load(self, folder: Path) -> nn.Module:
        """See Task."""
        return load_mini_sam(folder)

    def stream(self, start: int) -> Dataset[Any]:
        """See Task."""
        return mini_sam_data.Stream(self.cast(), self.plan, self.args.batch, start, SamSizes(**self.sizes).image_size)

    def loss(self, model: nn.Module, teacher: nn.Module, batch: Any, step: int) -> Tensor:
        """See Task."""
        losses = mini_sam.training_losses(cast(Sam, model), cast(mini_sam.Teacher, teacher), batch)
        return torch.stack(list(losses.values())).sum()

    def rate(self, step: int) -> float:
        """See Task."""
        return self.plan.rate(step)

    def stages(self) -> dict[str, int]:
        """See Task."""
        return {"points on the background": self.plan.background_from}

    def evaluate(self) -> Figures:
        """On unseen scenes, with thresholds for proposals that are chosen on others."""
        args, sam = self.args, load_mini_sam(self.args.out)
        things = self.cast()
        tuning = measures.pictures(things, measures.TUNING, -(-args.frames // 2))
        thresholds = measures.choose_thresholds(sam, tuning)
        found: Figures = {"thresholds for proposals": {**thresholds, "points_per_side": measures.POINTS_PER_SIDE}}
        for seed in args.evaluation_seeds:
            seen = measures.pictures(things, seed, args.frames)
            found[f"scenes, seed {seed}"] = {
                **measures.answers(sam, seen, seed),
                **measures.summary(measures.compared(sam, seen, thresholds)),
            }
        return found


TASKS: dict[str, type[Task]] = {"audioclip": AudioCLIPTask, "sam": SamTask}
