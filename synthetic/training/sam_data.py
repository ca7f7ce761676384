"""The training samples of SAM's small weights: rendered scenes with exact masks, and a curriculum of prompts."""

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

from synthetic.clips.assets import AssetLibrary
from synthetic.clips.sampling import MAX_OBJECTS, sample_objects, sample_scene
from synthetic.training.audioclip_data import CANVAS
from synthetic.training.sam_prompts import (
    SIDE,
    LabeledFrame,
    Prompt,
    background_prompt,
    box_prompt,
    dense_prompt,
    peak_prompt,
    point_prompt,
)
from synthetic.training.transforms import random_brightness, random_jpeg
from utils.layout import BENCHMARKS, FRAME_SIZE, MaskBenchmarkName

MIN_AREA = 200  # visible pixels of an object that prompts may point at
BACKGROUND_START = 0.3  # fraction of the training from which on prompts point at the background
WARMUP_STEPS = 60
TRAIN_STREAM, EVAL_STREAM = 4, 5  # of random numbers; the composed clips and AudioCLIP's samples use 0 to 3
NUM_POINTS, NUM_PAIRS = 6, 1  # prompts per frame: single points, and pairs of a positive and a negative point
BOX_NOISE = (0.05, 0.2)  # of the boxes per frame: nearly exact, and as loose as a box around a similarity map
MAX_POINTS = 128  # of each label in a dense prompt


def draw_labeled_frame(assets: AssetLibrary, rng: np.random.Generator) -> LabeledFrame:
    """A random moment of a clip as synthetic.compose would make it, resized as preprocessing does."""
    benchmark: MaskBenchmarkName = "s4" if rng.random() < 0.5 else "ms3"
    objects = sample_objects(benchmark, str(rng.choice(assets.categories)), assets.categories, rng)
    time = rng.uniform(0, BENCHMARKS[benchmark].max_seconds)
    scene, fractions = sample_scene(objects, assets, CANVAS, [time], rng)
    frame = cv2.resize(scene.frame(time), FRAME_SIZE[::-1], interpolation=cv2.INTER_LINEAR)
    return LabeledFrame(frame, fractions[0] > 0.5)


def augment(image: LabeledFrame, rng: np.random.Generator) -> LabeledFrame:
    """Flip and crop a frame with its masks; brighten and compress the frame."""
    frame, masks = image.frame, image.masks
    if rng.random() < 0.5:
        frame, masks = frame[:, ::-1], masks[:, :, ::-1]
    size = round(SIDE * rng.uniform(0.8, 1))
    top, left = rng.integers(SIDE - size + 1, size=2)
    crop = slice(top, top + size), slice(left, left + size)
    frame = cv2.resize(np.ascontiguousarray(frame[crop]), (SIDE, SIDE))
    cropped = np.moveaxis(masks[(slice(None), *crop)], 0, 2).astype(np.float32)
    masks = np.moveaxis(cv2.resize(cropped, (SIDE, SIDE)).reshape(SIDE, SIDE, -1), 2, 0) > 0.5
    return LabeledFrame(random_jpeg(random_brightness(frame, 0.2, rng), rng), masks)


@dataclass(frozen=True)
class Curriculum:
    """What each training step consists of.

    Attributes:
        steps: of the training.
        seed: of the prompts.
    """

    steps: int
    seed: int

    @property
    def background_from(self) -> int:
        """The first step in which one point per frame lies on the background; masks must be good before."""
        return math.ceil(BACKGROUND_START * self.steps)

    def num_points(self, step: int) -> tuple[int, int]:
        """Positive and negative points of a step's prompts with many points; (n, 0) stands for a dense prompt."""
        rng = np.random.default_rng([self.seed, TRAIN_STREAM, step])
        if step % 2:
            return round(MAX_POINTS ** rng.random()), 0
        return int(rng.integers(1, 10)), int(rng.integers(2, 10))

    def lr_factor(self, step: int) -> float:
        """Factor of the learning rate: linear warmup and cosine decay."""
        return min((step + 1) / WARMUP_STEPS, 1) * (0.5 + 0.5 * math.cos(math.pi * step / self.steps))

    def prompts(self, image: LabeledFrame, step: int, rng: np.random.Generator) -> list[list[Prompt]]:
        """The prompts of a frame in groups: points, boxes, pairs, and one with many points.

        The prompts of a group have the same number of points in every frame of the step.
        """
        objects = np.flatnonzero(image.masks.sum(axis=(1, 2)) >= MIN_AREA)
        if not len(objects):  # after cropping
            objects = image.masks.sum(axis=(1, 2)).argmax(keepdims=True)

        def target() -> int:
            return int(rng.choice(objects))

        points = [point_prompt(image, int(objects[k % len(objects)]), rng) for k in range(NUM_POINTS)]
        if step >= self.background_from and (prompt := background_prompt(image, rng)):
            points[-1] = prompt
        boxes = [box_prompt(image, target(), rng, noise) for noise in BOX_NOISE]
        pairs = [point_prompt(image, target(), rng, negatives=1) for _ in range(NUM_PAIRS)]
        positives, negatives = self.num_points(step)
        if negatives:
            many = peak_prompt(image, target(), rng, positives, negatives)
        else:
            many = dense_prompt(image, target(), rng, positives, rng.uniform(0, 0.5))
        return [points, boxes, pairs, [many]]


Sample = dict[str, Any]


class PromptDataset(Dataset[Sample]):
    """The frames and prompts of the remaining steps in order, for a loader without shuffling.

    Args:
        assets: the objects and backgrounds.
        curriculum: decides on the prompts.
        batch_size: frames per step.
        start: the first step.
        image_size: side of SAM's input.
    """

    def __init__(
        self, assets: AssetLibrary, curriculum: Curriculum, batch_size: int, start: int = 0, image_size: int = 256
    ):
        self.assets, self.curriculum = assets, curriculum
        self.batch_size, self.start, self.image_size = batch_size, start, image_size

    def __len__(self) -> int:
        return (self.curriculum.steps - self.start) * self.batch_size

    def __getitem__(self, index: int) -> Sample:
        """A sample as a dict.

        Returns:
            image: uint8 (3, image_size, image_size).
            masks: bool (MAX_OBJECTS, 224, 224), padded with empty ones.
            points, labels, targets: for each group of prompts, float32 (prompts, n, 2), float32 (prompts, n) and
                int64 (prompts,).
        """
        cv2.setNumThreads(1)
        step, place = divmod(self.start * self.batch_size + index, self.batch_size)
        rng = np.random.default_rng([self.curriculum.seed, TRAIN_STREAM, step, place])
        image = augment(draw_labeled_frame(self.assets, rng), rng)
        groups = self.curriculum.prompts(image, step, rng)
        masks = np.zeros((MAX_OBJECTS, *FRAME_SIZE), bool)
        masks[: len(image.masks)] = image.masks
        return {
            "image": image_tensor(image.frame, self.image_size),
            "masks": torch.from_numpy(masks),
            "points": [torch.from_numpy(np.stack([p.points for p in group])).float() for group in groups],
            "labels": [torch.from_numpy(np.stack([p.labels for p in group])).float() for group in groups],
            "targets": [torch.tensor([p.target for p in group]) for group in groups],
        }


def image_tensor(frame: np.ndarray, side: int) -> Tensor:
    """A frame resized as SamPredictor does: uint8 (3, side, side)."""
    return torch.from_numpy(ResizeLongestSide(side).apply_image(frame)).permute(2, 0, 1).contiguous()
