"""The files of AVSBench, for S4 (single source) and MS3 (multiple sources).

The two benchmarks differ only in the path templates and metadata columns defined here.
Layout: avsbench_data/README.md. Source: OpenNLPLab/AVSBench, `preprocess_scripts` and `avs_scripts/*/dataloader.py`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.cli import InputError

BenchmarkName = Literal["s4", "ms3"]
SoftMasks = Literal["refuse", "dither"]  # how grayscale masks are treated, see utils.masks
SPLITS = ("train", "val", "test")
CLIP_SECONDS = 5  # one frame, log-mel example and mask per second
MAX_NAME_LENGTH = 200  # bytes of a clip's or category's name; file systems allow 255 with prefixes and suffixes
FRAME_SIZE = (224, 224)  # height and width of frames and masks


@dataclass(frozen=True)
class Clip:
    """A row of the meta CSV.

    Attributes:
        name: The clip's id.
        split: train, val or test.
        category: Of the object; S4 only.
        start: Seconds at which the clip starts in its ten-second source; S4 only.
        objects: The classes of what sounds in an MS3 clip, joined by "_", if the meta CSV has a column `a_obj`.
    """

    name: str
    split: str
    category: str = ""
    start: int = 0
    objects: str = ""


@dataclass(frozen=True)
class Benchmark:
    """The names and path templates of a benchmark.

    Attributes:
        name: s4 or ms3.
        root: The default folder, in avsbench_data.
        meta: The meta CSV; this and all path templates are relative to the root.
        columns: Of the meta CSV, in order.
        log_mel: Without suffix: .npy is ours, .pkl is AVSBench's.
        masks_per_clip: Number of annotated frames, by split.
    """

    name: BenchmarkName
    root: str
    meta: str
    columns: tuple[str, ...]
    video: str
    frame: str
    wav: str
    log_mel: str
    mask: str
    masks_per_clip: dict[str, int]


BENCHMARKS: dict[str, Benchmark] = {
    "s4": Benchmark(
        name="s4",
        root="Single-source",
        meta="s4_meta_data.csv",
        columns=("name", "start", "category", "split"),
        video="s4_data/raw_videos/{split}/{category}/{name}.mp4",
        frame="s4_data/visual_frames/{split}/{category}/{name}/{name}_{k}.png",
        wav="s4_data/audio_wav/{split}/{category}/{name}.wav",
        log_mel="s4_data/audio_log_mel/{split}/{category}/{name}",
        mask="s4_data/gt_masks/{split}/{category}/{name}/{name}_{k}.png",
        masks_per_clip={"train": 1, "val": CLIP_SECONDS, "test": CLIP_SECONDS},
    ),
    "ms3": Benchmark(
        name="ms3",
        root="Multi-sources",
        meta="ms3_meta_data.csv",
        columns=("video_id", "split"),
        video="ms3_data/raw_videos/{name}.mp4",
        frame="ms3_data/visual_frames/{name}/{name}.mp4_{k}.png",
        wav="ms3_data/audio_wav/{split}/{name}.wav",
        log_mel="ms3_data/audio_log_mel/{split}/{name}",
        mask="ms3_data/gt_masks/{split}/{name}/{name}_{k}.png",
        masks_per_clip={"train": CLIP_SECONDS, "val": CLIP_SECONDS, "test": CLIP_SECONDS},
    ),
}


class AVSBench:
    """The clips and files of a benchmark.

    Args:
        root: The folder that holds the meta CSV.
        benchmark: s4 or ms3.

    Raises:
        InputError: The benchmark is unknown, or the meta CSV is missing or malformed.
    """

    def __init__(self, root: Path | str, benchmark: str):
        if benchmark not in BENCHMARKS:
            raise InputError(f"unknown benchmark '{benchmark}': choose s4 or ms3")
        self.root = Path(root)
        self.benchmark = BENCHMARKS[benchmark]
        self.clips = read_metadata(self.root / self.benchmark.meta, self.benchmark)

    def split(self, split: str) -> list[Clip]:
        """The clips of a split, in the order of the meta CSV. Raises InputError for an unknown split."""
        if split not in SPLITS:
            raise InputError(f"unknown split '{split}': choose train, val or test")
        return [clip for clip in self.clips if clip.split == split]

    def _path(self, template: str, clip: Clip, k: int = 0) -> Path:
        return self.root / template.format(name=clip.name, split=clip.split, category=clip.category, k=k)

    def video(self, clip: Clip) -> Path:
        """The raw video."""
        return self._path(self.benchmark.video, clip)

    def frames(self, clip: Clip) -> list[Path]:
        """The five frames."""
        return [self._path(self.benchmark.frame, clip, k + 1) for k in range(CLIP_SECONDS)]

    def wav(self, clip: Clip) -> Path:
        """The 16 kHz audio."""
        return self._path(self.benchmark.wav, clip)

    def log_mel(self, clip: Clip) -> Path:
        """The log-mel examples that this repository writes (.npy)."""
        return self._path(self.benchmark.log_mel + ".npy", clip)

    def pickled_log_mel(self, clip: Clip) -> Path:
        """The log-mel examples that AVSBench distributes (a pickled tensor)."""
        return self._path(self.benchmark.log_mel + ".pkl", clip)

    def masks(self, clip: Clip) -> list[Path]:
        """The ground-truth masks: one of an S4 training clip, else five."""
        count = self.benchmark.masks_per_clip[clip.split]
        return [self._path(self.benchmark.mask, clip, k + 1) for k in range(count)]


def read_metadata(path: Path, benchmark: Benchmark) -> list[Clip]:
    """Read a meta CSV.

    As in AVSBench, the id is the first column and the start the second, whatever their names; `category` and `split`
    are found by name. In MS3 a column `a_obj`, which is not in AVSBench's file, may name the classes of what sounds.

    Raises:
        InputError: The file is missing or malformed, a value is invalid, or a clip is listed twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; see avsbench_data/README.md on how to obtain or compose the data")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header, *rows = list(csv.reader(file)) or [[]]
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8 ({error})") from error
    for column in benchmark.columns:
        if column in ("category", "split") and column not in header:
            raise InputError(f"{path}: no column '{column}'; expected the columns {', '.join(benchmark.columns)}")
    clips = [_clip(path, number, benchmark, header, row) for number, row in enumerate(rows, 2) if row]
    if not clips:
        raise InputError(f"{path}: no clips in it")
    seen: set[tuple[str, str, str]] = set()
    for clip in clips:
        key = (clip.split, clip.category, clip.name)
        if key in seen:
            raise InputError(f"{path}: clip '{clip.name}' is listed twice in {clip.split}")
        seen.add(key)
    return clips


def _clip(path: Path, number: int, benchmark: Benchmark, header: Sequence[str], row: Sequence[str]) -> Clip:
    values = dict(zip(header, row, strict=False))
    split, location = values.get("split", ""), f"{path}, line {number}"
    if split not in SPLITS:
        raise InputError(f"{location}: split is {split!r}, not train, val or test")
    if not _is_file_name(row[0]):
        raise InputError(f"{location}: {row[0]!r} cannot be a file name")
    if "category" not in benchmark.columns:
        return Clip(row[0], split, objects=values.get("a_obj") or "")
    category = values.get("category", "")
    if not _is_file_name(category):
        raise InputError(f"{location}: {category!r} cannot be a category: it must be usable as a folder name")
    try:
        start = int(row[1])
    except ValueError:
        raise InputError(f"{location}: start is {row[1]!r}, not a whole number of seconds") from None
    return Clip(row[0], split, category, start)


def _is_file_name(text: str) -> bool:
    """Whether a text is usable as a file name: printable, without separators, and short enough for a suffix."""
    valid = text.isprintable() and not set(text) & set("/\\") and text.strip(". ")
    return bool(valid) and len(text.encode()) <= MAX_NAME_LENGTH
