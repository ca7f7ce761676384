"""Find the mask of every clip and second in a folder, whatever its layout.

A file belongs to a clip if its name is the clip's and a number, or a number alone in a folder of the clip's name. The
number at the end of its name is its second. That covers

    AVSBench, AVSegFormer        [CATEGORY/]VIDEO/VIDEO_0.png … VIDEO_4.png         from 0
    Sam4AVS, this repository     [CATEGORY/]VIDEO/VIDEO_1.png …, VIDEO.mp4_1.png    from 1
    COMBO, others                VIDEO/0.png, VIDEO/00000.png, VIDEO_0.png          from 0 or 1
    AL-Ref-SAM2                  VIDEO/1_video_mask.png                             from 1

If there is no such file at all, the files in the clips' folders that share one name but for the number and the clip's
name are the masks (VIDEO/frame_1.png, VIDEO/mask00001.png); files of several such names are refused. Beside files of
the layouts above they are pictures of something else, such as Sam4AVS's mask_pred_VIDEO_1.png, and stray.

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
OTHER_NAME = re.compile(r"(?P<prefix>.*?)(?P<number>(?<!\d)\d{1,9})")


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
    paths = list(_walk(root))
    parsed = [_parse(path, root, clips, by_name) for path in paths]
    if not any(parsed):
        parsed = _parse_other_names(paths, root, clips, by_name)
    for path, found in zip(paths, parsed, strict=True):
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
    name = match["clip"] if match["clip"] is not None else _folder_name(parents, by_name)
    index = _only_clip(name, parents, clips, by_name)
    return None if index is None else (index, int(match["number"]))


def _parse_other_names(
    paths: Sequence[Path], root: Path, clips: Sequence[Clip], by_name: dict[str, list[int]]
) -> list[tuple[int, int] | None]:
    """What `_parse` gives, for files whose names in the clips' folders end in a number.

    Raises:
        InputError: They have several names, so that it is not clear which are the masks.
    """
    parsed: list[tuple[int, int] | None] = []
    examples: dict[str, Path] = {}
    for path in paths:
        parents = path.relative_to(root).parts[:-1]
        name = _folder_name(parents, by_name)
        index = _only_clip(name, parents, clips, by_name) if path.suffix.lower() == ".png" else None
        stem = re.sub(rf"(?<![0-9A-Za-z]){re.escape(name)}(?![0-9A-Za-z])", "VIDEO", path.stem) if name else ""
        match = OTHER_NAME.fullmatch(stem)
        if index is None or match is None:
            parsed.append(None)
            continue
        examples.setdefault(match["prefix"], path.relative_to(root))
        parsed.append((index, int(match["number"])))
    if len(examples) > 1:
        listed = ", ".join(map(str, list(examples.values())[:3]))
        raise InputError(
            f"{root}: has files of several names in the clips' folders, such as {listed}; which are masks?"
        )
    return parsed


def _folder_name(parents: Sequence[str], by_name: dict[str, list[int]]) -> str:
    """The innermost folder that has the name of a clip; empty if there is none."""
    return next((parent for parent in reversed(parents) if parent in by_name), "")


def _only_clip(name: str, parents: Sequence[str], clips: Sequence[Clip], by_name: dict[str, list[int]]) -> int | None:
    """The index of the clip of a name, told from others of that name by its category; None if there is not one."""
    candidates = by_name.get(name, [])
    if len(candidates) > 1:  # of the same name in several categories
        candidates = [index for index in candidates if clips[index].category in parents]
    return candidates[0] if len(candidates) == 1 else None
