"""The training loop of small weights and the files that it writes, for any task."""

import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save as safetensors_bytes
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from models.checkpoints import load_checkpoint
from synthetic.training.task import Metrics, Task
from utils.cli import InputError, progress_bar_options
from utils.figures import default_style
from utils.files import write_bytes, write_text
from utils.interrupts import block_interrupts

SAVE_EVERY = 100  # steps
WEIGHT_DECAY = 0.05
MAX_GRAD_NORM = 1.0


@dataclass
class TrainingState:
    """Progress of a training: steps done, seconds spent, and the loss of each step."""

    step: int = 0
    seconds: float = 0.0
    losses: list[float] = field(default_factory=list)


class Trainer:
    """Trains the network of a task, or resumes its training, in the folder --out.

    The folder holds NAME.safetensors (weights), NAME.json (metadata), NAME.png (loss curve) and, until the last step,
    NAME.state.pt (weights, auxiliary heads and optimizer).

    Args:
        task: the network, data and loss.

    Attributes:
        done: whether the folder holds a finished training with this recipe.
        state: the progress.
        weights, metadata, checkpoint, curve: paths of the files.

    Raises:
        InputError: if the sizes are impossible, or the folder holds other weights or a damaged state.
    """

    def __init__(self, task: Task):
        self.task, self.args, self.state, self.recipe = task, task.args, TrainingState(), task.recipe()
        self.done = False
        self.weights, self.metadata, self.checkpoint, self.curve = (
            self.args.out / f"{task.name}{suffix}" for suffix in (".safetensors", ".json", ".state.pt", ".png")
        )
        try:
            self.model = task.build(task.sizes)
        except (TypeError, ValueError, RuntimeError, AssertionError, ZeroDivisionError) as error:
            raise InputError(f"--sizes: {error}") from error
        self.heads = task.auxiliary_heads(self.model)
        if self.args.start:
            task.load(self.args.start)  # checks that its metadata and weights fit
            load_checkpoint(self.model, self.args.start / self.weights.name)
        trainable = [p for module in (self.model, self.heads) for p in module.parameters() if p.requires_grad]
        self.optimizer = torch.optim.AdamW(trainable, lr=self.args.lr, weight_decay=WEIGHT_DECAY, betas=(0.9, 0.98))
        self._resume()

    def _resume(self) -> None:
        """Load the state of an unfinished training, if there is one; refuse to overwrite other weights."""
        if not self.metadata.is_file():
            if self.weights.is_file():
                raise InputError(f"{self.weights} exists without {self.metadata.name}; choose another --out")
            return
        try:
            recorded = json.loads(self.metadata.read_text(encoding="utf-8"))
            same = recorded["recipe"] == self.recipe and recorded["model"] == self.task.sizes
            self.done = bool(recorded["metrics"])
        except (ValueError, KeyError, TypeError):
            raise InputError(f"{self.metadata}: unreadable; choose another --out, or delete it first") from None
        if not same:
            raise InputError(
                f"{self.args.out} holds weights of another recipe ({self.metadata.name}); choose another --out"
            )
        if self.done:
            return
        if not self.checkpoint.is_file():
            raise InputError(f"{self.checkpoint}: no such file, so the training cannot resume; choose another --out")
        try:
            loaded = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
            self.model.load_state_dict(loaded["model"])
            self.heads.load_state_dict(loaded["heads"])
            self.optimizer.load_state_dict(loaded["optimizer"])
            self.state = TrainingState(**loaded["state"])
        except Exception as error:  # the errors of torch.load have no common base
            raise InputError(
                f"{self.checkpoint}: damaged, so the training cannot resume; choose another --out"
            ) from error

    def train(self) -> bool:
        """Train until --steps or --minutes are over; returns whether all steps are done.

        Raises:
            InputError: if the loss is not finite.
        """
        args, state = self.args, self.state
        with block_interrupts():  # worker processes start here
            loader = DataLoader(self.task.dataset(state.step), batch_size=args.batch, num_workers=args.workers)
            batches = iter(loader)
        self.task.set_train_mode(self.model)
        begin, before = time.perf_counter(), state.seconds
        bar = tqdm(batches, initial=state.step, total=args.steps, desc="train", unit="step", **progress_bar_options())
        try:
            for batch in bar:
                self._step(batch)
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

    def _step(self, batch: Any) -> None:
        """One optimizer step."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.args.lr * self.task.lr_factor(self.state.step)
        loss = self.task.loss(self.model, self.heads, batch, self.state.step)
        if not torch.isfinite(loss):
            raise InputError(f"the loss is {loss.item()} in step {self.state.step + 1}; lower --lr")
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.optimizer.param_groups[0]["params"], MAX_GRAD_NORM)
        self.optimizer.step()
        self.state.step += 1
        self.state.losses.append(round(loss.item(), 4))

    def save(self, metrics: Metrics) -> None:
        """Write all files, the state first, so that the training can resume whatever happens to the others."""
        model: dict[str, Tensor] = {name: value.contiguous() for name, value in self.model.state_dict().items()}
        metadata = {
            "model": self.task.sizes,
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "recipe": self.recipe,
            "steps_done": self.state.step,
            "minutes": round(self.state.seconds / 60, 1),
            **self.task.extra_metadata(self.model),
            "metrics": metrics,
        }
        buffer = io.BytesIO()
        state = {"model": model, "heads": self.heads.state_dict(), "optimizer": self.optimizer.state_dict()}
        torch.save({**state, "state": vars(self.state)}, buffer)
        write_bytes(self.checkpoint, buffer.getvalue())
        write_text(self.metadata, json.dumps(metadata, indent=1) + "\n")
        write_bytes(self.weights, safetensors_bytes(model))
        draw_curve(self.state.losses, self.task.stages(), self.task.loss_name, self.curve)


def draw_curve(losses: Sequence[float], stages: dict[str, int], name: str, path: Path) -> None:
    """Plot the loss over the steps, smoothed as well, with the stages of the curriculum, as a PNG file."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with default_style():
        figure = Figure(figsize=(6, 3.2), layout="constrained")
        axes = figure.add_subplot()
        steps = np.arange(1, len(losses) + 1)
        axes.plot(steps, losses, color="0.8", linewidth=0.5)
        window = min(25, len(losses))
        axes.plot(steps[window - 1 :], np.convolve(losses, np.ones(window) / window, "valid"), color="C0")
        for stage, start in stages.items():
            if start < len(losses):
                axes.axvline(start, color="0.4", linestyle=":")
                axes.annotate(f" {stage}", (start, max(losses)), va="top", fontsize=8)
        axes.set(xlabel="step", ylabel=name, ylim=(0, None))
        figure.savefig(buffer, format="png", dpi=110)
    write_bytes(path, buffer.getvalue())
