"""Training of one run: epochs, validation, and a state from which a killed run resumes with the same result."""

import json
import time
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from models.checkpoints import is_finite
from supervised import measures, optim, state
from supervised.audio_features import precompute_audio_features
from supervised.cost import TrainingCost
from supervised.data import open_dataset
from supervised.distributed import convert_sync_batchnorm, rank_slice, set_video_lengths, shuffled_batches
from supervised.evaluate import build_accelerator, evaluate
from supervised.grad_checkpointing import enable_grad_checkpointing
from supervised.model import AVSModel, architecture
from supervised.objective import Objective
from supervised.options import Options, check_options
from supervised.weights import load_initial_weights
from utils.cli import InputError, progress_bar_options
from utils.config import to_yaml
from utils.dataloader import load_batches
from utils.device import AsyncCopy, to_channels_last, to_device
from utils.figures import plot_curves
from utils.files import remove_partials, write_bytes, write_text
from utils.layout import BENCHMARKS
from utils.run_identity import record_data
from utils.safetensors_io import safetensors_bytes


class Trainer:
    """A training run in its folder. Every process of a distributed run builds one.

    Args:
        options: of the run.
        out: run folder; if it holds a state of the same run, training resumes from it.

    Raises:
        InputError: for invalid options, missing data or checkpoints, or the folder of another run.
    """

    def __init__(self, options: Options, out: Path):
        check_options(options)
        state.check_same_run(out / "config.yaml", options)
        self.options, self.out = options, out
        self.accelerator: Accelerator = build_accelerator(options)
        self.cost = TrainingCost(self.accelerator.device)
        set_seed(options.train.seed)
        self.benchmark = BENCHMARKS[options.data.benchmark]
        self.model = AVSModel(options.model, options.fidelity, self.benchmark.classes)
        inputs = self.model.inputs
        resuming = (out / "state.pt").is_file()
        self.initial_weights = [] if resuming else load_initial_weights(self.model)
        self.datasets = {
            split: open_dataset(options.data, inputs, split, fidelity=options.fidelity) for split in ("train", "val")
        }
        if options.train.negatives:
            self.datasets["train"].use_negatives(options.train.negatives, options.train.seed)
        convert_sync_batchnorm(self.model)
        if options.train.channels_last:
            to_channels_last(self.model)
        if options.train.grad_checkpointing:
            enable_grad_checkpointing(self.model.visual_tower)
        self.model.to(self.accelerator.device)
        self.optimizer = optim.build_optimizer(self.model, options.train, options.fidelity)
        self.trainable_parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.ema = optim.build_ema(self.model, options.train.ema_decay)
        self.progress = state.Progress()
        self.saved_at = time.monotonic()
        # Steps issued before the losses of a step are read: waiting for each step's losses would leave a GPU idle.
        self.async_steps = int(self.accelerator.device.type == "cuda")
        if resuming:
            self.resume()
        if self.model.audio_is_static and self.progress.epoch < options.train.epochs:
            precompute_audio_features(self.model, self.datasets, self.accelerator, options)
        self.objective = Objective(options, self.accelerator)
        self.model.freeze_backbone(self.progress.epoch < options.train.freeze_backbone_epochs)
        self.wrap_model()

    def wrap_model(self) -> None:
        """Prepare model and optimizer for the processes, and the model for torch.compile."""
        self.wrapped_model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        if self.options.train.compile:
            # The sizes of another run in this process would pass for sizes that change, on which the compiler fails.
            torch.compiler.reset()
            self.wrapped_model = torch.compile(self.wrapped_model)

    def start_training_backbone(self) -> None:
        """Train the image tower after the epochs in which it was frozen."""
        self.model.freeze_backbone(False)
        if self.accelerator.num_processes > 1:
            # Processes exchange the gradients of the parameters that had one when the model was wrapped.
            self.accelerator.free_memory()
            self.wrap_model()

    @property
    def eval_model(self) -> AVSModel:
        """The model that is validated and saved: the EMA if there is one."""
        return self.model if self.ema is None else self.ema.module  # type: ignore[return-value]

    def resume(self) -> None:
        """Load state.pt.

        Raises:
            InputError: if it is damaged or of another run.
        """
        path = self.out / "state.pt"
        self.progress, saved = state.load_state(path)
        with state.wrap_load_errors(path):
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            optim.check_optimizer_state(self.optimizer)
            if self.ema is not None:
                self.ema.load_state_dict(saved["average"])
            if self.accelerator.scaler is not None:
                self.accelerator.scaler.load_state_dict(saved["scaler"])
            if not all(is_finite(value) for value in self.model.state_dict().values()):
                raise ValueError("its weights are not finite")
            if self.progress.step > len(self.datasets["train"]):
                raise ValueError("its step is beyond the end of the epoch")

    def run(self) -> None:
        """Train the remaining epochs."""
        main, progress = self.accelerator.is_main_process, self.progress
        if main:
            self.write_config()
        board = SummaryWriter(self.out / "tensorboard", purge_step=progress.epoch) if main else None
        for epoch in range(progress.epoch, self.options.train.epochs):
            begin = time.perf_counter() - progress.seconds
            row: dict[str, Any] = {"epoch": epoch, **self.train_epoch(epoch)}
            row |= (validated := self.validate() if self.is_validated(epoch) else {})
            row["seconds"] = round(time.perf_counter() - begin, 2)
            first, value = next(iter(validated.items()), ("", 0.0))
            improved = bool(validated) and value > progress.best
            progress.history.append(row)
            progress.epoch, progress.step, progress.sums, progress.seconds = epoch + 1, 0, {}, 0.0
            if main:
                self.save(improved)
                assert board is not None
                for name in set(row) - {"epoch"}:
                    board.add_scalar(name, row[name], epoch)
                text = f"{first} {value:.4f}{' (best so far)' if improved else ''}, " if first else ""
                tqdm.write(
                    f"epoch {epoch + 1}/{self.options.train.epochs}: loss {row['loss']:.4f}, "
                    f"{text}{row['seconds']:.0f} s"
                )
        if board:
            board.close()
        self.accelerator.wait_for_everyone()

    def is_validated(self, epoch: int) -> bool:
        """Whether the model is validated after an epoch, from 0.

        The last epoch is, except under fidelity published, where it need not be among the original's.
        """
        train = self.options.train
        due = epoch >= train.validate_from and epoch % train.validate_every == 0
        is_last = epoch + 1 == train.epochs
        return due or (is_last and (self.options.fidelity == "corrected" or self.progress.best < 0))

    def validate(self) -> dict[str, float]:
        """The measures of the val split, of which the first chooses the best model."""
        workers = self.options.data.num_workers
        metrics = evaluate(self.eval_model, self.datasets["val"], self.accelerator, num_workers=workers, title="val")
        numbers = measures.result(metrics, metric_batch=1)
        names = measures.validation_measures(self.benchmark, self.options.fidelity)
        return {f"val_{name}": numbers[name] for name in names}

    def write_config(self) -> None:
        """Write config.yaml, data.json and initial_weights.json."""
        remove_partials(self.out)
        with state.wrap_disk_errors(self.out):
            write_text(self.out / "config.yaml", to_yaml(self.options))
            record_data(self.out, self.options.data.root, self.options.data.benchmark)
            if self.initial_weights:
                record = {weights.tower: weights.record() for weights in self.initial_weights}
                write_text(self.out / "initial_weights.json", json.dumps(record, indent=1) + "\n")
        for weights in self.initial_weights:
            tqdm.write(str(weights))

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Train one epoch, or the rest of it; returns its mean losses over videos."""
        train, progress, begin = self.options.train, self.progress, time.perf_counter()
        if self.model.backbone_frozen and epoch >= train.freeze_backbone_epochs:
            self.start_training_backbone()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        self.datasets["train"].set_epoch(epoch)
        # The order depends on seed and epoch only, so it is the same when resuming and for any number of processes.
        schedule = shuffled_batches(len(self.datasets["train"]), train.batch_size, train.seed * 100_003 + epoch)
        remaining = schedule[progress.step :]
        loader = load_batches(
            self.datasets["train"],
            [rank_slice(batch, rank, world) for batch in remaining],
            self.options.data.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.wrapped_model.train()
        earlier, first_step, started = progress.seconds, progress.step, self.cost.clock()
        bar = tqdm(
            loader,
            desc=f"epoch {epoch + 1}",
            unit="step",
            initial=progress.step,
            total=len(schedule),
            disable=not self.accelerator.is_main_process,
            **progress_bar_options(),
        )
        pending: deque[tuple[int, int, AsyncCopy]] = deque()  # step, videos, losses
        for items, batch in zip(bar, remaining, strict=True):
            # The random state depends on the step only, so it need not be saved and is the same in all processes.
            step_seed = np.random.SeedSequence([train.seed, epoch, progress.step])
            torch.manual_seed(int(step_seed.generate_state(1)[0]))
            optim.set_lr(
                self.optimizer,
                optim.lr_factor(epoch * len(schedule) + progress.step, train.epochs * len(schedule), train),
                train,
            )
            pending.append((progress.step + 1, len(batch), self.train_step(items, batch)))
            progress.step += 1
            progress.seconds = earlier + time.perf_counter() - begin
            due = self.accelerator.is_main_process and time.monotonic() - self.saved_at >= 60 * train.checkpoint_minutes
            while len(pending) > (0 if due or progress.step == len(schedule) else self.async_steps):
                bar.set_postfix(loss=f"{self.add_losses(*pending.popleft()):.4f}", refresh=False)
            if due:
                self.save_state()
        self.cost.add_epoch(self.cost.clock() - started, progress.step - first_step)
        return {name: total / len(self.datasets["train"]) for name, total in progress.sums.items()}

    def add_losses(self, step: int, videos: int, losses: AsyncCopy) -> float:
        """Add the losses of a step to the sums of the epoch; returns the total loss.

        Raises:
            InputError: if the loss is not finite.
        """
        values = losses.values().tolist()
        if not np.isfinite(values[0]):
            raise InputError(
                f"the loss is {values[0]} at step {step} of epoch {self.progress.epoch + 1}; "
                f"lower --train.lr. {self.out} keeps the last good state"
            )
        for name, value in zip(self.objective.names, values, strict=True):
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value * videos
        return float(values[0])

    def train_step(self, items: dict[str, Any], batch: list[int]) -> AsyncCopy:
        """One optimizer step.

        Args:
            items: the part of the batch of this process.
            batch: indices of the whole batch.

        Returns:
            Losses of the whole batch, in the order of `Objective.names`.
        """
        device, clips = self.accelerator.device, [self.datasets["train"].clips[index] for index in batch]
        moved = {name: to_device(value, device) for name, value in items.items() if isinstance(value, Tensor)}
        set_video_lengths(self.model, [self.benchmark.num_labeled(clip) for clip in clips])  # that the head decodes
        padded = self.options.fidelity == "published"
        lengths = [self.benchmark.max_seconds if padded else self.benchmark.num_frames(clip) for clip in clips]
        set_video_lengths(self.model.visual_tower, lengths)
        loss, factor = self.objective(self.wrapped_model, moved, clips)
        terms = torch.stack(list(vars(loss).values())).detach() * factor
        losses = AsyncCopy(self.accelerator.reduce(terms, "mean"))
        self.optimizer.zero_grad()
        self.accelerator.backward(loss.total * factor)
        if self.options.train.max_grad_norm:
            self.accelerator.clip_grad_norm_(self.trainable_parameters, self.options.train.max_grad_norm)
        self.optimizer.step()
        if self.ema is not None:
            self.ema.update_parameters(self.model)
        return losses

    def save(self, improved: bool) -> None:
        """Write the best model, the log, and, last, the resumable state, each atomically."""
        if improved:
            best = {name: value.contiguous().cpu() for name, value in self.eval_model.state_dict().items()}
            state.check_finite(best, f"after epoch {self.progress.epoch}")
            with state.wrap_disk_errors(self.out):
                metadata = architecture(self.options.model, self.benchmark.classes)
                write_bytes(self.out / "best.safetensors", safetensors_bytes(best, metadata))
        with state.wrap_disk_errors(self.out):
            write_text(self.out / "log.csv", pd.DataFrame(self.progress.history).to_csv(index=False))
            write_bytes(self.out / "curves.png", plot_curves(self.progress.history))
            trained = sum(parameter.numel() for parameter in self.trainable_parameters)
            self.cost.write(self.out, self.model, trained, self.options.train.batch_size)
        self.save_state()

    def save_state(self) -> None:
        """Write state.pt atomically."""
        kept: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state.check_finite(kept["model"], f"after step {self.progress.step} of epoch {self.progress.epoch + 1}")
        if self.ema is not None:
            kept["average"] = self.ema.state_dict()
        if self.accelerator.scaler is not None:
            kept["scaler"] = self.accelerator.scaler.state_dict()
        with state.wrap_disk_errors(self.out):
            state.save_state(self.out / "state.pt", self.progress, kept)
        self.saved_at = time.monotonic()
