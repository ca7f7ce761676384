"""What each rule of AVSS's metric, and each defect of the original's, makes of the predictions of a run.

    python -m supervised.avss_rules --run-dir runs/supervised/avss_tpavi_resnet50 [--split val]

Prints a Markdown table: mean IoU and F of the same predictions as they are, and with one wrong pixel in each frame, in
a class that the ground truth lacks.
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import sys
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from supervised.data import open_dataset
from supervised.evaluate import build_accelerator, evaluate
from supervised.weights import load_run
from utils.cli import InputError, Parser, cli_entry
from utils.dataset import AVSDataset
from utils.paths import resolve_path
from utils.semantic import CLASSES, SemanticMetrics
from utils.words import counted


def with_wrong_pixel(predicted: np.ndarray, wrong: int) -> np.ndarray:
    """Predictions (T, H, W) whose first pixel is of class `wrong`."""
    changed = predicted.copy()
    changed[:, 0, 0] = wrong
    return changed


def absent_class(dataset: AVSDataset) -> int:
    """A class that no clip of the split names."""
    named = {name for clip in dataset.clips for name in clip.objects.split("_")}
    return next(index for index, name in enumerate(CLASSES) if index and name not in named)


def rule_values(metrics: SemanticMetrics) -> dict[str, tuple[float, float]]:
    """Mean IoU and F by description of the rule, each defect of the original's on its own and then together."""
    numbers, labeled = metrics.result(), metrics.labeled
    padded = (metrics.real + metrics.padding).means()
    rules = {
        "real frames, classes in the ground truth": "truth",
        "the same without background": "foreground",
        "defect: classes absent from the ground truth count as 0": "real",
        "defect: all of them, as published": "published",
        "defect: as published, “no background”, which drops woman": "published_nobg",
        "classes in ground truth or prediction": "seen",
    }
    values = {text: (float(numbers[f"miou_{rule}"]), float(numbers[f"f_{rule}"])) for text, rule in rules.items()}
    padding = "defect: padded frames scored, classes in the ground truth"
    values[padding] = (float(padded[0][labeled].mean()), float(padded[1][labeled].mean()))
    values["pooled over all pixels"] = (float(numbers["miou_pooled"]), float("nan"))
    order = [*list(rules)[:2], padding, *list(rules)[2:], "pooled over all pixels"]
    return {text: values[text] for text in order}


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    parser = Parser(__doc__, prog="python -m supervised.avss_rules")
    parser.add_argument("--run-dir", type=resolve_path, required=True, help="run folder of supervised.train")
    parser.add_argument("--split", choices=("train", "val", "test"), default="test")
    args = parser.parse_args(argv)
    model, options, _ = load_run(args.run_dir)
    dataset = open_dataset(options.data, model.inputs, args.split, fidelity=options.fidelity)
    benchmark = dataset.data.benchmark
    if benchmark.classes == 1:
        raise InputError(f"{args.run_dir}: a run on {benchmark.name}, which has no classes")
    accelerator = build_accelerator(options)
    as_predicted, with_pixel, wrong = SemanticMetrics(), SemanticMetrics(), absent_class(dataset)

    def on_clip(index: int, predicted: Tensor, labels: Tensor) -> None:
        length = len(labels) + benchmark.max_seconds - benchmark.num_frames(dataset.clips[index])
        as_predicted.add_clip(index, predicted, labels, length)
        with_pixel.add_clip(index, with_wrong_pixel(predicted.numpy(), wrong), labels, length)

    evaluate(model.to(accelerator.device), dataset, accelerator, on_clip=on_clip, title=args.split)
    print(f"{args.split}: {counted(as_predicted.frames, 'frame')}, {as_predicted.padded_frames} of padding, ", end="")
    classes = counted(int(as_predicted.labeled.sum()), "class", "classes")
    print(f"{classes} in the ground truth; one wrong pixel: {CLASSES[wrong]}\n")
    print("| rule | mIoU | F | mIoU, one wrong pixel a frame | F |\n|---|---|---|---|---|")
    changed = rule_values(with_pixel)
    for text, values in rule_values(as_predicted).items():
        cells = ["–" if np.isnan(value) else f"{value:.4f}" for value in (*values, *changed[text])]
        print(f"| {' | '.join([text, *cells])} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
