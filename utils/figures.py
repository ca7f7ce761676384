"""Pictures: a sheet of predictions per clip, and the curves of a training."""

import io
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

TRUTH, PREDICTION = (64, 196, 99), (255, 120, 40)  # RGB: green, orange


def overlay(frame: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Tint the mask and draw its outline. frame (H, W, 3) uint8 RGB, mask (H, W) bool -> (H, W, 3) uint8."""
    picture, area = np.ascontiguousarray(frame.copy()), mask.astype(np.uint8)
    cv2.copyTo(cv2.addWeighted(frame, 0.5, np.full_like(frame, colour), 0.5, 0), area, picture)
    outline, _ = cv2.findContours(area, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outline, -1, colour, 2)
    return picture


def sheet(
    frames: Sequence[np.ndarray],
    rows: Sequence[tuple[str, Sequence[np.ndarray], tuple[int, int, int]]],
    pictures: Sequence[tuple[str, Sequence[np.ndarray]]] = (),
) -> np.ndarray:
    """One column per second: the frame, other pictures of it, then the frame under the masks of each row.

    frames: T of (H, W, 3) uint8 RGB. rows: (title, T masks (H, W) bool, colour). pictures: (title, T of (H, W, 3)
    uint8 RGB). Returns uint8 RGB.
    """
    lines = [_line(title, list(row)) for title, row in (("frames", frames), *pictures)]
    for title, masks, colour in rows:
        tinted = [overlay(frame, mask, colour) for frame, mask in zip(frames, masks, strict=True)]
        lines.append(_line(title, tinted))
    return np.concatenate(lines, axis=0)


def _line(title: str, pictures: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    padded = [cv2.copyMakeBorder(p, gap, gap, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in pictures]
    line = np.concatenate(padded, axis=1)
    head = np.full((26, line.shape[1], 3), 255, np.uint8)
    cv2.putText(head, title, (gap, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([head, line], axis=0)


def curves(history: Sequence[Mapping[str, float]]) -> bytes:
    """A PNG of a training log: the loss, and M_J and M_F on val, by epoch. history: one row per epoch."""
    from matplotlib.figure import Figure  # slow to import, and only training draws curves

    figure = Figure(figsize=(8, 3), layout="constrained")
    panels = figure.subplots(1, 2)
    epochs = [row["epoch"] + 1 for row in history]
    panels[0].plot(epochs, [row["loss"] for row in history], color="0.2", marker=".")
    for name, label in (("val_m_j", "M_J"), ("val_m_f", "M_F")):
        panels[1].plot(epochs, [row[name] for row in history], marker=".", label=label)
    panels[1].legend()
    for panel, title in zip(panels, ("training loss", "val"), strict=True):
        panel.set(title=title, xlabel="epoch")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
