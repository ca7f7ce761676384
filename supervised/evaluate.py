"""Evaluate a trained segmentor: M_J and M_F on a split.

    python -m supervised.evaluate --run-dir runs/supervised/s4_tpavi_resnet50
    python -m supervised.evaluate --run-dir DIR --audio silent noise shuffled      robustness to other sounds
    python -m supervised.evaluate --run-dir DIR --sheets 8 --masks   images: frames, ground truth, prediction
    python -m supervised.evaluate --reference FILE.pth --config supervised/configs/s4_tpavi_resnet50.yaml
        a checkpoint that the original's or AVSBench's code has saved, as the row that it was trained as (always under
        fidelity published); any option of the row can be added, such as --data.root DIR

Writes metrics.json and per_frame.csv into the run folder (with --reference: runs/supervised/CONFIG-NAME_FILE-NAME), and
on request sheets/, strips/ and masks/. For other splits than test, or other audio than the original, their names end in
_SPLIT_AUDIO. With other audio also robustness.json and robustness_per_frame.csv, which compare it with the original.
Under torchrun the numbers are the same.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor
from tqdm import tqdm

from supervised import measures
from supervised.data import open_dataset
from supervised.evaluate_arguments import open_model
from supervised.options import Options
from utils.accelerator import make_accelerator
from utils.class_figures import legend_image, overlay_classes, plot_confusion
from utils.classes import CLASSES
from utils.cli import cli_entry, progress_bar_options
from utils.dataloader import chunk, load_batches
from utils.dataset import AVSDataset
from utils.device import set_matmul_precision, to_device
from utils.figures import GROUND_TRUTH_COLOR, PREDICTION_COLOR, overlay_masks
from utils.files import write_bytes
from utils.layout import Clip
from utils.results import (
    call_all,
    evenly_spaced,
    format_metrics,
    write_frame_scores,
    write_grid_image,
    write_label_images,
    write_masks,
    write_metrics,
    write_per_class,
    write_per_frame,
    write_row_images,
)
from utils.robustness_report import RobustnessRecorder, Run, evaluate_conditions, run_label
from utils.semantic import SemanticMetrics
from utils.sound_conditions import clip_classes

ClipCallback = Callable[[int, Tensor, Tensor], None]  # (index, prediction, ground truth), as of measures.add_clip


@torch.no_grad()
def evaluate(
    model: torch.nn.Module,
    dataset: AVSDataset,
    accelerator: Accelerator,
    *,
    batch_size: int = 4,
    num_workers: int = 0,
    on_clip: ClipCallback | None = None,
    title: str = "evaluate",
) -> measures.AnyMetrics:
    """Evaluate every clip of a split once, distributed over the processes.

    Args:
        model: on the accelerator's device.
        dataset: the split.
        accelerator: device, precision and processes.
        batch_size: videos per batch; it does not affect the metrics.
        num_workers: processes that load clips.
        on_clip: called with the prediction and the ground truth of each clip of this process, as
            `measures.add_clip` returns them.
        title: of the progress bar.

    Returns:
        The metrics of the whole split, in every process.
    """
    was_training = model.training
    model.eval()
    mine = dataset.with_sound(range(accelerator.process_index, len(dataset), accelerator.num_processes))
    pin_memory = accelerator.device.type == "cuda"
    benchmark = dataset.data.benchmark
    metrics = measures.new_metrics(benchmark)
    with tqdm(
        total=len(mine), desc=title, unit="clip", disable=not accelerator.is_main_process, **progress_bar_options()
    ) as bar:
        for items in load_batches(dataset, chunk(mine, batch_size), num_workers, pin_memory):
            moved = {name: to_device(v, accelerator.device) for name, v in items.items() if isinstance(v, Tensor)}
            with accelerator.autocast():
                logits = model(moved).logits
            truths = items["masks" if benchmark.classes == 1 else "labels"]
            for index, clip_logits, truth in zip(items["index"].tolist(), logits, truths, strict=True):
                shown = measures.add_clip(metrics, benchmark, index, dataset.clips[index], clip_logits, truth)
                if on_clip:
                    on_clip(index, *shown)
            bar.update(len(truths))
    model.train(was_training)
    metrics.gather(accelerator.num_processes)
    return metrics


def image_writer(dataset: AVSDataset, out: Path, suffix: str, sheets: int, strips: int, masks: bool) -> ClipCallback:
    """A callback for `evaluate` that writes images of the predictions.

    Args:
        dataset: the split.
        out: the run folder.
        suffix: of the folders' names.
        sheets: number of clips, evenly spaced over the split, of which it writes a sheet.
        strips: number of clips of which it writes strips for the page of the study.
        masks: whether to write the masks of all clips.
    """
    with_sheet, with_strips = evenly_spaced(sheets, len(dataset)), evenly_spaced(strips, len(dataset))

    def on_clip(index: int, output: Tensor, ground_truth: Tensor) -> None:
        clip, semantic = dataset.clips[index], dataset.data.benchmark.classes > 1
        predicted = (output if semantic else output > 0).numpy()
        if masks:
            write_any = write_label_images if semantic else write_masks
            write_any(out / f"masks{suffix}", clip, list(predicted))
        if index not in with_sheet | with_strips:
            return
        frames, truth = dataset.frame_images(index), ground_truth.numpy()
        rows = {"frames": frames}
        if semantic:
            legend = np.union1d(truth, predicted)
            rows["ground_truth"], rows["prediction"] = (overlay_classes(frames, list(x)) for x in (truth, predicted))
            rows["classes"] = [legend_image(legend)]
        else:
            rows["ground_truth"] = overlay_masks(frames, list(truth > 0.5), GROUND_TRUTH_COLOR)
            rows["prediction"] = overlay_masks(frames, list(predicted), PREDICTION_COLOR)
        if index in with_sheet:
            write_grid_image(out / f"sheets{suffix}", clip, rows)
        if index in with_strips:
            write_row_images(out / f"strips{suffix}", dataset.data, clip, rows)

    return on_clip


def build_accelerator(options: Options) -> Accelerator:
    """Device, precision and processes of a run."""
    set_matmul_precision(options.train.precision)
    mixed_precision = {"fp32": "no", "tf32": "no"}.get(options.train.precision, options.train.precision)
    return make_accelerator(options.train.device, mixed_precision)


def recorder_callback(recorder: RobustnessRecorder, run: Run, dataset: AVSDataset) -> ClipCallback:
    """A callback for `evaluate` that records what robustness.json needs.

    In AVSS the mask is whatever is not background, and which of it is in a class of the new and of the own sound.
    """
    benchmark, sound = dataset.data.benchmark, dataset.sound

    def on_clip(index: int, output: Tensor, ground_truth: Tensor) -> None:
        truth = ground_truth.numpy() > 0.5
        if benchmark.classes == 1:
            probabilities = output.sigmoid().numpy()
            recorder.add(run, index, probabilities > 0.5, truth, probabilities)
            return
        predicted = output.numpy()
        own = clip_classes(benchmark.name, dataset.clips[index])
        heard, seen = (
            np.isin(predicted, [CLASSES.index(name) for name in names]) if names else None
            for names in (sound.heard_classes(index) if sound else None, own)
        )
        recorder.add(run, index, predicted > 0, truth, heard=heard, seen=seen)

    return on_clip


def write_tables(out: Path, suffix: str, metrics: measures.AnyMetrics, clips: Sequence[Clip]) -> None:
    """Write per_frame.csv, and of AVSS per_class.csv and confusion.png."""
    if not isinstance(metrics, SemanticMetrics):
        write_per_frame(out / f"per_frame{suffix}.csv", metrics, clips)
        return
    write_frame_scores(out / f"per_frame{suffix}.csv", metrics, clips)
    write_per_class(out / f"per_class{suffix}.csv", metrics)
    write_bytes(out / f"confusion{suffix}.png", plot_confusion(metrics.confusion, CLASSES))


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    args, model, options, digests = open_model(__doc__, argv)
    dataset = open_dataset(options.data, model.inputs, args.split, root=args.root, fidelity=options.fidelity)
    if args.split == "train" and (only := dataset.data.benchmark.first_only):
        clips = "S4" if only == ("",) else ", ".join(only)
        print(f"note: {clips} training clips have one labeled frame, the first; only its prediction is evaluated")
    accelerator = build_accelerator(options)
    model.to(accelerator.device)

    def evaluate_run(run: Run, suffix: str, recorder: RobustnessRecorder | None) -> None:
        original, begin = run[0] == "original", time.perf_counter()
        images = (args.sheets, args.strips if original else 0, args.masks)
        callbacks = [image_writer(dataset, args.run_dir, suffix, *images)] if any(images) else []
        callbacks += [recorder_callback(recorder, run, dataset)] if recorder else []
        metrics = evaluate(
            model,
            dataset,
            accelerator,
            batch_size=args.batch_size,
            num_workers=options.data.num_workers,
            on_clip=call_all(callbacks),
            title=args.split if original else f"{args.split}, {run[0]} audio",
        )
        if not accelerator.is_main_process:
            return
        numbers = measures.result(metrics, args.metric_batch or options.metric_batch)
        write_tables(args.run_dir, suffix, metrics, dataset.clips)
        write_metrics(
            args.run_dir / f"metrics{suffix}.json",
            numbers,
            split=args.split,
            audio=run[0],
            audio_seed=run[1],
            seconds=round(time.perf_counter() - begin, 3),
            fidelity=options.fidelity,
            image_size=options.data.image_size,
            mask_size=dataset.mask_size,
            seed=options.train.seed,
            checkpoints=digests,
        )
        describe = format_metrics if "m_j" in numbers else measures.format_result
        print(f"{args.run_dir} · {args.split}, {run_label(run, args.audio_seeds)} audio, {describe(numbers)}")

    evaluate_conditions(dataset, args, args.split, args.run_dir, accelerator, evaluate_run)
    return 0


if __name__ == "__main__":
    sys.exit(main())
