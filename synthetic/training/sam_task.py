"""The training of SAM's small weights as a task of `Trainer`."""

import argparse
from pathlib import Path
from typing import Any, cast

import torch
from segment_anything.modeling import Sam
from torch import Tensor, nn
from torch.utils.data import Dataset

from models.registry import create_model
from models.sam import SamConfig
from synthetic.training.sam_data import BOX_NOISE, MAX_POINTS, NUM_PAIRS, NUM_POINTS, Curriculum, PromptDataset
from synthetic.training.sam_eval import (
    POINTS_PER_SIDE,
    TUNING_SEED,
    choose_thresholds,
    eval_frames,
    evaluate_prompts,
    match_proposals,
    summarize_proposals,
)
from synthetic.training.sam_training import MASK_LOGIT_SCALE, SIZES, AuxiliaryHeads, build_sam_mini, training_losses
from synthetic.training.task import Metrics, Task

PROMPTS = (
    f"per frame {NUM_POINTS} single points, {len(BOX_NOISE)} boxes, {NUM_PAIRS} pair of a positive and a negative "
    f"point, and alternately 1 to 9 positive and 2 to 9 negative points, or 1 to {MAX_POINTS} of both on a square grid"
)


class SamTask(Task):
    """SAM, trained on the exact masks of rendered scenes."""

    name, loss_name, sizes = "sam", "loss", SIZES

    def __init__(self, args: argparse.Namespace):
        super().__init__(args)
        self.curriculum = Curriculum(args.steps, args.seed)

    def recipe(self) -> dict[str, Any]:
        """What the weights depend on."""
        return {
            "data": self.describe_assets(),
            "background_from": self.curriculum.background_from,
            **self.schedule(),
            "supervision": "exact masks of all visible objects, sounding or silent; no category",
            "prompts": PROMPTS,
            "mask_logit_scale": MASK_LOGIT_SCALE,
        }

    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """A new SAM."""
        return build_sam_mini(sizes, self.args.seed)

    def auxiliary_heads(self, model: nn.Module) -> nn.Module:
        """Heads for foreground and affinity."""
        return AuxiliaryHeads(cast(Sam, model).prompt_encoder.embed_dim)

    def load(self, folder: Path) -> nn.Module:
        """The SAM of a folder."""
        return create_model("sam_mini", folder)

    def dataset(self, start: int) -> Dataset[Any]:
        """Frames and prompts."""
        image_size = SamConfig(**self.sizes).image_size
        return PromptDataset(self.assets(), self.curriculum, self.args.batch, start, image_size)

    def loss(self, model: nn.Module, heads: nn.Module, batch: Any, step: int) -> Tensor:
        """The sum of the losses."""
        losses = training_losses(cast(Sam, model), cast(AuxiliaryHeads, heads), batch)
        return torch.stack(list(losses.values())).sum()

    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate in a step."""
        return self.curriculum.lr_factor(step)

    def stages(self) -> dict[str, int]:
        """The first step with points on the background."""
        return {"background points": self.curriculum.background_from}

    def evaluate(self) -> Metrics:
        """Prompts and proposals on unseen scenes, with proposal thresholds chosen on other scenes."""
        args, sam, assets = self.args, create_model("sam_mini", self.args.out), self.assets()
        thresholds = choose_thresholds(sam, eval_frames(assets, TUNING_SEED, -(-args.frames // 2)))
        metrics: Metrics = {"proposal thresholds": {**thresholds, "points_per_side": POINTS_PER_SIDE}}
        for seed in args.evaluation_seeds:
            images = eval_frames(assets, seed, args.frames)
            metrics[f"scenes, seed {seed}"] = {
                **evaluate_prompts(sam, images, seed),
                **summarize_proposals(match_proposals(sam, images, thresholds)),
            }
        return metrics
