"""Check the files of a clip of AVSS: frames, labels, audio, and the classes that metadata.csv names."""

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from utils.audio import read_wav
from utils.classes import CLASSES, parse_objects
from utils.cli import InputError
from utils.labels import read_avss_frame, read_color_labels, read_index_labels
from utils.layout import AVSBench, Clip
from utils.log_mel import read_log_mel
from utils.words import counted


def avss_problems(data: AVSBench, clip: Clip, features: bool) -> list[str]:
    """Check the files of one clip.

    Args:
        data: AVSS.
        clip: one of its clips.
        features: check what preprocessing makes of the audio, too.

    Returns:
        The problems, one line each.
    """
    problems = list(_unknown_classes(data, clip))
    problems += [line for paths in (data.frames(clip), *_labels(data, clip)) for line in _wrong_files(paths)]
    for k in range(len(data.frames(clip))):
        problems += _frame_problems(data, clip, k)
    audio = [data.source_audio(clip), *([data.wav(clip)] if features else [])]
    for path in audio:
        try:
            if not len(read_wav(path)[0]):
                problems.append(f"{path}: has no samples")
        except InputError as error:
            problems.append(str(error))
    if features:
        try:
            read_log_mel(data, clip)
        except InputError as error:
            problems.append(str(error))
    return problems


def _labels(data: AVSBench, clip: Clip) -> list[list[Path]]:
    """The label files of each kind that the clip has; labels_rgb if it has none."""
    kinds = [data.masks(clip), data.index_labels(clip)]
    return [paths for paths in kinds if paths[0].parent.is_dir()] or kinds[:1]


def _unknown_classes(data: AVSBench, clip: Clip) -> Iterator[str]:
    for name in parse_objects(clip.objects)[1]:
        similar = difflib.get_close_matches(name, CLASSES[1:], 1)
        hint = f"; perhaps {similar[0]}" if similar else ""
        yield f"{data.root / data.benchmark.meta}: clip {clip.name}: a_obj names {name!r}, which is not a class{hint}"


def _wrong_files(expected: Sequence[Path]) -> Iterator[str]:
    """What a folder of frames or labels has beside the expected files; `_frame_problems` reports what it lacks."""
    folder, names = expected[0].parent, {path.name for path in expected}
    if not folder.is_dir():
        return
    others = sorted(path.name for path in folder.iterdir() if path.name not in names)
    numbered = [name for name in others if Path(name).stem.isdigit() and Path(name).suffix == expected[0].suffix]
    if numbered:
        more = counted(len(numbered), "file")
        yield f"{folder}: has {more} more than the {len(names)} of this clip: {_listed(numbered)}"
    if stray := [name for name in others if name not in numbered]:
        yield f"{folder}: has {counted(len(stray), 'stray file')}: {_listed(stray)}"


def _listed(names: Sequence[str], count: int = 3) -> str:
    return ", ".join(names[:count]) + (" …" if len(names) > count else "")


def _frame_problems(data: AVSBench, clip: Clip, k: int) -> Iterator[str]:
    """Whether a frame and its labels are readable, of one size, and agree with each other."""
    shapes, labels = {}, []
    try:
        shapes["frame"] = read_avss_frame(data.frames(clip)[k]).shape[:2]
    except InputError as error:
        yield str(error)
    for paths in _labels(data, clip):
        if k >= len(paths):
            continue
        try:
            read = read_color_labels if paths == data.masks(clip) else read_index_labels
            labels.append(read(paths[k]))
            shapes[paths[k].parent.name] = labels[-1].shape
        except InputError as error:
            yield str(error)
    if len(set(shapes.values())) > 1:
        sizes = ", ".join(f"{name} {shape[1]}×{shape[0]}" for name, shape in shapes.items())
        yield f"{data.frames(clip)[k]}: sizes differ: {sizes}"
    elif len(labels) == 2 and (differing := int(np.count_nonzero(labels[0] != labels[1]))):
        yield f"{data.masks(clip)[k]}: labels_rgb and labels_semantic differ in {counted(differing, 'pixel')}"
