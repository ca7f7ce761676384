"""Read the frames and class labels of AVSS, whose files have the size of their video.

Source: AVSBench, `avs_scripts/avss/color_dataloader.py`: `V2Dataset`, `crop_resize_img`, `resize_img`.
"""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from PIL import Image

from utils.classes import CLASSES, decode, unknown_pixels
from utils.cli import InputError
from utils.files import read_image
from utils.layout import FRAME_SIZE, AVSBench, Clip
from utils.words import counted

UnknownColors = Literal["refuse", "background"]  # colors and indices that are no class


class UnknownColorsError(InputError):
    """A label in which `pixels` pixels are no class; it can be read with "background"."""

    def __init__(self, message: str, pixels: int):
        super().__init__(message)
        self.pixels = pixels


def fit(picture: np.ndarray, *, train: bool = False, label: bool = False) -> np.ndarray:
    """Resize a frame or a label to 224×224 as AVSBench does.

    Args:
        picture: (H, W) or (H, W, 3) uint8.
        train: Keep the aspect ratio and cut out the center, as in training; else squeeze, as in val and test.
        label: Take the nearest pixel instead of interpolating bilinearly.

    Returns:
        (224, 224) or (224, 224, 3) uint8.
    """
    (height, width), (rows, columns) = picture.shape[:2], FRAME_SIZE
    image, filter_ = Image.fromarray(picture), Image.Resampling.NEAREST if label else Image.Resampling.BILINEAR
    if not train:
        return np.asarray(image.resize((columns, rows), filter_))
    size = (int(width * rows / height), rows) if width > height else (columns, int(height * columns / width))
    left, top = round((size[0] - columns) / 2), round((size[1] - rows) / 2)
    return np.asarray(image.resize(size, filter_).crop((left, top, left + columns, top + rows)))


def read_avss_frame(path: Path) -> np.ndarray:
    """Read a frame, (H, W, 3) uint8 RGB, not turned by its EXIF tag: labels are for the pixels as they are stored."""
    return read_image(path, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def read_labels(data: AVSBench, clip: Clip, k: int, unknown: UnknownColors = "refuse") -> np.ndarray:
    """Read the class of each pixel of a labeled frame.

    labels_rgb is read, or labels_semantic where a copy has only that.

    Args:
        data: AVSS.
        clip: One of its clips.
        k: Number of the frame, from 0.
        unknown: What to do with pixels that are no class: refuse the file, or take them for background, as the
            original does.

    Returns:
        (H, W) uint8, the size of the file.

    Raises:
        UnknownColorsError: The file has pixels that are no class.
        InputError: It is missing or damaged.
    """
    colored, indexed = data.masks(clip)[k], data.index_labels(clip)[k]
    if colored.is_file() or not indexed.is_file():
        return read_color_labels(colored, unknown)
    return read_index_labels(indexed, unknown)


def read_color_labels(path: Path, unknown: UnknownColors = "refuse") -> np.ndarray:
    """The classes (H, W) uint8 of a label in the palette's colors; arguments and errors as of `read_labels`."""
    rgb = read_image(path)
    if unknown == "refuse" and (outside := unknown_pixels(rgb)).any():
        color, pixels = ", ".join(map(str, rgb[outside][0].tolist())), int(outside.sum())
        message = f"{path}: {pixels} of {outside.size} pixels are in no class's color, such as ({color})"
        raise UnknownColorsError(message, pixels)
    return decode(rgb)


def read_index_labels(path: Path, unknown: UnknownColors = "refuse") -> np.ndarray:
    """The classes (H, W) uint8 of a label of class indices; arguments and errors as of `read_labels`."""
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with Image.open(path) as image:
            indices = np.asarray(image)
    except Exception as error:  # PIL raises many types on damaged files
        raise InputError(f"{path}: not a readable image ({error})") from error
    if indices.ndim != 2:
        raise InputError(f"{path}: has {counted(indices.shape[2], 'channel')}; a label has one class index per pixel")
    outside = (indices < 0) | (indices >= len(CLASSES))
    if unknown == "refuse" and outside.any():
        index, highest, pixels = indices[outside][0], len(CLASSES) - 1, int(outside.sum())
        message = f"{path}: {pixels} of {outside.size} pixels are above class {highest}, such as {index}"
        raise UnknownColorsError(message, pixels)
    return np.where(outside, 0, indices).astype(np.uint8)


def read_frame_and_labels(
    data: AVSBench, clip: Clip, k: int, *, train: bool = False, unknown: UnknownColors = "refuse"
) -> tuple[np.ndarray, np.ndarray | None]:
    """Read a frame and its labels, at 224×224.

    Args:
        data: AVSS.
        clip: One of its clips.
        k: Number of the frame, from 0.
        train: As in `fit`.
        unknown: As in `read_labels`.

    Returns:
        The frame (224, 224, 3) uint8 RGB, and the classes (224, 224) uint8, None for a frame that is not labeled.

    Raises:
        InputError: As of `read_labels`, or the frame and its labels have different sizes.
    """
    path = data.frames(clip)[k]
    frame = read_avss_frame(path)
    if k >= data.benchmark.num_labeled(clip):
        return fit(frame, train=train), None
    labels = read_labels(data, clip, k, unknown)
    if labels.shape != frame.shape[:2]:
        sizes = [f"{shape[1]}×{shape[0]}" for shape in (labels.shape, frame.shape)]
        raise InputError(f"{path}: the labels of this frame are {sizes[0]}, the frame is {sizes[1]}")
    return fit(frame, train=train), fit(labels, train=train, label=True)
