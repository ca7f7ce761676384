"""The files of AVSBench, for S4 (single source), MS3 (multiple sources) and AVSS (semantic).

What distinguishes the benchmarks is data: path templates, metadata columns, seconds of a clip, and labeled frames.
Layout: avsbench_data/README.md. Source: OpenNLPLab/AVSBench, `preprocess_scripts` and `avs_scripts/*/dataloader.py`.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from utils.cli import InputError

MaskBenchmarkName = Literal["s4", "ms3"]  # a mask of what sounds for each frame
BenchmarkName = Literal["s4", "ms3", "avss"]  # avss: a class for each pixel
SoftMasks = Literal["refuse", "dither"]  # how grayscale masks are treated, see utils.masks
SPLITS = ("train", "val", "test")
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
        objects: The classes of what sounds, joined by "_": in AVSS, and in MS3 if the meta CSV has a column `a_obj`.
        subset: In AVSS v1s (the clips of S4), v1m (of MS3) or v2 (new ones of ten seconds); "" elsewhere.
    """

    name: str
    split: str
    category: str = ""
    start: int = 0
    objects: str = ""
    subset: str = ""


@dataclass(frozen=True)
class Benchmark:
    """The names, path templates and lengths of a benchmark.

    Attributes:
        name: s4, ms3 or avss.
        root: The default folder, in avsbench_data.
        meta: The meta CSV; this and all path templates are relative to the root.
        columns: Of the meta CSV, in order.
        video: The raw video; "" in AVSS, which is distributed as frames and audio.
        frame: A frame; {k} is its second, counted from `first_index`.
        wav: The audio at 16 kHz.
        log_mel: Without suffix: .npy is ours, .pkl is AVSBench's.
        mask: The mask of a frame; in AVSS its classes as colors.
        seconds: Frames, log-mel examples and, where all are labeled, masks of a clip, by subset.
        first_only: The subsets in which only the first frame of a training clip is labeled.
        first_index: Number of the first frame in file names.
        classes: 1 for masks of what sounds, else the number of classes, background included.
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
    seconds: dict[str, int]
    first_only: tuple[str, ...] = ()
    first_index: int = 1
    classes: int = 1

    @property
    def max_seconds(self) -> int:
        """Seconds of the longest clips, to which the others are padded in a batch."""
        return max(self.seconds.values())

    def num_frames(self, clip: Clip) -> int:
        """Seconds of a clip."""
        return self.seconds[clip.subset]

    def num_labeled(self, clip: Clip) -> int:
        """How many of a clip's frames are labeled: the first, or all."""
        return 1 if clip.split == "train" and clip.subset in self.first_only else self.num_frames(clip)


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
        seconds={"": 5},
        first_only=("",),
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
        seconds={"": 5},
    ),
    "avss": Benchmark(
        name="avss",
        root="AVSBench-semantic",
        meta="metadata.csv",
        columns=("vid", "uid", "s_min", "s_sec", "a_obj", "split", "label"),
        video="",
        frame="{subset}/{name}/frames/{k}.jpg",
        wav="{subset}/{name}/audio_16k.wav",
        log_mel="{subset}/{name}/log_mel",
        mask="{subset}/{name}/labels_rgb/{k}.png",
        seconds={"v1s": 5, "v1m": 5, "v2": 10},
        first_only=("v1s",),
        first_index=0,
        classes=71,
    ),
}
SOURCE_AUDIO = "{subset}/{name}/audio.wav"  # of AVSS, as distributed
INDEX_LABELS = "{subset}/{name}/labels_semantic/{k}.png"  # of AVSS: the class index of each pixel


class AVSBench:
    """The clips and files of a benchmark.

    Args:
        root: The folder that holds the meta CSV.
        benchmark: s4, ms3 or avss.

    Raises:
        InputError: The benchmark is unknown, or the meta CSV is missing or malformed.
    """

    def __init__(self, root: Path | str, benchmark: str):
        if benchmark not in BENCHMARKS:
            raise InputError(f"unknown benchmark '{benchmark}': choose {', '.join(BENCHMARKS)}")
        self.root = Path(root)
        self.benchmark = BENCHMARKS[benchmark]
        self.clips = read_metadata(self.root / self.benchmark.meta, self.benchmark)

    @property
    def preprocess_command(self) -> str:
        """The command that preprocesses these clips, for messages."""
        return f"python preprocess_{self.benchmark.name}.py --root {self.root}"

    def split(self, split: str) -> list[Clip]:
        """The clips of a split, in the order of the meta CSV. Raises InputError for an unknown split."""
        if split not in SPLITS:
            raise InputError(f"unknown split '{split}': choose train, val or test")
        return [clip for clip in self.clips if clip.split == split]

    def _path(self, template: str, clip: Clip, k: int = 0) -> Path:
        return self.root / clip_path(template, clip, k)

    def _numbered(self, template: str, clip: Clip, count: int) -> list[Path]:
        return [self._path(template, clip, self.benchmark.first_index + k) for k in range(count)]

    def video(self, clip: Clip) -> Path:
        """The raw video."""
        return self._path(self.benchmark.video, clip)

    def frames(self, clip: Clip) -> list[Path]:
        """The frames, one per second."""
        return self._numbered(self.benchmark.frame, clip, self.benchmark.num_frames(clip))

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
        """The ground-truth masks, or the colored labels of AVSS, of the labeled frames."""
        return self._numbered(self.benchmark.mask, clip, self.benchmark.num_labeled(clip))

    def index_labels(self, clip: Clip) -> list[Path]:
        """The labels of AVSS as class indices, which a copy may have beside the colored ones or instead of them."""
        return self._numbered(INDEX_LABELS, clip, self.benchmark.num_labeled(clip))

    def source_audio(self, clip: Clip) -> Path:
        """The audio of AVSS as distributed, of any sample rate."""
        return self._path(SOURCE_AUDIO, clip)


def clip_path(template: str, clip: Clip, k: int = 0) -> str:
    """Fill in a path template of a benchmark; k is the number of a frame in file names."""
    return template.format(name=clip.name, split=clip.split, category=clip.category, subset=clip.subset, k=k)


def read_metadata(path: Path, benchmark: Benchmark) -> list[Clip]:
    """Read a meta CSV.

    As in AVSBench, the id is the first column and the start the second, whatever their names; `category` and `split`
    are found by name. In MS3 a column `a_obj`, which is not in AVSBench's file, may name the classes of what sounds. In
    AVSS all columns are found by name.

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
        if column in ("category", "split", "uid", "a_obj", "label") and column not in header:
            raise InputError(f"{path}: no column '{column}'; expected the columns {', '.join(benchmark.columns)}")
    clips = [_clip(path, number, benchmark, header, row) for number, row in enumerate(rows, 2) if row]
    if not clips:
        raise InputError(f"{path}: no clips in it")
    seen: set[tuple[str, str, str]] = set()
    for clip in clips:
        key = (clip.split, clip.category, clip.name) if benchmark.classes == 1 else ("", "", clip.name)
        if key in seen:
            raise InputError(f"{path}: clip '{clip.name}' is listed twice in {clip.split}")
        seen.add(key)
    return clips


def _clip(path: Path, number: int, benchmark: Benchmark, header: Sequence[str], row: Sequence[str]) -> Clip:
    values = dict(zip(header, row, strict=False))
    split, location = values.get("split", ""), f"{path}, line {number}"
    if split not in SPLITS:
        raise InputError(f"{location}: split is {split!r}, not train, val or test")
    name = values.get("uid", "") if benchmark.name == "avss" else row[0]
    if not _is_file_name(name):
        raise InputError(f"{location}: {name!r} cannot be a file name")
    if benchmark.name == "avss":
        return _avss_clip(location, name, split, values, benchmark)
    if "category" not in benchmark.columns:
        return Clip(name, split, objects=values.get("a_obj") or "")
    category = values.get("category", "")
    if not _is_file_name(category):
        raise InputError(f"{location}: {category!r} cannot be a category: it must be usable as a folder name")
    try:
        start = int(row[1])
    except ValueError:
        raise InputError(f"{location}: start is {row[1]!r}, not a whole number of seconds") from None
    return Clip(name, split, category, start)


def _avss_clip(location: str, name: str, split: str, values: dict[str, str], benchmark: Benchmark) -> Clip:
    subset, objects = values.get("label", ""), values.get("a_obj", "")
    if subset not in benchmark.seconds:
        raise InputError(f"{location}: label is {subset!r}, not {', '.join(benchmark.seconds)}")
    if not _is_file_name(objects):
        raise InputError(f"{location}: a_obj is {objects!r}; it must name classes and be usable as a file name")
    return Clip(name, split, objects=objects, subset=subset)


def _is_file_name(text: str) -> bool:
    """Whether a text is usable as a file name: printable, without separators, and short enough for a suffix."""
    valid = text.isprintable() and not set(text) & set("/\\") and text.strip(". ")
    return bool(valid) and len(text.encode()) <= MAX_NAME_LENGTH
