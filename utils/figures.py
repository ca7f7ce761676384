"""Pictures of predictions: a sheet per clip, and saved masks."""

from collections.abc import Sequence

import cv2
import numpy as np

TRUTH, PREDICTION = (64, 196, 99), (255, 120, 40)  # RGB: green, orange


def overlay(frame: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Tint the mask and draw its outline. frame (H, W, 3) uint8 RGB, mask (H, W) bool -> (H, W, 3) uint8."""
    tinted = frame.astype(np.float32)
    tinted[mask] = 0.5 * tinted[mask] + 0.5 * np.asarray(colour, np.float32)
    picture = np.ascontiguousarray(tinted.round().astype(np.uint8))
    outline, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    cv2.drawContours(picture, outline, -1, colour, 2)
    return picture


def sheet(
    frames: Sequence[np.ndarray], rows: Sequence[tuple[str, Sequence[np.ndarray], tuple[int, int, int]]]
) -> np.ndarray:
    """One column per second: the frame, then the frame under the masks of each row.

    frames: T of (H, W, 3) uint8 RGB. rows: (title, T masks (H, W) bool, colour). Returns uint8 RGB.
    """
    lines = [_line("frames", list(frames))]
    for title, masks, colour in rows:
        pictures = [overlay(frame, mask, colour) for frame, mask in zip(frames, masks, strict=True)]
        lines.append(_line(title, pictures))
    return np.concatenate(lines, axis=0)


def _line(title: str, pictures: Sequence[np.ndarray], gap: int = 4) -> np.ndarray:
    padded = [cv2.copyMakeBorder(p, gap, gap, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255)) for p in pictures]
    line = np.concatenate(padded, axis=1)
    head = np.full((26, line.shape[1], 3), 255, np.uint8)
    cv2.putText(head, title, (gap, 19), cv2.FONT_HERSHEY_SIMPLEX, 0.55, (30, 30, 30), 1, cv2.LINE_AA)
    return np.concatenate([head, line], axis=0)
