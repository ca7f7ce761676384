"""The optimizer of a run: parameter groups, the learning-rate schedule, and the moving average of the weights."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.esresnext import ESResNeXtFBSP
from supervised.model import AVSModel
from supervised.options import Fidelity, TrainOptions

NORM_LAYERS = (nn.modules.batchnorm._BatchNorm, nn.GroupNorm, nn.LayerNorm)


def build_optimizer(model: AVSModel, options: TrainOptions, fidelity: Fidelity) -> torch.optim.Adam:
    """Adam or AdamW over the groups of `param_groups`."""
    parts = param_groups(model, options, fidelity)
    if options.optimizer == "adamw":
        return torch.optim.AdamW(parts, lr=options.lr)
    return torch.optim.Adam(parts, lr=options.lr, weight_decay=0.0)


def param_groups(model: AVSModel, options: TrainOptions, fidelity: Fidelity) -> list[dict[str, Any]]:
    """The trainable parameters in groups: head and backbone, each with and without weight decay.

    The backbone is the visual one of tpavi, or the AudioCLIP towers of fpn. VGGish, its projection, and the last audio
    layer where it starts from random weights (esresnext-fbsp) belong to the head. AdamW does not decay the parameters
    of normalization layers; under fidelity "published" it does, because the original looks for "norm" in the names and
    no name has it. Source: Sam4AVS, `train.py`.

    Args:
        model: with its frozen parameters marked (requires_grad False).
        options: learning rates and weight decay.
        fidelity: "published" or "corrected".

    Returns:
        Groups for a torch optimizer, named "head" or "backbone"; empty ones are left out.
    """
    backbone = {id(p) for p in model.visual_tower.parameters()}
    if isinstance(model.audio_tower, ESResNeXtFBSP):
        backbone |= {id(p) for p in model.audio_tower.parameters()}
        if model.trains_projection:
            backbone -= {id(p) for p in model.audio_tower.fc.parameters()}
    no_decay: set[int] = set()
    if fidelity == "corrected":
        no_decay = {id(p) for layer in model.modules() if isinstance(layer, NORM_LAYERS) for p in layer.parameters()}
    found: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        if parameter.requires_grad:
            part = "backbone" if id(parameter) in backbone else "head"
            found.setdefault((part, id(parameter) not in no_decay), []).append(parameter)
    adamw = options.optimizer == "adamw"
    return [
        {
            "params": parameters,
            "lr": options.lr * (options.backbone_lr_mult if part == "backbone" else 1.0),
            "weight_decay": options.weight_decay if adamw and decays else 0.0,
            "name": part,
        }
        for (part, decays), parameters in sorted(found.items(), key=lambda item: item[0])
    ]


def lr_factor(step: int, steps: int, options: TrainOptions) -> float:
    """Factor of the learning rates at a step of 0 ... steps-1: linear warmup, then the schedule."""
    if step < options.warmup_steps:
        return (step + 1) / (options.warmup_steps + 1)
    if options.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - options.warmup_steps) / max(1, steps - 1 - options.warmup_steps)))


def set_lr(optimizer: torch.optim.Optimizer, factor: float, options: TrainOptions) -> None:
    """Set the learning rate of each group to its base rate times `factor`."""
    for group in optimizer.param_groups:
        multiple = options.backbone_lr_mult if group["name"] == "backbone" else 1.0
        group["lr"] = options.lr * multiple * factor


def build_ema(model: nn.Module, decay: float) -> AveragedModel | None:
    """An exponential moving average (EMA) of weights and buffers, or None for decay 0.

    Call its `update_parameters(model)` after each step.
    """
    if decay == 0:
        return None
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def check_optimizer_state(optimizer: torch.optim.Optimizer) -> None:
    """Raise ValueError if a moment does not have the shape of its parameter, which load_state_dict does not check."""
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            if isinstance(value, Tensor) and value.ndim and value.shape != parameter.shape:
                raise ValueError(f"its {name} is {tuple(value.shape)} for {tuple(parameter.shape)}")
