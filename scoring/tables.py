"""Write the results of several models: a table, one CSV line for each video and each frame, and the problems."""

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from scoring.binary import ModelScore
from utils.files import write_text
from utils.frame_counts import FrameCounts, best_f
from utils.layout import Clip

HALF = 127  # index of the threshold 0.5


def format_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table whose columns are aligned in plain text too."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def write_csv(path: Path, head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(head)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def video_rows(scores: Sequence[ModelScore], clips: Sequence[Clip]) -> Iterable[list[Any]]:
    """A line for each model and video: M_J, M_F of the video alone, and mean areas as fractions of the frame."""
    for score, clip, counts, areas in _scored(scores, clips):
        truth = counts.positives.mean() / frame_pixels(counts)
        values = (counts.iou().mean(), best_f(counts), truth, areas.mean())
        yield [score.model.name, clip.category, clip.name, len(areas), *(f"{value:.6f}" for value in values)]


def frame_rows(scores: Sequence[ModelScore], clips: Sequence[Clip]) -> Iterable[list[Any]]:
    """A line for each model and frame: IoU, F at probability 0.5, and areas as fractions of the frame."""
    for score, clip, counts, areas in _scored(scores, clips):
        truth = counts.positives / frame_pixels(counts)
        rows = zip(counts.iou(), counts.f_scores()[:, HALF], truth, areas, strict=True)
        for second, values in enumerate(rows, 1):
            yield [score.model.name, clip.category, clip.name, second, *(f"{value:.6f}" for value in values)]


def _scored(
    scores: Sequence[ModelScore], clips: Sequence[Clip]
) -> Iterable[tuple[ModelScore, Clip, FrameCounts, np.ndarray]]:
    """Each model and scored clip, with its counts and its predicted areas."""
    for score in scores:
        for index, found in sorted(score.clips.items()):
            if found.counts and found.measures:
                yield score, clips[index], found.counts, found.measures.area


def frame_pixels(counts: FrameCounts) -> float:
    """Pixels of a frame: all of them reach the first threshold, which is 0."""
    return float(counts.predicted[0, 0])
