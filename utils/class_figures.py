"""Draw the classes of AVSS: overlays, their legend, and confusion matrices."""

import io
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from utils.classes import CLASSES, PALETTE
from utils.figures import default_style, overlay_mask

LEGEND_COLUMNS, LEGEND_CELL = 5, (24, 160)  # height and width of a cell in pixels


def overlay_classes(frames: Sequence[np.ndarray], classes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Tint each class but the background in its color, and outline it; frames without classes are returned unchanged.

    Args:
        frames: (H, W, 3) uint8 RGB, one per second.
        classes: (H, W) class of each pixel, of the first frames.
    """
    drawn = []
    for frame, labels in zip(frames, classes, strict=False):
        for label in np.unique(labels[labels > 0]):
            red, green, blue = PALETTE[label].tolist()
            frame = overlay_mask(frame, labels == label, (red, green, blue))
        drawn.append(frame)
    return [*drawn, *frames[len(drawn) :]]


def legend_image(classes: Iterable[int]) -> np.ndarray:
    """The names of classes beside their colors, (H, W, 3) uint8 RGB; the background is left out."""
    shown = [int(c) for c in classes if c > 0]
    height, width = LEGEND_CELL
    rows = max(1, -(-len(shown) // LEGEND_COLUMNS))
    image = np.full((rows * height, LEGEND_COLUMNS * width, 3), 255, np.uint8)
    for place, label in enumerate(shown):
        top, left = place // LEGEND_COLUMNS * height, place % LEGEND_COLUMNS * width
        cv2.rectangle(image, (left + 4, top + 4), (left + 20, top + height - 5), PALETTE[label].tolist(), cv2.FILLED)
        text, font = (left + 26, top + 17), cv2.FONT_HERSHEY_SIMPLEX
        cv2.putText(image, CLASSES[label], text, font, 0.45, (30, 30, 30), 1, cv2.LINE_AA)
    return image


def plot_confusion(confusion: np.ndarray, names: Sequence[str]) -> bytes:
    """Draw a confusion matrix of the classes that occur, each row divided by the pixels of the labeled class.

    Args:
        confusion: int (classes, classes), pixels by labeled (row) and predicted class (column).
        names: of the classes.

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    shown = np.flatnonzero(confusion.sum(0) + confusion.sum(1))
    counts = confusion[np.ix_(shown, shown)].astype(np.float64)
    shares, labels = counts / np.maximum(counts.sum(1, keepdims=True), 1), [names[int(c)] for c in shown]
    buffer, side = io.BytesIO(), 3 + 0.2 * len(shown)
    with default_style():
        figure = Figure(figsize=(side + 1, side), layout="constrained")
        axes = figure.subplots()
        image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
        axes.set_xticks(range(len(shown)), labels, rotation=90, fontsize=7)
        axes.set_yticks(range(len(shown)), labels, fontsize=7)
        axes.set(xlabel="predicted", ylabel="labeled", title="share of each labeled class's pixels")
        figure.colorbar(image, ax=axes, shrink=0.8)
        figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
