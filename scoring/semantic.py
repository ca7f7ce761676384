"""Score the masks of several models on AVSS: the class of each pixel, under every rule of utils.semantic."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from scoring.binary import Incomplete, Model, condition_result, extra_frames, in_threads, measure_clip
from scoring.decode import Format, fit_size, read_indices, read_pixels
from scoring.folders import find_predictions
from scoring.problems import MaskError, Problem
from utils.classes import CLASSES, PALETTE, decode, unknown_pixels
from utils.cli import InputError
from utils.labels import UnknownColors, UnknownColorsError, fit, read_labels
from utils.layout import AVSBench, Clip
from utils.robustness import FrameMeasures
from utils.semantic import SemanticMetrics

RULES = [
    *(f"{measure}_{rule}" for rule in ("published", "published_nobg", "real", "seen") for measure in ("miou", "f")),
    *(f"{measure}_{rule}" for rule in ("truth", "foreground") for measure in ("miou", "f")),
    "miou_pooled",
]
CLASS_COLUMNS = ("class", "name", "iou", "f", "frames", "iou_pooled", "labeled_pixels", "predicted_pixels")


@dataclass
class SemanticScore:
    """The result of a model.

    Attributes:
        model: whose masks.
        metrics: the sums over all scored frames.
        measures: the areas of the foreground in each scored clip and, under a sound condition, its agreement with that
            of the original sound's masks.
        original: the same of the original sound's masks, where they are given.
        problems: what is wrong with its files.
        unknown: for each ground truth with pixels of no class, how many were taken for background.
    """

    model: Model
    metrics: SemanticMetrics = field(default_factory=SemanticMetrics)
    measures: list[FrameMeasures] = field(default_factory=list)
    original: list[FrameMeasures] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unknown: list[int] = field(default_factory=list)

    @property
    def clips(self) -> dict[int, list[tuple[float, float]]]:
        """For each scored clip, the mean IoU and F of each frame over the classes in it."""
        return self.metrics.clips

    def result(self, condition: bool, negative: bool) -> dict[str, float]:
        """The values of all rules; under a sound condition, its measures; arguments as of `binary.ModelScore`."""
        if condition:
            return condition_result(self.measures, self.original, negative)
        values = self.metrics.result()
        return {rule: float(values[rule]) for rule in RULES}


def open_model(folder: Path, name: str, clips: Sequence[Clip], form: Format | None = None) -> Model:
    """Find the masks of a model and decide their format; InputError if there are none, or they have no classes."""
    found = find_predictions(folder, clips)
    if form in ("binary", "probability"):
        raise InputError(f"--format {form} has no classes; masks of AVSS are palette or index")
    return Model(name, found, form or _detect(found.files))


def _detect(files: dict[int, dict[int, Path]]) -> Format:
    """palette if masks have colors, else index, by the first mask that decides it.

    A black mask is background in both; 128 and 192 are no index, and 64 may be either.

    Raises:
        InputError: All masks are black but for 64.
    """
    gray = {red for red, green, blue in PALETTE.tolist() if red == green == blue}  # 0, 64, 128 and 192
    unclear = None
    for path in _spread([list(seconds.values()) for seconds in files.values()]):
        try:
            pixels = read_pixels(path)
        except MaskError:
            continue  # reported when it is scored
        values = set(np.unique(pixels).tolist())
        if pixels.ndim == 3 or (values <= gray and max(values) >= len(CLASSES)):
            return "palette"
        if not values <= gray:
            return "index"
        unclear = unclear or (path if max(values) > 0 else None)
    if unclear:
        raise InputError(
            f"{unclear}: holds 0 and 64, an index or a gray of the palette; give --format index or palette"
        )
    return "index"


def _spread(clips: Sequence[list[Path]]) -> Iterator[Path]:
    """All files, one of each clip in turn, of another second in every clip."""
    for turn in range(max(map(len, clips), default=0)):
        yield from (paths[(clip + turn) % len(paths)] for clip, paths in enumerate(clips) if turn < len(paths))


def read_classes(path: Path, form: Format) -> np.ndarray:
    """The class of each pixel: (H, W) uint8.

    Raises:
        MaskError: The file cannot be read, or has colors or indices that are no class.
    """
    if form == "index":
        indices = read_indices(path)
        if (top := int(indices.max(initial=0))) >= len(CLASSES):
            raise MaskError(Problem("classes", str(path), f"holds {top}"))
        return indices.astype(np.uint8)
    pixels = read_pixels(path)
    rgb = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB if pixels.ndim == 2 else cv2.COLOR_BGR2RGB)
    if (outside := unknown_pixels(rgb)).any():
        color = ", ".join(map(str, rgb[outside][0].tolist()))
        detail = f"has {np.count_nonzero(outside)} of {outside.size} pixels such as ({color}); were they interpolated?"
        raise MaskError(Problem("colors", str(path), detail))
    return decode(rgb)


def score_models(
    data: AVSBench,
    clips: Sequence[Clip],
    models: Sequence[Model],
    *,
    incomplete: Incomplete = "refuse",
    resize: bool = False,
    unknown_colors: UnknownColors = "refuse",
    jobs: int | None = None,
) -> list[SemanticScore]:
    """Score models on the same clips; arguments, result and errors as of `scoring.binary.score_models`.

    `unknown_colors` says how ground truths with pixels of no class are treated, see `utils.labels.read_labels`.
    """
    scores = [SemanticScore(model, problems=list(model.folder.problems)) for model in models]
    cv2.setNumThreads(1)  # the clips are the unit of parallel work
    work = partial(_read_clip, data, clips, models, incomplete, resize, unknown_colors)
    for index, (labels, unknown, found) in enumerate(in_threads(work, len(clips), jobs)):
        for score, (masks, original, problems) in zip(scores, found, strict=True):
            score.problems += problems
            score.unknown += unknown
            if masks is None or (score.model.original and original is None):
                continue
            score.metrics.add_clip(index, np.stack(masks), np.stack(labels), data.benchmark.max_seconds)
            score.measures.append(measure_clip(masks, labels, original or masks))
            if original:
                score.original.append(measure_clip(original, labels, original))
    return scores


_Masks = list[np.ndarray] | None  # of a clip; None if it is skipped


def _read_clip(
    data: AVSBench,
    clips: Sequence[Clip],
    models: Sequence[Model],
    incomplete: Incomplete,
    resize: bool,
    unknown_colors: UnknownColors,
    index: int,
) -> tuple[list[np.ndarray], list[int], list[tuple[_Masks, _Masks, list[Problem]]]]:
    """The labels of a clip and their pixels of no class, and each model's classes, those under the original sound, and
    its problems."""
    clip, labels, unknown = clips[index], [], []
    for k in range(data.benchmark.num_labeled(clip)):
        try:
            label = read_labels(data, clip, k)
        except UnknownColorsError as error:
            if unknown_colors == "refuse":
                raise InputError(f"{error}; see --unknown-colors") from error
            label = read_labels(data, clip, k, unknown_colors)
            unknown.append(error.pixels)
        labels.append(fit(label, label=True))
    found = []
    for model in models:
        # The original pads clips of five seconds to ten, and saves the padding too.
        problems = list(extra_frames(clip, model.folder, index, data.benchmark.max_seconds))
        masks = _read_masks(clip, index, model, labels, incomplete, resize, problems)
        original = None
        if model.original:
            original = _read_masks(clip, index, model.original, labels, incomplete, resize, problems)
        found.append((masks, original, problems))
    return labels, unknown, found


def _read_masks(
    clip: Clip,
    index: int,
    model: Model,
    labels: Sequence[np.ndarray],
    incomplete: Incomplete,
    resize: bool,
    problems: list[Problem],
) -> _Masks:
    """The classes of each labeled frame; None if one of them is unusable and the clip is skipped."""
    files, masks, usable = model.folder.files.get(index, {}), [], True
    for second, label in enumerate(labels):
        mask = np.zeros(label.shape, np.uint8)
        try:
            if second not in files:
                number = second + model.folder.first
                raise MaskError(Problem("missing", f"{model.folder.root}: {clip.name}", f"number {number}"))
            mask = fit_size(files[second], read_classes(files[second], model.form), label.shape, resize)
        except MaskError as error:
            problems.append(error.problem)
            usable = usable and incomplete == "empty"
        masks.append(mask)
    return masks if usable else None


def video_rows(scores: Sequence[SemanticScore], clips: Sequence[Clip]) -> Iterable[list[Any]]:
    """A line for each model and video: its frames, and the means of their IoU and F."""
    for score in scores:
        for index, frames in sorted(score.clips.items()):
            clip = clips[index]
            means = np.mean(frames, axis=0)
            yield [score.model.name, clip.category, clip.name, len(frames), *(f"{value:.6f}" for value in means)]


def frame_rows(scores: Sequence[SemanticScore], clips: Sequence[Clip]) -> Iterable[list[Any]]:
    """A line for each model and frame: the mean IoU and F over the classes that are labeled or predicted in it."""
    for score in scores:
        for index, frames in sorted(score.clips.items()):
            clip = clips[index]
            for second, values in enumerate(frames, 1):
                yield [score.model.name, clip.category, clip.name, second, *(f"{value:.6f}" for value in values)]


def class_rows(scores: Sequence[SemanticScore]) -> Iterable[list[Any]]:
    """A line for each model and class, as in per_class.csv of an evaluation."""
    for score in scores:
        yield from ([score.model.name, *row.values()] for row in score.metrics.per_class())
