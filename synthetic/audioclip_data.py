"""Where the miniature AudioCLIP's pairs of sound and picture come from: scenes drawn on the fly, or clips.

Drawn pairs may be easy: one thing in a small picture, on a calm background or on black, some of them as close up
as proposals are when they are cut out to be recognised. The others are whole frames as they are in the composed
clips, with silent things.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import Protocol

import cv2
import numpy as np

from synthetic.assets import AssetLibrary
from synthetic.scene import RADIUS, SNR, MovingSprite, Scene, SceneObject, draw_scene, sample_objects
from synthetic.sounds import SYNTHESIS_RATE, colored_noise, fade
from utils.audio import SAMPLE_RATE, load_clip_waveform, resample
from utils.cli import InputError
from utils.dataset import read_frame
from utils.layout import CLIP_SECONDS, FRAME_SIZE, AVSBench
from utils.masks import read_mask

CANVAS = (240, 320)  # height and width of the composed videos; frames are these squeezed to a square
EASY_SIDE = 128  # pixels: an easy scene is cut down, not scaled, so things are as large as in whole frames
CLOSE, BLACK = 0.4, 0.4  # parts of the easy pictures: close up; before black
EASY_SCENES = f"{EASY_SIDE} px: at the same scale, or ({CLOSE:.0%}) one thing close up; {BLACK:.0%} before black"
TRAINING, MEASURING = 2, 3  # streams of random numbers; the composed clips use 0 and 1


@dataclass(frozen=True)
class Sample:
    """One second of a clip."""

    frame: np.ndarray  # (side, side, 3) uint8 RGB
    sound: np.ndarray  # (44100,) float32 in [-1, 1], as it comes out of a 16 kHz file
    category: str = ""  # what sounds; "" if nobody says
    visible_categories: tuple[str, ...] = ()  # every kind in the frame
    mask: np.ndarray | None = None  # (224, 224) bool: what sounds. Only measured with, never trained with


class Pairs(Protocol):
    """Where pairs for training come from."""

    def item(self, step: int, place: int, easy: bool) -> Sample:
        """The pair at a place of a step's batch: the same one whenever it is asked for."""


class ScenePairs:
    """Pairs drawn on the fly, each of them new."""

    def __init__(self, cast: AssetLibrary, seed: int):
        self.cast, self.seed = cast, seed

    def item(self, step: int, place: int, easy: bool) -> Sample:
        """See Pairs."""
        rng = np.random.default_rng([self.seed, TRAINING, step, place])
        kind = str(rng.choice(self.cast.categories))
        if not easy:
            return augment(self.draw(kind, rng, False), rng)
        close, black = rng.random() < CLOSE, rng.random() < BLACK
        if close:  # things lie in frames at their usual sizes before they are cut out and enlarged
            scene = self.draw(kind, rng, True, black=black)
            assert scene.mask is not None
            scene = replace(scene, frame=crop_close(scene.frame, scene.mask, EASY_SIDE, rng))
        else:
            scene = self.draw(kind, rng, True, EASY_SIDE, black)
        return augment(scene, rng)

    def draw(
        self, kind: str, rng: np.random.Generator, easy: bool, side: int = FRAME_SIZE[0], black: bool = False
    ) -> Sample:
        """A scene in which a kind sounds: alone if it is to be easy, and then before black if that is asked."""
        if easy:
            stretch = np.array(CANVAS) / FRAME_SIZE
            height, width = (round(side * by) for by in stretch)
            radius = rng.uniform(*RADIUS) * stretch.prod() ** 0.5
            margin = np.minimum(0.75 * radius, 0.45 * np.array([width, height]))
            centre = rng.uniform(margin, np.array([width, height]) - margin)
            thing = MovingSprite(
                self.cast.sprite(kind, radius, rng), centre, centre, 0.0, rng.uniform(-12, 12), rng.random()
            )
            backdrop = np.zeros((height, width, 3), np.float32) if black else self.cast.background(height, width, rng)
            scene, moment = Scene(backdrop, [thing]), 0.0
            roles, visible = [SceneObject(kind, range(CLIP_SECONDS))], scene.visible_masks(moment)
        else:
            roles = sample_objects("s4", kind, self.cast.categories, rng)
            moment = rng.uniform(0, CLIP_SECONDS)
            scene, seconds = draw_scene(roles, self.cast, CANVAS, [moment], rng)
            visible = seconds[0]
        frame = cv2.resize(scene.frame(moment), (side, side), interpolation=cv2.INTER_LINEAR)
        heard = next(n for n, role in enumerate(roles) if role.sounding)
        sound = file_round_trip(self.sound(kind, rng))
        return Sample(frame, sound, kind, tuple(role.kind for role in roles), visible[heard] > 0.5)

    def sound(self, kind: str, rng: np.random.Generator) -> np.ndarray:
        """One second as synthetic.scene.mix would make it, without the other four."""
        sound = fade(self.cast.sound(kind, SYNTHESIS_RATE, rng))  # of unit power
        sound = sound + np.float32(10 ** (-rng.uniform(*SNR) / 20)) * colored_noise(
            SYNTHESIS_RATE, rng, rng.uniform(0, 0.7)
        )
        return sound * np.float32(rng.uniform(0.4, 0.9) / np.abs(sound).max())


class ClipPairs:
    """The seconds of preprocessed clips: a frame and its own second of sound, from one split."""

    def __init__(self, data: AVSBench, split: str, seed: int, batch: int):
        self.data, self.seed, self.batch = data, seed, batch
        self.clips = data.split(split)
        if len(self.clips) < batch:
            raise InputError(f"{data.root}: {len(self.clips)} {split} clips are fewer than a --batch of {batch}")

    def item(self, step: int, place: int, easy: bool) -> Sample:
        """See Pairs. A batch never holds a clip twice; nothing here is easy."""
        epoch, batch = divmod(step, len(self.clips) // self.batch)
        order = np.random.default_rng([self.seed, TRAINING, epoch]).permutation(len(self.clips))
        rng = np.random.default_rng([self.seed, TRAINING, step, place])
        return augment(self.read(int(order[batch * self.batch + place]), int(rng.integers(CLIP_SECONDS))), rng)

    def read(self, index: int, second: int, mask: bool = False) -> Sample:
        """One second of a clip."""
        clip = self.clips[index]
        frame = read_frame(self.data.frames(clip)[second])
        sound = load_clip_waveform(self.data.wav(clip), SYNTHESIS_RATE)[second]
        seen = read_mask(self.data.masks(clip)[second]).numpy() > 0.5 if mask else None
        return Sample(frame, sound, clip.category, (), seen)


def crop_close(frame: np.ndarray, mask: np.ndarray, side: int, rng: np.random.Generator | None = None) -> np.ndarray:
    """What a mask marks, cut to its box with the shorter side scaled to the picture's and the longer one cut to it.

    frame: (H, W, 3) uint8; mask: (H, W) bool. Given rng, the box is up to a tenth off at each edge.
    Returns (side, side, 3) uint8. Source: the crops that CLIP is shown, as its own preprocessing makes them.
    """
    low, high = np.zeros(2), np.array(mask.shape, float)
    if mask.any():
        places = np.argwhere(mask)
        low, high = places.min(axis=0).astype(float), places.max(axis=0) + 1.0
    if rng is not None:
        off = rng.uniform(-0.1, 0.1, (2, 2)) * (high - low)
        low, high = np.maximum(low + off[0], 0), np.minimum(high + off[1], mask.shape)
    top, left = np.minimum(low.round().astype(int), np.array(mask.shape) - 1)
    bottom, right = np.maximum(high.round().astype(int), (top + 1, left + 1))
    crop = np.ascontiguousarray(frame[top:bottom, left:right])
    height, width = crop.shape[:2]
    square = min(height, width)  # cutting first and scaling then spares pixels
    y, x = (height - square) // 2, (width - square) // 2
    return cv2.resize(crop[y : y + square, x : x + square], (side, side), interpolation=cv2.INTER_CUBIC)


def file_round_trip(sound: np.ndarray) -> np.ndarray:
    """A second as it comes back from the benchmark's 16 kHz files: nothing above 8 kHz is left of it."""
    small = resample(sound, SYNTHESIS_RATE, SAMPLE_RATE)
    small = np.rint(np.clip(small, -1, 1) * 32767).astype(np.float32) / 32768
    return resample(small, SAMPLE_RATE, SYNTHESIS_RATE)[:SYNTHESIS_RATE].astype(np.float32)


def augment(sample: Sample, rng: np.random.Generator) -> Sample:
    """Mirrored, cut, lit and compressed otherwise; the sound starts elsewhere and is louder or softer."""
    frame, side = sample.frame, len(sample.frame)
    if rng.random() < 0.5:
        frame = frame[:, ::-1]
    size = round(side * rng.uniform(0.85, 1))
    top, left = rng.integers(side - size + 1, size=2)
    frame = cv2.resize(np.ascontiguousarray(frame[top : top + size, left : left + size]), (side, side))
    frame = cv2.convertScaleAbs(frame, alpha=rng.uniform(0.85, 1.15))
    if rng.random() < 0.7:  # videos are compressed
        bgr = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        coded = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(40, 95))])[1]
        frame = np.ascontiguousarray(np.asarray(cv2.imdecode(coded, cv2.IMREAD_COLOR))[..., ::-1])
    sound = np.roll(sample.sound, int(rng.integers(len(sample.sound)))) * np.float32(rng.uniform(0.3, 1))
    return Sample(frame, sound)


# Measured with


def scene_eval_rounds(pairs: ScenePairs, seed: int, rounds: int, easy: bool) -> list[list[Sample]]:
    """Rounds of unseen scenes: in each round, every kind sounds in one of them."""
    streams = (np.random.default_rng([seed, MEASURING, int(easy), r]) for r in range(rounds))
    return [[pairs.draw(kind, rng, easy) for kind in pairs.cast.categories] for rng in streams]


def clip_eval_rounds(pairs: ClipPairs, second: int) -> list[list[Sample]]:
    """One second of every clip, in rounds of one clip of each category; MS3 has none, so all are one round."""
    rounds: dict[int, list[Sample]] = defaultdict(list)
    met: dict[str, int] = defaultdict(int)
    for index, clip in enumerate(pairs.clips):
        rounds[met[clip.category] if clip.category else 0].append(pairs.read(index, second, mask=True))
        met[clip.category] += 1
    # One clip alone cannot be mistaken for another, so it would only flatter.
    return [samples for samples in rounds.values() if len(samples) > 1] or list(rounds.values())
