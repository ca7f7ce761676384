"""What the miniature SAM learns from: scenes with exact masks, and prompts of the sorts that the study gives.

One point, one positive and one negative point, a few or hundreds of both as a coarse heat map gives them, and a box,
tight or as loose as one around a heat map: for every visible thing alike, whether it sounds or not, and never with
its kind. A point on the background has no mask to learn.
Source: Kirillov et al., "Segment Anything" (2023), for the jittered boxes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.utils.data import Dataset

from synthetic.assets import AssetLibrary
from synthetic.audioclip_data import CANVAS
from synthetic.scene import MAX_OBJECTS, draw_scene, sample_objects
from utils.layout import CLIP_SECONDS, FRAME_SIZE

SIDE = FRAME_SIZE[0]
MIN_AREA = 200  # pixels of a frame that a thing must show to be asked for
BACKGROUND_START = 0.3  # of the steps: before, masks are too poor for their scores to be wrong about it
WARMUP_STEPS = 60  # steps
HEATMAP_SIDE = 7  # cells of a heat map; the study's has as many
DENSE_SIDE = 32  # points of a dense prompt lie on such a grid
TRAINING, MEASURING = 4, 5  # streams of random numbers; the composed clips and the other miniature use 0 to 3
POINTS, BOXES, PAIRS = 6, 2, 1  # prompts of these sorts for each frame; one with many points comes on top
MAX_POINTS = 128  # of each label, in a dense prompt
PROMPTS = (
    f"for each frame {POINTS} single points, {BOXES} boxes, {PAIRS} pair of a positive and a negative point, and "
    f"in turn 1 to 9 positive with 2 to 9 negative points or 1 to {MAX_POINTS} of both on a square grid"
)


@dataclass(frozen=True)
class Scene:
    """A frame, (224, 224, 3) uint8 RGB, and the things in it, (things, 224, 224) bool."""

    frame: np.ndarray
    masks: np.ndarray


@dataclass(frozen=True)
class Prompt:
    """Points (n, 2), as x, y in pixels of the frame, with labels (n,), 1 inside and 0 outside; or a box as two corners.

    target: the thing that is meant, -1 for none.
    """

    points: np.ndarray
    labels: np.ndarray
    target: int
    box: bool = False


def draw_scene_image(cast: AssetLibrary, rng: np.random.Generator) -> Scene:
    """A moment of a clip as synthetic.compose makes it, squeezed as preprocessing squeezes it."""
    roles = sample_objects(
        "s4" if rng.random() < 0.5 else "ms3", str(rng.choice(cast.categories)), cast.categories, rng
    )
    moment = rng.uniform(0, CLIP_SECONDS)
    scene, visible = draw_scene(roles, cast, CANVAS, [moment], rng)
    frame = cv2.resize(scene.frame(moment), FRAME_SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return Scene(frame, visible[0] > 0.5)


def augment(picture: Scene, rng: np.random.Generator) -> Scene:
    """Mirrored, cut, lit and compressed otherwise."""
    frame, masks = picture.frame, picture.masks
    if rng.random() < 0.5:
        frame, masks = frame[:, ::-1], masks[:, :, ::-1]
    size = round(SIDE * rng.uniform(0.8, 1))
    top, left = rng.integers(SIDE - size + 1, size=2)
    part = slice(top, top + size), slice(left, left + size)
    frame = cv2.resize(np.ascontiguousarray(frame[part]), (SIDE, SIDE))
    cut = np.moveaxis(masks[(slice(None), *part)], 0, 2).astype(np.float32)
    masks = np.moveaxis(cv2.resize(cut, (SIDE, SIDE)).reshape(SIDE, SIDE, -1), 2, 0) > 0.5
    frame = cv2.convertScaleAbs(frame, alpha=rng.uniform(0.8, 1.2))
    if rng.random() < 0.7:  # videos are compressed
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])[1]
        frame = np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1])
    return Scene(frame, masks)


# Prompts


def points_inside(mask: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Random pixels of a mask, (count, 2) as x, y."""
    chosen = rng.choice(np.flatnonzero(mask), count)
    return np.stack([chosen % mask.shape[1], chosen // mask.shape[1]], 1).astype(float)


def dilate(mask: np.ndarray, by: int) -> np.ndarray:
    """A mask and what lies within so many pixels of it, in both directions."""
    size = 2 * by + 1
    return np.asarray(cv2.dilate(np.asarray(mask, np.uint8), np.ones((size, size), np.uint8))) > 0


def point_prompt(picture: Scene, thing: int, rng: np.random.Generator, negatives: int = 0) -> Prompt:
    """One point on a thing, and perhaps some off it."""
    mask = picture.masks[thing]
    points = np.concatenate([points_inside(mask, 1, rng), points_inside(~mask, negatives, rng)])
    return Prompt(points, np.arange(len(points)) < 1, thing)


def background_prompt(picture: Scene, rng: np.random.Generator) -> Prompt | None:
    """One point well off everything, if there is room."""
    free = ~dilate(np.any(picture.masks, axis=0), 4)
    return Prompt(points_inside(free, 1, rng), np.ones(1), -1) if free.any() else None


def box_prompt(picture: Scene, thing: int, rng: np.random.Generator, noise: float = 0.0) -> Prompt:
    """The box around a thing, its sides moved by a normal part `noise` of its size."""
    rows, columns = (np.flatnonzero(picture.masks[thing].any(axis=axis)) for axis in (1, 0))
    box = np.array([[columns[0], rows[0]], [columns[-1], rows[-1]]], float)
    box += rng.normal(0, 1, (2, 2)) * noise * (box[1] - box[0])
    return Prompt(np.clip(np.sort(box, axis=0), 0, SIDE - 1), np.array([2, 3]), thing, box=True)


def peaks_prompt(picture: Scene, thing: int, rng: np.random.Generator, positives: int, negatives: int) -> Prompt:
    """A few points on or near a thing, as the peaks of a heat map are, and a few off it."""
    mask = picture.masks[thing]
    points = [
        points_inside(mask, 1, rng),
        points_inside(dilate(mask, 12), positives - 1, rng),
        points_inside(~mask, negatives, rng),
    ]
    return Prompt(np.concatenate(points), np.arange(positives + negatives) < positives, thing)


def dense_prompt(picture: Scene, thing: int, rng: np.random.Generator, count: int, noise: float) -> Prompt:
    """As many of the highest and of the lowest points of a noisy coarse heat map of a thing.

    Source: Sam4AVS, point strategy `dense`.
    """
    heat = cv2.resize(
        picture.masks[thing].astype(np.float32), (HEATMAP_SIDE, HEATMAP_SIDE), interpolation=cv2.INTER_AREA
    )
    heat = heat / heat.max() + noise * rng.random(heat.shape, np.float32)
    step = SIDE // DENSE_SIDE
    order = np.argsort(cv2.resize(heat, FRAME_SIZE[::-1])[step // 2 :: step, step // 2 :: step].ravel())
    chosen = np.concatenate([order[-count:], order[:count]])
    points = (np.stack([chosen % DENSE_SIDE, chosen // DENSE_SIDE], 1) + 0.5) * step
    return Prompt(points, np.arange(2 * count) < count, thing)


@dataclass(frozen=True)
class Curriculum:
    """What each step of a training is made of."""

    steps: int
    seed: int

    @property
    def background_from(self) -> int:
        """The step from which one point of each frame is on the background."""
        return math.ceil(BACKGROUND_START * self.steps)

    def counts(self, step: int) -> tuple[int, int]:
        """Positive and negative points of a step's prompts with many: (n, 0) stands for a dense one."""
        rng = np.random.default_rng([self.seed, TRAINING, step])
        if step % 2:
            return round(MAX_POINTS ** rng.random()), 0
        return int(rng.integers(1, 10)), int(rng.integers(2, 10))

    def rate(self, step: int) -> float:
        """Of the learning rate: up in a line, then down half a cosine."""
        return min((step + 1) / WARMUP_STEPS, 1) * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))

    def prompts(self, picture: Scene, step: int, rng: np.random.Generator) -> list[list[Prompt]]:
        """A frame's prompts in groups; those of a group have equally many points."""
        things = np.flatnonzero(picture.masks.sum(axis=(1, 2)) >= MIN_AREA)
        if not len(things):  # cut off by the augmentation
            things = picture.masks.sum(axis=(1, 2)).argmax(keepdims=True)

        def thing() -> int:
            return int(rng.choice(things))

        points = [point_prompt(picture, int(things[k % len(things)]), rng) for k in range(POINTS)]
        if step >= self.background_from and (prompt := background_prompt(picture, rng)):
            points[-1] = prompt
        boxes = [box_prompt(picture, thing(), rng, noise) for noise in (0.05, 0.2)]
        pairs = [point_prompt(picture, thing(), rng, negatives=1) for _ in range(PAIRS)]
        positives, negatives = self.counts(step)
        if negatives:
            many = peaks_prompt(picture, thing(), rng, positives, negatives)
        else:
            many = dense_prompt(picture, thing(), rng, positives, rng.uniform(0, 0.5))
        return [points, boxes, pairs, [many]]


Sample = dict[str, Any]


class TrainingStream(Dataset[Sample]):
    """The frames of the steps from `start` on, one after another, for a loader that does not shuffle."""

    def __init__(self, cast: AssetLibrary, plan: Curriculum, batch: int, start: int = 0, image_size: int = 256):
        self.cast, self.plan, self.batch, self.start, self.image_size = cast, plan, batch, start, image_size

    def __len__(self) -> int:
        return (self.plan.steps - self.start) * self.batch

    def __getitem__(self, index: int) -> Sample:
        """image: uint8 (3, image_size, image_size). masks: bool (MAX_OBJECTS, 224, 224). points, labels, targets: by group."""
        cv2.setNumThreads(1)
        step, place = divmod(self.start * self.batch + index, self.batch)
        rng = np.random.default_rng([self.plan.seed, TRAINING, step, place])
        picture = augment(draw_scene_image(self.cast, rng), rng)
        groups = self.plan.prompts(picture, step, rng)
        masks = np.zeros((MAX_OBJECTS, *FRAME_SIZE), bool)
        masks[: len(picture.masks)] = picture.masks
        return {
            "image": image_tensor(picture.frame, self.image_size),
            "masks": torch.from_numpy(masks),
            "points": [torch.from_numpy(np.stack([p.points for p in group])).float() for group in groups],
            "labels": [torch.from_numpy(np.stack([p.labels for p in group])).float() for group in groups],
            "targets": [torch.tensor([p.target for p in group]) for group in groups],
        }


def image_tensor(frame: np.ndarray, side: int) -> Tensor:
    """A frame as SamPredictor scales it: uint8 (3, side, side)."""
    return torch.from_numpy(ResizeLongestSide(side).apply_image(frame)).permute(2, 0, 1).contiguous()
