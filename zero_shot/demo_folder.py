"""The folder of a demo: how it is chosen, which video and options it belongs to, and how an interrupted demo resumes.

demo.json records the video (by its content) and the options. masks.jsonl lists the complete masks, one per line,
written after their files: a command that was killed resumes after the last of them.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Literal

import yaml

from utils.cli import InputError
from utils.config import to_yaml
from utils.files import read_json, remove_partials, sha256, write_text
from utils.video_info import VideoInfo
from utils.words import counted
from zero_shot.options import Options

MaskRate = Literal["second", "frame"]

DEMO_ROOT = Path("runs/demo")
RECORD, MASK_LIST = "demo.json", "masks.jsonl"
OUTPUT_NAMES = ("config.yaml", "index.html", "overlay.mp4", "masks", "images", "heatmaps", "prompts")
# As utils.files.atomic_path names files.
PARTIAL_FILE = re.compile(r"\.(demo|masks|config|index|overlay)\.[0-9a-f]{8}\.partial\.\w+")
UNUSED_OPTIONS = ("data", "run", "metric_batch")  # options that do not change a demo


@dataclass(frozen=True)
class DemoOutputs:
    """What a demo consists of.

    Attributes:
        mask_rate: one mask per second or per frame.
        heatmaps: save the similarity maps as images.
        prompts: save the frames with SAM's prompts as images.
    """

    mask_rate: MaskRate = "second"
    heatmaps: bool = False
    prompts: bool = False


@dataclass
class MaskRecord:
    """The mask of a frame.

    Attributes:
        number: of the frame, from 1.
        second: of the frame, from 0.
        silent: whether this second is silent, so that the mask is empty.
        area: fraction of the frame that the mask covers, 0 to 1.
        labels: what the method classified the audio as.
        label_scores: the most probable labels with their probabilities, for methods that state them.
        certain: how certain the mask is, in words; empty if nothing is known.
        images: paths relative to the page by view (frame, heatmap, mask); empty if the page does not show this frame.
    """

    number: int
    second: int
    silent: bool
    area: float
    labels: Sequence[str] = ()
    label_scores: Mapping[str, float] = field(default_factory=dict)
    certain: str = ""
    images: Mapping[str, str] = field(default_factory=dict)


def printable_path(path: Path) -> str:
    """A path as text; what is not UTF-8 or not printable becomes the replacement character."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(path))


def describe(options: Options, video: VideoInfo, digest: str, outputs: DemoOutputs) -> dict[str, Any]:
    """What determines a demo, as plain data: demos with equal descriptions are equal. `digest`: sha256 of the video."""
    plain = yaml.safe_load(to_yaml(options))
    return {
        "video": printable_path(video.path),
        "sha256": digest,
        "width": video.width,
        "height": video.height,
        "frames": video.num_frames,
        **asdict(outputs),
        "options": {name: value for name, value in plain.items() if name not in UNUSED_OPTIONS},
        "weights": _digests(options.checkpoint_files()),
        "labels": _digests(options.label_files()),
    }


def _digests(paths: Sequence[Path]) -> dict[str, str]:
    """The sha256 of the files that exist, by folder and name: every folder of transformers has a model.safetensors."""
    return {f"{path.parent.name}/{path.name}": sha256(path) for path in paths if path.is_file()}


def choose_folder(video: VideoInfo, digest: str) -> Path:
    """The default folder: runs/demo/STEM, or STEM-2, STEM-3, … if the ones before belong to other videos (printed)."""
    stem = printable_path(Path(video.path.stem)).strip(".") or "video"
    for number in count(1):
        folder = DEMO_ROOT / (stem if number == 1 else f"{stem}-{number}")
        if not (folder / RECORD).is_file() or _owner(folder)[1] == digest:
            break
    if number > 1:
        print(f"{DEMO_ROOT / stem} contains the demo of another video; this one is written to {folder}")
    check_folder(folder, video, digest)
    return folder


def check_folder(out: Path, video: VideoInfo, digest: str) -> None:
    """Check that a demo of the video may be written into a folder, and create it.

    Raises:
        InputError: if it may not: the folder contains other files or another video's demo, or cannot be created.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be created ({error.strerror}); choose another --out") from error
    there = sorted(
        path.name for path in out.iterdir() if path.name != ".lock" and not PARTIAL_FILE.fullmatch(path.name)
    )
    others = [name for name in there if RECORD not in there or name not in (RECORD, MASK_LIST, *OUTPUT_NAMES)]
    if others:
        raise InputError(f"{out}: contains other files than a demo's ({', '.join(others[:3])}); choose another --out")
    if out.resolve() in video.path.resolve().parents:
        raise InputError(f"{video.path}: is inside {out}, which is overwritten; choose another --out")
    if RECORD in there and (owner := _owner(out))[1] != digest:
        raise InputError(f"{out}: contains the demo of another video ({owner[0]}); choose another --out")


def resume(out: Path, description: Mapping[str, Any], window: int, total: int) -> list[MaskRecord]:
    """Prepare a folder that `check_folder` accepts.

    If the description differs, everything in the folder is removed, with a message. If masks are missing, the page and
    the overlay are removed.

    Args:
        out: the folder.
        description: by `describe`.
        window: masks that are predicted together; incomplete windows are predicted again, because masks depend on their
            window by tracking, or by rounding.
        total: number of masks of the complete demo.

    Returns:
        The masks that are complete.
    """
    remove_partials(out)
    before = _read_record(out)
    differing = _differing(before, description)
    if differing and before:
        print(f"{printable_path(out)} contains a demo of this video with another {', '.join(differing)}; overwritten")
    kept = [] if differing else _read_mask_list(out)
    kept = kept if len(kept) == total else kept[: len(kept) // window * window]
    if differing:
        # In this order: a mask without its line does not count, so an interruption between the steps does no harm.
        (out / MASK_LIST).unlink(missing_ok=True)
        write_record(out, description)
    for name in OUTPUT_NAMES if not kept else () if len(kept) == total else ("index.html", "overlay.mp4"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_text(out / MASK_LIST, "".join(map(record_line, kept)))
    if kept:
        print(f"{printable_path(out)}: resuming; {len(kept)} of {counted(total, 'mask')} done")
    return kept


def write_record(out: Path, description: Mapping[str, Any], **results: Any) -> None:
    """Write demo.json: the description and, once the demo is finished, its results."""
    write_text(out / RECORD, json.dumps({**description, **results}, indent=2) + "\n")


def finished_notes(out: Path) -> list[str] | None:
    """The notes of a finished demo, whose masks the caller checks; None if it was not finished."""
    notes = _read_record(out).get("notes")
    there = all((out / name).is_file() for name in ("config.yaml", "index.html", "overlay.mp4"))
    return [str(note) for note in notes] if there and isinstance(notes, list) else None


def record_line(record: MaskRecord) -> str:
    """A line of masks.jsonl."""
    return json.dumps(asdict(record)) + "\n"


def _read_record(out: Path) -> dict[str, Any]:
    """demo.json; empty if it is missing or damaged."""
    try:
        found = read_json(out / RECORD)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _owner(out: Path) -> tuple[str, str]:
    """Path and sha256 of the video that a folder belongs to."""
    found = _read_record(out)
    return str(found.get("video", "unknown")), str(found.get("sha256", ""))


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The keys whose values differ; the path of the video does not count."""
    names = []
    for name, value in now.items():
        if isinstance(value, Mapping) and isinstance(before.get(name), Mapping):
            names += [f"{name}.{inner}" for inner in _differing(before[name], value)]
        elif name != "video" and before.get(name) != value:
            names.append(name)
    return [name.removeprefix("options.") for name in names]


def _read_mask_list(out: Path) -> list[MaskRecord]:
    """The masks of the list, up to the first whose files are missing."""
    records: list[MaskRecord] = []
    try:
        lines = (out / MASK_LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for text in lines:
        try:
            record = MaskRecord(**json.loads(text))
            files = [f"masks/{record.number:06d}.png", *record.images.values()]
            if record.number != len(records) + 1 or not all((out / file).is_file() for file in files):
                break
        except (ValueError, TypeError, AttributeError):  # the last line was cut off
            break
        records.append(record)
    return records
