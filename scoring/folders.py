"""Find the mask of every clip and second in a folder, whatever its layout.

A file belongs to a clip if its name begins with the clip's, or if it lies in a folder of that name; the number at the
end of its name is its second. That covers

    AVSBench, AVSegFormer        [CATEGORY/]VIDEO/VIDEO_0.png … VIDEO_4.png         from 0
    Sam4AVS, this repository     [CATEGORY/]VIDEO/VIDEO_1.png …, VIDEO.mp4_1.png    from 1
    COMBO, others                VIDEO/0.png, VIDEO/00000.png, VIDEO_0.png          from 0 or 1
    AL-Ref-SAM2                  VIDEO/1_video_mask.png                             from 1

A folder counts from 0 if any of its files has the number 0. Other files are listed as stray and ignored.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from scoring.problems import Problem
from utils.cli import InputError
from utils.layout import Clip
from utils.words import counted

FILE_NAME = re.compile(r"(?:(?P<clip>.*?)(?:\.mp4)?_)?(?P<number>\d{1,9})(?:_video_mask)?")


@dataclass
class PredictionFolder:
    """The masks of a model.

    Attributes:
        root: the folder.
        files: by index of the clip and second, from 0.
        first: the number of the first second in the file names, 0 or 1.
        problems: stray files, and clips with two files for a second.
    """

    root: Path
    files: dict[int, dict[int, Path]]
    first: int
    problems: list[Problem] = field(default_factory=list)


def find_predictions(root: Path, clips: Sequence[Clip]) -> PredictionFolder:
    """Find the masks of clips below a folder.

    Raises:
        InputError: There is no such folder, or no mask of these clips in it.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    by_name: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        by_name[clip.name].append(index)
    numbered: dict[int, dict[int, Path]] = defaultdict(dict)
    problems: list[Problem] = []
    for path in _walk(root):
        found = _parse(path, root, clips, by_name)
        if found is None:
            problems.append(Problem("stray", str(path.relative_to(root))))
            continue
        index, number = found
        if number in numbered[index]:
            twin = numbered[index][number].relative_to(root)
            problems.append(Problem("duplicate", str(path.relative_to(root)), f"and {twin}"))
        numbered[index][number] = path
    if not any(numbered.values()):
        example = f"; such as {problems[0].where}" if problems else ""
        raise InputError(
            f"{root}: has no mask of {counted(len(clips), 'clip')} among {counted(len(problems), 'file')}{example}; "
            f"expected names such as {clips[0].name}/{clips[0].name}_1.png"
        )
    first = 0 if any(0 in numbers for numbers in numbered.values()) else 1
    files = {index: {number - first: path for number, path in each.items()} for index, each in numbered.items()}
    return PredictionFolder(root, files, first, problems)


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder except hidden ones, in a fixed order, each folder once, links to folders included."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        if (place := os.path.realpath(folder)) in seen:
            folders.clear()
            continue
        seen.add(place)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield Path(folder, name)


def _parse(path: Path, root: Path, clips: Sequence[Clip], by_name: dict[str, list[int]]) -> tuple[int, int] | None:
    """The index of the clip and the number of a mask file; None for other files."""
    match = FILE_NAME.fullmatch(path.stem) if path.suffix.lower() == ".png" else None
    if match is None:
        return None
    parents = path.relative_to(root).parts[:-1]
    name = match["clip"] if match["clip"] is not None else next((p for p in reversed(parents) if p in by_name), "")
    candidates = by_name.get(name, [])
    if len(candidates) > 1:  # of the same name in several categories
        candidates = [index for index in candidates if clips[index].category in parents]
    return (candidates[0], int(match["number"])) if len(candidates) == 1 else None
