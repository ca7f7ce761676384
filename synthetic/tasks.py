"""What each miniature is and how it learns, for synthetic.trainer."""

import argparse
from pathlib import Path
from typing import Any, cast

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.audioclip import AudioCLIP
from models.registry import create_model
from models.sam import SamConfig
from synthetic import audioclip_data as mini_pairs
from synthetic import audioclip_training as mini_audioclip
from synthetic import sam_data as mini_sam_data
from synthetic import sam_eval as measures
from synthetic import sam_training as mini_sam
from synthetic.trainer import Metrics, Task
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
        self.plan = mini_audioclip.Curriculum.of(args.steps, easy=not args.data)

    def recipe(self) -> dict[str, Any]:
        """See Task."""
        data = self.scenes()
        if self.args.data:
            data = f"{open_benchmark(self.args.data).benchmark.name} clips of {self.args.data}, the train split"
        return {
            "data": data,
            "easy_until": self.plan.easy_until,
            "mosaics_from": self.plan.mosaics_from,
            **self.history(),
            "supervision": "which sound belongs to which frame (InfoNCE); no category, mask or position",
            "sound": "1 s at 44.1 kHz that has been through a 16 kHz file; trained on 1 s, "
            "measured on 1 s tiled 5 times",
            "frames": f"{FRAME_SIZE[0]} px; easy scenes {mini_pairs.EASY_SCENES}",
        }

    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """See Task."""
        return mini_audioclip.build_audioclip(sizes, self.args.seed)

    def load(self, folder: Path) -> nn.Module:
        """See Task."""
        return create_model("audioclip", folder)

    def stream(self, start: int) -> Dataset[Any]:
        """Pairs of scenes, or of clips."""
        return mini_audioclip.TrainingStream(self.pairs(), self.plan, self.args.batch, start)

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

    def evaluate(self) -> Metrics:
        """On unseen seconds, of clips (their test split) or of scenes."""
        args, model = self.args, create_model("audioclip", self.args.out)
        if args.data:
            data = open_benchmark(args.data)
            pairs = mini_pairs.ClipPairs(data, "test", 0, 1)
            return {
                f"test clips, second {k}": mini_audioclip.evaluate_retrieval(
                    model, mini_pairs.clip_eval_rounds(pairs, k)
                )
                for k in (0, 2, 4)
            }
        scenes = mini_pairs.ScenePairs(self.cast(), 0)
        found = {}
        for easy, title in ((True, "one thing a frame"), (False, "whole frames")):
            for seed in args.evaluation_seeds:
                rounds = mini_pairs.scene_eval_rounds(scenes, seed, args.rounds, easy)
                found[f"{title}, seed {seed}"] = mini_audioclip.evaluate_retrieval(model, rounds)
        return found


class SamTask(Task):
    """SAM, from exact masks."""

    name, loss_name, sizes = "sam", "loss", mini_sam.SIZES

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        self.plan = mini_sam_data.Curriculum(args.steps, args.seed)

    def recipe(self) -> dict[str, Any]:
        """See Task."""
        return {
            "data": self.scenes(),
            "background_from": self.plan.background_from,
            **self.history(),
            "supervision": "exact masks of every visible thing, sounding or silent; no category",
            "prompts": mini_sam_data.PROMPTS,
            "sharpness": mini_sam.SHARPNESS,
        }

    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """See Task."""
        return mini_sam.build_sam_mini(sizes, self.args.seed)

    def auxiliary_heads(self, model: nn.Module) -> nn.Module:
        """See Task."""
        return mini_sam.AuxiliaryHeads(cast(Sam, model).prompt_encoder.embed_dim)

    def load(self, folder: Path) -> nn.Module:
        """See Task."""
        return create_model("sam_mini", folder)

    def stream(self, start: int) -> Dataset[Any]:
        """See Task."""
        return mini_sam_data.TrainingStream(
            self.cast(), self.plan, self.args.batch, start, SamConfig(**self.sizes).image_size
        )

    def loss(self, model: nn.Module, teacher: nn.Module, batch: Any, step: int) -> Tensor:
        """See Task."""
        losses = mini_sam.training_losses(cast(Sam, model), cast(mini_sam.AuxiliaryHeads, teacher), batch)
        return torch.stack(list(losses.values())).sum()

    def rate(self, step: int) -> float:
        """See Task."""
        return self.plan.rate(step)

    def stages(self) -> dict[str, int]:
        """See Task."""
        return {"points on the background": self.plan.background_from}

    def evaluate(self) -> Metrics:
        """On unseen scenes, with thresholds for proposals that are chosen on others."""
        args, sam = self.args, create_model("sam_mini", self.args.out)
        things = self.cast()
        tuning = measures.eval_scenes(things, measures.TUNING_SEED, -(-args.frames // 2))
        thresholds = measures.choose_thresholds(sam, tuning)
        found: Metrics = {"thresholds for proposals": {**thresholds, "points_per_side": measures.POINTS_PER_SIDE}}
        for seed in args.evaluation_seeds:
            seen = measures.eval_scenes(things, seed, args.frames)
            found[f"scenes, seed {seed}"] = {
                **measures.predict_masks(sam, seen, seed),
                **measures.summarize(measures.match_proposals(sam, seen, thresholds)),
            }
        return found


TASKS: dict[str, type[Task]] = {"audioclip": AudioCLIPTask, "sam": SamTask}
