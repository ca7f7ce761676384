"""Train small weights of AudioCLIP or SAM on synthetic data, such as those that ship in pretrained/mini.

  python -m synthetic.train audioclip [--out DIR] [--seed S] [--steps N] [--minutes M]   built-in objects
  python -m synthetic.train audioclip --pictures DIR [...]     objects from NAME.png and NAME.ogg or NAME.wav
  python -m synthetic.train audioclip --backgrounds DIR [...]  photographs instead of plain backgrounds
  python -m synthetic.train audioclip --data DIR [...]         the train split of preprocessed clips
  python -m synthetic.train sam [--pictures DIR] [...]         SAM, on the exact masks of rendered scenes
  python -m synthetic.train MODEL --evaluate [...]             evaluate the weights in --out without training

Writes MODEL.safetensors (weights), MODEL.json (sizes, recipe, metrics), MODEL.png (loss curve) and, until the last
step, MODEL.state.pt. Running the same command again resumes a training that was stopped, by --minutes or otherwise,
and ends with the same weights. A new training needs an --out without weights.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import argparse
import math
import sys
from collections.abc import Sequence

import cv2
import torch

from models.weights import MINI_DIR
from synthetic.training.audioclip_task import AudioCLIPTask
from synthetic.training.sam_task import SamTask
from synthetic.training.task import Metrics, Task
from synthetic.training.trainer import Trainer
from utils.cli import InputError, Parser, cli_entry
from utils.option_ranges import MAX_WORKERS, POSITIVE_INT, SEED_INT, bounded_number
from utils.paths import expand_user, resolve_path
from utils.words import counted

TASKS: dict[str, type[Task]] = {"audioclip": AudioCLIPTask, "sam": SamTask}
MAX_BATCH = 65536


def format_table(metrics: Metrics) -> str:
    """Format metrics as a table with a line for each metric and a column for each evaluation set."""
    names = list(dict.fromkeys(name for column in metrics.values() for name in column))
    width = max(map(len, names))
    lines = [f"{n + 1}: {title}" for n, title in enumerate(metrics)]
    lines.append(" " * width + "".join(f"{n + 1:>8}" for n in range(len(metrics))))
    for name in names:
        lines.append(name.ljust(width) + "".join(f"{column.get(name, math.nan):8.4g}" for column in metrics.values()))
    return "\n".join(lines)


def add_common_options(parser: argparse.ArgumentParser, steps: int, batch: int, multiple: int, lr: float) -> None:
    """Add the options that both networks have, with the defaults of one; `multiple` divides the batch size."""
    add = parser.add_argument
    add("--backgrounds", type=resolve_path, help="folder of photographs (default: plain backgrounds)")
    add("--out", type=expand_user, default=MINI_DIR, help="default pretrained/mini")
    add("--start", type=resolve_path, help="folder of small weights to start from (default: random weights)")
    add("--seed", type=SEED_INT, default=0, help="default 0")
    add("--steps", type=POSITIVE_INT, default=steps, help=f"of the whole schedule (default {steps})")
    above_zero = bounded_number(float, 0, exclude_minimum=True)
    add("--minutes", type=above_zero, default=math.inf, help="stop after this time; the same command resumes")
    sizes = bounded_number(int, multiple, MAX_BATCH, multiple_of=multiple)
    add("--batch", type=sizes, default=batch, help=f"batch size (default {batch})")
    add("--lr", type=above_zero, default=lr, help=f"learning rate (default {lr:g})")
    add("--sizes", help="constructor arguments of the network, as JSON (default: those of pretrained/mini)")
    add(
        "--threads",
        type=bounded_number(int, 1, 1024),
        default=1,
        help="default 1; small networks gain little from more",
    )
    add(
        "--workers",
        type=bounded_number(int, 0, MAX_WORKERS),
        default=1,
        help="processes that render samples (default 1)",
    )
    add("--evaluate", action="store_true", help="only evaluate the weights in --out")
    add(
        "--evaluation-seeds",
        type=SEED_INT,
        nargs="+",
        default=[0, 1, 2],
        help="of the evaluation scenes (default 0 1 2)",
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = Parser(__doc__, prog="python -m synthetic.train")
    models = parser.add_subparsers(dest="model", required=True)
    audioclip = models.add_parser("audioclip", help="AudioCLIP, contrastively", description=__doc__)
    sam = models.add_parser("sam", help="Segment Anything", description=__doc__)
    pictures_help = "folder of object pictures and recordings (default: built-in objects)"
    source = audioclip.add_mutually_exclusive_group()
    source.add_argument("--data", type=resolve_path, help="folder of preprocessed clips, with its meta CSV")
    source.add_argument("--pictures", type=resolve_path, help=pictures_help)
    sam.add_argument("--pictures", type=resolve_path, help=pictures_help)
    add_common_options(audioclip, steps=1000, batch=32, multiple=4, lr=2e-3)  # mosaics take four samples each
    add_common_options(sam, steps=1500, batch=8, multiple=1, lr=1.5e-3)
    audioclip.add_argument(
        "--rounds", type=POSITIVE_INT, default=15, help="evaluation scenes per category (default 15)"
    )
    sam.add_argument("--frames", type=POSITIVE_INT, default=40, help="evaluation scenes per seed (default 40)")
    args = parser.parse_args(argv)
    if args.model == "audioclip" and args.data and args.backgrounds:
        parser.error("--backgrounds applies to rendered scenes, not to the clips of --data")
    if args.evaluate and args.start:
        parser.error("--start applies to training, not to --evaluate")
    return args


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)  # forked workers would wait forever for OpenCV's threads
    task = TASKS[args.model](args)
    if args.evaluate:
        print(format_table(task.evaluate()))
        return 0
    try:
        trainer = Trainer(task)
        if trainer.done:
            print(f"{args.out}: finished, {counted(args.steps, 'step')}; --evaluate evaluates the weights")
            return 0
        if not trainer.train():
            print(f"{args.out}: {trainer.state.step} of {counted(args.steps, 'step')} done; the same command resumes")
            return 0
        metrics = task.evaluate()
        trainer.save(metrics)
        trainer.checkpoint.unlink()
    except OSError as error:
        raise InputError(f"cannot write into {args.out}: {error}; fix that and run the command again") from error
    print(format_table(metrics))
    size = trainer.weights.stat().st_size / 1e6
    steps = counted(trainer.state.step, "step")
    print(f"{trainer.weights}: {size:.1f} MB, {steps} in {trainer.state.seconds / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
