"""Who appears in a composed clip and before what: the built-in drawings, or a folder of pictures and recordings."""

from abc import ABC, abstractmethod
from functools import cache, lru_cache
from pathlib import Path

import av
import cv2
import numpy as np
import soundfile

from synthetic import sounds
from synthetic import sprites as drawings
from utils.cli import InputError
from utils.files import read_image

PHOTOGRAPHS = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")
MIN_CROP = 0.6  # of a photograph's sides, that a backdrop shows


class AssetLibrary(ABC):
    """What may appear in a scene.

    backgrounds: a folder of photographs, JPEG or PNG, of which each scene shows a part; without one, backdrops are
    drawn, and calm. Reads everything once, so that a file that cannot be used is named at once, by an InputError.
    """

    categories: tuple[str, ...]

    def __init__(self, backgrounds: Path | None = None):
        self.photographs = [] if backgrounds is None else _files(backgrounds, PHOTOGRAPHS, "photograph")
        for path in self.photographs:
            _read_photograph(path)

    @abstractmethod
    def sprite(self, kind: str, radius: float, rng: np.random.Generator) -> np.ndarray:
        """Float32 (h, w, 4): RGB, 0 to 255, premultiplied by alpha; alpha, 0 to 1. Side about 2·radius."""

    @abstractmethod
    def sound(self, kind: str, samples: int, rng: np.random.Generator) -> np.ndarray:
        """Float32 (samples,) at 44.1 kHz, of unit power."""

    @property
    def files(self) -> list[Path]:
        """What the things are made from, but for the photographs."""
        return []

    def background(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """Float32 (height, width, 3), RGB, 0 to 255."""
        if not self.photographs:
            return drawings.background(height, width, rng)
        photograph = _read_photograph(self.photographs[rng.integers(len(self.photographs))])
        largest = min(photograph.shape[0] / height, photograph.shape[1] / width)
        part = np.array([height, width]) * largest * rng.uniform(MIN_CROP, 1)
        rows, columns = np.maximum(part.round().astype(int), 1)
        top, left = rng.integers(np.array(photograph.shape[:2]) - (rows, columns) + 1)
        crop = photograph[top : top + rows, left : left + columns]
        mirrored = crop[:, ::-1] if rng.random() < 0.5 else crop
        method = cv2.INTER_AREA if rows > height else cv2.INTER_LINEAR  # neither overshoots
        return cv2.resize(mirrored, (width, height), interpolation=method).astype(np.float32)


class SpriteLibrary(AssetLibrary):
    """The built-in kinds."""

    categories = tuple(drawings.DRAWINGS)
    sprite = staticmethod(drawings.sprite)
    sound = staticmethod(sounds.sound)


class PictureLibrary(AssetLibrary):
    """A folder of NAME.png, with alpha, and NAME.ogg or NAME.wav; a NAME is a kind."""

    def __init__(self, folder: Path, backgrounds: Path | None = None):
        super().__init__(backgrounds)
        self.folder = folder
        pictures = _files(folder, (".png",), "NAME.png with a NAME.ogg or NAME.wav beside it")
        self.categories = tuple(path.stem for path in pictures)
        for path in pictures:
            _read_cutout(path)
            _read_recording(self.recording(path.stem))

    def picture(self, kind: str) -> Path:
        """The picture of a kind."""
        return self.folder / f"{kind}.png"

    def recording(self, kind: str) -> Path:
        """The recording of a kind."""
        for suffix in (".ogg", ".wav"):
            if (path := self.folder / f"{kind}{suffix}").is_file():
                return path
        raise InputError(f"{self.picture(kind)}: has no sound; put {kind}.ogg or {kind}.wav beside it")

    def sprite(self, kind: str, radius: float, rng: np.random.Generator) -> np.ndarray:
        """The picture, scaled to the area of a square of side 2·radius, or less if it is very long."""
        cutout = _read_cutout(self.picture(kind))
        height, width = cutout.shape[:2]
        scale = min(2 * radius / (height * width) ** 0.5, 3.4 * radius / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        method = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR  # neither overshoots
        mirrored = cutout[:, ::-1] if rng.random() < 0.5 else cutout
        return cv2.resize(mirrored, size, interpolation=method)

    def sound(self, kind: str, samples: int, rng: np.random.Generator) -> np.ndarray:
        """The recording, over and over for as long as is asked."""
        return sounds.loop(_read_recording(self.recording(kind)), samples, rng)

    @property
    def files(self) -> list[Path]:
        """See Cast."""
        return [path for kind in self.categories for path in (self.picture(kind), self.recording(kind))]


def open_assets(pictures: Path | None, backgrounds: Path | None) -> AssetLibrary:
    """The cast of a command line. Raises InputError naming a file that cannot be used."""
    return SpriteLibrary(backgrounds) if pictures is None else PictureLibrary(pictures, backgrounds)


def _files(folder: Path, suffixes: tuple[str, ...], what: str) -> list[Path]:
    """The files of a folder that end so, by name."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    found = sorted(p for p in folder.iterdir() if p.suffix in suffixes and p.name[0] != "." and p.is_file())
    if not found:
        raise InputError(f"{folder}: holds no {what}")
    return found


def _read_picture(path: Path, flags: int) -> np.ndarray:
    try:
        return read_image(path, flags)
    except InputError as error:
        raise InputError(f"{path}: not a readable picture") from error


@lru_cache(maxsize=64)
def _read_photograph(path: Path) -> np.ndarray:
    """A photograph, (H, W, 3) RGB uint8."""
    return _read_picture(path, cv2.IMREAD_COLOR_RGB)


@cache  # each process reads a file once
def _read_cutout(path: Path) -> np.ndarray:
    """A picture cut to what is opaque, as float32 premultiplied RGBA."""
    bgra = _read_picture(path, cv2.IMREAD_UNCHANGED)
    if bgra.ndim != 3 or bgra.shape[2] != 4:
        raise InputError(f"{path}: has no alpha channel, so what it shows cannot be told from its background")
    rgba = cv2.cvtColor(bgra, cv2.COLOR_BGRA2RGBA).astype(np.float32)
    rgba /= 1 if bgra.dtype == np.uint8 else 257  # of 16 bits
    rgba[..., 3] /= 255
    if rgba[..., 3].max() <= 0.5:
        raise InputError(f"{path}: is transparent everywhere")
    rows, columns = np.nonzero(rgba[..., 3] > 0.05)
    rgba[..., :3] *= rgba[..., 3:]
    return rgba[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


@cache
def _read_recording(path: Path) -> np.ndarray:
    """A recording without its silent stretches, mono at 44.1 kHz, float32."""
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, OSError) as error:
        raise InputError(f"{path}: not a readable sound file ({error})") from error
    mono = np.nan_to_num(samples.mean(axis=1))
    block = max(1, rate // 20)
    blocks = np.pad(mono, (0, -len(mono) % block)).reshape(-1, block)
    power = np.sqrt(np.square(blocks).mean(axis=1))
    loud = power > 0.03 * power.max(initial=0)
    if not loud.any():
        raise InputError(f"{path}: has no sound in it")
    mono = blocks[np.convolve(loud, np.ones(5), "same")[: len(loud)] > 0].ravel()  # with 0.1 s around it
    if rate == sounds.SYNTHESIS_RATE:
        return mono
    resampler = av.AudioResampler(
        "fltp", "mono", sounds.SYNTHESIS_RATE
    )  # librosa's compiles for seconds in each process
    frame = av.AudioFrame.from_ndarray(mono[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    return np.concatenate([f.to_ndarray()[0] for f in (*resampler.resample(frame), *resampler.resample(None))])
