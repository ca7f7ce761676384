"""Pictures: a clip's rows of them as a sheet or as strips, and the curves of a training."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

GROUND_TRUTH_COLOR, PREDICTION_COLOR = (64, 196, 99), (255, 120, 40)  # RGB: green, orange
TITLES = {"ground_truth": "ground truth", "heatmap": "heatmap and prompts"}  # of rows whose name differs
ROW_IMAGE_SIZE = 144  # pixels: side of a strip's pictures

# What is shown of a clip: by name, pictures (H, W, 3) uint8 RGB, one a second.
ImageRows = Mapping[str, Sequence[np.ndarray]]


def overlay_mask(frame: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Tint the mask and draw its outline. frame (H, W, 3) uint8 RGB, mask (H, W) bool -> (H, W, 3) uint8."""
    picture, area = np.ascontiguousarray(frame.copy()), mask.astype(np.uint8)
    cv2.copyTo(cv2.addWeighted(frame, 0.5, np.full_like(frame, colour), 0.5, 0), area, picture)
    outline, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outline, -1, colour, 2)
    return picture


def overlay_masks(
    frames: Sequence[np.ndarray], masks: Sequence[np.ndarray], colour: tuple[int, int, int]
) -> list[np.ndarray]:
    """`overlay` for each second; the seconds after the last mask stay as they are."""
    drawn = [overlay_mask(frame, mask, colour) for frame, mask in zip(frames, masks, strict=False)]
    return [*drawn, *frames[len(drawn) :]]


def grid_image(rows: ImageRows) -> np.ndarray:
    """All rows under their titles, one column a second. Returns uint8 RGB."""
    return np.concatenate([_line(TITLES.get(name, name), list(row)) for name, row in rows.items()], axis=0)


def row_image(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """The pictures of one row side by side, ROW_IMAGE_SIZE pixels each: (ROW_IMAGE_SIZE, T·ROW_IMAGE_SIZE, 3) uint8 RGB."""
    return np.concatenate(
        [cv2.resize(p, (ROW_IMAGE_SIZE, ROW_IMAGE_SIZE), interpolation=cv2.INTER_AREA) for p in pictures], axis=1
    )


def _line(title: str, pictures: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    padded = [cv2.copyMakeBorder(p, gap, gap, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in pictures]
    line = np.concatenate(padded, axis=1)
    head = np.full((26, line.shape[1], 3), 255, np.uint8)
    cv2.putText(head, title, (gap, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([head, line], axis=0)


@contextmanager
def default_style(**settings: Any) -> Iterator[None]:
    """matplotlib's own style with these settings, for the block in which a figure is drawn and saved.

    A matplotlibrc, of the user's or in the current directory, has no say: it may ask for LaTeX.
    """
    from matplotlib import style  # slow to import, and most commands draw no plots

    with style.context(["default", settings]):
        yield


def plot_curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """A PNG of a training log: the loss, and M_J and M_F on val, by epoch. history: one row per epoch."""
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with default_style():
        figure = Figure(figsize=(8, 3), layout="constrained")
        panels = figure.subplots(1, 2)
        epochs = [row["epoch"] + 1 for row in history]
        panels[0].plot(epochs, [row["loss"] for row in history], color="0.2", marker=".")
        for name, label in (("val_m_j", "M_J"), ("val_m_f", "M_F")):
            panels[1].plot(epochs, [row[name] for row in history], marker=".", label=label)
        panels[1].legend()
        for panel, title in zip(panels, ("training loss", "val"), strict=True):
            panel.set(title=title, xlabel="epoch")
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
