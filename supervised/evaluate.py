"""Evaluate a trained run: M_J and M_F on the test split.

    python -m supervised.evaluate --run-dir runs/supervised/s4_tpavi_resnet50
    python -m supervised.evaluate --run-dir DIR --audio shuffled     each clip with the audio of another one
    python -m supervised.evaluate --run-dir DIR --sheets 8 --masks   pictures: frames, truth, prediction

Writes metrics.json and per_frame.csv into the run folder, and on request sheets/, strips/ and masks/; all with
_SPLIT_AUDIO in their names for other than the test split and the original audio. Runs under torchrun too, with the same
numbers.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import get_args

import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from models.checkpoints import load_checkpoint
from supervised.data import AudioCondition, open_dataset
from supervised.losses import resize_logits
from supervised.model import AVSModel
from supervised.options import Options
from supervised.state import check_architecture
from utils.accelerator import make_accelerator
from utils.cli import Parser, cli_entry, progress_bar_options
from utils.config import from_yaml
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset, read_frame
from utils.device import set_matmul_precision, to_device
from utils.figures import GROUND_TRUTH_COLOR, PREDICTION_COLOR, overlay_masks
from utils.files import sha256
from utils.metrics import Metrics
from utils.option_ranges import NON_NEGATIVE_INT, POSITIVE_INT
from utils.paths import resolve_path
from utils.results import (
    evenly_spaced,
    format_metrics,
    write_grid_image,
    write_masks,
    write_metrics,
    write_per_frame,
    write_row_images,
)

ClipCallback = Callable[[int, Tensor, Tensor], None]  # (index, logits (5, H, W), masks (5, H, W)), on the CPU


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    dataset: AVSDataset,
    accelerator: Accelerator,
    *,
    batch: int = 4,
    workers: int = 0,
    show: ClipCallback | None = None,
    title: str = "evaluate",
) -> Metrics:
    """Evaluate every clip of a split once, shared among the processes; each gets the metrics of the whole split."""
    was_training = model.training
    model.eval()
    mine = list(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    metrics = Metrics()
    with tqdm(
        total=len(mine), desc=title, unit="clip", disable=not accelerator.is_main_process, **progress_bar_options()
    ) as bar:
        for items in load_batches(dataset, chunk(mine, batch), workers, accelerator.device.type == "cuda"):
            moved = {name: to_device(v, accelerator.device) for name, v in items.items() if isinstance(v, Tensor)}
            with accelerator.autocast():
                logits = model(moved).logits
            masks = items["masks"]
            logits = resize_logits(logits.float(), masks).cpu()
            for place, index in enumerate(items["index"].tolist()):
                metrics.add(index, logits[place], masks[place])
                if show:
                    show(index, logits[place], masks[place])
            bar.update(len(masks))
    model.train(was_training)
    metrics.gather(accelerator.num_processes)
    return metrics


def image_writer(dataset: AVSDataset, out: Path, suffix: str, sheets: int, strips: int, masks: bool) -> ClipCallback:
    """Save the predicted masks of every clip, and sheets and strips of so many clips, evenly spread over the split."""
    in_sheets, in_strips = evenly_spaced(sheets, len(dataset)), evenly_spaced(strips, len(dataset))

    def show(index: int, logits: Tensor, truth: Tensor) -> None:
        clip = dataset.clips[index]
        predicted = (logits > 0).numpy()
        if masks:
            write_masks(out / f"masks{suffix}", clip, list(predicted))
        if index not in in_sheets | in_strips:
            return
        frames = [read_frame(path) for path in dataset.data.frames(clip)]
        rows = {"frames": frames, "truth": overlay_masks(frames, list(truth.numpy() > 0.5), GROUND_TRUTH_COLOR)}
        rows["mask"] = overlay_masks(frames, list(predicted), PREDICTION_COLOR)
        if index in in_sheets:
            write_grid_image(out / f"sheets{suffix}", clip, rows)
        if index in in_strips:
            write_row_images(out / f"strips{suffix}", dataset.data, clip, rows)

    return show


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__)
    parser.add_argument("--run-dir", type=resolve_path, required=True, help="the folder that supervised.train wrote")
    parser.add_argument("--root", type=resolve_path, help="the data, if it is elsewhere than in training")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    parser.add_argument("--audio", choices=get_args(AudioCondition), default="original", help="audio of the clips")
    parser.add_argument(
        "--metric_batch",
        type=POSITIVE_INT,
        help="videos that share a threshold in M_F (default: the run's)",
    )
    parser.add_argument("--batch", type=POSITIVE_INT, default=4, help="videos at once; the numbers do not depend on it")
    parser.add_argument("--sheets", type=NON_NEGATIVE_INT, default=0, metavar="N", help="picture sheets of N clips")
    parser.add_argument(
        "--strips",
        type=NON_NEGATIVE_INT,
        default=0,
        metavar="N",
        help="pictures of N clips for the study's page",
    )
    parser.add_argument("--masks", action="store_true", help="save every predicted mask as PNG")
    args = parser.parse_args(argv)
    suffix = "" if (args.split, args.audio) == ("test", "original") else f"_{args.split}_{args.audio}"
    options = from_yaml(Options, args.run_dir / "config.yaml")
    checkpoint = args.run_dir / "best.safetensors"
    model = AVSModel(options.model, options.fidelity)
    check_architecture(checkpoint, options.model)
    load_checkpoint(model, checkpoint)
    digest = sha256(checkpoint)  # of what was loaded: training may go on meanwhile
    dataset = open_dataset(options.data, model.inputs, args.split, root=args.root, condition=args.audio)
    if args.split == "train" and options.data.benchmark == "s4":
        print("note: S4 training clips are labelled in their first frame only; its prediction alone is scored")
    accelerator = build_accelerator(options)
    model.to(accelerator.device)
    wanted = (args.sheets, args.strips, args.masks)
    show = image_writer(dataset, args.run_dir, suffix, *wanted) if any(wanted) else None
    begin = time.perf_counter()
    metrics = evaluate(
        model, dataset, accelerator, batch=args.batch, workers=options.data.num_workers, show=show, title=args.split
    )
    if not accelerator.is_main_process:
        return 0
    numbers = metrics.result(args.metric_batch or options.metric_batch)
    write_per_frame(args.run_dir / f"per_frame{suffix}.csv", metrics, dataset.clips)
    write_metrics(
        args.run_dir / f"metrics{suffix}.json",
        numbers,
        split=args.split,
        audio=args.audio,
        seconds=round(time.perf_counter() - begin, 3),
        fidelity=options.fidelity,
        image_size=options.data.image_size,
        seed=options.train.seed,
        checkpoints={checkpoint.name: digest},
    )
    print(f"{args.run_dir} · {args.split}, {args.audio} audio, {format_metrics(numbers)}")
    return 0


def build_accelerator(options: Options) -> Accelerator:
    """The device, precision and processes of a run."""
    set_matmul_precision(options.train.precision)
    precision = {"fp32": "no", "tf32": "no"}.get(options.train.precision, options.train.precision)
    return make_accelerator(options.train.device, precision)


if __name__ == "__main__":
    sys.exit(main())
