"""The prompts that SAM's small weights are trained and evaluated with, drawn from ground-truth masks.

Points, boxes, and the points of a coarse similarity map, as the study's methods give them. They point at every visible
object, whether it sounds or not, and never carry a category.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from utils.layout import FRAME_SIZE

SIDE = FRAME_SIZE[0]
HEATMAP_SIDE = 7  # cells of a similarity map, as in AudioCLIP's
DENSE_SIDE = 32  # the points of a dense prompt lie on a grid of 32×32


@dataclass(frozen=True)
class LabeledFrame:
    """A frame and its ground truth.

    Attributes:
        frame: uint8 (224, 224, 3) RGB.
        masks: bool (objects, 224, 224).
    """

    frame: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Prompt:
    """A prompt for SAM.

    Attributes:
        points: (n, 2), x and y in pixels of the frame; the two corners of a box.
        labels: (n,), SAM's: 1 foreground, 0 background, 2 and 3 the corners of a box.
        target: index of the object that is meant; -1 for none.
        box: whether it is a box.
    """

    points: np.ndarray
    labels: np.ndarray
    target: int
    box: bool = False


def random_pixels(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random pixels of a mask: (count, 2), x and y."""
    chosen = rng.choice(np.flatnonzero(mask), count)
    return np.stack([chosen % mask.shape[1], chosen // mask.shape[1]], 1).astype(float)


def dilate(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate a mask, bool (H, W), by a square of side 2·radius + 1."""
    size = 2 * radius + 1
    return np.asarray(cv2.dilate(np.asarray(mask, np.uint8), np.ones((size, size), np.uint8))) > 0


def point_prompt(image: LabeledFrame, target: int, rng: np.random.Generator, negatives: int = 0) -> Prompt:
    """One random point in an object's mask, and `negatives` points outside it."""
    mask = image.masks[target]
    points = np.concatenate([random_pixels(mask, 1, rng), random_pixels(~mask, negatives, rng)])
    return Prompt(points, np.arange(len(points)) < 1, target)


def center_prompt(image: LabeledFrame, target: int) -> Prompt:
    """The point of an object's mask farthest from its edge."""
    depth = cv2.distanceTransform(np.pad(image.masks[target].astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return Prompt(np.array([[column, row]], float), np.ones(1), target)


def background_prompt(image: LabeledFrame, rng: np.random.Generator) -> Prompt | None:
    """One point more than 4 pixels from every object, without a target; None if there is no such pixel."""
    background = ~dilate(np.any(image.masks, axis=0), 4)
    return Prompt(random_pixels(background, 1, rng), np.ones(1), -1) if background.any() else None


def box_prompt(image: LabeledFrame, target: int, rng: np.random.Generator, noise: float = 0.0) -> Prompt:
    """The bounding box of an object, its corners moved by normal noise of `noise` times its size.

    Source: Kirillov et al., "Segment Anything" (2023), for the noise.
    """
    rows, columns = (np.flatnonzero(image.masks[target].any(axis=axis)) for axis in (1, 0))
    box = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], float)
    box += rng.normal(0, 1, (2, 2)) * noise * (box[1] - box[0])
    return Prompt(np.clip(np.sort(box, axis=0), 0, SIDE - 1), np.array([2, 3]), target, box=True)


def peak_prompt(image: LabeledFrame, target: int, rng: np.random.Generator, positives: int, negatives: int) -> Prompt:
    """Points in and near an object and points outside it, like the peaks of a similarity map."""
    mask = image.masks[target]
    points = [
        random_pixels(mask, 1, rng),
        random_pixels(dilate(mask, 12), positives - 1, rng),
        random_pixels(~mask, negatives, rng),
    ]
    return Prompt(np.concatenate(points), np.arange(positives + negatives) < positives, target)


def dense_prompt(image: LabeledFrame, target: int, rng: np.random.Generator, count: int, noise: float) -> Prompt:
    """The `count` highest and the `count` lowest points of a noisy, coarse similarity map of an object.

    Source: Sam4AVS, point strategy `dense`.
    """
    cells = (HEATMAP_SIDE, HEATMAP_SIDE)
    heatmap = cv2.resize(image.masks[target].astype(np.float32), cells, interpolation=cv2.INTER_AREA)
    heatmap = heatmap / heatmap.max() + noise * rng.random(heatmap.shape, np.float32)
    step = SIDE // DENSE_SIDE
    order = np.argsort(cv2.resize(heatmap, FRAME_SIZE[::-1])[step // 2 :: step, step // 2 :: step].ravel())
    chosen = np.concatenate([order[-count:], order[:count]])
    points = (np.stack([chosen % DENSE_SIDE, chosen // DENSE_SIDE], 1) + 0.5) * step
    return Prompt(points, np.arange(2 * count) < count, target)
