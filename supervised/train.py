"""Train a segmentor as a row of the study.

    python -m supervised.train --config supervised/configs/s4_tpavi_resnet50.yaml [--out DIR]
    python -m supervised.train --config FILE --data.root DIR --train.epochs 3      any option by name
    python -m supervised.train --config FILE --config supervised/configs/recipes/modern.yaml
    torchrun --nproc_per_node 2 -m supervised.train --config FILE                 several processes, same numbers
    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:PORT -m supervised.train ...
                                                                                  on each of two machines

After every epoch the model is validated (M_J, all five frames); the best is kept. The run folder (default
runs/NAME-OF-THE-CONFIG, with _published behind it under --fidelity published) gets config.yaml, initial_weights.json,
log.csv, curves.png, tensorboard/, best.safetensors and state.pt. The same command goes on with a run that was killed,
at whatever step, to the same result. Given more --train.epochs, a run at a constant rate goes on with those.
Then: python -m supervised.evaluate --run DIR
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import json
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import nullcontext
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
from supervised import optim, state
from supervised.data import extract_audio_features, open_dataset
from supervised.distributed import convert_sync_batchnorm, loss_scale, rank_slice, set_num_videos, shuffled_batches
from supervised.evaluate import build_accelerator, evaluate
from supervised.grad_checkpointing import enable_grad_checkpointing
from supervised.losses import segmentation_loss
from supervised.model import AVSModel, architecture
from supervised.options import Options, check_options
from utils.cli import InputError, cli_entry, progress_bar_options
from utils.config import option_parser, parse_options, to_yaml
from utils.dataloader import load_batches
from utils.device import AsyncCopy, to_channels_last, to_device
from utils.figures import plot_curves
from utils.files import remove_partials, write_bytes, write_text
from utils.lock import exclusive_lock
from utils.paths import expand_user
from utils.run_identity import record_data
from utils.safetensors_io import safetensors_bytes


class Trainer:
    """One run, from its options to its folder. Every process of a distributed run builds one."""

    def __init__(self, options: Options, out: Path):
        check_options(options)
        state.check_same_run(out / "config.yaml", options)
        self.options, self.out = options, out
        self.accelerator: Accelerator = build_accelerator(options)
        set_seed(options.train.seed)
        self.model = AVSModel(options.model, options.fidelity)
        inputs = self.model.inputs
        again = (out / "state.pt").is_file()
        self.initial_weights = [] if again else self.model.load_pretrained()
        self.datasets = {split: open_dataset(options.data, inputs, split) for split in ("train", "val")}
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
        # Steps that go on before a step's losses are read: with none, a GPU would be out of work at every reading.
        self.async_steps = int(self.accelerator.device.type == "cuda")
        if again:
            self.resume()
        if self.model.audio_is_static and self.progress.epoch < options.train.epochs:
            for split, dataset in self.datasets.items():
                dataset.audio_features = extract_audio_features(
                    self.model,
                    dataset,
                    self.accelerator,
                    num_workers=options.data.num_workers,
                    cache=options.data.cache,
                    title=f"audio features of {split}",
                )
        self.wrapped_model, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)
        if options.train.compile:
            self.wrapped_model = torch.compile(self.wrapped_model)

    @property
    def eval_model(self) -> AVSModel:
        """The model that is validated and kept: the moving average where there is one."""
        return self.model if self.ema is None else self.ema.module  # type: ignore[return-value]

    def resume(self) -> None:
        """Go on from state.pt."""
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
                raise ValueError("its step lies beyond the epoch's last")

    def run(self) -> None:
        """Train the epochs that are left."""
        main, progress = self.accelerator.is_main_process, self.progress
        if main:
            self.write_config()
        board = SummaryWriter(self.out / "tensorboard", purge_step=progress.epoch) if main else None
        for epoch in range(progress.epoch, self.options.train.epochs):
            begin = time.perf_counter() - progress.seconds
            row: dict[str, Any] = {"epoch": epoch, **self.train_epoch(epoch)}
            metrics = evaluate(
                self.eval_model,
                self.datasets["val"],
                self.accelerator,
                workers=self.options.data.num_workers,
                title="val",
            )
            numbers = metrics.result(metric_batch=1)
            row |= {"val_m_j": numbers["m_j"], "val_m_f": numbers["m_f"]}
            row["seconds"] = round(time.perf_counter() - begin, 2)
            improved = row["val_m_j"] > progress.best
            progress.history.append(row)
            progress.epoch, progress.step, progress.sums, progress.seconds = epoch + 1, 0, {}, 0.0
            if main:
                self.save(improved)
                assert board is not None
                for name in set(row) - {"epoch"}:
                    board.add_scalar(name, row[name], epoch)
                tqdm.write(
                    f"epoch {epoch + 1}/{self.options.train.epochs}: loss {row['loss']:.4f}, "
                    f"val M_J {row['val_m_j']:.4f}{' (best so far)' if improved else ''}, {row['seconds']:.0f} s"
                )
        if board:
            board.close()
        self.accelerator.wait_for_everyone()

    def write_config(self) -> None:
        """Write down the options and what the towers start from."""
        remove_partials(self.out)
        with state.wrap_disk_errors(self.out):
            write_text(self.out / "config.yaml", to_yaml(self.options))
            record_data(self.out, self.options.data.root, self.options.data.benchmark)
            if self.initial_weights:
                record = {start.tower: start.record() for start in self.initial_weights}
                write_text(self.out / "initial_weights.json", json.dumps(record, indent=1) + "\n")
        for start in self.initial_weights:
            tqdm.write(str(start))

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training clips, or what is left of it; returns the mean losses over its videos."""
        train, progress, begin = self.options.train, self.progress, time.perf_counter()
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        # The order depends on seed and epoch alone, so a resumed run and any number of processes see the same.
        whole = shuffled_batches(len(self.datasets["train"]), train.batch_size, train.seed * 100_003 + epoch)
        left = whole[progress.step :]
        loader = load_batches(
            self.datasets["train"],
            [rank_slice(batch, rank, world) for batch in left],
            self.options.data.num_workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.wrapped_model.train()
        earlier = progress.seconds
        bar = tqdm(
            loader,
            desc=f"epoch {epoch + 1}",
            unit="step",
            initial=progress.step,
            total=len(whole),
            disable=not self.accelerator.is_main_process,
            **progress_bar_options(),
        )
        unread: deque[tuple[int, int, AsyncCopy]] = deque()  # step, videos, losses
        for items, batch in zip(bar, left, strict=True):
            # Chance depends on the place alone as well, so that it needs no saving, and is the same in all processes.
            place = np.random.SeedSequence([train.seed, epoch, progress.step])
            torch.manual_seed(int(place.generate_state(1)[0]))
            optim.set_lr(
                self.optimizer,
                optim.lr_factor(epoch * len(whole) + progress.step, train.epochs * len(whole), train),
                train,
            )
            unread.append((progress.step + 1, len(batch), self.train_step(items, batch)))
            progress.step += 1
            progress.seconds = earlier + time.perf_counter() - begin
            due = self.accelerator.is_main_process and time.monotonic() - self.saved_at >= 60 * train.checkpoint_minutes
            while len(unread) > (0 if due or progress.step == len(whole) else self.async_steps):
                bar.set_postfix(loss=f"{self.add_losses(*unread.popleft()):.4f}", refresh=False)
            if due:
                self.save_state()
        return {name: total / len(self.datasets["train"]) for name, total in progress.sums.items()}

    def add_losses(self, step: int, videos: int, losses: AsyncCopy) -> float:
        """Add a step's losses to the epoch's sums; returns the total. Raises InputError if it is not finite."""
        values = losses.values().tolist()
        if not np.isfinite(values[0]):
            raise InputError(
                f"the loss is {values[0]} at step {step} of epoch {self.progress.epoch + 1}; "
                f"lower --train.lr. {self.out} keeps the last good state"
            )
        for name, value in zip(("loss", "bce", "avm"), values, strict=True):
            self.progress.sums[name] = self.progress.sums.get(name, 0.0) + value * videos
        return float(values[0])

    def train_step(self, items: dict[str, Any], batch: list[int]) -> AsyncCopy:
        """One step on this process's share of a batch; returns the whole batch's losses: total, BCE and AVM."""
        device, world = self.accelerator.device, self.accelerator.num_processes
        moved = {name: to_device(value, device) for name, value in items.items() if isinstance(value, Tensor)}
        local, labelled = moved["masks"].shape[:2]
        set_num_videos(self.model, len(batch))
        with self.accelerator.autocast():
            output = self.wrapped_model(moved, labelled if self.options.loss.distance == "none" else None)
        loss = segmentation_loss(output, moved["masks"], self.options.loss, max(len(batch), local))
        factor = loss_scale(local, len(batch), world)
        terms = torch.stack([loss.total, loss.bce, loss.avm]).detach() * factor
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
        """Write the best model, the log and the resumable state, each atomically, the state last."""
        if improved:
            best = {name: value.contiguous().cpu() for name, value in self.eval_model.state_dict().items()}
            state.check_finite(best, f"after epoch {self.progress.epoch}")
            with state.wrap_disk_errors(self.out):
                write_bytes(self.out / "best.safetensors", safetensors_bytes(best, architecture(self.options.model)))
        with state.wrap_disk_errors(self.out):
            write_text(self.out / "log.csv", pd.DataFrame(self.progress.history).to_csv(index=False))
            write_bytes(self.out / "curves.png", plot_curves(self.progress.history))
        self.save_state()

    def save_state(self) -> None:
        """Write state.pt, whole or not at all."""
        kept: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state.check_finite(kept["model"], f"after step {self.progress.step} of epoch {self.progress.epoch + 1}")
        if self.ema is not None:
            kept["average"] = self.ema.state_dict()
        if self.accelerator.scaler is not None:
            kept["scaler"] = self.accelerator.scaler.state_dict()
        with state.wrap_disk_errors(self.out):
            state.save_state(self.out / "state.pt", self.progress, kept)
        self.saved_at = time.monotonic()


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python -m supervised.train")
    parser.add_argument("--out", type=Path | None, default=None, help="run folder")
    options, namespace = parse_options(parser, Options, argv)
    config = Path(str(namespace.config[0])) if namespace.config else None
    published = "_published" if options.fidelity == "published" else ""
    name = f"{config.stem if config else options.data.benchmark}{published}"
    out = expand_user(namespace.out or Path("runs") / name)
    trainer = Trainer(options, out)
    if trainer.progress.epoch >= options.train.epochs:
        print(f"{out}: all {options.train.epochs} epochs are done")
    main_process = trainer.accelerator.is_main_process
    with exclusive_lock(trainer.out / ".lock", "trains in this folder") if main_process else nullcontext():
        trainer.run()
    if main_process:
        print(f"best val M_J {trainer.progress.best:.4f}. Next: python -m supervised.evaluate --run {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
