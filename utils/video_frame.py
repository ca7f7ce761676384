"""Convert a decoded video frame to an RGB image with the colors and orientation that the file specifies.

The original used libswscale's default conversion, like the ffmpeg program and OpenCV, and so does "published"; it is up
to two levels too dark. "corrected" applies the matrix and range of the file's color tags, and rounds.
"""

from fractions import Fraction
from functools import lru_cache

import av
import cv2
import numpy as np

from utils.cli import InputError
from utils.fidelity import Fidelity
from utils.layout import FRAME_SIZE
from utils.tone_map import HDR_TRANSFERS, tone_map

# The weights of red and blue in luma; keys: FFmpeg's AVColorSpace. Untagged files are read as BT.601, as ffmpeg and
# OpenCV do.
BT601 = (0.299, 0.114)
LUMA = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593), 10: (0.2627, 0.0593)}
UNTAGGED, YCGCO = 2, 8
OTHER_COLORSPACES = (11, 12, 13, 14, 15, 16, 17)  # ICtCp and similar, of which no matrix is known here
WIDE_GAMUTS = {9: "BT.2020", 11: "DCI-P3", 12: "Display P3"}  # by FFmpeg's AVColorPrimaries
STUDIO_RANGE, FULL_RANGE = 1, 2  # AVCOL_RANGE_MPEG and _JPEG


def to_rgb(frame: av.VideoFrame, fidelity: Fidelity = "corrected") -> np.ndarray:
    """Convert a frame to RGB and apply its display matrix.

    Args:
        frame: A decoded frame.
        fidelity: "published" converts as the original does, see above.

    Returns:
        (H, W, 3) uint8, of the frame's size, with height and width exchanged if the display matrix says so.

    Raises:
        InputError: The file's color space cannot be converted.
    """
    pixel_format = frame.format
    if fidelity == "published" or pixel_format.is_rgb or len(pixel_format.components) < 3:
        if frame.colorspace in (YCGCO, *OTHER_COLORSPACES):
            frame.colorspace = UNTAGGED  # as the original's FFmpeg took it; today's refuses it
        rgb = frame.to_ndarray(format="rgb24", interpolation="BICUBIC")  # chroma too, as ffmpeg by default
    elif frame.colorspace in OTHER_COLORSPACES:
        raise InputError(f"color space {frame.colorspace} (ITU-T H.273) cannot be read; convert the video to BT.709")
    elif is_tone_mapped(frame):
        rgb = tone_map(_convert(frame, 16), HDR_TRANSFERS[frame.color_trc])
    else:
        rgb = _convert(frame, 8)
    return apply_display_matrix(rgb, display_matrix(frame))


def is_tone_mapped(frame: av.VideoFrame) -> bool:
    """Whether `to_rgb` tone-maps a frame by default: one of an HDR video that is coded in luma and chroma."""
    return frame.color_trc in HDR_TRANSFERS and not frame.format.is_rgb and len(frame.format.components) >= 3


def resize_frame(rgb: np.ndarray) -> np.ndarray:
    """Resize an image to 224×224 as the study does: bilinear, without keeping the aspect ratio."""
    height, width = FRAME_SIZE
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_LINEAR)


def shrink_frame(rgb: np.ndarray, side: int) -> np.ndarray:
    """Reduce an image whose longer side exceeds `side` pixels to that, keeping the aspect ratio."""
    longer = max(rgb.shape[:2])
    if longer <= side:
        return rgb
    height, width = (max(1, round(length * side / longer)) for length in rgb.shape[:2])
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)


def display_size(height: int, width: int, aspect: Fraction | None) -> tuple[int, int]:
    """The height and width in square pixels at which players display a frame. Frames are enlarged, never shrunk.

    Args:
        height: Of the frame, in pixels.
        width: Of the frame, in pixels.
        aspect: The pixel aspect ratio, width by height; None or 0 for square pixels.
    """
    if not aspect or aspect == 1:
        return height, width
    return (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)


def display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """The upper left 2×2 of a frame's display matrix, int32 in row-major order; None if it has none."""
    data = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32).reshape(3, 3)[:2, :2]  # type: ignore[call-overload]


def is_transposed(matrix: np.ndarray | None) -> bool:
    """Whether a display matrix exchanges height and width."""
    return matrix is not None and bool(np.abs(matrix).argmax() in (1, 2))


def is_oblique(matrix: np.ndarray | None) -> bool:
    """Whether a display matrix rotates by other than multiples of 90°, which `apply_display_matrix` leaves out."""
    if matrix is None:
        return False
    entries = np.sort(np.abs(matrix).ravel())
    return bool(entries[1] > 0.02 * entries[2])


def apply_display_matrix(rgb: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Rotate and mirror an image as its display matrix says, in any of the eight orientations."""
    if matrix is None:
        return rgb
    if is_transposed(matrix):
        rgb, right, down = rgb.transpose(1, 0, 2), matrix[1, 0], matrix[0, 1]
    else:
        right, down = matrix[0, 0], matrix[1, 1]
    return np.ascontiguousarray(rgb[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1])


@lru_cache(maxsize=16)
def _yuv_to_rgb_matrix(colorspace: int, full: bool) -> np.ndarray:
    """The (3, 4) float64 matrix from 8-bit Y, U, V and 1 to R, G, B in [0, 255]; full: full range, not studio range."""
    red, blue = LUMA.get(colorspace, BT601)
    green = 1 - red - blue
    y, c, black = (1.0, 1.0, 0.0) if full else (255 / 219, 255 / 224, 16.0)
    v, u = 2 * (1 - red) * c, 2 * (1 - blue) * c
    matrix = np.array([[y, 0, v], [y, -u * blue / green, -v * red / green], [y, u, 0]])
    if colorspace == YCGCO:
        matrix = np.array([[y, -c, c], [y, c, 0], [y, -c, -c]])
    return np.hstack([matrix, -matrix @ [[black], [128], [128]]])


def _convert(frame: av.VideoFrame, bits: int) -> np.ndarray:
    """Convert YUV to RGB: uint8 for 8 bits, float32 in [0, 1] for 16."""
    full = frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")
    matrix = _yuv_to_rgb_matrix(frame.colorspace, full)
    if bits == 8 and frame.format.name in ("yuv420p", "yuvj420p"):  # a faster path for most files
        y, u, v = (_to_array(plane, np.uint8) for plane in frame.planes)
        size = (frame.width, frame.height)
        return cv2.transform(cv2.merge([y, cv2.resize(u, size), cv2.resize(v, size)]), matrix)
    color_range, name = (FULL_RANGE if full else STUDIO_RANGE), ("yuv444p" if bits == 8 else "yuv444p16le")
    if frame.colorspace == YCGCO:
        frame.colorspace = UNTAGGED  # of no effect on resampling, but libswscale refuses YCgCo
    planar = frame.reformat(
        format=name, interpolation="BICUBIC", src_color_range=color_range, dst_color_range=color_range
    )
    yuv = cv2.merge([_to_array(plane, np.uint8 if bits == 8 else np.dtype("<u2")) for plane in planar.planes])
    if bits == 8:
        return cv2.transform(yuv, matrix)
    return np.clip(cv2.transform(yuv.astype(np.float32) / 256, matrix) / 255, 0, 1)


def _to_array(plane: av.video.plane.VideoPlane, dtype: np.typing.DTypeLike) -> np.ndarray:
    """The samples of a plane (height, width), without row padding."""
    samples = np.frombuffer(plane, dtype)  # type: ignore[call-overload]
    return samples.reshape(plane.height, -1)[:, : plane.width]
