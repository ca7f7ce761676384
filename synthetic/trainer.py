"""One training of a miniature, from the command line to its files, whatever the miniature is."""

import argparse
import io
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from models.checkpoints import load_checkpoint
from synthetic.assets import AssetLibrary, open_assets
from utils.cli import InputError, progress_bar_options
from utils.figures import default_style
from utils.files import sha256, write_bytes, write_text
from utils.interrupts import block_interrupts

SAVE_EVERY = 100  # steps
WEIGHT_DECAY = 0.05

Metrics = dict[str, dict[str, float]]  # a column of measures for each set that was measured on


class Task(ABC):
    """What one kind of miniature is and how it learns; `args` is its command line."""

    name: str  # of its files
    loss_name: str
    sizes: dict[str, Any]

    def __init__(self, args: argparse.Namespace):
        self.args = args
        if args.sizes:
            try:
                self.sizes = json.loads(args.sizes)
            except ValueError as error:
                raise InputError(f"--sizes: {error}") from error

    @abstractmethod
    def recipe(self) -> dict[str, Any]:
        """What the weights depend on, for the JSON; a run goes on only under the same recipe."""

    @abstractmethod
    def build(self, sizes: dict[str, Any]) -> nn.Module:
        """A new model."""

    def auxiliary_heads(self, model: nn.Module) -> nn.Module:
        """What learns beside the model and is thrown away at the end."""
        return nn.Module()

    @abstractmethod
    def load(self, folder: Path) -> nn.Module:
        """A trained model."""

    @abstractmethod
    def stream(self, start: int) -> Dataset[Any]:
        """The samples of the steps from `start` on, in order."""

    def training_mode(self, model: nn.Module) -> None:
        """Before the first step."""
        model.train()

    @abstractmethod
    def loss(self, model: nn.Module, teacher: nn.Module, batch: Any, step: int) -> Tensor:
        """Of one step."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """Of the learning rate, in a step."""

    def notes(self, model: nn.Module) -> dict[str, Any]:
        """More to say in the JSON."""
        return {}

    @abstractmethod
    def stages(self) -> dict[str, int]:
        """Where in the curve something new begins."""

    @abstractmethod
    def evaluate(self) -> Metrics:
        """Measure the weights in OUT on what was not trained on."""

    def cast(self) -> AssetLibrary:
        """The things of the scenes."""
        return open_assets(self.args.pictures, self.args.backgrounds)

    def scenes(self) -> str:
        """The cast in words."""
        cast, args = self.cast(), self.args
        things, before = "built-in things", ""
        if args.pictures:
            things = f"things of {args.pictures} ({len(cast.categories)} kinds, {digest(cast.files)})"
        if args.backgrounds:
            before = f", before {args.backgrounds} ({len(cast.photographs)} photographs, {digest(cast.photographs)})"
        return f"synthetic.scene, drawn on the fly, with the {things}{before}"

    def history(self) -> dict[str, Any]:
        """What every recipe tells."""
        args = self.args
        start = f"the weights in {args.start}" if args.start else "random weights"
        return {"start": start, "seed": args.seed, "steps": args.steps, "batch": args.batch, "lr": args.lr}


def digest(files: Sequence[Path]) -> str:
    """Names the contents of files in eight digits."""
    return f"{sum(int(sha256(path)[:8], 16) for path in files) % 16**8:08x}"


@dataclass
class TrainingState:
    """How far a run has come."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


class TrainingRun:
    """One training of a task."""

    def __init__(self, task: Task):
        self.task, self.args, self.state, self.recipe = task, task.args, TrainingState(), task.recipe()
        self.done = False
        self.weights, self.notes, self.saved, self.curve = (
            self.args.out / f"{task.name}{suffix}" for suffix in (".safetensors", ".json", ".state.pt", ".png")
        )
        try:
            self.model = task.build(task.sizes)
        except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
            raise InputError(f"--sizes: {error}") from error
        self.auxiliary_heads = task.auxiliary_heads(self.model)
        if self.args.start:
            task.load(self.args.start)  # its notes and weights fit each other
            load_checkpoint(self.model, self.args.start / self.weights.name)
        learnt = [p for module in (self.model, self.auxiliary_heads) for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(learnt, lr=self.args.lr, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
        self.resume()

    def resume(self) -> None:
        """Go on from the state if there is one; refuse to write over other weights."""
        if not self.notes.is_file():
            if self.weights.is_file():
                raise InputError(f"{self.weights} is there without its notes ({self.notes.name}); give another --out")
            return
        try:
            found = json.loads(self.notes.read_text(encoding="utf-8"))
            same = found["recipe"] == self.recipe and found["model"] == self.task.sizes
            self.done = bool(found["figures"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.notes}: unreadable; give another --out, or delete it first") from None
        if not same:
            raise InputError(f"{self.args.out} holds weights of another recipe ({self.notes.name}); give another --out")
        if self.done:
            return
        if not self.saved.is_file():
            raise InputError(f"{self.saved}: is gone, so the run cannot go on; give another --out")
        try:
            kept = torch.load(self.saved, map_location="cpu", weights_only=True)
            self.model.load_state_dict(kept["model"])
            self.auxiliary_heads.load_state_dict(kept["teacher"])
            self.optimizer.load_state_dict(kept["optimizer"])
            self.state = TrainingState(**kept["state"])
        except Exception as error:  # torch.load's errors have no common base
            raise InputError(f"{self.saved}: damaged, so the run cannot go on; give another --out") from error

    def train(self) -> bool:
        """Train until the steps or the minutes are over; whether the steps are."""
        args, state = self.args, self.state
        with block_interrupts():  # workers start here
            batches = iter(DataLoader(self.task.stream(state.step), batch_size=args.batch, num_workers=args.workers))
        self.task.training_mode(self.model)
        begin, before = time.perf_counter(), state.seconds
        bar = tqdm(batches, initial=state.step, total=args.steps, desc="train", unit="step", **progress_bar_options())
        try:
            for batch in bar:
                for group in self.optimizer.param_groups:
                    group["lr"] = args.lr * self.task.rate(state.step)
                loss = self.task.loss(self.model, self.auxiliary_heads, batch, state.step)
                if not torch.isfinite(loss):
                    raise InputError(f"the loss is {loss.item()} in step {state.step + 1}; lower --lr")
                self.optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], 1.0)
                self.optimizer.step()
                state.step += 1
                state.losses.append(round(loss.item(), 4))
                state.seconds = before + time.perf_counter() - begin
                bar.set_postfix(loss=f"{np.mean(state.losses[-20:]):.3f}", refresh=False)
                if state.step % SAVE_EVERY == 0:
                    self.save({})
                if time.perf_counter() - begin > 60 * args.minutes:
                    break
        except KeyboardInterrupt:
            self.save({})
            raise
        self.save({})
        return state.step >= args.steps

    def save(self, figures: Metrics) -> None:
        """Write the state first: whatever else is there, it can be gone on from."""
        model: dict[str, Tensor] = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        notes = {
            "model": self.task.sizes,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": self.recipe,
            "steps_done": self.state.step,
            "minutes": round(self.state.seconds / 60, 1),
            **self.task.notes(self.model),
            "figures": figures,
        }
        buffer = io.BytesIO()
        kept = {"model": model, "teacher": self.auxiliary_heads.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**kept, "state": vars(self.state)}, buffer)
        write_bytes(self.saved, buffer.getvalue())
        write_text(self.notes, json.dumps(notes, indent=1) + "\n")
        write_bytes(self.weights, safetensors_bytes(model))
        draw_curve(self.state.losses, self.task.stages(), self.task.loss_name, self.curve)


def draw_curve(losses: Sequence[float], stages: dict[str, int], name: str, path: Path) -> None:
    """The loss over the steps, as a picture."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with default_style():
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, color="0.8", linewidth=0.5)
        window = min(25, len(losses))
        axes.plot(steps[window - 1 :], np.convolve(losses, np.ones(window) / window, "valid"), color="C0")
        for what, begin in stages.items():
            if begin < len(losses):
                axes.axvline(begin, color="0.4", linestyle=":")
                axes.annotate(f" {what}", (begin, max(losses)), va="top", fontsize=8)
        axes.set(xlabel="step", ylabel=name, ylim=(0, None))
        figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())
