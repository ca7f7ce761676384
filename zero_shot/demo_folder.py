"""The folder of a demo: which one it is, whose demo it holds, and what a repeated command keeps of it.

demo.json says which video (by its content) and which options the folder belongs to. masks.jsonl lists the masks that
are complete, a line each, written after their files: a command that was killed resumes behind the last of them.
"""

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import yaml

from utils.cli import InputError
from utils.config import to_yaml
from utils.files import read_json, remove_partials, sha256, write_text
from utils.video_stream import VideoInfo
from zero_shot.options import Options

DEMOS = Path("runs/demo")
RECORD, MASK_LIST = "demo.json", "masks.jsonl"
MADE = ("config.yaml", "index.html", "overlay.mp4", "masks", "pictures", "heat", "prompts")
UNFINISHED = re.compile(r"\.(demo|masks|config|index|overlay)\.[0-9a-f]{8}\.partial\.\w+")  # by utils.files.atomic_path
IRRELEVANT = ("data", "run", "metric_batch")  # options that do not change what a demo shows
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:/")


@dataclass
class MaskRecord:
    """What became of a frame: its number from 1, its second from 0, and what was found there.

    silent: nothing sounds, so the mask is empty. part: of the frame that is marked, 0 to 1. words: what the sound was
    taken for. pictures: paths from the page by view (frame, heat, mask); empty if the page does not show this frame.
    """

    number: int
    second: int
    silent: bool
    part: float
    words: Sequence[str] = ()
    pictures: Mapping[str, str] = field(default_factory=dict)


def printable(path: Path) -> str:
    """A path as text that any output takes: what is not UTF-8, or not printable, becomes the replacement character."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in str(path))


def video_path(word: str) -> Path:
    """The path that VIDEO of the command line stands for. Raises InputError for a folder and for a URL."""
    path = Path(word).expanduser()
    if path.is_dir():
        videos = (f" such as {child}" for child in sorted(path.iterdir()) if child.suffix.lower() in (".mp4", ".mov"))
        raise InputError(f"{path}: a folder; name one video file{next(videos, ' in it')}")
    if URL.match(word) and not path.exists():
        raise InputError(f"{word}: a URL, and nothing is downloaded here; save the video and give the file's path")
    return path


def check_words(words: Sequence[str]) -> None:
    """Raise InputError for a file name that begins with a dash, which a command line takes for an option."""
    for word in words[: words.index("--")] if "--" in words else words:
        if word.startswith("-") and (Path(word).is_file() or re.fullmatch(r"-[^-].*\.(?!\d+$)\w{2,4}", word)):
            raise InputError(f"{word}: begins with a dash, as options do; if it is the video, write ./{word}")


def describe(options: Options, video: VideoInfo, digest: str, every: str, heat: bool, prompts: bool) -> dict[str, Any]:
    """What a demo shows, as plain data: demos of equal descriptions are the same. digest: sha256 of the video."""
    plain = yaml.safe_load(to_yaml(options))
    return {
        "video": printable(video.path),
        "sha256": digest,
        "width": video.width,
        "height": video.height,
        "frames": video.num_frames,
        "every": every,
        "heat": heat,
        "prompts": prompts,
        "options": {name: value for name, value in plain.items() if name not in IRRELEVANT},
        "weights": {path.name: sha256(path) for path in options.checkpoint_files() if path.is_file()},
    }


def choose_folder(video: VideoInfo, digest: str) -> Path:
    """The default folder: runs/demo/STEM, or with -2, -3, … where the ones before hold other videos' demos; says so."""
    stem = printable(Path(video.path.stem)).strip(".") or "video"
    for number in count(1):
        folder = DEMOS / (stem if number == 1 else f"{stem}-{number}")
        if not (folder / RECORD).is_file() or _owner(folder)[1] == digest:
            break
    if number > 1:
        print(f"{DEMOS / stem} holds the demo of another video; this one goes to {folder}")
    check_folder(folder, video, digest)
    return folder


def check_folder(out: Path, video: VideoInfo, digest: str) -> None:
    """Raise InputError where a demo of the video must not be written."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: is a file; choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be made ({error.strerror}); choose another --out") from error
    there = sorted(path.name for path in out.iterdir() if path.name != ".lock" and not UNFINISHED.fullmatch(path.name))
    others = [name for name in there if RECORD not in there or name not in (RECORD, MASK_LIST, *MADE)]
    if others:
        raise InputError(f"{out}: holds something else than a demo ({', '.join(others[:3])}); choose another --out")
    if out.resolve() in video.path.resolve().parents:
        raise InputError(f"{video.path}: lies in {out}, which is made anew; choose another --out")
    if RECORD in there and (owner := _owner(out))[1] != digest:
        raise InputError(f"{out}: holds the demo of another video ({owner[0]}); choose another --out")


def resume(out: Path, description: Mapping[str, Any], batch: int, total: int) -> list[MaskRecord]:
    """Make a folder that `check_folder` allows ready for a demo; returns the masks that are already there.

    All of what is there goes if the description differs, which is said; and what was made of all masks, if some lack.
    batch: frames that are computed together; of a batch that lacks a mask all are made again, for their rounding
    depends on their company. total: masks of the whole demo.
    """
    remove_partials(out)
    before = _described(out)
    differing = _differing(before, description)
    if differing and before:
        print(f"{printable(out)} holds a demo of this video with another {', '.join(differing)}; it is made anew")
    kept = [] if differing else _listed(out)
    kept = kept if len(kept) == total else kept[: len(kept) // batch * batch]
    if differing:
        # In this order: no mask counts without its line, so a command killed between these steps keeps nothing wrong.
        (out / MASK_LIST).unlink(missing_ok=True)
        write_record(out, description)
    for name in MADE if not kept else () if len(kept) == total else ("index.html", "overlay.mp4"):
        path = out / name
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    write_text(out / MASK_LIST, "".join(map(line, kept)))
    if kept:
        print(f"{printable(out)}: resuming; {len(kept)} of {total} masks are there already")
    return kept


def write_record(out: Path, description: Mapping[str, Any], **results: Any) -> None:
    """Write demo.json: the description and, once the demo is finished, its results."""
    write_text(out / RECORD, json.dumps({**description, **results}, indent=2) + "\n")


def finished_notes(out: Path) -> list[str] | None:
    """The notes of a demo that lacks nothing but masks, perhaps; None if it was not finished."""
    notes = _described(out).get("notes")
    there = all((out / name).is_file() for name in ("config.yaml", "index.html", "overlay.mp4"))
    return [str(note) for note in notes] if there and isinstance(notes, list) else None


def line(record: MaskRecord) -> str:
    """A mask's line of the list."""
    return json.dumps(asdict(record)) + "\n"


def _described(out: Path) -> dict[str, Any]:
    """demo.json; empty if it is missing or damaged."""
    try:
        found = read_json(out / RECORD)
    except InputError:
        return {}
    return found if isinstance(found, dict) else {}


def _owner(out: Path) -> tuple[str, str]:
    """The name and the sha256 of the video that a folder belongs to."""
    found = _described(out)
    return str(found.get("video", "unknown")), str(found.get("sha256", ""))


def _differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The names in `now` of what is not as it was; the path of a video is not what it is."""
    names = []
    for name, value in now.items():
        if isinstance(value, Mapping) and isinstance(before.get(name), Mapping):
            names += [f"{name}.{inner}" for inner in _differing(before[name], value)]
        elif name != "video" and before.get(name) != value:
            names.append(name)
    return [name.removeprefix("options.") for name in names]


def _listed(out: Path) -> list[MaskRecord]:
    """The masks of the list, up to the first that is not there."""
    records: list[MaskRecord] = []
    try:
        lines = (out / MASK_LIST).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    for text in lines:
        try:
            record = MaskRecord(**json.loads(text))
            files = [f"masks/{record.number:06d}.png", *record.pictures.values()]
            if record.number != len(records) + 1 or not all((out / file).is_file() for file in files):
                break
        except (ValueError, TypeError, AttributeError):  # cut off by the end of its process
            break
        records.append(record)
    return records
