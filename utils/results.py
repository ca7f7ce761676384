"""What a run leaves behind: metrics.json, per_frame.csv, and the tables made of them.

python -m utils.results runs/mini        one line for each result below the folder
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
from collections.abc import Sequence
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

PACKAGES = ("torch", "torchvision", "timm", "numpy", "av", "opencv-python-headless")
COLUMNS = ("m_j", "m_f", "metric_batch", "m_f_whole_set", "iou_dataset", "frames")


def package_versions() -> dict[str, str]:
    """Versions of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "absent"
    return found


def git_commit() -> str:
    """The commit of this checkout, with "+" if it has uncommitted changes; "unknown" outside git."""
    here = Path(__file__).parent
    try:
        run = lambda *words: subprocess.run(  # noqa: E731
            ["git", *words], cwd=here, capture_output=True, text=True, check=True
        ).stdout.strip()
        return run("rev-parse", "HEAD") + ("+" if run("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def write_metrics(path: Path, numbers: dict[str, Any], **facts: Any) -> None:
    """Write metrics.json: the numbers, the given facts, and the commit and versions that made them."""
    result = {**numbers, **facts, "commit": git_commit(), "versions": package_versions()}
    write_text(path, json.dumps(result, indent=2) + "\n")


def write_per_frame(path: Path, metrics: Metrics, clips: Sequence[Clip]) -> None:
    """Write one row per frame: IoU, F at probability 0.5, and pixels of the truth."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["name", "category", "second", "iou", "f_at_half", "truth_pixels"])
    for index, counts in sorted(metrics.videos.items()):
        half = counts.f_scores()[:, 127]  # threshold 127 is 0.5
        rows = zip(counts.iou().tolist(), half.tolist(), counts.positives.tolist(), strict=True)
        for second, (iou, f, pixels) in enumerate(rows, 1):
            clip = clips[index]
            writer.writerow([clip.name, clip.category, second, f"{iou:.6f}", f"{f:.6f}", int(pixels)])
    write_text(path, text.getvalue())


def format_metrics(numbers: dict[str, Any]) -> str:
    """The numbers in a line, for the end of a run."""
    return (
        f"{numbers['videos']} clips: M_J {numbers['m_j']:.4f}, M_F {numbers['m_f']:.4f} (batches of "
        f"{numbers['metric_batch']}), whole set M_F {numbers['m_f_whole_set']:.4f}, "
        f"data-set IoU {numbers['iou_dataset']:.4f}"
    )


def evenly_spaced(count: int, among: int) -> set[int]:
    """`count` places evenly spread over 0 ... among-1."""
    return set(np.linspace(0, among - 1, count).round().astype(int).tolist()) if count else set()


def write_masks(folder: Path, clip: Clip, masks: Sequence[np.ndarray]) -> None:
    """Write a clip's masks, (H, W) bool, one a second, as black-and-white PNGs."""
    for k, mask in enumerate(masks, 1):
        write_bytes(folder / clip.category / clip.name / f"{clip.name}_{k}.png", png_bytes(mask.astype(np.uint8) * 255))


def write_grid_image(folder: Path, clip: Clip, rows: ImageRows) -> None:
    """Write the picture sheet of a clip."""
    write_bytes(folder / f"{clip.category or 'ms3'}_{clip.name}.png", png_bytes(grid_image(rows)))


def write_row_images(folder: Path, data: AVSBench, clip: Clip, rows: ImageRows) -> None:
    """Write each row of a clip as a small picture of its own, and the sound: what study.page shows of the clip."""
    for name, pictures in rows.items():
        write_bytes(folder / clip.category / clip.name / f"{name}.webp", webp_bytes(row_image(pictures)))
    if data.wav(clip).is_file():  # what does not listen does without
        write_bytes(folder / clip.category / clip.name / "sound.mp3", mp3_bytes(*read_wav(data.wav(clip))))


def results_table(folder: Path) -> str:
    """A Markdown table with a row for each metrics*.json below the folder. Raises InputError if there is none."""
    files = sorted(folder.rglob("metrics*.json"))
    if not files:
        raise InputError(f"{folder}: no metrics.json below it")
    rows = [["run", "split", "sound", *COLUMNS]]
    for file in files:
        result = read_json(file)
        if not isinstance(result, dict):
            raise InputError(f"{file}: not the numbers of a run")
        values = [result.get(name, "") for name in COLUMNS]
        shown = [f"{value:.4f}" if isinstance(value, float) else str(value) for value in values]
        rows.append(
            [str(file.parent.relative_to(folder)), str(result.get("split", "")), str(result.get("sound", "")), *shown]
        )
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
