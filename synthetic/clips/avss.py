"""Compose clips in the layout of AVSS: frames, audio, and the class of each pixel.

v1s clips are composed as those of S4, v1m and the ten-second v2 clips as those of MS3. A pixel has the class of the
sounding object that it shows.
"""

import csv
import io
from collections.abc import Sequence
from itertools import cycle, islice

import numpy as np

from synthetic.clips.assets import AssetLibrary
from synthetic.clips.plan import ClipSpec, RenderConfig, assign_splits, clip_rng
from synthetic.clips.sampling import LEVELS, SceneObject, mix_audio, sample_objects, sample_scene
from synthetic.clips.synthesis import SYNTHESIS_RATE
from utils.classes import CLASSES, PALETTE, class_of
from utils.cli import InputError
from utils.files import jpeg_bytes, png_bytes, wav_bytes, write_bytes
from utils.layout import BENCHMARKS, INDEX_LABELS, SOURCE_AUDIO, Clip, MaskBenchmarkName
from utils.timestamps import SAMPLE_POINT

AVSS = BENCHMARKS["avss"]
SUBSETS = ("v1s", "v2", "v1s", "v1m", "v2")  # of successive clips
SCENES: dict[str, MaskBenchmarkName] = {"v1s": "s4", "v1m": "ms3", "v2": "ms3"}  # as which benchmark they are composed
# Classes of the built-in categories that AVSS does not have. The choice is arbitrary: each stands for another class.
STAND_INS = {
    "siren": "emergency-car",
    "shell": "handpan",
    "panpipes": "flute",
    "whistle": "sorna",
    "cricket": "squirrel",
    "bee": "mower",
    "robot": "utv",
    "frog": "duck",
}


def avss_class(category: str) -> str:
    """The class of a category of objects. Raises InputError if there is none."""
    name = STAND_INS.get(category) or class_of(category)
    if name is None:
        raise InputError(f"{category}: not a class of AVSS; name the picture after one: {', '.join(CLASSES[1:])}")
    return name


def plan_avss(count: int, categories: Sequence[str], config: RenderConfig) -> list[ClipSpec]:
    """Plan the clips; the categories take turns as targets, and each subset has clips in each split if it can."""
    order = clip_rng(config.seed, "avss").permutation(categories)
    subsets = list(islice(cycle(SUBSETS), count))
    specs = []
    for index, (subset, split) in enumerate(zip(subsets, assign_splits(subsets), strict=True)):
        target, seconds = str(order[index % len(order)]), AVSS.seconds[subset]
        objects = _objects(subset, target, categories, config, clip_rng(config.seed, "avss", index))
        sounding = dict.fromkeys(avss_class(item.category) for item in objects if item.sounding and item.visible)
        name = f"mix-{index:04d}" if subset == "v1m" else f"{target}-{index:04d}_0_{1000 * seconds}"
        specs.append(ClipSpec("avss", index, target, Clip(name, split, objects="_".join(sounding), subset=subset)))
    return specs


def _objects(
    subset: str, target: str, categories: Sequence[str], config: RenderConfig, rng: np.random.Generator
) -> list[SceneObject]:
    return sample_objects(SCENES[subset], target, categories, rng, LEVELS[config.level], AVSS.seconds[subset])


def compose_avss_clip(spec: ClipSpec, config: RenderConfig, assets: AssetLibrary) -> bool:
    """Write the frames, labels and audio of a clip unless they exist; returns whether they did.

    The audio is written last, so a clip whose audio exists is complete.
    """
    clip, seconds = spec.clip, AVSS.num_frames(spec.clip)
    audio = config.path("avss", SOURCE_AUDIO, clip)
    if audio.is_file():
        return True
    rng = clip_rng(config.seed, "avss", spec.index)
    objects, level = _objects(clip.subset, spec.target, assets.categories, config, rng), LEVELS[config.level]
    times = [second + SAMPLE_POINT for second in range(seconds)]
    scene, _ = sample_scene(objects, assets, config.size, times, rng, level, seconds)
    shown = [item for item in objects if item.visible]
    classes = np.array([CLASSES.index(avss_class(item.category)) for item in shown], np.uint8)
    for second, time in enumerate(times):
        write_bytes(config.path("avss", AVSS.frame, clip, second), jpeg_bytes(scene.frame(time), 95))
        if second < AVSS.num_labeled(clip):
            sounds = [second in item.sounding for item in shown]
            labels = label_pixels(scene.visible_fractions(time, config.size)[sounds], classes[sounds])
            write_bytes(config.path("avss", AVSS.mask, clip, second), png_bytes(PALETTE[labels]))
            write_bytes(config.path("avss", INDEX_LABELS, clip, second), png_bytes(labels))
    samples = np.rint(mix_audio(objects, assets, rng, level, seconds) * 32767).astype(np.int16)
    write_bytes(audio, wav_bytes(samples, SYNTHESIS_RATE))
    return False


def label_pixels(fractions: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """The class of each pixel: of the object that covers most of it, if the objects together cover more than half.

    Args:
        fractions: (objects, H, W), the part of each pixel that each sounding object covers.
        classes: (objects,) uint8.

    Returns:
        (H, W) uint8, 0 for the background.
    """
    if not len(fractions):
        return np.zeros(fractions.shape[1:], np.uint8)
    return np.where(fractions.sum(0) > 0.5, classes[fractions.argmax(0)], 0).astype(np.uint8)


def avss_meta(specs: Sequence[ClipSpec]) -> str:
    """The content of metadata.csv."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(AVSS.columns)
    for clip in (spec.clip for spec in specs):
        vid = clip.name if clip.subset == "v1m" else clip.name.rsplit("_", 2)[0]
        writer.writerow((vid, clip.name, 0, 0, clip.objects, clip.split, clip.subset))
    return text.getvalue()
