"""Evaluate a zero-shot method: M_J and M_F on a split of AVSBench.

    python -m zero_shot.evaluate --config zero_shot/configs/s4_point_local.yaml [--fidelity published] [--data.root DIR]
    python -m zero_shot.evaluate --config zero_shot/configs/mini/s4_point_local.yaml     synthetic clips, no download
    python -m zero_shot.evaluate --config FILE --sheets 8 --masks     images: frames, ground truth, heatmap, prediction
    python -m zero_shot.evaluate --config FILE --audio silent noise shuffled        robustness to other sounds
    torchrun --nproc_per_node 4 -m zero_shot.evaluate --config FILE   several processes, same results

The run folder (default runs/zero_shot/NAME-OF-THE-CONFIG, plus _published for that fidelity) gets config.yaml,
metrics.json, per_frame.csv and the requested images; with other audio also these files with names that end in
_SPLIT_AUDIO, and robustness.json and robustness_per_frame.csv, which compare it with the original. Embeddings and
proposals are cached in run.cache, so running an interrupted command again resumes it, and another threshold takes
little time.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from tqdm import tqdm

from utils.accelerator import make_accelerator
from utils.cli import cli_entry, progress_bar_options
from utils.config import from_yaml, option_parser, parse_options, to_yaml
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset
from utils.files import sha256, write_text
from utils.layout import AVSBench
from utils.lock import exclusive_lock
from utils.metrics import Metrics
from utils.option_ranges import NON_NEGATIVE_INT
from utils.paths import expand_user
from utils.results import (
    call_all,
    evenly_spaced,
    format_metrics,
    write_grid_image,
    write_masks,
    write_metrics,
    write_per_frame,
    write_row_images,
)
from utils.robustness_report import RobustnessRecorder, Run, add_audio_arguments, evaluate_conditions, run_label
from utils.run_identity import check_same_data, check_same_options, differing_options, files_match, record_data
from zero_shot.figures import prediction_rows
from zero_shot.methods import Prediction, ZeroShotMethod, build_method
from zero_shot.options import BASELINES, RUNTIME_ONLY, WEIGHTS, Options

# Called for each clip with its index in the split, its frames, predictions and ground truth masks (n, H, W) bool.
ClipCallback = Callable[[int, np.ndarray, list[Prediction], np.ndarray], None]


def open_split(options: Options, method: ZeroShotMethod) -> AVSDataset:
    """The clips of the split, with audio at the sample rate of the method."""
    dataset = AVSDataset(
        AVSBench(options.data.root, options.data.benchmark),
        options.data.split,
        images="raw",
        audio="none" if options.method in BASELINES else "waveform",
        sample_rate=method.sample_rate,
        int16_round_trip=method.int16_round_trip,
        soft_masks=options.data.soft_masks,
    )
    if options.data.max_clips:
        dataset.clips = dataset.clips[: options.data.max_clips]
    return dataset


def evaluate(
    method: ZeroShotMethod,
    dataset: AVSDataset,
    accelerator: Accelerator,
    batch_size: int,
    num_workers: int,
    on_clip: ClipCallback | None = None,
) -> Metrics:
    """Predict every clip once, with the clips divided among the processes.

    Args:
        method: with its networks on the accelerator's device.
        dataset: by `open_split`.
        accelerator: of the processes.
        batch_size: clips in a batch.
        num_workers: processes that read clips; 0 reads in this one.
        on_clip: called for each clip of this process.

    Returns:
        The metrics of the whole split, in every process.
    """
    indices = dataset.with_sound(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    metrics = Metrics()
    with tqdm(
        total=len(indices), desc="clips", unit="clip", disable=not accelerator.is_main_process, **progress_bar_options()
    ) as bar:
        for items in load_batches(dataset, chunk(indices, batch_size), num_workers, accelerator.device.type == "cuda"):
            videos, seconds = items["frames"].shape[:2]
            frames = list(items["frames"].flatten(0, 1).numpy())
            audio = items["waveform"].flatten(0, 1) if "waveform" in items else torch.zeros(len(frames), 0)
            predictions = method.predict(frames, audio)
            for video in range(videos):
                index, masks = int(items["index"][video]), items["masks"][video]
                clip = slice(video * seconds, (video + 1) * seconds)
                of_video = method.track(frames[clip], predictions[clip])
                predicted = torch.from_numpy(np.stack([prediction.mask for prediction in of_video])).float()
                # S4 training clips are labeled in their first frame only.
                metrics.add(index, predicted[: len(masks)], masks)
                if on_clip:
                    on_clip(index, items["frames"][video].numpy(), of_video, masks.numpy() > 0.5)
            bar.update(videos)
    metrics.gather(accelerator.num_processes)
    return metrics


def image_writer(dataset: AVSDataset, out: Path, suffix: str, sheets: int, strips: int, masks: bool) -> ClipCallback:
    """A callback that saves images.

    Args:
        dataset: by `open_split`.
        out: run folder.
        suffix: of the folders' names.
        sheets: number of clips, evenly spaced over the split, with one image of all rows each.
        strips: the same with one image per row and the audio, for the study's page.
        masks: whether to save the masks of every clip.
    """
    in_sheets, in_strips = evenly_spaced(sheets, len(dataset)), evenly_spaced(strips, len(dataset))

    def save_clip(index: int, frames: np.ndarray, predictions: list[Prediction], ground_truth: np.ndarray) -> None:
        clip = dataset.clips[index]
        if masks:
            write_masks(out / f"masks{suffix}", clip, [prediction.mask for prediction in predictions])
        rows = prediction_rows(list(frames), predictions, ground_truth) if index in in_sheets | in_strips else {}
        if index in in_sheets:
            write_grid_image(out / f"sheets{suffix}", clip, rows)
        if index in in_strips:
            write_row_images(out / f"strips{suffix}", dataset.data, clip, rows)

    return save_clip


def recorder_callback(recorder: RobustnessRecorder, run: Run) -> ClipCallback:
    """A callback for `evaluate` that records what robustness.json needs; masks have no probabilities."""

    def on_clip(index: int, frames: np.ndarray, predictions: list[Prediction], ground_truth: np.ndarray) -> None:
        masks = np.stack([prediction.mask for prediction in predictions[: len(ground_truth)]])
        recorder.add(run, index, masks, ground_truth)

    return on_clip


def prepare_folder(out: Path, options: Options) -> None:
    """Write the options into the run folder.

    Raises:
        InputError: if it contains a run with other options, data or weights; these may have moved to other paths.
    """
    config = out / "config.yaml"
    with exclusive_lock(out / ".lock", "is starting in it"):
        if config.is_file():
            previous = from_yaml(Options, config)
            names = differing_options(previous, options, ("data.root", *RUNTIME_ONLY))
            files = [each.checkpoint_files() for each in (previous, options)]
            if set(names) & set(WEIGHTS) and len(files[0]) == len(files[1]):
                hashes = [sha256(path) for path in files[0] if path.is_file()]
                if len(hashes) < len(files[0]) or files_match(hashes, files[1]):
                    names = [name for name in names if name not in WEIGHTS]
            check_same_options(out, previous, options, names)
            check_same_data(out, options.data.root, options.data.benchmark)
        write_text(config, to_yaml(options))
        record_data(out, options.data.root, options.data.benchmark)


def write_result(
    out: Path, suffix: str, options: Options, dataset: AVSDataset, metrics: Metrics, run: Run, seconds: float
) -> dict[str, Any]:
    """Write metrics.json and per_frame.csv, their names with the suffix; returns the metrics."""
    result = metrics.result(options.metric_batch)
    write_per_frame(out / f"per_frame{suffix}.csv", metrics, dataset.clips)
    write_metrics(
        out / f"metrics{suffix}.json",
        result,
        method=options.method,
        track=options.track,
        fidelity=options.fidelity,
        split=options.data.split,
        audio=run[0],
        audio_seed=run[1],
        seconds=round(seconds, 3),
        checkpoints={str(path): sha256(path) for path in options.checkpoint_files()},
    )
    return result


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = option_parser(Options, __doc__, "python -m zero_shot.evaluate")
    parser.add_argument("--out", type=Path | None, default=None, help="run folder")
    parser.add_argument("--sheets", type=NON_NEGATIVE_INT, default=0, metavar="N", help="save images of N clips")
    parser.add_argument(
        "--strips", type=NON_NEGATIVE_INT, default=0, metavar="N", help="save images of N clips for the study's page"
    )
    parser.add_argument("--masks", action="store_true", help="save every predicted mask as PNG")
    add_audio_arguments(parser)
    options, namespace = parse_options(parser, Options, argv)
    stem = Path(str(namespace.config[-1])).stem if namespace.config else f"{options.data.benchmark}_{options.method}"
    published = "_published" if options.fidelity == "published" else ""
    out = expand_user(namespace.out or Path("runs/zero_shot") / f"{stem}{published}")
    accelerator = make_accelerator(options.run.device)
    method = build_method(options, accelerator.device)
    dataset = open_split(options, method)
    if accelerator.is_main_process:
        prepare_folder(out, options)

    def evaluate_run(run: Run, suffix: str, recorder: RobustnessRecorder | None) -> None:
        original, begin = run[0] == "original", time.perf_counter()
        suffix = "" if original else suffix
        images = (namespace.sheets, namespace.strips if original else 0, namespace.masks)
        callbacks = [image_writer(dataset, out, suffix, *images)] if any(images) else []
        callbacks += [recorder_callback(recorder, run)] if recorder else []
        metrics = evaluate(
            method, dataset, accelerator, options.run.batch_size, options.data.num_workers, call_all(callbacks)
        )
        if not accelerator.is_main_process:
            return
        result = write_result(out, suffix, options, dataset, metrics, run, time.perf_counter() - begin)
        title = ", ".join(
            (
                options.method,
                options.fidelity,
                options.data.split,
                *(() if original else (run_label(run, namespace.audio_seeds),)),
            )
        )
        print(f"{out} · {title}, {format_metrics(result)}")

    evaluate_conditions(dataset, namespace, options.data.split, out, accelerator, evaluate_run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
