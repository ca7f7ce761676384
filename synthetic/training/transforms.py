"""Transforms of frames and audio for the training samples of AudioCLIP and SAM."""

import cv2
import numpy as np

from synthetic.clips.synthesis import SYNTHESIS_RATE
from utils.audio import SAMPLE_RATE, resample

JPEG_PROBABILITY = 0.7


def random_brightness(frame: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Scale a frame's brightness by a factor within 1 ± strength. uint8 in and out."""
    return cv2.convertScaleAbs(frame, alpha=rng.uniform(1 - strength, 1 + strength))


def random_jpeg(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Compress a frame, uint8 (H, W, 3) RGB, as JPEG in seven of ten cases: the clips' videos are compressed."""
    if rng.random() >= JPEG_PROBABILITY:
        return frame
    bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
    encoded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1])


def crop_close(frame: np.ndarray, mask: np.ndarray, side: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """A square crop of what a mask marks: its bounding box, cropped centrally to a square and scaled to `side`.

    Source: CLIP's preprocessing of images that are not square.

    Args:
        frame: uint8 (H, W, 3).
        mask: bool (H, W); the whole frame is used if it is empty.
        side: of the result in pixels.
        rng: if given, moves each edge of the box by up to a tenth of its size.

    Returns:
        uint8 (side, side, 3).
    """
    low, high = np.zeros(2), np.array(mask.shape, float)
    if mask.any():
        marked = np.argwhere(mask)
        low, high = marked.min(axis=0).astype(float), marked.max(axis=0) + 1.0
    if rng is not None:
        offset = rng.uniform(-0.1, 0.1, (2, 2)) * (high - low)
        low, high = np.maximum(low + offset[0], 0), np.minimum(high + offset[1], mask.shape)
    top, left = np.minimum(low.round().astype(int), np.array(mask.shape) - 1)
    bottom, right = np.maximum(high.round().astype(int), (top + 1, left + 1))
    crop = np.ascontiguousarray(frame[top:bottom, left:right])
    height, width = crop.shape[:2]
    square = min(height, width)
    y, x = (height - square) // 2, (width - square) // 2
    return cv2.resize(crop[y : y + square, x : x + square], (side, side), interpolation=cv2.INTER_CUBIC)


def file_round_trip(audio: np.ndarray) -> np.ndarray:
    """A second at 44.1 kHz as it comes back from the benchmark's 16-bit, 16 kHz files: band-limited to 8 kHz."""
    low_rate = resample(audio, SYNTHESIS_RATE, SAMPLE_RATE)
    low_rate = np.rint(np.clip(low_rate, -1, 1) * 32767).astype(np.float32) / 32768
    return resample(low_rate, SAMPLE_RATE, SYNTHESIS_RATE)[:SYNTHESIS_RATE].astype(np.float32)
