"""The one reader of ground-truth masks, for S4 and MS3, for training, evaluation and `avsbench_data.check`.

A mask is read if each of its pixels is opaque black or opaque white, whatever kind of image holds them: 1 bit, 8 or
16 bits, a palette, RGB, an alpha channel. Of any other file it cannot be known what its author marked, so it is
refused.
"""

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.cli import InputError
from utils.files import read_image
from utils.layout import FRAME_SIZE, SoftMasks
from utils.paths import describe_siblings

MAX_LISTED_VALUES = 6  # values of a refused mask that the message names


class SoftMaskError(InputError):
    """A mask of 8-bit grey other than black and white, in so many `pixels`."""

    def __init__(self, message: str, pixels: int):
        super().__init__(message)
        self.pixels = pixels


def read_mask(path: Path, soft: SoftMasks = "refuse") -> Tensor:
    """Read a mask as (224, 224) float32 of 0 and 1.

    soft: what is done with 8-bit grey; "dither" makes it black and white as the original's loader of S4 does (PIL's
    mode "1": error diffusion of Floyd and Steinberg). Raises InputError if the
    file is missing, damaged, of another size, or not in black and white, naming the values that it holds; SoftMaskError
    where "dither" would read it.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such mask{describe_siblings(path)}")
    pixels = read_image(path, cv2.IMREAD_UNCHANGED)
    if pixels.shape[:2] != FRAME_SIZE:
        raise InputError(f"{path}: is {pixels.shape[1]}×{pixels.shape[0]}, not 224×224")
    pixels = _without_superfluous_channels(pixels)
    if not _black_and_white(pixels):
        if soft == "refuse" or pixels.dtype != np.uint8 or pixels.ndim != 2:
            raise _refusal(path, pixels)
        pixels = _dithered(path)
    return torch.from_numpy((pixels > 0).astype(np.float32))


def _without_superfluous_channels(pixels: np.ndarray) -> np.ndarray:
    """(H, W) if all is grey and opaque, (H, W, 3) if it is opaque, else all channels."""
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 4 and np.issubdtype(pixels.dtype, np.integer):
        opaque = (pixels[..., 3] == np.iinfo(pixels.dtype).max).all()
        pixels = pixels[..., :3] if opaque else pixels
    if pixels.shape[2] < 4 and (pixels == pixels[..., :1]).all():
        return np.ascontiguousarray(pixels[..., 0])
    return pixels


def _black_and_white(pixels: np.ndarray) -> bool:
    if pixels.ndim != 2 or pixels.dtype not in (np.uint8, np.uint16):
        return False
    return bool((pixels + pixels.dtype.type(1) <= 1).all())  # white overflows to 0


def _dithered(path: Path) -> np.ndarray:
    """(H, W) bool, by PIL from the file itself: of a palette it takes the threshold alone."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("1"))
    except Exception as error:  # what PIL raises on damage has no base in common
        raise InputError(f"{path}: not a readable image ({error})") from error


def _refusal(path: Path, pixels: np.ndarray) -> InputError:
    flat = pixels.reshape(len(pixels) * pixels.shape[1], -1)
    flat = flat[:, [2, 1, 0, 3][: flat.shape[1]]] if pixels.ndim == 3 else flat  # OpenCV has blue first
    values = np.unique(flat, axis=0)
    kind = f"{pixels.dtype.itemsize * 8}-bit {'grey' if pixels.ndim == 2 else 'RGBA'[: flat.shape[1]]}"
    named = ", ".join(_text(value) for value in values[:MAX_LISTED_VALUES])
    more = f", … {_text(values[-1])} ({len(values)} values)" if len(values) > MAX_LISTED_VALUES else ""
    told = f"{path}: not a black-and-white mask: holds {kind} {named}{more}"
    if pixels.ndim == 2 and pixels.dtype == np.uint8:
        between = int(((pixels > 0) & (pixels < 255)).sum())
        return SoftMaskError(f"{told}; {between} of {pixels.size} pixels are neither 0 nor 255", between)
    return InputError(told)


def _text(value: np.ndarray) -> str:
    numbers = ", ".join(f"{number:g}" for number in value)
    return numbers if len(value) == 1 else f"({numbers})"
