"""Random scenes: which objects appear and when each sounds, where they move, and the audio mix."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from synthetic.clips.assets import AssetLibrary
from synthetic.clips.rasterize import add_clutter
from synthetic.clips.scene import MovingSprite, Scene
from synthetic.clips.synthesis import SYNTHESIS_RATE, colored_noise, fade
from utils.cli import InputError
from utils.layout import FRAME_SIZE, MaskBenchmarkName

MAX_ATTEMPTS = 60  # at a scene in which every object is visible
MAX_OBJECTS = 4  # in a scene of the plain level
PLACEMENTS = 20  # random trajectories of a sprite, of which the one with the largest clearance is taken
LevelName = Literal["plain", "hard"]


@dataclass(frozen=True)
class Level:
    """How difficult the clips are.

    Attributes:
        radius: range of an object's radius, in pixels of a 224×224 frame.
        min_visible: fraction of the frame that an object covers visibly in each labeled frame.
        hidden: whether silent objects may be hidden; those that sound must be visible at all times.
        objects: most objects in a scene.
        min_silent: fewest silent objects.
        clearance: distance of two sprites relative to the sum of their radii with which a placement is accepted; with
            less, sprites overlap more often.
        margin: smallest distance of an object's center from the border, in radii; below 1 objects are cut off.
        clutter: range of the number of small shapes in the background.
        snr: range in dB of the sounding objects over the background noise.
        pauses: probability that the object of an S4 clip is silent in some seconds.
        offscreen: probability that something outside the picture sounds, in a run of seconds.
    """

    radius: tuple[float, float] = (24.0, 58.0)
    min_visible: float = 0.02
    hidden: bool = False
    objects: int = MAX_OBJECTS
    min_silent: int = 1
    clearance: float = 0.7
    margin: float = 0.75
    clutter: tuple[int, int] = (0, 0)
    snr: tuple[float, float] = (12.0, 30.0)
    pauses: float = 0.0
    offscreen: float = 0.0


LEVELS: dict[LevelName, Level] = {
    "plain": Level(),
    "hard": Level(
        radius=(11.0, 46.0),
        min_visible=0.004,
        hidden=True,
        objects=8,
        min_silent=3,
        clearance=0.35,
        margin=0.1,
        clutter=(12, 40),
        snr=(2.0, 14.0),
        pauses=0.4,
        offscreen=0.4,
    ),
}
PLAIN = LEVELS["plain"]
RADIUS, SNR = PLAIN.radius, PLAIN.snr  # also of the training samples of the small networks


@dataclass(frozen=True)
class SceneObject:
    """An object of a clip.

    Attributes:
        category: what it is.
        sounding: the seconds in which it sounds; empty for a silent distractor.
        visible: whether it is in the picture.
    """

    category: str
    sounding: range
    visible: bool = True


def sample_objects(
    benchmark: MaskBenchmarkName,
    target: str,
    categories: Sequence[str],
    rng: np.random.Generator,
    level: Level = PLAIN,
    seconds: int = 5,
) -> list[SceneObject]:
    """Sample the objects of a clip, all of different categories and at least one of them silent.

    S4: the target sounds throughout; by `level.pauses` only in a run of seconds. MS3: the target and one or two others
    sound, each in a run of whole seconds; one clip in ten may have seconds in which nothing sounds. By
    `level.offscreen`, another category sounds outside the picture.

    Args:
        benchmark: "s4" or "ms3".
        target: a category that sounds.
        categories: all categories, at least two for S4 and three for MS3.
        rng: source of the choice.
        level: of difficulty.
        seconds: length of the clip.

    Returns:
        The objects in back-to-front order, those outside the picture last.
    """
    others = [str(name) for name in rng.permutation([name for name in categories if name != target])]
    if benchmark == "s4":
        runs = [range(seconds)]
    else:
        runs = _sample_runs(min(int(rng.integers(2, 4)), len(others)), seconds, rng)
    silent = int(rng.integers(level.min_silent, level.objects - len(runs) + 1))
    if benchmark == "s4" and level.pauses and rng.random() < level.pauses:
        runs = [_run(int(rng.integers(2, seconds)), seconds, rng)]
    unseen = []
    if level.offscreen and len(others) > len(runs) and rng.random() < level.offscreen:
        unseen = [SceneObject(others.pop(), _run(int(rng.integers(1, seconds + 1)), seconds, rng), visible=False)]
    pairs = zip([target, *others], runs + [range(0)] * silent, strict=False)
    objects = [SceneObject(category, sounding) for category, sounding in pairs]
    return [objects[i] for i in rng.permutation(len(objects))] + unseen


def _run(length: int, seconds: int, rng: np.random.Generator) -> range:
    """A run of `length` of a clip's seconds."""
    start = int(rng.integers(0, seconds - length + 1))
    return range(start, start + length)


def _sample_runs(count: int, seconds: int, rng: np.random.Generator) -> list[range]:
    """Runs of seconds, which together cover the clip in nine of ten cases."""
    gaps_allowed = rng.random() < 0.1
    while True:
        runs = [_run(int(length), seconds, rng) for length in rng.integers(1, seconds + 1, count)]
        if gaps_allowed or len(set().union(*runs)) == seconds:
            return runs


def sample_scene(
    objects: Sequence[SceneObject],
    assets: AssetLibrary,
    size: tuple[int, int],
    times: Sequence[float],
    rng: np.random.Generator,
    level: Level = PLAIN,
    seconds: int = 5,
) -> tuple[Scene, np.ndarray]:
    """Place the objects of a clip so that each of them is visible at each of the times.

    Args:
        objects: in back-to-front order; those outside the picture are left out.
        assets: provides their sprites and the background.
        size: height and width of the frame.
        times: in seconds.
        rng: source of sizes, places and movements.
        level: of difficulty.
        seconds: length of the clip.

    Returns:
        The scene, its sprites in the order of the objects, and the fraction of each pixel that each object covers at
        each time, float32 (times, objects, 224, 224).

    Raises:
        InputError: if an object is too thin to cover `level.min_visible` of a frame.
    """
    objects = [item for item in objects if item.visible]
    background = assets.background(*size, rng)
    if level.clutter[1]:
        add_clutter(background, int(rng.integers(level.clutter[0], level.clutter[1] + 1)), rng)
    optional = np.array([level.hidden and not item.sounding for item in objects])
    frame_scale = (size[0] * size[1] / (FRAME_SIZE[0] * FRAME_SIZE[1])) ** 0.5
    for attempt in range(MAX_ATTEMPTS):
        sprites: list[MovingSprite] = []
        for item in objects:
            low, high = level.radius
            min_radius = low + (high - low) * attempt / MAX_ATTEMPTS  # a thin object must be large
            radius = rng.uniform(min_radius, high) * frame_scale
            sprite = assets.sprite(item.category, radius, rng)
            sprites.append(_place(sprite, radius, sprites, size, rng, level, seconds))
        scene = Scene(background, sprites)
        fractions = np.stack([scene.visible_fractions(time) for time in times])
        visible = ((fractions > 0.5).mean(axis=(2, 3)) >= level.min_visible) | optional
        if visible.all():
            return scene, fractions
    hidden = sorted({item.category for item, ok in zip(objects, visible.all(axis=0), strict=True) if not ok})
    raise InputError(f"{', '.join(hidden)}: too thin to cover {level.min_visible:.2g} of a frame; remove it")


def _place(
    sprite: np.ndarray,
    radius: float,
    others: Sequence[MovingSprite],
    size: tuple[int, int],
    rng: np.random.Generator,
    level: Level,
    seconds: int,
) -> MovingSprite:
    """Give a sprite the trajectory, of a few random ones, with the largest clearance from the others."""
    extent = np.array(size[::-1], float)
    margin = np.minimum(level.margin * radius, 0.45 * extent)
    best, best_clearance = None, -1.0
    for _ in range(PLACEMENTS):
        start = rng.uniform(margin, extent - margin)
        end = np.clip(start + rng.normal(0, 0.13, 2) * extent, margin, extent - margin)
        tilt, phase = float(rng.uniform(-12, 12)), float(rng.random())
        moving = MovingSprite(sprite, start, end, 0.06 * radius, tilt, phase, seconds)
        clearance = min((_clearance(moving, other) for other in others), default=1.0)
        if clearance > best_clearance:
            best, best_clearance = moving, clearance
        if clearance > level.clearance:  # sprites then overlap now and then
            break
    assert best is not None
    return best


def _clearance(one: MovingSprite, other: MovingSprite) -> float:
    """The smallest distance of two sprites relative to the sum of their radii; below 1 they may overlap."""
    radii = sum(sum(moving.sprite.shape[:2]) / 4 for moving in (one, other))
    offsets = (one.center(time) - other.center(time) for time in (0, one.seconds / 2, one.seconds))
    return min(float(np.linalg.norm(offset)) for offset in offsets) / radii


def mix_audio(
    objects: Sequence[SceneObject],
    assets: AssetLibrary,
    rng: np.random.Generator,
    level: Level = PLAIN,
    seconds: int = 5,
) -> np.ndarray:
    """The audio of a clip: each object in the seconds in which it sounds, over background noise.

    Returns:
        Float32 (seconds · 44100,) at 44.1 kHz, in [-1, 1].
    """
    track = np.zeros(seconds * SYNTHESIS_RATE, np.float32)
    sounding = np.zeros(seconds, bool)
    for item in objects:
        if item.sounding:
            part = slice(item.sounding.start * SYNTHESIS_RATE, item.sounding.stop * SYNTHESIS_RATE)
            waveform = assets.audio(item.category, part.stop - part.start, rng)
            track[part] += fade(waveform) * np.float32(rng.uniform(0.6, 1.0))
            sounding[item.sounding] = True
    power = float(np.sqrt(np.square(track).sum() / (sounding.sum() * SYNTHESIS_RATE)))
    noise_level = power * 10 ** (-rng.uniform(*level.snr) / 20)
    track += np.float32(noise_level) * colored_noise(len(track), rng, rng.uniform(0, 0.7))
    return track * np.float32(rng.uniform(0.4, 0.9) / np.abs(track).max())
