"""Draw masks on frames, arrange the images of a clip in rows, and plot training curves."""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import cv2
import numpy as np

GROUND_TRUTH_COLOR, PREDICTION_COLOR = (64, 196, 99), (255, 120, 40)  # RGB: green, orange
TITLES = {"ground_truth": "ground truth", "heatmap": "heatmap and prompts"}  # of rows whose name differs
ROW_IMAGE_SIZE = 144  # pixels, height and width of the images in a row

# Rows of images by name: (H, W, 3) uint8 RGB, one per second.
ImageRows = Mapping[str, Sequence[np.ndarray]]


def overlay_mask(frame: np.ndarray, mask: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """Tint a mask and draw its outline.

    Args:
        frame: (H, W, 3) uint8 RGB.
        mask: (H, W) bool.
        color: RGB.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    image, area = np.ascontiguousarray(frame.copy()), mask.astype(np.uint8)
    cv2.copyTo(cv2.addWeighted(frame, 0.5, np.full_like(frame, color), 0.5, 0), area, image)
    outline, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(image, outline, -1, color, 2)
    return image


def overlay_masks(
    frames: Sequence[np.ndarray], masks: Sequence[np.ndarray], color: tuple[int, int, int]
) -> list[np.ndarray]:
    """`overlay_mask` for each second; seconds after the last mask are returned unchanged."""
    drawn = [overlay_mask(frame, mask, color) for frame, mask in zip(frames, masks, strict=False)]
    return [*drawn, *frames[len(drawn) :]]


def grid_image(rows: ImageRows) -> np.ndarray:
    """Arrange rows below their titles, one column per second; returns (H, W, 3) uint8 RGB."""
    titled = [_titled_row(TITLES.get(name, name), list(row)) for name, row in rows.items()]
    width = max(row.shape[1] for row in titled)
    return np.concatenate([np.pad(r, ((0, 0), (0, width - r.shape[1]), (0, 0)), constant_values=255) for r in titled])


def row_image(images: Sequence[np.ndarray]) -> np.ndarray:
    """Join the T images of a row: (ROW_IMAGE_SIZE, T · ROW_IMAGE_SIZE, 3) uint8 RGB."""
    return np.concatenate(
        [cv2.resize(p, (ROW_IMAGE_SIZE, ROW_IMAGE_SIZE), interpolation=cv2.INTER_AREA) for p in images], axis=1
    )


def _titled_row(title: str, images: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    padded = [cv2.copyMakeBorder(p, gap, gap, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in images]
    row = np.concatenate(padded, axis=1)
    header = np.full((26, row.shape[1], 3), 255, np.uint8)
    cv2.putText(header, title, (gap, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([header, row], axis=0)


@contextmanager
def default_style(**settings: Any) -> Iterator[None]:
    """Use matplotlib's default style and the given settings in the block in which a figure is drawn and saved.

    A matplotlibrc, of the user or in the current directory, is ignored: it may require LaTeX.
    """
    from matplotlib import style  # slow to import, and only needed for plots

    with style.context(["default", settings]):
        yield


def plot_curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """Plot the loss, and the measures on val, by epoch.

    Args:
        history: The rows of log.csv, with epoch, loss, and in those of validated epochs measures named val_….

    Returns:
        A PNG file.
    """
    from matplotlib.figure import Figure

    buffer = io.BytesIO()
    with default_style():
        figure = Figure(figsize=(8, 3), layout="constrained")
        panels = figure.subplots(1, 2)
        epochs = [row["epoch"] + 1 for row in history]
        panels[0].plot(epochs, [row["loss"] for row in history], color="0.2", marker=".")
        names = dict.fromkeys(name for row in history for name in row if name.startswith("val_"))
        for name in names:
            validated = [row for row in history if name in row]
            label = {"val_m_j": "M_J", "val_m_f": "M_F"}.get(name, name.removeprefix("val_").replace("_", ", "))
            panels[1].plot([row["epoch"] + 1 for row in validated], [row[name] for row in validated], ".-", label=label)
        if names:
            panels[1].legend()
        for panel, title in zip(panels, ("training loss", "val"), strict=True):
            panel.set(title=title, xlabel="epoch")
        figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
