"""Render the built-in drawings as sprites, and plain backgrounds, with OpenCV."""

import colorsys

import cv2
import numpy as np

from synthetic.clips.shapes import INK, ColorJitter, Points
from synthetic.clips.sprites import DRAWINGS

OVERSAMPLING = 4  # sprites are painted this many times larger and then area-averaged, which antialiases their edges
OUTLINE_WIDTH = 0.045  # half the width of the ink line, in radii
SUBPIXEL_BITS = 4  # OpenCV's fractional bits of a coordinate


def render_sprite(category: str, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Render an object of a built-in category.

    Args:
        category: a key of `DRAWINGS`.
        radius: half the side of the sprite in pixels.
        rng: source of the variation of colors and patterns.

    Returns:
        Float32 (side, side, 4): RGB in [0, 255], premultiplied by alpha, and alpha in [0, 1].

    Raises:
        KeyError: for an unknown category.
    """
    side = max(2, round(2 * radius))
    large = side * OVERSAMPLING
    unit = large / (2 + 4 * OUTLINE_WIDTH)  # pixels per radius, with room for the outline
    rgba = np.zeros((large, large, 4), np.uint8)
    scratch, inside = np.empty_like(rgba), np.zeros((large, large), np.uint8)

    def pixels(points: Points) -> np.ndarray:
        return np.rint((points * unit + large / 2 - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)

    for part in DRAWINGS[category](ColorJitter(rng)):
        outline = pixels(part.outline)
        cv2.polylines(
            rgba, [outline], True, (*INK, 255), max(1, round(2 * OUTLINE_WIDTH * unit)), cv2.LINE_8, SUBPIXEL_BITS
        )
        cv2.fillPoly(rgba, [outline], (*part.color, 255), cv2.LINE_8, SUBPIXEL_BITS)
        if part.pattern:
            inside[:] = 0
            cv2.fillPoly(inside, [outline], 255, cv2.LINE_8, SUBPIXEL_BITS)
            np.copyto(scratch, rgba)
            for shape in part.pattern:  # one at a time: fillPoly of several would leave overlaps unfilled
                cv2.fillPoly(scratch, [pixels(shape)], (*part.pattern_color, 255), cv2.LINE_8, SUBPIXEL_BITS)
            cv2.copyTo(scratch, inside, rgba)
    small = cv2.resize(rgba, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    # Unpainted pixels are zero, so the average is already premultiplied. The gradient shades it from above.
    small[..., :3] *= np.linspace(1.06, 0.82, side, dtype=np.float32)[:, None, None]
    small[..., 3] /= 255
    small[..., :3] = np.minimum(small[..., :3], 255 * small[..., 3:])
    return small


def render_background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Render a plain background: a gradient, blurred blobs and soft noise; float32 (height, width, 3) in [0, 255]."""
    y, x = np.mgrid[0:1:24j, 0:1:32j]  # all of it is smooth, so it is computed at low resolution
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.06, 0.28), rng.uniform(0.55, 0.92)

    def muted_color() -> np.ndarray:
        turn = (hue + rng.normal(0, 25)) / 360 % 1
        return 255 * np.array(colorsys.hsv_to_rgb(turn, saturation, np.clip(value + rng.normal(0, 0.1), 0.35, 1)))

    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.7) / 1.4
    image = muted_color() * along[..., None] + muted_color() * (1 - along[..., None])
    for _ in range(rng.integers(0, 5)):
        center_x, center_y, size = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.12, 0.35)
        blob = 0.6 * np.exp(-(((x - center_x) / size) ** 2) - ((y - center_y) / size) ** 2)[..., None]
        image = image * (1 - blob) + muted_color() * blob
    image += rng.normal(0, rng.uniform(0, 5), (24, 32, 1))
    return np.clip(cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)


def add_clutter(image: np.ndarray, count: int, rng: np.random.Generator) -> None:
    """Draw small colored ellipses, bars and triangles onto a background, float32 (H, W, 3), in place."""
    height, width = image.shape[:2]
    unit = min(height, width)
    for _ in range(count):
        color = [float(255 * c) for c in colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, 0.8), rng.uniform(0.3, 1))]
        center = rng.uniform(0, 1, 2) * (width, height)
        size = rng.uniform(0.015, 0.07, 2) * unit
        corners = int(rng.choice([3, 4, 24]))
        turn = rng.uniform(0, 2 * np.pi) + np.linspace(0, 2 * np.pi, corners, endpoint=False)
        outline = center + np.stack([np.cos(turn), np.sin(turn)], 1) * size
        points = np.rint(outline * (1 << SUBPIXEL_BITS)).astype(np.int32)
        cv2.fillPoly(image, [points], color, cv2.LINE_AA, SUBPIXEL_BITS)
