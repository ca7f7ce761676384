"""Score the masks of several models on S4 or MS3, clip by clip, in threads."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal, TypeVar

import cv2
import numpy as np
from tqdm import tqdm

from scoring.decode import Format, detect_format, fit_size, read_probability
from scoring.folders import PredictionFolder, find_predictions
from scoring.problems import MaskError, Problem
from utils.cli import progress_bar_options
from utils.frame_counts import FrameCounts, count_frames, set_metrics
from utils.layout import AVSBench, Clip, SoftMasks
from utils.masks import read_mask
from utils.robustness import FrameMeasures, condition_measures, measure_frames
from utils.words import counted

T = TypeVar("T")
AHEAD = 4  # clips in work for each thread
Incomplete = Literal["refuse", "empty", "skip"]
RULES: dict[str, tuple[str, int]] = {  # the value of set_metrics, and metric_batch
    "m_j": ("m_j", 1),
    "m_f_batch_1": ("m_f", 1),
    "m_f_batch_2": ("m_f", 2),  # AVSegFormer's
    "m_f_batch_4": ("m_f", 4),
    "m_f_whole_set": ("m_f_whole_set", 1),
    "iou_dataset": ("iou_dataset", 1),
}
NEED_ORIGINAL = ("drop", "drop_relative", "agree", "keep", "H")
CONDITION_RULES = ("pIA", "AUC_N", "quiet", "S_null", "MJ_neg", "MJ_same", "drop", "agree", "keep", "H")


@dataclass
class Model:
    """A model's masks and, where sound conditions are scored, those of the same model under the original sound.

    Attributes:
        name: in the tables.
        folder: its masks.
        form: what its PNGs say.
        original: the masks under the original sound.
    """

    name: str
    folder: PredictionFolder
    form: Format
    original: "Model | None" = None


@dataclass
class ClipScore:
    """What one clip contributes to the score of a model.

    Attributes:
        counts: of its frames; None if the clip is skipped.
        measures: areas and, under a sound condition, agreement with the original sound's masks.
        original: measures of the original sound's masks, where they are given.
        problems: what is wrong with its files.
    """

    counts: FrameCounts | None
    measures: FrameMeasures | None
    original: FrameMeasures | None
    problems: list[Problem]


@dataclass
class ModelScore:
    """The result of a model.

    Attributes:
        model: whose masks.
        clips: the scored clips by their index.
        problems: what is wrong with its files.
    """

    model: Model
    clips: dict[int, ClipScore] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def result(self, condition: bool, negative: bool) -> dict[str, float]:
        """The values of all rules; under a sound condition, its measures.

        Args:
            condition: whether the masks were predicted under another sound.
            negative: whether the ground truth is empty under that sound.
        """
        scored = [self.clips[index] for index in sorted(self.clips)]
        if not condition:
            videos = [clip.counts for clip in scored if clip.counts]
            cached = {batch: set_metrics(videos, batch) for _, batch in RULES.values()}
            return {name: float(cached[batch][key]) for name, (key, batch) in RULES.items()}
        return condition_result(
            [clip.measures for clip in scored if clip.measures],
            [clip.original for clip in scored if clip.original],
            negative,
        )


def condition_result(
    measures: Sequence[FrameMeasures], original: Sequence[FrameMeasures], negative: bool
) -> dict[str, float]:
    """The measures of a sound condition over all clips.

    Args:
        measures: of each clip under the condition.
        original: of each clip under the original sound; empty if its masks are not given.
        negative: whether the ground truth is empty under the condition.
    """
    m_j = float(FrameMeasures.cat(original).same.mean()) if original else 0.0
    values = condition_measures(FrameMeasures.cat(measures), m_j, negative)
    return {name: value for name, value in values.items() if original or name not in NEED_ORIGINAL}


def open_model(folder: Path, name: str, clips: Sequence[Clip], form: Format | None = None) -> Model:
    """Find the masks of a model and decide their format; InputError if there are none."""
    found = find_predictions(folder, clips)
    paths = [path for _, files in sorted(found.files.items()) for _, path in sorted(files.items())]
    return Model(name, found, form or detect_format(paths))


def score_models(
    data: AVSBench,
    clips: Sequence[Clip],
    models: Sequence[Model],
    *,
    incomplete: Incomplete = "refuse",
    resize: bool = False,
    soft_masks: SoftMasks = "refuse",
    jobs: int | None = None,
) -> list[ModelScore]:
    """Score models on the same clips; each ground truth is read once.

    Args:
        data: S4 or MS3.
        clips: of one split.
        models: by `open_model`.
        incomplete: what to do where a mask is missing or unusable: score it as empty, or skip its clip. With "refuse"
            the clip is skipped too, and the model gets no score.
        resize: whether masks of another size are resized to the ground truth's.
        soft_masks: how gray ground truths are treated.
        jobs: threads; default: one per core.

    Returns:
        The score of each model.

    Raises:
        InputError: A ground truth is missing or damaged.
    """
    scores = [ModelScore(model, problems=list(model.folder.problems)) for model in models]
    work = partial(_score_clip, data, clips, models, incomplete, resize, soft_masks)
    cv2.setNumThreads(1)  # the clips are the unit of parallel work
    for index, found in enumerate(in_threads(work, len(clips), jobs)):
        for score, clip in zip(scores, found, strict=True):
            score.problems += clip.problems
            if clip.counts:
                score.clips[index] = clip
    return scores


def in_threads(work: Callable[[int], T], count: int, jobs: int | None) -> Iterator[T]:
    """work(0), work(1), …, in order, computed in threads: OpenCV and zlib release Python's lock.

    Only a few results wait at a time, so that memory does not grow with the number of clips.
    """
    threads = jobs or os.cpu_count() or 1
    with (
        ThreadPoolExecutor(threads) as pool,
        tqdm(total=count, desc="score", unit="clip", **progress_bar_options()) as bar,
    ):
        remaining = iter(range(count))
        waiting = deque(pool.submit(work, index) for index in islice(remaining, AHEAD * threads))
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, index) for index in islice(remaining, 1))
            bar.update()
            yield result


def _score_clip(
    data: AVSBench,
    clips: Sequence[Clip],
    models: Sequence[Model],
    incomplete: Incomplete,
    resize: bool,
    soft_masks: SoftMasks,
    index: int,
) -> list[ClipScore]:
    """What one clip contributes to the score of each model."""
    clip = clips[index]
    truth = [read_mask(path, soft_masks) for path in data.masks(clip)]
    found = []
    for model in models:
        problems = list(extra_frames(clip, model.folder, index, len(data.frames(clip))))
        masks = _read_masks(clip, index, model, truth, incomplete, resize, problems)
        before = None
        if model.original:
            before = _read_masks(clip, index, model.original, truth, incomplete, resize, problems)
        if masks is None or (model.original and before is None):
            found.append(ClipScore(None, None, None, problems))
            continue
        original = measure_clip(before, truth, before) if before else None
        measures = measure_clip(masks, truth, before or masks)
        found.append(ClipScore(count_frames(masks, truth), measures, original, problems))
    return found


def measure_clip(
    masks: Sequence[np.ndarray], truth: Sequence[np.ndarray], original: Sequence[np.ndarray]
) -> FrameMeasures:
    """The measures of a clip's masks: probabilities, or classes, of which all but 0 are foreground."""
    binary, before = np.stack(masks) > 0.5, np.stack(original) > 0.5
    return measure_frames(binary, np.stack(truth) > 0.5, before)


def _read_masks(
    clip: Clip,
    index: int,
    model: Model,
    truth: Sequence[np.ndarray],
    incomplete: Incomplete,
    resize: bool,
    problems: list[Problem],
) -> list[np.ndarray] | None:
    """The probabilities of each labeled frame; None if one of them is unusable and the clip is skipped."""
    files, masks, usable = model.folder.files.get(index, {}), [], True
    for second, ground_truth in enumerate(truth):
        mask = np.zeros(ground_truth.shape, np.float32)
        try:
            if second not in files:
                where = "/".join(filter(None, (clip.category, clip.name)))
                number = second + model.folder.first
                raise MaskError(Problem("missing", f"{model.folder.root}: {where}", f"number {number}"))
            probability = read_probability(files[second], model.form)
            mask = fit_size(files[second], probability, ground_truth.shape, resize)
        except MaskError as error:
            problems.append(error.problem)
            usable = usable and incomplete == "empty"
        masks.append(mask)
    return masks if usable else None


def extra_frames(clip: Clip, folder: PredictionFolder, index: int, seconds: int) -> Iterator[Problem]:
    """Seconds that the clip does not have."""
    extra = sorted(set(folder.files.get(index, {})) - set(range(seconds)))
    if extra:
        numbers = ", ".join(str(second + folder.first) for second in extra)
        yield Problem(
            "frames", f"{folder.root}: {clip.name}", f"has {counted(seconds, 'second')}, but also masks {numbers}"
        )
