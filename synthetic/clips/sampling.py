"""Random scenes: which objects appear and when each sounds, where they move, and the audio mix."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from synthetic.clips.assets import AssetLibrary
from synthetic.clips.scene import MovingSprite, Scene
from synthetic.clips.synthesis import SYNTHESIS_RATE, colored_noise, fade
from utils.cli import InputError
from utils.layout import CLIP_SECONDS, FRAME_SIZE, BenchmarkName

RADIUS = (24.0, 58.0)  # range of an object's radius, in pixels of a 224×224 frame
MIN_VISIBLE = 0.02  # fraction of the frame that each object covers visibly in each labeled frame
MAX_ATTEMPTS = 60  # at a scene in which every object is visible
MAX_OBJECTS = 4  # in a scene
SNR = (12.0, 30.0)  # range in dB of the sounding objects over the background noise
PLACEMENTS = 20  # random trajectories of a sprite, of which the one with the largest clearance is taken
SUFFICIENT_CLEARANCE = 0.7  # ends that search early; sprites then overlap now and then


@dataclass(frozen=True)
class SceneObject:
    """An object of a clip.

    Attributes:
        category: what it is.
        sounding: the seconds in which it sounds; empty for a silent distractor.
    """

    category: str
    sounding: range


def sample_objects(
    benchmark: BenchmarkName, target: str, categories: Sequence[str], rng: np.random.Generator
) -> list[SceneObject]:
    """Sample the objects of a clip, all of different categories and at least one of them silent.

    S4: the target sounds throughout. MS3: the target and one or two others sound, each in a run of whole seconds; one
    clip in ten may have seconds in which nothing sounds.

    Args:
        benchmark: "s4" or "ms3".
        target: a category that sounds.
        categories: all categories, at least two for S4 and three for MS3.
        rng: source of the choice.

    Returns:
        The objects in back-to-front order.
    """
    others = [str(name) for name in rng.permutation([name for name in categories if name != target])]
    runs = [range(CLIP_SECONDS)] if benchmark == "s4" else _sample_runs(min(int(rng.integers(2, 4)), len(others)), rng)
    silent = int(rng.integers(1, MAX_OBJECTS - len(runs) + 1))
    pairs = zip([target, *others], runs + [range(0)] * silent, strict=False)
    objects = [SceneObject(category, sounding) for category, sounding in pairs]
    return [objects[i] for i in rng.permutation(len(objects))]


def _sample_runs(count: int, rng: np.random.Generator) -> list[range]:
    """Runs of seconds, which together cover the clip in nine of ten cases."""
    gaps_allowed = rng.random() < 0.1
    while True:
        lengths = rng.integers(1, CLIP_SECONDS + 1, count)
        starts = [int(rng.integers(0, CLIP_SECONDS - length + 1)) for length in lengths]
        runs = [range(start, start + int(length)) for start, length in zip(starts, lengths, strict=True)]
        if gaps_allowed or len(set().union(*runs)) == CLIP_SECONDS:
            return runs


def sample_scene(
    objects: Sequence[SceneObject],
    assets: AssetLibrary,
    size: tuple[int, int],
    times: Sequence[float],
    rng: np.random.Generator,
) -> tuple[Scene, np.ndarray]:
    """Place the objects of a clip so that each of them is visible at each of the times.

    Args:
        objects: in back-to-front order.
        assets: provides their sprites and the background.
        size: height and width of the frame.
        times: in seconds.
        rng: source of sizes, places and movements.

    Returns:
        The scene, its sprites in the order of the objects, and the fraction of each pixel that each object covers at
        each time, float32 (times, objects, 224, 224).

    Raises:
        InputError: if an object is too thin to cover `MIN_VISIBLE` of a frame.
    """
    background = assets.background(*size, rng)
    frame_scale = (size[0] * size[1] / (FRAME_SIZE[0] * FRAME_SIZE[1])) ** 0.5
    for attempt in range(MAX_ATTEMPTS):
        sprites: list[MovingSprite] = []
        for item in objects:
            min_radius = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * attempt / MAX_ATTEMPTS  # a thin object must be large
            radius = rng.uniform(min_radius, RADIUS[1]) * frame_scale
            sprites.append(_place(assets.sprite(item.category, radius, rng), radius, sprites, size, rng))
        scene = Scene(background, sprites)
        fractions = np.stack([scene.visible_fractions(time) for time in times])
        visible = (fractions > 0.5).mean(axis=(2, 3)) >= MIN_VISIBLE
        if visible.all():
            return scene, fractions
    hidden = sorted({item.category for item, ok in zip(objects, visible.all(axis=0), strict=True) if not ok})
    raise InputError(f"{', '.join(hidden)}: too thin to cover {MIN_VISIBLE:.0%} of a frame; remove it")


def _place(
    sprite: np.ndarray,
    radius: float,
    others: Sequence[MovingSprite],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> MovingSprite:
    """Give a sprite the trajectory, of a few random ones, with the largest clearance from the others."""
    extent = np.array(size[::-1], float)
    margin = np.minimum(0.75 * radius, 0.45 * extent)
    best, best_clearance = None, -1.0
    for _ in range(PLACEMENTS):
        start = rng.uniform(margin, extent - margin)
        end = np.clip(start + rng.normal(0, 0.13, 2) * extent, margin, extent - margin)
        moving = MovingSprite(sprite, start, end, 0.06 * radius, float(rng.uniform(-12, 12)), float(rng.random()))
        clearance = min((_clearance(moving, other) for other in others), default=1.0)
        if clearance > best_clearance:
            best, best_clearance = moving, clearance
        if clearance > SUFFICIENT_CLEARANCE:
            break
    assert best is not None
    return best


def _clearance(one: MovingSprite, other: MovingSprite) -> float:
    """The smallest distance of two sprites relative to the sum of their radii; below 1 they may overlap."""
    radii = sum(sum(moving.sprite.shape[:2]) / 4 for moving in (one, other))
    offsets = (one.center(time) - other.center(time) for time in (0, CLIP_SECONDS / 2, CLIP_SECONDS))
    return min(float(np.linalg.norm(offset)) for offset in offsets) / radii


def mix_audio(objects: Sequence[SceneObject], assets: AssetLibrary, rng: np.random.Generator) -> np.ndarray:
    """The audio of a clip: each object in the seconds in which it sounds, over background noise.

    Returns:
        Float32 (220500,) at 44.1 kHz, in [-1, 1].
    """
    track = np.zeros(CLIP_SECONDS * SYNTHESIS_RATE, np.float32)
    sounding = np.zeros(CLIP_SECONDS, bool)
    for item in objects:
        if item.sounding:
            part = slice(item.sounding.start * SYNTHESIS_RATE, item.sounding.stop * SYNTHESIS_RATE)
            waveform = assets.audio(item.category, part.stop - part.start, rng)
            track[part] += fade(waveform) * np.float32(rng.uniform(0.6, 1.0))
            sounding[item.sounding] = True
    power = float(np.sqrt(np.square(track).sum() / (sounding.sum() * SYNTHESIS_RATE)))
    noise_level = power * 10 ** (-rng.uniform(*SNR) / 20)
    track += np.float32(noise_level) * colored_noise(len(track), rng, rng.uniform(0, 0.7))
    return track * np.float32(rng.uniform(0.4, 0.9) / np.abs(track).max())
