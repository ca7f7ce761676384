"""Write and tabulate the results of runs: metrics.json, per_frame.csv and images.

python -m utils.results runs/mini        a table with one row per result below the folder
"""

if __name__ == "__main__":  # before imports that take seconds
    from utils.environment import prepare_process

    prepare_process()

import csv
import io
import json
import platform
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from utils.audio import read_wav
from utils.cli import InputError, Parser, cli_entry
from utils.figures import ImageRows, grid_image, row_image
from utils.files import mp3_bytes, png_bytes, read_json, webp_bytes, write_bytes, write_text
from utils.layout import AVSBench, Clip
from utils.metrics import Metrics
from utils.paths import expand_user, resolve_path
from utils.semantic import PALETTE, SemanticMetrics
from utils.words import counted

PACKAGES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless")
COLUMNS = ("m_j", "m_f", "metric_batch", "m_f_whole_set", "iou_dataset", "frames")


def package_versions() -> dict[str, str]:
    """The versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "absent"
    return versions


def git_commit() -> str:
    """The commit of this checkout, with "+" if it has uncommitted changes; "unknown" outside git."""
    folder = Path(__file__).parent
    try:
        run = lambda *arguments: subprocess.run(  # noqa: E731
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_metrics(path: Path, metrics: dict[str, Any], **details: Any) -> None:
    """Write metrics.json: the metrics, details of the run, and the commit and package versions."""
    result = {**metrics, **details, "commit": git_commit(), "versions": package_versions()}
    write_text(path, json.dumps(result, indent=2) + "\n")


def write_per_frame(path: Path, metrics: Metrics, clips: Sequence[Clip]) -> None:
    """Write one row per frame: IoU, F at probability 0.5, and the number of ground-truth pixels."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "category", "second", "iou", "f_at_half", "ground_truth_pixels"])
    for index, counts in sorted(metrics.videos.items()):
        half = counts.f_scores()[:, 127]  # threshold 127 is 0.5
        rows = zip(counts.iou().tolist(), half.tolist(), counts.positives.tolist(), strict=True)
        for second, (iou, f, pixels) in enumerate(rows, 1):
            clip = clips[index]
            writer.writerow([clip.name, clip.category, second, f"{iou:.6f}", f"{f:.6f}", int(pixels)])
    write_text(path, text.getvalue())


def write_frame_scores(path: Path, metrics: SemanticMetrics, clips: Sequence[Clip]) -> None:
    """Write one row per frame of AVSS: mean IoU and F over the classes that are labeled or predicted in it."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "subset", "classes", "second", "iou", "f"])
    for index, frames in sorted(metrics.clips.items()):
        clip = clips[index]
        for second, (iou, f) in enumerate(frames, 1):
            writer.writerow([clip.name, clip.subset, clip.objects, second, f"{iou:.6f}", f"{f:.6f}"])
    write_text(path, text.getvalue())


def write_per_class(path: Path, metrics: SemanticMetrics) -> None:
    """Write one row per class of AVSS, see utils.semantic.SemanticMetrics.per_class."""
    text, rows = io.StringIO(), metrics.per_class()
    writer = csv.DictWriter(text, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def format_metrics(metrics: dict[str, Any]) -> str:
    """Format the metrics in one line, for the end of a run."""
    return (
        f"{counted(metrics['videos'], 'clip')}: M_J {metrics['m_j']:.4f}, M_F {metrics['m_f']:.4f} (batches of "
        f"{metrics['metric_batch']}), whole set M_F {metrics['m_f_whole_set']:.4f}, "
        f"data-set IoU {metrics['iou_dataset']:.4f}"
    )


def call_all(callbacks: Sequence[Callable[..., None]]) -> Callable[..., None] | None:
    """A function that calls all of these with its arguments; None if there are none."""
    if not callbacks:
        return None

    def call(*arguments: Any) -> None:
        for callback in callbacks:
            callback(*arguments)

    return call


def evenly_spaced(count: int, total: int) -> set[int]:
    """`count` evenly spaced indices below `total`."""
    return set(np.linspace(0, total - 1, count).round().astype(int).tolist()) if count else set()


def write_masks(folder: Path, clip: Clip, masks: Sequence[np.ndarray]) -> None:
    """Write the masks of a clip, (H, W) bool, one per second, as black-and-white PNGs."""
    for k, mask in enumerate(masks, 1):
        write_bytes(folder / clip.category / clip.name / f"{clip.name}_{k}.png", png_bytes(mask.astype(np.uint8) * 255))


def write_label_images(folder: Path, clip: Clip, labels: Sequence[np.ndarray]) -> None:
    """Write the predicted classes of a clip, (H, W) per second from 0, as PNGs in the palette's colors."""
    for second, classes in enumerate(labels):
        write_bytes(folder / clip.name / f"{clip.name}_{second}.png", png_bytes(PALETTE[classes]))


def write_grid_image(folder: Path, clip: Clip, rows: ImageRows) -> None:
    """Write all rows of a clip as one image."""
    write_bytes(folder / f"{clip.category or clip.subset or 'ms3'}_{clip.name}.png", png_bytes(grid_image(rows)))


def write_row_images(folder: Path, data: AVSBench, clip: Clip, rows: ImageRows) -> None:
    """Write each row of a clip as a small image, and its audio as MP3, for the study's page."""
    for name, images in rows.items():
        write_bytes(folder / clip.category / clip.name / f"{name}.webp", webp_bytes(row_image(images)))
    if data.wav(clip).is_file():  # configurations without audio do not need it
        write_bytes(folder / clip.category / clip.name / "audio.mp3", mp3_bytes(*read_wav(data.wav(clip))))


def results_table(folder: Path) -> str:
    """Make a Markdown table with a row for each metrics*.json below a folder. Raises InputError if there are none."""
    files = sorted(folder.rglob("metrics*.json"))
    if not files:
        raise InputError(f"{folder}: no metrics.json below it")
    rows = [["run", "split", "audio", *COLUMNS]]
    for file in files:
        result = read_json(file)
        if not isinstance(result, dict):
            raise InputError(f"{file}: not the metrics of a run")
        values = [result.get(name, "") for name in COLUMNS]
        cells = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]
        run, split, audio = file.parent.relative_to(folder), result.get("split", ""), result.get("audio", "")
        rows.append([str(run), str(split), str(audio), *cells])
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)) + " |" for row in rows)


@cli_entry
def main(argv: Sequence[str] | None = None) -> int:
    """Print the table of a folder of runs."""
    parser = Parser(__doc__)
    parser.add_argument("folder", type=resolve_path, nargs="?", default=Path("runs"))
    parser.add_argument("--out", type=expand_user, help="also write the table to this file")
    args = parser.parse_args(argv)
    text = results_table(args.folder)
    print(text)
    if args.out:
        write_text(args.out, text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
