"""Read ground-truth masks, for S4 and MS3, for training, evaluation and `avsbench_data.check`.

A mask is accepted if all of its pixels are opaque black or opaque white, in any image format: 1, 8 or 16 bits, a
palette, RGB, with an alpha channel. Other images are ambiguous and raise an error.
"""

from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from utils.cli import InputError
from utils.files import read_image
from utils.layout import FRAME_SIZE, SoftMasks
from utils.paths import describe_siblings

MAX_LISTED_VALUES = 6  # in an error message


class SoftMaskError(InputError):
    """An 8-bit grayscale mask in which `pixels` pixels are neither black nor white."""

    def __init__(self, message: str, pixels: int):
        super().__init__(message)
        self.pixels = pixels


def read_mask(path: Path, soft: SoftMasks = "refuse") -> np.ndarray:
    """Read a mask.

    Args:
        path: An image file of 224×224 pixels.
        soft: How to treat 8-bit grayscale masks: "refuse" raises SoftMaskError; "dither" makes them black and white as
            the original's loader for S4 does (PIL's mode "1": Floyd-Steinberg error diffusion).

    Returns:
        (224, 224) float32 of 0 and 1.

    Raises:
        SoftMaskError: The mask could be read with "dither".
        InputError: The file is missing, damaged, of another size or not black and white.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such mask{describe_siblings(path)}")
    pixels = read_image(path, cv2.IMREAD_UNCHANGED)
    if pixels.shape[:2] != FRAME_SIZE:
        raise InputError(f"{path}: is {pixels.shape[1]}×{pixels.shape[0]}, not 224×224")
    pixels = drop_redundant_channels(pixels)
    if not _is_black_and_white(pixels):
        if soft == "refuse" or pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise _error(path, pixels)
        pixels = _dither(path)
    return (pixels > 0).astype(np.float32)


def drop_redundant_channels(pixels: np.ndarray) -> np.ndarray:
    """(H, W) if the image is gray and opaque, (H, W, 3) if it is opaque, else all channels."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 4 and np.issubdtype(pixels.dtype, np.integer):
        opaque = (pixels[..., 3] == np.iinfo(pixels.dtype).max).all()
        pixels = pixels[..., :3] if opaque else pixels
    if pixels.shape[2] < 4 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def _is_black_and_white(pixels: np.ndarray) -> bool:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        return False
    return bool((pixels + pixels.dtype.type(1) <= 1).all())  # white overflows to 0


def _dither(path: Path) -> np.ndarray:
    """(H, W) bool. PIL reads the file itself, since it only thresholds images with a palette."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("1"))
    except Exception as error:  # PIL raises many types on damaged files
        raise InputError(f"{path}: not a readable image ({error})") from error


def _error(path: Path, pixels: np.ndarray) -> InputError:
    flat = pixels.reshape(len(pixels) * pixels.shape[1], -1)
    flat = flat[:, [2, 1, 0, 3][: flat.shape[1]]] if pixels.ndim == 3 else flat  # OpenCV's order is BGR
    values = np.unique(flat, axis=0)
    pixel_format = f"{pixels.dtype.itemsize * 8}-bit {'gray' if pixels.ndim == 2 else 'RGBA'[: flat.shape[1]]}"
    listed = ", ".join(_text(value) for value in values[:MAX_LISTED_VALUES])
    more = f", … {_text(values[-1])} ({len(values)} values)" if len(values) > MAX_LISTED_VALUES else ""
    message = f"{path}: not a black-and-white mask: holds {pixel_format} {listed}{more}"
    if pixels.ndim == 2 and pixels.dtype == np.uint8:
        between = int(((pixels > 0) & (pixels < 255)).sum())
        return SoftMaskError(f"{message}; {between} of {pixels.size} pixels are neither 0 nor 255", between)
    return InputError(message)


def _text(value: np.ndarray) -> str:
    numbers = ", ".join(f"{number:g}" for number in value)
    return numbers if len(value) == 1 else f"({numbers})"
