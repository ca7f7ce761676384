"""What a PNG of a mask says: binary, probabilities, palette colors or class indices."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
from PIL import Image

from scoring.problems import MaskError, Problem, ProblemKind
from utils.cli import InputError
from utils.files import read_image
from utils.masks import drop_redundant_channels

Format = Literal["binary", "probability", "palette", "index"]
FORMATS: tuple[Format, ...] = get_args(Format)
SAMPLE = 64  # files that decide the format of a folder
WHITE = (1, 255, 65535)  # values of foreground in a binary mask


def read_pixels(path: Path) -> np.ndarray:
    """The pixels of a PNG: (H, W) if gray, (H, W, 3) BGR if colored; a palette is expanded to its colors.

    Raises:
        MaskError: It is not an image, or is transparent in places.
    """
    try:
        pixels = drop_redundant_channels(read_image(path, cv2.IMREAD_UNCHANGED))
    except InputError as error:
        raise _error("unreadable", path, str(error).removeprefix(f"{path}: ")) from error
    if pixels.ndim == 3 and pixels.shape[2] not in (3,):
        raise _error("unreadable", path, "has transparent pixels")
    return pixels


def detect_format(paths: Sequence[Path]) -> Format:
    """The format of a folder, by a sample of its files.

    Raises:
        InputError: Their values fit several formats.
    """
    chosen = [paths[i] for i in sorted({round(i) for i in np.linspace(0, len(paths) - 1, SAMPLE)})]
    others = sorted(set(paths) - set(chosen))
    values: set[int] = set()
    highest = 0
    for number, path in enumerate(chosen + others):
        if number >= len(chosen) and values - {0}:
            break  # black masks alone do not decide it
        try:
            pixels = read_pixels(path)
        except MaskError:
            continue  # reported when it is scored
        if pixels.ndim == 3:
            return "palette"
        highest = np.iinfo(pixels.dtype).max if np.issubdtype(pixels.dtype, np.integer) else 0
        values |= set(np.unique(pixels).tolist())
    above = values - {0}
    if len(above) <= 1 and above <= set(WHITE):
        return "binary"
    if max(above) <= highest // 2:
        raise InputError(
            f"{paths[0].parent}: its masks hold values from 0 to {max(above)}, which may be class indices or "
            "probabilities; give --format index or probability"
        )
    return "probability"


def read_probability(path: Path, form: Format) -> np.ndarray:
    """A mask of one foreground as probabilities: (H, W) float32 in [0, 1].

    In the formats palette and index, every pixel that is not background (black, index 0) is foreground.

    Raises:
        MaskError: The file cannot be read, or is of another format.
    """
    if form == "index":
        return (read_indices(path) > 0).astype(np.float32)
    pixels = read_pixels(path)
    if form == "palette":
        return (np.atleast_3d(pixels).max(axis=2) > 0).astype(np.float32)
    if pixels.ndim == 3:
        raise _error("values", path, f"is colored; {form} masks are gray: see --format")
    if form == "probability":
        if pixels.dtype not in (np.uint8, np.uint16):
            raise _error("values", path, f"holds {pixels.dtype}")
        return np.divide(pixels, np.iinfo(pixels.dtype).max, dtype=np.float32)
    top = int(pixels.max(initial=0))
    positive = pixels > 0
    if top and (top not in WHITE or cv2.countNonZero(positive.view(np.uint8)) != np.count_nonzero(pixels == top)):
        raise _error("values", path, "holds other values than 0 and one of 1, 255, 65535; see --format")
    return positive.astype(np.float32)


def read_indices(path: Path) -> np.ndarray:
    """The numbers in a PNG, not the colors that a palette gives them: (H, W) uint8 or uint16.

    Raises:
        MaskError: The file cannot be read, or has colors.
    """
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    except Exception as error:  # PIL raises many types on damaged files
        raise _error("unreadable", path, f"is not a readable image ({error})") from error
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = pixels[..., 0]
    if pixels.ndim != 2:
        raise _error("values", path, f"has mode {mode}; class indices are gray or a palette: see --format")
    return pixels.astype(np.uint16) if pixels.dtype.itemsize > 1 else pixels.astype(np.uint8)


def fit_size(path: Path, mask: np.ndarray, size: tuple[int, int], resize: bool) -> np.ndarray:
    """A mask at the size of the ground truth: nearest neighbor, or bilinear for probabilities.

    The nearest neighbor is that of a pixel's center, by which PIL resizes ground truths; OpenCV's INTER_NEAREST takes
    that of its corner.

    Raises:
        MaskError: It has another size, and `resize` is off.
    """
    if mask.shape == size:
        return mask
    if not resize:
        raise _error("size", path, f"is {mask.shape[1]}×{mask.shape[0]}, not {size[1]}×{size[0]}; see --resize")
    binary = not np.issubdtype(mask.dtype, np.floating) or not np.any((mask > 0) & (mask < 1))
    return cv2.resize(mask, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT if binary else cv2.INTER_LINEAR)


def _error(kind: ProblemKind, path: Path, detail: str) -> MaskError:
    return MaskError(Problem(kind, str(path), detail))
