"""A composed clip: things that drift over a background, some of them sounding, the others silent.

The picture and the exact masks come from the same layers. A cast says what the things look and sound like.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from synthetic import sounds
from synthetic.assets import AssetLibrary
from utils.cli import InputError
from utils.layout import CLIP_SECONDS, FRAME_SIZE, BenchmarkName

RADIUS = (24.0, 58.0)  # of a thing, in pixels of a 224×224 frame
MIN_VISIBLE = 0.02  # the least part of the frame that each thing shows in each second's labelled frame
MAX_ATTEMPTS = 60  # at a scene in which every thing shows
MAX_OBJECTS = 4  # things in a scene
SNR = (12.0, 30.0)  # dB, of the sounding things over the background noise


@dataclass(frozen=True)
class SceneObject:
    """One thing of a clip and the seconds in which it sounds: none for a distractor."""

    kind: str
    sounding: range


def sample_objects(
    benchmark: BenchmarkName, lead: str, kinds: Sequence[str], rng: np.random.Generator
) -> list[SceneObject]:
    """Who appears in a clip and who sounds when, the farthest first. Kinds differ; at least one is silent.

    S4: the lead sounds all through. MS3: the lead and one or two others sound, each in a run of whole
    seconds; one clip in ten may have seconds in which nothing sounds. Needs two kinds for S4, three for MS3.
    """
    others = [str(kind) for kind in rng.permutation([kind for kind in kinds if kind != lead])]
    runs = [range(CLIP_SECONDS)] if benchmark == "s4" else _runs(min(int(rng.integers(2, 4)), len(others)), rng)
    silent = int(rng.integers(1, MAX_OBJECTS - len(runs) + 1))
    nobody = range(0)
    roles = [SceneObject(*role) for role in zip([lead, *others], runs + [nobody] * silent, strict=False)]
    return [roles[i] for i in rng.permutation(len(roles))]


def _runs(count: int, rng: np.random.Generator) -> list[range]:
    gaps_allowed = rng.random() < 0.1
    while True:
        lengths = rng.integers(1, CLIP_SECONDS + 1, count)
        starts = [int(rng.integers(0, CLIP_SECONDS - length + 1)) for length in lengths]
        runs = [range(start, start + int(length)) for start, length in zip(starts, lengths, strict=True)]
        if gaps_allowed or len(set().union(*runs)) == CLIP_SECONDS:
            return runs


@dataclass(frozen=True)
class MovingSprite:
    """A sprite on its way through the scene. Lengths in pixels, x to the right and y down."""

    sprite: np.ndarray
    start: np.ndarray  # (x, y) of its centre at 0 s
    end: np.ndarray  # and at 5 s
    sway: float = 0.0  # how far it bobs up and down
    tilt: float = 0.0  # degrees, about which it rocks
    phase: float = 0.0  # of both, in turns

    def centre(self, seconds: float) -> np.ndarray:
        """(x, y) at a time."""
        bob = self.sway * np.sin(2 * np.pi * (0.5 * seconds + self.phase))
        return self.start + (self.end - self.start) * (seconds / CLIP_SECONDS) + np.array([0, bob])

    def layer(self, seconds: float, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
        """Where it lies in a frame of (height, width), and its premultiplied RGBA pixels there."""
        angle = np.radians(self.tilt + 5 * np.sin(2 * np.pi * (0.4 * seconds + self.phase)))
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        half = (np.array(self.sprite.shape[1::-1]) - 1) / 2
        centre, reach = self.centre(seconds), np.abs(turn) @ half + 1
        low = np.clip(np.floor(centre - reach), 0, size[::-1]).astype(int)
        high = np.clip(np.ceil(centre + reach) + 1, low, size[::-1]).astype(int)
        where = slice(low[1], high[1]), slice(low[0], high[0])
        if (high == low).any():
            return where, np.zeros((high[1] - low[1], high[0] - low[0], 4), np.float32)
        matrix = np.column_stack([turn, centre - low - turn @ half])
        return where, cv2.warpAffine(self.sprite, matrix, tuple(int(n) for n in high - low))


@dataclass(frozen=True)
class Scene:
    """A background, (H, W, 3) float32, and the things before it, the farthest first."""

    background: np.ndarray
    objects: Sequence[MovingSprite]

    def frame(self, seconds: float) -> np.ndarray:
        """The picture at a time: (H, W, 3) RGB uint8."""
        image = self.background.copy()
        for thing in self.objects:
            where, pixels = thing.layer(seconds, image.shape[:2])
            if not pixels.size:
                continue
            image[where] *= cv2.merge([1 - pixels[..., 3]] * 3)  # whole rows at a time: faster than broadcasting
            image[where] += cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
        return cv2.convertScaleAbs(image)  # rounds

    def visible_masks(self, seconds: float) -> np.ndarray:
        """How much of each pixel each thing makes up: float32 (things, 224, 224), 0 to 1.

        Resized as the preprocessing resizes the frame itself, so it holds for the frame that the models see.
        """
        shares = np.zeros((*self.background.shape[:2], len(self.objects)), np.float32)
        for number, thing in enumerate(self.objects):
            where, pixels = thing.layer(seconds, shares.shape[:2])
            shares[where] *= 1 - pixels[..., 3:]
            shares[where][..., number] = pixels[..., 3]
        small = cv2.resize(shares, FRAME_SIZE[::-1], interpolation=cv2.INTER_LINEAR)
        return np.moveaxis(small.reshape(*FRAME_SIZE, -1), 2, 0)


def draw_scene(
    roles: Sequence[SceneObject],
    cast: AssetLibrary,
    size: tuple[int, int],
    moments: Sequence[float],
    rng: np.random.Generator,
) -> tuple[Scene, np.ndarray]:
    """Place the things of a clip so that each one shows at each of the moments, in seconds.

    size: height and width of the frame. Returns the scene, its things in the order of the roles, and what
    `Scene.visible` says at the moments: float32 (moments, roles, 224, 224). Raises InputError when a thing is
    too thin to show.
    """
    backdrop = cast.background(*size, rng)
    for attempt in range(MAX_ATTEMPTS):
        things: list[MovingSprite] = []
        for role in roles:
            smallest = RADIUS[0] + (RADIUS[1] - RADIUS[0]) * attempt / MAX_ATTEMPTS  # a thin thing must be large
            radius = rng.uniform(smallest, RADIUS[1]) * (size[0] * size[1] / (FRAME_SIZE[0] * FRAME_SIZE[1])) ** 0.5
            things.append(_place(cast.sprite(role.kind, radius, rng), radius, things, size, rng))
        scene = Scene(backdrop, things)
        visible = np.stack([scene.visible_masks(moment) for moment in moments])
        shows = (visible > 0.5).mean(axis=(2, 3)) >= MIN_VISIBLE
        if shows.all():
            return scene, visible
    hidden = sorted({role.kind for role, ok in zip(roles, shows.all(axis=0), strict=True) if not ok})
    raise InputError(f"{', '.join(hidden)}: too thin a picture to fill {MIN_VISIBLE:.0%} of a frame; leave it out")


def _place(
    sprite: np.ndarray,
    radius: float,
    others: Sequence[MovingSprite],
    size: tuple[int, int],
    rng: np.random.Generator,
) -> MovingSprite:
    """Send a thing on its way: of a few, the way that keeps clearest of the others."""
    extent = np.array(size[::-1], float)
    margin = np.minimum(0.75 * radius, 0.45 * extent)
    best, clearest = None, -1.0
    for _ in range(20):
        start = rng.uniform(margin, extent - margin)
        end = np.clip(start + rng.normal(0, 0.13, 2) * extent, margin, extent - margin)
        thing = MovingSprite(sprite, start, end, 0.06 * radius, float(rng.uniform(-12, 12)), float(rng.random()))
        clear = min((_clearance(thing, other) for other in others), default=1.0)
        if clear > clearest:
            best, clearest = thing, clear
        if clear > 0.7:  # touching now and then is welcome
            break
    assert best is not None
    return best


def _clearance(one: MovingSprite, other: MovingSprite) -> float:
    """The least distance of two things, as a part of the sum of their radii; below 1 they may overlap."""
    reach = sum(sum(thing.sprite.shape[:2]) / 4 for thing in (one, other))
    gaps = (one.centre(moment) - other.centre(moment) for moment in (0, CLIP_SECONDS / 2, CLIP_SECONDS))
    return min(float(np.linalg.norm(gap)) for gap in gaps) / reach


def mix_audio(roles: Sequence[SceneObject], cast: AssetLibrary, rng: np.random.Generator) -> np.ndarray:
    """A clip's sound: each role in its own seconds, over noise. Float32 (220500,) at 44.1 kHz, in [-1, 1]."""
    track = np.zeros(CLIP_SECONDS * sounds.SYNTHESIS_RATE, np.float32)
    heard = np.zeros(CLIP_SECONDS, bool)
    for role in roles:
        if role.sounding:
            when = slice(role.sounding.start * sounds.SYNTHESIS_RATE, role.sounding.stop * sounds.SYNTHESIS_RATE)
            sound = cast.sound(role.kind, when.stop - when.start, rng)
            track[when] += sounds.fade(sound) * np.float32(rng.uniform(0.6, 1.0))
            heard[role.sounding] = True
    power = float(np.sqrt(np.square(track).sum() / (heard.sum() * sounds.SYNTHESIS_RATE)))
    level = power * 10 ** (-rng.uniform(*SNR) / 20)
    track += np.float32(level) * sounds.colored_noise(len(track), rng, rng.uniform(0, 0.7))
    return track * np.float32(rng.uniform(0.4, 0.9) / np.abs(track).max())
