"""Evaluate a zero-shot row of the study: M_J and M_F, from AudioCLIP's similarity and Segment Anything.

    python -m zero_shot.evaluate --config zero_shot/configs/s4_point_local.yaml [--fidelity published] [--data.root DIR]
    python -m zero_shot.evaluate --config zero_shot/configs/mini/s4_point_local.yaml        the miniature, no download
    python -m zero_shot.evaluate --config FILE --sheets 8 --masks     pictures: frames, truth, heat map, prompts, masks
    torchrun --nproc_per_node 4 -m zero_shot.evaluate --config FILE   several processes, same numbers

The run folder (default runs/zero_shot/NAME-OF-THE-CONFIG, with _published where that is asked for) gets config.yaml,
metrics.json, per_frame.csv and what is asked for. Embeddings and proposals are kept in run.cache, so a run that was
stopped loses little and another threshold costs almost nothing.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare

    prepare()

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from utils.cli import command, quiet_bar
from utils.config import from_yaml, option_parser, parse_options, to_yaml
from utils.dataset import AVSDataset
from utils.files import sha256, write_text
from utils.identity import differing, record_data, refuse_other_data, refuse_other_options, same_files
from utils.layout import AVSBench
from utils.loading import in_order, load
from utils.lock import alone
from utils.metrics import Metrics
from utils.places import expanded
from utils.processes import make_accelerator
from utils.ranges import COUNT_OR_NONE
from utils.results import headline, spread, write_masks, write_per_frame, write_result, write_sheet, write_strips
from zero_shot.build import build_setting
from zero_shot.figures import answer_rows
from zero_shot.options import FLOORS, HOW, WEIGHTS, Options
from zero_shot.settings import Answer, Setting
from zero_shot.weights import weight_files

Show = Callable[[int, np.ndarray, list[Answer], np.ndarray], None]  # (place in the split, frames, answers, masks)


def open_split(options: Options, setting: Setting) -> AVSDataset:
    """The clips of the split, with frames and sounds as the setting wants them."""
    dataset = AVSDataset(
        AVSBench(options.data.root, options.data.benchmark),
        options.data.split,
        images="raw",
        audio="none" if options.setting in FLOORS else "waveform",
        sample_rate=setting.sample_rate,
        int16_round_trip=setting.int16_round_trip,
        soft_masks=options.data.soft_masks,
    )
    if options.data.first:
        dataset.clips = dataset.clips[: options.data.first]
    return dataset


def evaluate(
    setting: Setting, dataset: AVSDataset, accelerator: Accelerator, batch: int, workers: int, show: Show | None = None
) -> Metrics:
    """Answer every clip once, shared among the processes; each gets the metrics of the whole split."""
    mine = list(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    metrics = Metrics()
    with tqdm(
        total=len(mine), desc="clips", unit="clip", disable=not accelerator.is_main_process, **quiet_bar()
    ) as bar:
        for items in load(dataset, in_order(mine, batch), workers, accelerator.device.type == "cuda"):
            videos, seconds = items["frames"].shape[:2]
            frames = list(items["frames"].flatten(0, 1).numpy())
            sounds = items["waveform"].flatten(0, 1) if "waveform" in items else torch.zeros(len(frames), 0)
            answers = setting.answer(frames, sounds)
            for video in range(videos):
                index, masks = int(items["index"][video]), items["masks"][video]
                mine_now = slice(video * seconds, (video + 1) * seconds)
                predicted = torch.from_numpy(np.stack([answer.mask for answer in answers[mine_now]])).float()
                # S4 training clips are labelled in their first frame only.
                metrics.add(index, predicted[: len(masks)], masks)
                if show:
                    show(index, items["frames"][video].numpy(), answers[mine_now], masks.numpy() > 0.5)
            bar.update(videos)
    metrics.gather(accelerator.num_processes)
    return metrics


def picture_writer(dataset: AVSDataset, out: Path, sheets: int, strips: int, masks: bool) -> Show:
    """Save the masks of every clip, and sheets and strips of so many clips, evenly spread over the split."""
    in_sheets, in_strips = spread(sheets, len(dataset)), spread(strips, len(dataset))

    def show(index: int, frames: np.ndarray, answers: list[Answer], truth: np.ndarray) -> None:
        clip = dataset.clips[index]
        if masks:
            write_masks(out / "masks", clip, [answer.mask for answer in answers])
        rows = answer_rows(list(frames), answers, truth) if index in in_sheets | in_strips else {}
        if index in in_sheets:
            write_sheet(out / "sheets", clip, rows)
        if index in in_strips:
            write_strips(out / "strips", dataset.data, clip, rows)

    return show


def prepare_folder(out: Path, options: Options) -> None:
    """Leave the options in the run folder; refuse one that holds a run of others.

    Data and weights may have moved."""
    config = out / "config.yaml"
    with alone(out / ".lock", "is just starting in it"):
        if config.is_file():
            held = from_yaml(Options, config)
            names = differing(held, options, ("data.root", *HOW))
            files = [weight_files(each) for each in (held, options)]
            if set(names) & set(WEIGHTS) and len(files[0]) == len(files[1]):
                there = [sha256(path) for path in files[0] if path.is_file()]
                if len(there) < len(files[0]) or same_files(there, files[1]):
                    names = [name for name in names if name not in WEIGHTS]
            refuse_other_options(out, held, options, names)
            refuse_other_data(out, options.data.root, options.data.benchmark)
        write_text(config, to_yaml(options))
        record_data(out, options.data.root, options.data.benchmark)


@command
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python -m zero_shot.evaluate")
    parser.add_argument("--out", type=Path | None, default=None, help="run folder")
    parser.add_argument("--sheets", type=COUNT_OR_NONE, default=0, help="picture sheets of so many clips")
    parser.add_argument(
        "--strips", type=COUNT_OR_NONE, default=0, help="pictures for the study's page, of so many clips"
    )
    parser.add_argument("--masks", action="store_true", help="save every mask as PNG")
    options, namespace = parse_options(parser, Options, argv)
    stem = Path(str(namespace.config[-1])).stem if namespace.config else f"{options.data.benchmark}_{options.setting}"
    published = "_published" if options.fidelity == "published" else ""
    out = expanded(namespace.out or Path("runs/zero_shot") / f"{stem}{published}")
    accelerator = make_accelerator(options.run.cpu)
    setting = build_setting(options, accelerator.device)
    dataset = open_split(options, setting)
    if accelerator.is_main_process:
        prepare_folder(out, options)
    wanted = (namespace.sheets, namespace.strips, namespace.masks)
    show = picture_writer(dataset, out, *wanted) if any(wanted) else None
    begin = time.perf_counter()
    metrics = evaluate(setting, dataset, accelerator, options.run.batch, options.data.workers, show)
    if not accelerator.is_main_process:
        return 0
    numbers = metrics.result(options.metric_batch)
    write_per_frame(out / "per_frame.csv", metrics, dataset.clips)
    write_result(
        out / "metrics.json",
        numbers,
        setting=options.setting,
        fidelity=options.fidelity,
        split=options.data.split,
        sound="real",
        seconds=round(time.perf_counter() - begin, 3),
        checkpoints={str(path): sha256(path) for path in weight_files(options)},
    )
    print(f"{out} · {options.setting}, {options.fidelity}, {options.data.split}, {headline(numbers)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
