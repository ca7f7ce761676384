"""The audio-image pairs that AudioCLIP's small weights are trained on: scenes rendered on the fly, or clips.

Rendered pairs are easy or hard. An easy one shows a single object in a small image, on a plain or black background, and
sometimes as a close-up, like the crops of mask proposals that AudioCLIP classifies. A hard one is a whole frame as in
the composed clips, with silent distractors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from synthetic.clips.assets import AssetLibrary
from synthetic.clips.sampling import RADIUS, SNR, SceneObject, sample_objects, sample_scene
from synthetic.clips.scene import MovingSprite, Scene
from synthetic.clips.synthesis import SYNTHESIS_RATE, colored_noise, fade
from synthetic.training.transforms import crop_close, file_round_trip, random_brightness, random_jpeg
from utils.audio import load_clip_waveform
from utils.cli import InputError
from utils.dataset import read_frame
from utils.layout import BENCHMARKS, FRAME_SIZE, AVSBench
from utils.masks import read_mask
from utils.words import counted

CANVAS = (240, 320)  # height and width of the composed videos, which preprocessing resizes to squares
EASY_SIDE = 128  # pixels; easy scenes are cropped, not scaled, so their objects are as large as in whole frames
CLOSE_UP_FRACTION = 0.4  # of the easy images
BLACK_FRACTION = 0.4  # of the easy images have a black background
TRAIN_STREAM, EVAL_STREAM = 2, 3  # of random numbers; the composed clips use 0 and 1


@dataclass(frozen=True)
class Sample:
    """One second of a clip.

    Attributes:
        frame: uint8 (side, side, 3) RGB.
        audio: float32 (44100,) in [-1, 1], resampled from 16 kHz.
        category: what sounds; "" if unknown.
        visible_categories: the categories in the frame.
        mask: bool (224, 224), what sounds. Used in evaluation only.
    """

    frame: np.ndarray
    audio: np.ndarray
    category: str = ""
    visible_categories: tuple[str, ...] = ()
    mask: np.ndarray | None = None


class PairSource(Protocol):
    """Provides the training pairs."""

    def item(self, step: int, index: int, easy: bool) -> Sample:
        """The pair at an index of a step's batch; it depends on the arguments and the seed alone."""


class ScenePairs:
    """Pairs rendered on the fly; every pair is a new scene.

    Args:
        assets: the objects and backgrounds.
        seed: of the random numbers.
    """

    def __init__(self, assets: AssetLibrary, seed: int):
        self.assets, self.seed = assets, seed

    def item(self, step: int, index: int, easy: bool) -> Sample:
        """The pair at an index of a step's batch, augmented."""
        rng = np.random.default_rng([self.seed, TRAIN_STREAM, step, index])
        category = str(rng.choice(self.assets.categories))
        if not easy:
            return augment(self.whole_frame(category, rng), rng)
        close_up, black = rng.random() < CLOSE_UP_FRACTION, rng.random() < BLACK_FRACTION
        if not close_up:
            return augment(self.single_object(category, rng, EASY_SIDE, black), rng)
        sample = self.single_object(category, rng, black=black)  # at full size, then cropped and enlarged
        assert sample.mask is not None
        return augment(replace(sample, frame=crop_close(sample.frame, sample.mask, EASY_SIDE, rng)), rng)

    def single_object(
        self, category: str, rng: np.random.Generator, side: int = FRAME_SIZE[0], black: bool = False
    ) -> Sample:
        """A scene with one object, which sounds.

        Args:
            category: of the object.
            rng: source of the scene.
            side: of the frame in pixels; a smaller frame shows less, at the same scale.
            black: give it a black background.
        """
        stretch = np.array(CANVAS) / FRAME_SIZE
        height, width = (round(side * factor) for factor in stretch)
        radius = rng.uniform(*RADIUS) * stretch.prod() ** 0.5
        margin = np.minimum(0.75 * radius, 0.45 * np.array([width, height]))
        center = rng.uniform(margin, np.array([width, height]) - margin)
        sprite = self.assets.sprite(category, radius, rng)
        moving = MovingSprite(sprite, center, center, 0.0, rng.uniform(-12, 12), rng.random())
        background = np.zeros((height, width, 3), np.float32) if black else self.assets.background(height, width, rng)
        scene = Scene(background, [moving])
        objects = [SceneObject(category, range(BENCHMARKS["s4"].max_seconds))]
        return self._sample(scene, 0.0, objects, scene.visible_fractions(0.0), side, rng)

    def whole_frame(self, category: str, rng: np.random.Generator) -> Sample:
        """A scene as in the composed S4 clips, in which the category sounds and one to three distractors do not."""
        objects = sample_objects("s4", category, self.assets.categories, rng)
        time = rng.uniform(0, BENCHMARKS["s4"].max_seconds)
        scene, fractions = sample_scene(objects, self.assets, CANVAS, [time], rng)
        return self._sample(scene, time, objects, fractions[0], FRAME_SIZE[0], rng)

    def _sample(
        self,
        scene: Scene,
        time: float,
        objects: list[SceneObject],
        fractions: np.ndarray,
        side: int,
        rng: np.random.Generator,
    ) -> Sample:
        frame = cv2.resize(scene.frame(time), (side, side), interpolation=cv2.INTER_LINEAR)
        target = next(index for index, item in enumerate(objects) if item.sounding)
        category = objects[target].category
        audio = file_round_trip(self._audio(category, rng))
        return Sample(frame, audio, category, tuple(item.category for item in objects), fractions[target] > 0.5)

    def _audio(self, category: str, rng: np.random.Generator) -> np.ndarray:
        """One second as `mix_audio` would make it of a single object."""
        audio = fade(self.assets.audio(category, SYNTHESIS_RATE, rng))  # of unit power
        noise_level = np.float32(10 ** (-rng.uniform(*SNR) / 20))
        audio = audio + noise_level * colored_noise(SYNTHESIS_RATE, rng, rng.uniform(0, 0.7))
        return audio * np.float32(rng.uniform(0.4, 0.9) / np.abs(audio).max())


class ClipPairs:
    """The seconds of preprocessed clips: frames with their own second of audio.

    Args:
        data: the benchmark.
        split: of its clips.
        seed: of the order and the augmentation.
        batch_size: clips per batch.

    Raises:
        InputError: if the split has fewer clips than a batch.
    """

    def __init__(self, data: AVSBench, split: str, seed: int, batch_size: int):
        self.data, self.seed, self.batch_size = data, seed, batch_size
        self.clips = data.split(split)
        if len(self.clips) < batch_size:
            raise InputError(
                f"{data.root}: {counted(len(self.clips), f'{split} clip')}, fewer than a --batch of {batch_size}"
            )

    def item(self, step: int, index: int, easy: bool) -> Sample:
        """The pair at an index of a step's batch, augmented; a batch has no clip twice. `easy` has no effect."""
        epoch, batch = divmod(step, len(self.clips) // self.batch_size)
        order = np.random.default_rng([self.seed, TRAIN_STREAM, epoch]).permutation(len(self.clips))
        rng = np.random.default_rng([self.seed, TRAIN_STREAM, step, index])
        second = int(rng.integers(self.data.benchmark.max_seconds))
        return augment(self.read(int(order[batch * self.batch_size + index]), second), rng)

    def read(self, index: int, second: int, mask: bool = False) -> Sample:
        """One second of a clip, with its ground-truth mask on request."""
        clip = self.clips[index]
        frame = read_frame(self.data.frames(clip)[second])
        audio = load_clip_waveform(self.data.wav(clip), SYNTHESIS_RATE)[second]
        ground_truth = read_mask(self.data.masks(clip)[second]) > 0.5 if mask else None
        return Sample(frame, audio, clip.category, (), ground_truth)


def augment(sample: Sample, rng: np.random.Generator) -> Sample:
    """Flip, crop, brighten and compress the frame; shift the audio cyclically and change its level.

    Returns:
        The frame and the audio alone, so that no category or mask can enter the training.
    """
    frame, side = sample.frame, len(sample.frame)
    if rng.random() < 0.5:
        frame = frame[:, ::-1]
    size = round(side * rng.uniform(0.85, 1))
    top, left = rng.integers(side - size + 1, size=2)
    frame = cv2.resize(np.ascontiguousarray(frame[top : top + size, left : left + size]), (side, side))
    frame = random_jpeg(random_brightness(frame, 0.15, rng), rng)
    audio = np.roll(sample.audio, int(rng.integers(len(sample.audio)))) * np.float32(rng.uniform(0.3, 1))
    return Sample(frame, audio)
