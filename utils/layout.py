"""AVSBench on disk: which file holds what, for S4 (single source) and MS3 (multiple sources).

The two benchmarks differ only in the path templates and meta-data columns written here.
Layout: avsbench_data/README.md. Source: OpenNLPLab/AVSBench, `preprocess_scripts` and `avs_scripts/*/dataloader.py`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.cli import InputError

BenchmarkName = Literal["s4", "ms3"]
SoftMasks = Literal["refuse", "dither"]  # what is done with masks in grey, see utils.masks
SPLITS = ("train", "val", "test")
CLIP_SECONDS = 5  # a clip has five seconds, hence five frames, five log-mel examples and five masks
MAX_NAME_LENGTH = 200  # bytes of a clip's or a category's name; file systems take 255 with all that is added
FRAME_SIZE = (224, 224)  # height, width of frames and masks


@dataclass(frozen=True)
class Clip:
    """One row of the meta data."""

    name: str
    split: str
    category: str = ""  # S4 only
    start: int = 0  # S4 only: where the clip starts in its ten-second source, in seconds


@dataclass(frozen=True)
class Benchmark:
    """Names and path templates of one benchmark, relative to its root."""

    name: BenchmarkName
    root: str
    meta: str
    columns: tuple[str, ...]  # of the meta CSV, in order
    video: str
    frame: str
    wav: str
    log_mel: str  # without suffix: .npy is ours, .pkl is AVSBench's
    mask: str
    masks_per_clip: dict[str, int]  # masks per clip, by split


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
    """The files of one benchmark below `root` (the folder that holds the meta CSV).

    Raises InputError if the benchmark is unknown or the meta CSV is missing or malformed.
    """

    def __init__(self, root: Path | str, benchmark: str):
        if benchmark not in BENCHMARKS:
            raise InputError(f"unknown benchmark '{benchmark}': choose s4 or ms3")
        self.root = Path(root)
        self.benchmark = BENCHMARKS[benchmark]
        self.clips = read_metadata(self.root / self.benchmark.meta, self.benchmark)

    def split(self, split: str) -> list[Clip]:
        """The clips of one split, in the order of the meta CSV."""
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
        """The 16 kHz sound."""
        return self._path(self.benchmark.wav, clip)

    def log_mel(self, clip: Clip) -> Path:
        """The log-mel examples as this repository writes them (.npy)."""
        return self._path(self.benchmark.log_mel + ".npy", clip)

    def pickled_log_mel(self, clip: Clip) -> Path:
        """The log-mel examples as AVSBench distributes them (a pickled tensor)."""
        return self._path(self.benchmark.log_mel + ".pkl", clip)

    def masks(self, clip: Clip) -> list[Path]:
        """The ground-truth masks: one for an S4 training clip, else five."""
        count = self.benchmark.masks_per_clip[clip.split]
        return [self._path(self.benchmark.mask, clip, k + 1) for k in range(count)]


def read_metadata(path: Path, benchmark: Benchmark) -> list[Clip]:
    """Read a meta CSV. As in AVSBench, the id is the first column and the start the second, whatever they
    are called, while `category` and `split` are found by name.

    Raises InputError naming the file, and the row where there is one.
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
    named = dict(zip(header, row, strict=False))
    split, place = named.get("split", ""), f"{path}, line {number}"
    if split not in SPLITS:
        raise InputError(f"{place}: split is {split!r}, not train, val or test")
    if not _is_file_name(row[0]):
        raise InputError(f"{place}: {row[0]!r} cannot be a file name")
    if "category" not in benchmark.columns:
        return Clip(row[0], split)
    category = named.get("category", "")
    if not _is_file_name(category):
        raise InputError(f"{place}: {category!r} cannot be a category, which a folder is named by")
    try:
        start = int(row[1])
    except ValueError:
        raise InputError(f"{place}: start is {row[1]!r}, not a whole number of seconds") from None
    return Clip(row[0], split, category, start)


def _is_file_name(text: str) -> bool:
    """Whether it names something within a folder, can be told in a line, and leaves room for what is added to it."""
    plain = text.isprintable() and not set(text) & set("/\\") and text.strip(". ")
    return bool(plain) and len(text.encode()) <= MAX_NAME_LENGTH
