"""Train a segmentor as a row of the study.

    python -m supervised.train --config supervised/configs/s4_tpavi_resnet50.yaml [--out DIR]
    python -m supervised.train --config FILE --data.root DIR --train.epochs 3      any option by name
    torchrun --nproc_per_node 2 -m supervised.train --config FILE                 several processes, same numbers

After every epoch the model is validated (M_J, all five frames); the best is kept. The run folder (default
runs/NAME-OF-THE-CONFIG) gets config.yaml, log.csv, curves.png, tensorboard/, best.safetensors and state.pt. The
same command resumes a run that was interrupted. Then: python -m supervised.evaluate --run DIR
"""

import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from safetensors.torch import save as safetensors_bytes
from torch.utils.data import DataLoader
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from supervised.distributed import batches, share, synchronise, weight
from supervised.evaluate import evaluate, make_accelerator
from supervised.losses import segmentation_loss
from supervised.model import ListeningSegmentor
from supervised.options import Options
from utils.cli import InputError, command
from utils.config import option_parser, parse_options, to_yaml
from utils.dataset import AVSDataset
from utils.figures import curves
from utils.files import write_bytes, write_text
from utils.layout import AVSBench


class Trainer:
    """One run, from its options to its folder. Every process of a distributed run builds one."""

    def __init__(self, options: Options, out: Path):
        check(options)
        self.options, self.out = options, out
        self.accelerator: Accelerator = make_accelerator(options)
        data = AVSBench(options.data.root, options.data.benchmark)
        size = options.data.image_size
        self.train_set = AVSDataset(data, "train", fraction=options.data.fraction, image_size=size)
        self.val_set = AVSDataset(data, "val", image_size=size)
        set_seed(options.train.seed)
        self.model = ListeningSegmentor(options.model)
        self.model.load_pretrained()
        synchronise(self.model)
        learnt = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(learnt, lr=options.train.lr)
        self.history: list[dict[str, Any]] = []
        self.resume()
        self.wrapped, self.optimizer = self.accelerator.prepare(self.model, self.optimizer)

    @property
    def best(self) -> float:
        """The best M_J on val so far; -1 before the first epoch."""
        return max((row["val_m_j"] for row in self.history), default=-1.0)

    def resume(self) -> None:
        """Go on from state.pt if there is one; refuse a folder that another configuration made."""
        config, state = self.out / "config.yaml", self.out / "state.pt"
        if config.is_file() and config.read_text() != to_yaml(self.options):
            raise InputError(f"{self.out} holds a run with other options ({config}); choose another --out")
        if state.is_file():
            saved = torch.load(state, map_location="cpu", weights_only=True)
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.history = saved["history"]

    def run(self) -> None:
        """Train the epochs that are left."""
        main = self.accelerator.is_main_process
        if main:
            write_text(self.out / "config.yaml", to_yaml(self.options))
        board = SummaryWriter(self.out / "tensorboard", purge_step=len(self.history)) if main else None
        for epoch in range(len(self.history), self.options.train.epochs):
            begin = time.perf_counter()
            row: dict[str, Any] = {"epoch": epoch, **self.epoch(epoch)}
            metrics = evaluate(
                self.model, self.val_set, self.accelerator, workers=self.options.data.workers, title="val"
            )
            numbers = metrics.result(metric_batch=1)
            row |= {"val_m_j": numbers["m_j"], "val_m_f": numbers["m_f"]}
            row["seconds"] = round(time.perf_counter() - begin, 2)
            improved = row["val_m_j"] > self.best
            self.history.append(row)
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

    def epoch(self, epoch: int) -> dict[str, float]:
        """One pass over the training clips; returns the mean losses over its videos."""
        train, rank, world = self.options.train, self.accelerator.process_index, self.accelerator.num_processes
        # The order depends on seed and epoch alone, so a resumed run and any number of processes see the same.
        seed = train.seed * 100_003 + epoch
        whole = batches(len(self.train_set), train.batch, seed)
        set_seed(seed + rank)
        loader = DataLoader(
            self.train_set,
            batch_sampler=[share(batch, rank, world) for batch in whole],
            num_workers=self.options.data.workers,
            pin_memory=self.accelerator.device.type == "cuda",
        )
        self.wrapped.train()
        sums = {"loss": 0.0, "bce": 0.0, "avm": 0.0}
        bar = tqdm(loader, desc=f"epoch {epoch + 1}", unit="step", disable=not self.accelerator.is_main_process)
        for items, batch in zip(bar, whole, strict=True):
            moved = {k: items[k].to(self.accelerator.device) for k in ("frames", "log_mel", "masks")}
            with self.accelerator.autocast():
                output = self.wrapped(moved)
            local = len(moved["masks"])
            loss = segmentation_loss(output, moved["masks"], self.options.loss, max(len(batch), local))
            factor = weight(local, len(batch), world)
            self.optimizer.zero_grad()
            self.accelerator.backward(loss.total * factor)
            self.optimizer.step()
            terms = torch.stack([loss.total, loss.bce, loss.avm]).detach() * factor
            for name, value in zip(sums, self.accelerator.reduce(terms, "mean").tolist(), strict=True):
                sums[name] += value * len(batch)
            bar.set_postfix(loss=f"{terms[0].item():.4f}")
            if not torch.isfinite(terms[0]):
                raise InputError(f"the loss is {terms[0].item()} in epoch {epoch + 1}; lower --train.lr")
        return {name: total / len(self.train_set) for name, total in sums.items()}

    def save(self, improved: bool) -> None:
        """Write the best model, the log and the resumable state, each atomically, the state last."""
        model = {name: value.contiguous().cpu() for name, value in self.model.state_dict().items()}
        if improved:
            write_bytes(self.out / "best.safetensors", safetensors_bytes(model))
        write_text(self.out / "log.csv", pd.DataFrame(self.history).to_csv(index=False))
        write_bytes(self.out / "curves.png", curves(self.history))
        buffer = io.BytesIO()
        state = {"model": model, "optimizer": self.optimizer.state_dict(), "history": self.history}
        torch.save(state, buffer)
        write_bytes(self.out / "state.pt", buffer.getvalue())


def check(options: Options) -> None:
    """Raise InputError for options that contradict each other."""
    if options.data.image_size % 32 or options.data.image_size < 32:
        raise InputError(f"data.image_size {options.data.image_size} is not a multiple of 32")
    if options.train.batch < 1 or options.train.epochs < 1:
        raise InputError("train.batch and train.epochs must be at least 1")
    if options.loss.distance != "none" and options.model.attention == "vv":
        raise InputError("loss.distance compares masks with sound, which model.attention vv does not hear")
    if options.loss.distance != "none" and not set(options.loss.stages) <= set(options.model.stages):
        raise InputError("loss.stages must be among model.stages: elsewhere there is no audio feature")


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python -m supervised.train")
    parser.add_argument("--out", type=Path | None, default=None, help="run folder")
    options, namespace = parse_options(parser, Options, argv)
    config = Path(str(namespace.config[0])) if namespace.config else None
    out = namespace.out or Path("runs") / (config.stem if config else options.data.benchmark)
    trainer = Trainer(options, Path(out))
    if len(trainer.history) >= options.train.epochs:
        print(f"{out}: all {options.train.epochs} epochs are done")
    trainer.run()
    if trainer.accelerator.is_main_process:
        print(f"best val M_J {trainer.best:.4f}. Next: python -m supervised.evaluate --run {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
