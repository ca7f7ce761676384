"""The shapes that sprites are drawn from: outlines, patterns, and colors with a random variation.

Coordinates are in units of the sprite's radius, x to the right and y down, within [-1, 1].
"""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

Points = np.ndarray  # (n, 2) float: the corners of a polygon
Span = tuple[float, float]
Color = tuple[float, float, float]  # RGB, 0 to 255

WHITE: Color = (250.0, 248.0, 240.0)
INK: Color = (38.0, 34.0, 46.0)  # of outlines and dark details


@dataclass
class Part:
    """One painted piece of a drawing: an outline filled with a color.

    Attributes:
        outline: corners of the polygon.
        color: RGB of its fill.
        pattern: polygons painted on the fill, visible only inside the outline.
        pattern_color: RGB of the pattern.
    """

    outline: Points
    color: Color
    pattern: Sequence[Points] = ()
    pattern_color: Color = (0, 0, 0)


@dataclass
class ColorJitter:
    """One sprite's random variation of the colors and patterns of its category.

    Attributes:
        rng: source of the variation.
        hue_shift: added to every hue, in turns of the color circle.
        value_gain: factor of every brightness.
    """

    rng: np.random.Generator
    hue_shift: float = field(init=False)
    value_gain: float = field(init=False)

    def __post_init__(self) -> None:
        self.hue_shift = float(np.clip(self.rng.normal(0, 0.013), -0.03, 0.03))
        self.value_gain = float(self.rng.uniform(0.88, 1.05))

    def __call__(self, hue: float, saturation: float = 0.75, value: float = 0.9) -> Color:
        """The RGB color of a hue in degrees, with this sprite's variation."""
        red, green, blue = colorsys.hsv_to_rgb(
            (hue / 360 + self.hue_shift) % 1, saturation, min(1.0, value * self.value_gain)
        )
        return 255 * red, 255 * green, 255 * blue

    def uniform(self, low: float, high: float) -> float:
        """A random number from [low, high), for the pitch or phase of a pattern."""
        return float(self.rng.uniform(low, high))


# Outlines


def rotated(points: Points, degrees: float, x: float = 0.0, y: float = 0.0) -> Points:
    """Points rotated clockwise about the origin by an angle in degrees, then shifted by (x, y)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]]) + np.array([x, y])


def oval(x: float, y: float, rx: float, ry: float = 0.0, tilt: float = 0.0, span: Span = (0, 360)) -> Points:
    """An ellipse (a circle if ry is 0) or a sector of one; span and tilt in degrees clockwise from the right."""
    angle = np.radians(np.linspace(*span, 48))
    return rotated(np.stack([rx * np.cos(angle), (ry or rx) * np.sin(angle)], 1), tilt, x, y)


def poly(*corners: tuple[float, float]) -> Points:
    """A polygon from its corners."""
    return np.array(corners, float)


def box(x0: float, y0: float, x1: float, y1: float, corner: float = 0.08) -> Points:
    """A rectangle with rounded corners."""
    right, low, left, high = x1 - corner, y1 - corner, x0 + corner, y0 + corner
    centers = ((right, low, 0), (left, low, 90), (left, high, 180), (right, high, 270))
    return np.concatenate([oval(x, y, corner, span=(a, a + 90))[::8] for x, y, a in centers])


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight bar between two points."""
    along = np.array([x1 - x0, y1 - y0])
    across = along[::-1] * (-0.5, 0.5) * width / np.hypot(*along)
    ends = np.array([[x0, y0], [x1, y1]])
    return np.concatenate([ends + across, ends[::-1] - across])


# Patterns


def stripes(pitch: float, phase: float = 0.0, tilt: float = 0.0, fill: float = 0.5) -> list[Points]:
    """Parallel bands over the whole square: vertical, or rotated by `tilt` degrees."""
    lefts = np.arange(-1.5, 1.5, pitch) + phase * pitch
    return [rotated(box(x, -1.5, x + fill * pitch, 1.5, 0.0), tilt) for x in lefts]


def dots(pitch: float, radius: float, phase: float = 0.0) -> list[Points]:
    """Dots on a triangular grid."""
    steps = range(-int(1.2 / pitch), int(1.2 / pitch) + 1)
    centers = [((i + phase + j % 2 / 2) * pitch, (j + phase) * pitch * 0.87) for i in steps for j in steps]
    return [oval(x, y, radius)[::4] for x, y in centers]


def checks(pitch: float, y0: float, y1: float) -> list[Points]:
    """Two rows of a checkerboard between two heights."""
    middle = (y0 + y1) / 2
    lefts = np.arange(-1.2, 1.2, 2 * pitch)
    upper = [box(x, y0, x + pitch, middle, 0.0) for x in lefts]
    return upper + [box(x + pitch, middle, x + 2 * pitch, y1, 0.0) for x in lefts]


def rays(x: float, y: float, count: int, width: float, turn: float = 0.0) -> list[Points]:
    """Thin wedges from one point in all directions."""
    angles = np.arange(count) * 360 / count + turn
    return [rotated(poly((0, 0), (2, width), (2, -width)), angle, x, y) for angle in angles]
