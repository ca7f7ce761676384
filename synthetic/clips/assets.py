"""What composed clips are made of: the built-in drawings and sounds, or a folder of pictures and recordings."""

from abc import ABC, abstractmethod
from functools import cache, lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile

from synthetic.clips.rasterize import render_background, render_sprite
from synthetic.clips.sounds import synthesize
from synthetic.clips.sprites import DRAWINGS
from synthetic.clips.synthesis import SYNTHESIS_RATE, loop
from utils.cli import InputError
from utils.files import read_image

PHOTOGRAPH_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MIN_CROP = 0.6  # of the largest crop of a photograph that has the frame's aspect ratio
MAX_ASPECT = 1.7  # longest side of a sprite, relative to the square whose area it has


class AssetLibrary(ABC):
    """The objects and backgrounds that scenes are composed of.

    Args:
        backgrounds: folder of photographs (JPEG or PNG), of which each scene shows a random crop; None renders plain
            backgrounds.

    Attributes:
        categories: names of the object categories.
        photographs: files of the backgrounds.

    Raises:
        InputError: if a file cannot be used; all are read once, so that this is known at the start.
    """

    categories: tuple[str, ...]

    def __init__(self, backgrounds: Path | None = None):
        self.photographs = [] if backgrounds is None else _list_files(backgrounds, PHOTOGRAPH_SUFFIXES, "photograph")
        for path in self.photographs:
            _read_photograph(path)

    @abstractmethod
    def sprite(self, category: str, radius: float, rng: np.random.Generator) -> np.ndarray:
        """An image, about 2·radius pixels wide: float32 (h, w, 4), premultiplied RGB in [0, 255], and alpha."""

    @abstractmethod
    def audio(self, category: str, samples: int, rng: np.random.Generator) -> np.ndarray:
        """The sound of a category: float32 (samples,) at 44.1 kHz, of unit power."""

    @property
    def object_files(self) -> list[Path]:
        """The files of the objects; empty for the built-in ones."""
        return []

    def background(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """A background: float32 (height, width, 3), RGB in [0, 255]."""
        if not self.photographs:
            return render_background(height, width, rng)
        photograph = _read_photograph(self.photographs[rng.integers(len(self.photographs))])
        scale = min(photograph.shape[0] / height, photograph.shape[1] / width)
        crop_size = np.array([height, width]) * scale * rng.uniform(MIN_CROP, 1)
        rows, columns = np.maximum(crop_size.round().astype(int), 1)
        top, left = rng.integers(np.array(photograph.shape[:2]) - (rows, columns) + 1)
        crop = photograph[top : top + rows, left : left + columns]
        flipped = crop[:, ::-1] if rng.random() < 0.5 else crop
        interpolation = cv2.INTER_AREA if rows > height else cv2.INTER_LINEAR  # neither overshoots
        return cv2.resize(flipped, (width, height), interpolation=interpolation).astype(np.float32)


class BuiltinLibrary(AssetLibrary):
    """The built-in drawings and sounds."""

    categories = tuple(DRAWINGS)
    sprite = staticmethod(render_sprite)
    audio = staticmethod(synthesize)


class FolderLibrary(AssetLibrary):
    """Pictures with alpha, NAME.png, and their recordings, NAME.ogg or NAME.wav; each NAME is a category.

    Args:
        folder: holds the pictures and recordings.
        backgrounds: as for `AssetLibrary`.

    Raises:
        InputError: if a file is missing or cannot be used.
    """

    def __init__(self, folder: Path, backgrounds: Path | None = None):
        super().__init__(backgrounds)
        self.folder = folder
        pictures = _list_files(folder, (".png",), "NAME.png with a NAME.ogg or NAME.wav")
        self.categories = tuple(path.stem for path in pictures)
        for path in pictures:
            _read_cutout(path)
            _read_recording(self.recording(path.stem))

    def picture(self, category: str) -> Path:
        """The picture file of a category."""
        return self.folder / f"{category}.png"

    def recording(self, category: str) -> Path:
        """The recording of a category; InputError if there is none."""
        for suffix in (".ogg", ".wav"):
            if (path := self.folder / f"{category}{suffix}").is_file():
                return path
        raise InputError(f"{self.picture(category)}: has no recording; add {category}.ogg or {category}.wav")

    def sprite(self, category: str, radius: float, rng: np.random.Generator) -> np.ndarray:
        """The picture, scaled to the area of a square of side 2·radius, or to less if it is elongated."""
        cutout = _read_cutout(self.picture(category))
        height, width = cutout.shape[:2]
        scale = min(2 * radius / (height * width) ** 0.5, 2 * MAX_ASPECT * radius / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR  # neither overshoots
        flipped = cutout[:, ::-1] if rng.random() < 0.5 else cutout
        return cv2.resize(flipped, size, interpolation=interpolation)

    def audio(self, category: str, samples: int, rng: np.random.Generator) -> np.ndarray:
        """The recording, repeated or cut to `samples`."""
        return loop(_read_recording(self.recording(category)), samples, rng)

    @property
    def object_files(self) -> list[Path]:
        """The picture and the recording of each category."""
        return [path for name in self.categories for path in (self.picture(name), self.recording(name))]


def open_assets(pictures: Path | None, backgrounds: Path | None) -> AssetLibrary:
    """The library for the options --pictures and --backgrounds; InputError if a file cannot be used."""
    return BuiltinLibrary(backgrounds) if pictures is None else FolderLibrary(pictures, backgrounds)


def _list_files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """The files of a folder with one of the suffixes, sorted; InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    files = sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.name[0] != "." and p.is_file())
    if not files:
        raise InputError(f"{folder}: contains no {what}")
    return files


def _read_checked(path: Path, flags: int) -> np.ndarray:
    try:
        return read_image(path, flags)
    except InputError as error:
        raise InputError(f"{path}: not a readable image") from error


@lru_cache(maxsize=64)
def _read_photograph(path: Path) -> np.ndarray:
    """A photograph: uint8 (H, W, 3) RGB."""
    return _read_checked(path, cv2.IMREAD_COLOR_RGB)


@cache  # each process reads a file once
def _read_cutout(path: Path) -> np.ndarray:
    """A picture cropped to its opaque part: float32 (h, w, 4), premultiplied RGB in [0, 255] and alpha in [0, 1]."""
    bgra = _read_checked(path, cv2.IMREAD_UNCHANGED)
    if bgra.ndim != 3 or bgra.shape[2] != 4:
        raise InputError(f"{path}: has no alpha channel to separate the object from the background")
    rgba = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA).astype(np.float32)
    rgba /= 1 if bgra.dtype == np.uint8 else 257  # 16 bits per channel
    rgba[..., 3] /= 255
    if rgba[..., 3].max() <= 0.5:
        raise InputError(f"{path}: is transparent everywhere")
    rows, columns = np.nonzero(rgba[..., 3] > 0.05)
    rgba[..., :3] *= rgba[..., 3:]
    return rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@cache
def _read_recording(path: Path) -> np.ndarray:
    """A recording without its silent parts: float32 (n,), mono at 44.1 kHz."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: not a readable audio file ({error})") from error
    mono = np.nan_to_num(samples.mean(axis=1))
    block = max(1, rate // 20)
    blocks = np.pad(mono, (0, -len(mono) % block)).reshape(-1, block)
    power = np.sqrt(np.square(blocks).mean(axis=1))
    loud = power > 0.03 * power.max(initial=0)
    if not loud.any():
        raise InputError(f"{path}: is silent")
    mono = blocks[np.convolve(loud, np.ones(5), "same")[: len(loud)] > 0].ravel()  # keeps 0.1 s around each loud block
    if rate == SYNTHESIS_RATE:
        return mono
    # Not librosa, which takes seconds to import in each process.
    resampler = av.AudioResampler("fltp", "mono", SYNTHESIS_RATE)
    frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    return np.concatenate([f.to_ndarray()[0] for f in (*resampler.resample(frame), *resampler.resample(None))])
