"""The Trainer beside a plain training loop: losses, gradients, weights and statistics after every step.

Both compute in float64. In float32 rounding would decide about weights whose true gradient is zero (a bias before a
batch normalisation), for Adam makes a whole step of however small a gradient.
"""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from models.audioclip_segmentor import AudioCLIPSegmentor
from models.tpavi_segmentor import Segmentation
from supervised import train
from supervised.features import open_clips
from supervised.model import ListeningSegmentor
from supervised.options import Options
from tests import small_fpn
from tests.small_fpn import folder
from tests.test_supervised import arguments
from utils.config import option_parser, parse_options

__all__ = ["folder"]  # a fixture

BACKBONE = ("segmentor.backbone.", "segmentor.visual.", "segmentor.audio.")
MODERN = "--train.optimizer adamw --train.weight_decay 0.1 --train.warmup 2 --train.schedule cosine --train.clip 0.02"
CASES = {  # family, benchmark, options
    "tpavi": ("tpavi", "s4", "--train.backbone_lr_mult 0.1"),
    "tpavi-kl": ("tpavi", "ms3", "--loss.distance kl --loss.weight 0.1 --train.schedule cosine"),
    "tpavi-published": ("tpavi", "s4", "--fidelity published --model.freeze [audio,visual]"),
    "fpn": ("fpn", "s4", "--train.warmup 3"),
    "fpn-modern": ("fpn", "s4", f"--model.freeze [audio,visual] {MODERN} --train.ema 0.6"),
    "fpn-published": ("fpn", "s4", f"--fidelity published {MODERN}"),
}


@dataclass
class Step:
    """What a step leaves: losses (total, BCE, AVM) of so many videos; gradients of the trained weights; all weights and
    statistics, and their moving average."""

    videos: int
    losses: Tensor
    gradients: dict[str, Tensor]
    state: dict[str, Tensor]
    average: dict[str, Tensor]


def copied(named: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in dict(named).items()}


# --- the plain loop --------------------------------------------------------------------------------------


def plain_loop(model: ListeningSegmentor, options: Options) -> Iterator[Step]:
    """Train the model in float64 as a textbook would."""
    asked = options.train
    clips = open_clips(options.data, model.inputs, "train")
    frozen = [{"audio": model.audio_tower, "visual": model.visual_tower}[name] for name in options.model.freeze]
    out = {id(p) for tower in frozen if tower is not None for p in tower.parameters()}
    learnt = {name: p for name, p in model.named_parameters() if id(p) not in out}
    heard = None if counts_while_frozen(model, options) else [plain_features(model, item) for item in clips]
    model.double()
    segmentor: nn.Module = model.segmentor.train()
    if options.fidelity == "corrected":
        for tower in frozen:
            if tower is not None:
                tower.eval()
    optimizer = plain_optimizer(model, learnt, options)
    average: dict[str, Tensor] = {}
    count, step = len(clips), 0
    steps = asked.epochs * math.ceil(count / asked.batch)
    for epoch in range(asked.epochs):
        order = torch.randperm(count, generator=torch.Generator().manual_seed(asked.seed * 100_003 + epoch)).tolist()
        for first in range(0, count, asked.batch):
            batch = order[first : first + asked.batch]
            items = [clips[i] for i in batch]
            frames, masks = (torch.stack([item[kind] for item in items]) for kind in ("frames", "masks"))
            if heard is not None:
                sound = torch.stack([heard[i] for i in batch])
            else:
                sound = segmentor.listen(torch.stack([item["waveform"] for item in items]).double())  # type: ignore[operator]
            output = segmentor.segment(frames.double(), sound.double())  # type: ignore[operator]
            losses = plain_losses(output, masks.double(), options)
            optimizer.zero_grad()
            losses[0].backward()
            if asked.clip:
                norm = torch.stack([p.grad.square().sum() for p in learnt.values() if p.grad is not None]).sum().sqrt()
                for p in learnt.values():
                    if p.grad is not None:
                        p.grad *= min(1.0, asked.clip / (norm.item() + 1e-6))  # as torch does
            for group in optimizer.param_groups:
                group["lr"] = group["full"] * plain_rate(step, steps, options)
            optimizer.step()
            step += 1
            if asked.ema:
                now = copied(model.state_dict())
                average = average or now
                average = {k: asked.ema * average[k] + (1 - asked.ema) * v for k, v in now.items()}
            gradients = {name: p.grad for name, p in learnt.items() if p.grad is not None}
            yield Step(len(batch), torch.stack(losses).detach(), copied(gradients), copied(model.state_dict()), average)


def counts_while_frozen(model: ListeningSegmentor, options: Options) -> bool:
    """Whether the frozen audio tower's batch statistics go on, so that no sound is heard twice the same."""
    return options.fidelity == "published" and isinstance(model.segmentor, AudioCLIPSegmentor)


@torch.no_grad()
def plain_features(model: ListeningSegmentor, item: dict[str, Any]) -> Tensor:
    """What a frozen tower hears in one clip, in float32, (5, A)."""
    model.eval()
    if isinstance(model.segmentor, AudioCLIPSegmentor):
        heard = model.segmentor.listen(item["waveform"][None])
        assert heard is not None
        return heard[0]
    assert model.ear is not None
    features: Tensor = model.ear(item["log_mel"])
    return features


def plain_optimizer(model: ListeningSegmentor, learnt: dict[str, nn.Parameter], options: Options) -> Any:
    """Head and backbone at their own rates; AdamW decays all, but under "corrected" not what normalises."""
    asked, groups = options.train, []
    norms = {
        f"{name}.{part}"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm | nn.BatchNorm3d)
        for part in ("weight", "bias")
    }
    for name, parameter in learnt.items():
        full = asked.lr * (asked.backbone_lr_mult if name.startswith(BACKBONE) else 1)
        decays = asked.optimizer == "adamw" and not (options.fidelity == "corrected" and name in norms)
        groups.append({"params": [parameter], "full": full, "weight_decay": asked.weight_decay if decays else 0.0})
    return (torch.optim.AdamW if asked.optimizer == "adamw" else torch.optim.Adam)(groups)


def plain_rate(step: int, steps: int, options: Options) -> float:
    """Up in equal parts, full at step `warmup`, then constant or half a cosine to 0 at the last step."""
    warmup = options.train.warmup
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if options.train.schedule == "constant":
        return 1.0
    return (1 + math.cos(math.pi * (step - warmup) / (steps - 1 - warmup))) / 2


def plain_losses(output: Segmentation, masks: Tensor, options: Options) -> list[Tensor]:
    """Total, cross-entropy of the labelled frames, and MS3's audio-visual mapping, summed over frames and channels."""
    logits = F.interpolate(output.logits[:, : masks.shape[1]], masks.shape[2:], mode="bilinear")
    bce = F.binary_cross_entropy(logits.sigmoid(), masks)
    if options.loss.distance == "none":
        return [bce, bce, torch.zeros((), dtype=bce.dtype)]
    terms = []
    for maps, audio in zip(output.maps, output.audio, strict=True):
        assert audio is not None
        pooled = F.adaptive_avg_pool2d(output.logits.flatten(0, 1)[:, None], maps.shape[-2:])
        visual = (pooled.sigmoid() * maps.flatten(0, 1)).mean((2, 3)).softmax(1)
        target = audio.flatten(0, 1).softmax(1)
        terms.append((target * (target.log() - visual.log())).sum())
    avm = sum(terms, torch.zeros(())) / 4
    return [bce + options.loss.weight * avm, bce, avm]


# --- beside the Trainer ----------------------------------------------------------------------------------


def trainer_steps(trainer: train.Trainer, monkeypatch: pytest.MonkeyPatch) -> tuple[list[Step], list[list[float]]]:
    """Every step of a Trainer that computes in float64, and every epoch's mean losses."""
    found: list[Step] = []
    original = train.Trainer.step

    def step(self: train.Trainer, items: dict[str, Any], batch: list[int]) -> Any:
        losses = original(self, items, batch)
        gradients = {n: p.grad for n, p in self.model.named_parameters() if p.requires_grad and p.grad is not None}
        average = {} if self.average is None else copied(self.average.module.state_dict())
        found.append(Step(len(batch), losses.values(), copied(gradients), copied(self.model.state_dict()), average))
        return losses

    monkeypatch.setattr(train.Trainer, "step", step)
    monkeypatch.setattr(train, "to_device", lambda x, _: x.double() if x.is_floating_point() else x)
    trainer.model.double()
    if trainer.average is not None:
        trainer.average.double()
    means = []
    for epoch in range(trainer.options.train.epochs):
        trainer.progress.epoch, trainer.progress.step, trainer.progress.sums = epoch, 0, {}
        means.append(list(trainer.epoch(epoch).values()))
    return found, means


@pytest.mark.parametrize("case", CASES)
def test_the_trainer_is_a_plain_loop(
    composed: Path, folder: Path, tmp_path: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tensor, "float", lambda x: x if x.dtype == torch.float64 else x.to(torch.float32))
    family, benchmark, more = CASES[case]
    words = f"--data.fraction 0.5 --train.batch 2 --train.epochs 2 --train.lr 1e-3 {more}".split()
    if family == "fpn":
        words = small_fpn.arguments(composed, folder, tmp_path, *words, benchmark=benchmark)
    else:
        words = arguments(composed, tmp_path, *words, benchmark=benchmark)
    parser = option_parser(Options, None, "train")
    parser.add_argument("--out")
    options, _ = parse_options(parser, Options, words)
    trainer = train.Trainer(options, tmp_path)
    plain = list(plain_loop(copy.deepcopy(trainer.model).requires_grad_(True), options))
    steps, means = trainer_steps(trainer, monkeypatch)
    assert len(steps) == len(plain) >= 4
    for epoch, half in enumerate((plain[: len(plain) // 2], plain[len(plain) // 2 :])):
        total = sum((step.losses * step.videos for step in half), torch.zeros(()))
        assert means[epoch] == pytest.approx((total / sum(step.videos for step in half)).tolist(), rel=1e-6)
    for ours, theirs in zip(steps, plain, strict=True):
        torch.testing.assert_close(ours.losses, theirs.losses, rtol=1e-6, atol=1e-9)
        for part in ("gradients", "state", "average"):
            found, expected = getattr(ours, part), getattr(theirs, part)
            assert found.keys() == expected.keys(), part
            for name, value in expected.items():
                if not value.is_floating_point() and part == "average":
                    continue  # a count of batches, which has no average
                distance = (found[name] - value).double().norm()
                assert distance <= 1e-5 * value.double().norm() + 1e-9, f"{part} of {name}: {distance:.1e}"
