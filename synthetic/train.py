"""Train the miniature weights, which ship in pretrained/mini, anew.

  python -m synthetic.train audioclip [--out DIR] [--seed S] [--steps N] [--minutes M]   drawn things
  python -m synthetic.train audioclip --pictures DIR [...]    things from NAME.png + NAME.ogg or NAME.wav
  python -m synthetic.train audioclip --backgrounds DIR [...] before photographs instead of drawn backdrops
  python -m synthetic.train audioclip --data DIR [...]        the train split of preprocessed clips
  python -m synthetic.train sam [--pictures DIR] [...]        SAM, from the exact masks of such scenes
  python -m synthetic.train MODEL --evaluate [...]            measure what is in --out, train nothing

OUT gets MODEL.safetensors, MODEL.json (sizes, recipe, figures), MODEL.png (the loss) and, as long as steps are
left, MODEL.state.pt. A run that was stopped, by --minutes or otherwise, goes on when the same command is given
again, and ends as if nothing had happened. A fresh run needs an OUT without weights.
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

from models.registry import MINI_DIR
from synthetic.tasks import TASKS
from synthetic.trainer import Metrics, TrainingRun
from utils.cli import InputError, Parser, cli_entry
from utils.option_ranges import MAX_WORKERS, POSITIVE_INT, SEED_INT, bounded_number
from utils.paths import expand_user, resolve_path

LARGEST_BATCH = 65536


def format_table(figures: Metrics) -> str:
    """The figures, a line for each measure and a column for each set."""
    names = list(dict.fromkeys(name for column in figures.values() for name in column))
    width = max(map(len, names))
    lines = [f"{n + 1}: {title}" for n, title in enumerate(figures)]
    lines.append(" " * width + "".join(f"{n + 1:>8}" for n in range(len(figures))))
    for name in names:
        lines.append(name.ljust(width) + "".join(f"{column.get(name, math.nan):8.4g}" for column in figures.values()))
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = Parser(__doc__, prog="python -m synthetic.train")
    models = parser.add_subparsers(dest="model", required=True)
    hears = models.add_parser("audioclip", help="the contrastive AudioCLIP", description=__doc__)
    sees = models.add_parser("sam", help="Segment Anything", description=__doc__)
    source = hears.add_mutually_exclusive_group()
    source.add_argument("--data", type=resolve_path, help="folder of preprocessed clips, with its meta CSV")
    # Mosaics take AudioCLIP's samples by fours.
    of = (hears, source, 1000, 32, 4, 2e-3), (sees, sees, 1500, 8, 1, 1.5e-3)
    for one, pictures, steps, batch, least, lr in of:
        pictures.add_argument(
            "--pictures", type=resolve_path, help="folder of pictures and sounds, not the drawn things"
        )
        one.add_argument("--backgrounds", type=resolve_path, help="folder of photographs instead of drawn backdrops")
        one.add_argument("--out", type=expand_user, default=MINI_DIR, help="default pretrained/mini")
        one.add_argument(
            "--start", type=resolve_path, help="folder of miniature weights to start from, not random ones"
        )
        one.add_argument("--seed", type=SEED_INT, default=0, help="default 0")
        one.add_argument("--steps", type=POSITIVE_INT, default=steps, help=f"of the whole schedule, default {steps}")
        one.add_argument(
            "--minutes",
            type=bounded_number(float, 0, exclude_minimum=True),
            default=math.inf,
            help="stop after so long; the same command goes on",
        )
        one.add_argument(
            "--batch",
            type=bounded_number(int, least, LARGEST_BATCH, multiple_of=least),
            default=batch,
            help=f"default {batch}",
        )
        one.add_argument(
            "--lr", type=bounded_number(float, 0, exclude_minimum=True), default=lr, help=f"default {lr:g}"
        )
        one.add_argument("--sizes", help="JSON of the model's sizes, for another miniature")
        one.add_argument(
            "--threads",
            type=bounded_number(int, 1, 1024),
            default=1,
            help="default 1: small networks gain little by more",
        )
        one.add_argument(
            "--workers",
            type=bounded_number(int, 0, MAX_WORKERS),
            default=1,
            help="processes that make samples, default 1",
        )
        one.add_argument("--evaluate", action="store_true", help="only measure the weights in --out")
        one.add_argument("--evaluation-seeds", type=SEED_INT, nargs="+", default=[0, 1, 2], help="default 0 1 2")
    hears.add_argument("--rounds", type=POSITIVE_INT, default=15, help="of one scene a kind, to measure on; default 15")
    sees.add_argument("--frames", type=POSITIVE_INT, default=40, help="to measure on, for each seed; default 40")
    args = parser.parse_args(argv)
    if args.model == "audioclip" and args.data and args.backgrounds:
        parser.error("--backgrounds are for scenes that are drawn; the clips of --data have theirs")
    if args.evaluate and args.start:
        parser.error("--evaluate trains nothing, so it takes no --start")
    return args


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Train or measure as the command line asks."""
    args = parse(argv)
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(1)  # before OpenCV starts threads, which a forked worker would wait for in vain
    task = TASKS[args.model](args)
    if args.evaluate:
        print(format_table(task.evaluate()))
        return 0
    try:
        run = TrainingRun(task)
        if run.done:
            print(f"{args.out}: all {args.steps} steps are done; --evaluate measures them")
            return 0
        if not run.train():
            print(f"{args.out}: {run.state.step} of {args.steps} steps are done; the same command goes on")
            return 0
        figures = task.evaluate()
        run.save(figures)
        run.saved.unlink()  # nothing is left to go on with
    except OSError as error:
        raise InputError(f"cannot write into {args.out}: {error}; mend that and run the command again") from error
    print(format_table(figures))
    size = run.weights.stat().st_size / 1e6
    print(f"{run.weights}: {size:.1f} MB, {run.state.step} steps in {run.state.seconds / 60:.1f} minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
