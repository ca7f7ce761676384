"""The pictures of the built-in miniature: fourteen drawn kinds of sounding things, and calm backgrounds.

A drawing is a list of parts, painted back to front. A part is an outline with one colour, an ink rim, and
perhaps a pattern that shows only inside the outline. Coordinates are in units of the thing's radius, x to
the right, y down, within [-1, 1]. Each kind has a shape, a pattern and a hue of its own; a generator varies
hue, shade and pattern from one sprite to the next. The sounds of the same kinds are in sounds.py.
"""

import colorsys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import cv2
import numpy as np

Points = np.ndarray  # (n, 2) float: the corners of a polygon
Span = tuple[float, float]
Color = tuple[float, float, float]  # RGB, 0 to 255

OVERSAMPLING = 4  # a sprite is painted this much larger, then area-averaged: that smooths its edges
OUTLINE_WIDTH = 0.045  # half the width of the ink line, in radii
SUBPIXEL_BITS = 4  # OpenCV's fractional bits of a coordinate


@dataclass
class Part:
    """One painted piece of a drawing."""

    outline: Points
    color: Color
    pattern: Sequence[Points] = ()
    pattern_color: Color = (0, 0, 0)


@dataclass
class ColorJitter:
    """A sprite's own variation of its kind's colours and patterns."""

    rng: np.random.Generator
    hue_shift: float = field(init=False)  # in turns of the colour circle
    value_gain: float = field(init=False)

    def __post_init__(self) -> None:
        self.hue_shift = float(np.clip(self.rng.normal(0, 0.013), -0.03, 0.03))
        self.value_gain = float(self.rng.uniform(0.88, 1.05))

    def __call__(self, hue: float, saturation: float = 0.75, value: float = 0.9) -> Color:
        """The colour of a hue in degrees, with this sprite's variation."""
        red, green, blue = colorsys.hsv_to_rgb(
            (hue / 360 + self.hue_shift) % 1, saturation, min(1.0, value * self.value_gain)
        )
        return 255 * red, 255 * green, 255 * blue

    def uniform(self, low: float, high: float) -> float:
        """A uniform number, for a pattern's pitch or phase."""
        return float(self.rng.uniform(low, high))


# Outlines and patterns


def rotated(points: Points, degrees: float, x: float = 0.0, y: float = 0.0) -> Points:
    """The points turned clockwise about the origin, which then moves to (x, y)."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    return points @ np.array([[c, s], [-s, c]]) + np.array([x, y])


def oval(x: float, y: float, rx: float, ry: float = 0.0, tilt: float = 0.0, span: Span = (0, 360)) -> Points:
    """An ellipse, a circle if ry is 0, or a slice; span and tilt in degrees clockwise from the right."""
    angle = np.radians(np.linspace(*span, 48))
    return rotated(np.stack([rx * np.cos(angle), (ry or rx) * np.sin(angle)], 1), tilt, x, y)


def poly(*corners: tuple[float, float]) -> Points:
    """A polygon."""
    return np.array(corners, float)


def box(x0: float, y0: float, x1: float, y1: float, corner: float = 0.08) -> Points:
    """A rectangle with rounded corners."""
    right, low, left, high = x1 - corner, y1 - corner, x0 + corner, y0 + corner
    centres = ((right, low, 0), (left, low, 90), (left, high, 180), (right, high, 270))
    return np.concatenate([oval(x, y, corner, span=(a, a + 90))[::8] for x, y, a in centres])


def bar(x0: float, y0: float, x1: float, y1: float, width: float) -> Points:
    """A straight bar between two points."""
    along = np.array([x1 - x0, y1 - y0])
    across = along[::-1] * (-0.5, 0.5) * width / np.hypot(*along)
    ends = np.array([[x0, y0], [x1, y1]])
    return np.concatenate([ends + across, ends[::-1] - across])


def stripes(pitch: float, phase: float = 0.0, tilt: float = 0.0, fill: float = 0.5) -> list[Points]:
    """Parallel bands over the whole square; upright unless tilted."""
    lefts = np.arange(-1.5, 1.5, pitch) + phase * pitch
    return [rotated(box(x, -1.5, x + fill * pitch, 1.5, 0.0), tilt) for x in lefts]


def dots(pitch: float, radius: float, phase: float = 0.0) -> list[Points]:
    """A triangular grid of dots."""
    steps = range(-int(1.2 / pitch), int(1.2 / pitch) + 1)
    centres = [((i + phase + j % 2 / 2) * pitch, (j + phase) * pitch * 0.87) for i in steps for j in steps]
    return [oval(x, y, radius)[::4] for x, y in centres]


def checks(pitch: float, y0: float, y1: float) -> list[Points]:
    """Two rows of a chess board between two heights."""
    middle = (y0 + y1) / 2
    lefts = np.arange(-1.2, 1.2, 2 * pitch)
    upper = [box(x, y0, x + pitch, middle, 0.0) for x in lefts]
    return upper + [box(x + pitch, middle, x + 2 * pitch, y1, 0.0) for x in lefts]


def rays(x: float, y: float, count: int, width: float, turn: float = 0.0) -> list[Points]:
    """Thin wedges from one point in all directions."""
    angles = np.arange(count) * 360 / count + turn
    return [rotated(poly((0, 0), (2, width), (2, -width)), angle, x, y) for angle in angles]


# The kinds

WHITE, INK = (250.0, 248.0, 240.0), (38.0, 34.0, 46.0)


def drum(paint: ColorJitter) -> list[Part]:
    """A red barrel with white zigzag lacing, and two sticks."""
    barrel = np.concatenate([poly((-0.85, -0.4)), oval(0, 0.6, 0.85, 0.3, span=(180, 0)), poly((0.85, -0.4))])
    teeth = np.linspace(-0.95, 0.95, int(paint.uniform(7, 11)))
    zigzag = [
        bar(a, 0.72 if i % 2 else -0.12, b, -0.12 if i % 2 else 0.72, 0.09) for i, (a, b) in enumerate(pairwise(teeth))
    ]
    return [
        Part(barrel, paint(354, 0.8, 0.85), zigzag, WHITE),
        Part(oval(0, -0.4, 0.85, 0.3), paint(42, 0.2, 0.98)),
        Part(bar(-0.85, -0.92, -0.05, -0.45, 0.13), paint(30, 0.6, 0.7)),
        Part(bar(0.85, -0.92, 0.1, -0.38, 0.13), paint(30, 0.6, 0.7)),
    ]


def bird(paint: ColorJitter) -> list[Part]:
    """A blue bird with a dotted wing."""
    wing = oval(-0.2, 0.22, 0.42, 0.3, tilt=-20)
    return [
        Part(poly((-0.5, 0.0), (-0.98, -0.35), (-0.95, 0.3)), paint(205, 0.8, 0.65)),
        Part(poly((0.7, -0.52), (0.98, -0.28), (0.65, -0.16)), paint(35, 0.85, 0.98)),
        Part(oval(-0.05, 0.22, 0.68, 0.56), paint(205)),
        Part(oval(0.42, -0.38, 0.42), paint(205)),
        Part(wing, paint(205, 0.85, 0.6), dots(paint.uniform(0.2, 0.26), 0.06), WHITE),
        Part(oval(0.52, -0.46, 0.1), INK),
    ]


def siren(paint: ColorJitter) -> list[Part]:
    """A striped indigo dome on a dark base."""
    dome = np.concatenate([oval(0, -0.1, 0.62, 0.72, span=(180, 360)), poly((0.62, 0.5), (-0.62, 0.5))])
    bands = stripes(paint.uniform(0.26, 0.34), paint.uniform(0, 1))
    return [
        Part(box(-0.92, 0.42, 0.92, 0.86), paint(230, 0.25, 0.35)),
        Part(dome, paint(236, 0.75, 0.9), bands, paint(220, 0.3, 1)),
    ]


def shell(paint: ColorJitter) -> list[Part]:
    """A pink fan shell with ribs."""
    angle = np.linspace(-200, 20, 200)
    rim = 0.95 - 0.06 * np.abs(np.sin(np.radians(angle) * 7))
    fan = np.stack([rim * np.cos(np.radians(angle)), rim * np.sin(np.radians(angle)) + 0.2], 1)
    ribs = rays(0, 0.75, int(paint.uniform(26, 34)), 0.11, paint.uniform(0, 12))
    return [
        Part(box(-0.4, 0.55, 0.4, 0.88), paint(335, 0.45, 0.75)),
        Part(np.concatenate([fan, poly((0, 0.85))]), paint(335, 0.25, 1), ribs, paint(338, 0.6, 0.9)),
    ]


def clock(paint: ColorJitter) -> list[Part]:
    """A violet alarm clock; the hour varies."""
    hour, minute = paint.uniform(0, 360), paint.uniform(0, 360)
    ticks = rays(0, 0.12, 12, 0.14)
    return [
        Part(oval(-0.52, -0.66, 0.32, 0.24, tilt=-38), paint(275, 0.6, 0.7)),
        Part(oval(0.52, -0.66, 0.32, 0.24, tilt=38), paint(275, 0.6, 0.7)),
        Part(bar(-0.5, 0.7, -0.67, 0.91, 0.16), INK),
        Part(bar(0.5, 0.7, 0.67, 0.91, 0.16), INK),
        Part(oval(0, 0.12, 0.82), paint(272, 0.65, 0.85)),
        Part(oval(0, 0.12, 0.6), WHITE, ticks, paint(272, 0.6, 0.6)),
        Part(oval(0, 0.12, 0.44), WHITE),
        Part(rotated(bar(0, 0, 0.24, 0, 0.1), hour, 0, 0.12), INK),
        Part(rotated(bar(0, 0, 0.4, 0, 0.06), minute, 0, 0.12), INK),
    ]


def panpipes(paint: ColorJitter) -> list[Part]:
    """Seven wooden pipes, each shorter than the last, and a band across."""
    parts = []
    for i in range(7):
        left = -0.92 + i * 0.264
        end = 0.92 - i * 0.17 + paint.uniform(-0.03, 0.03)
        parts.append(Part(box(left, -0.8, left + 0.264, end, 0.1), paint(32, 0.55, 0.62 if i % 2 else 0.82)))
        parts.append(Part(oval(left + 0.132, -0.78, 0.1, 0.06), INK))
    return [*parts, Part(bar(-0.94, -0.28, 0.94, -0.42, 0.2), paint(18, 0.7, 0.45))]


def car(paint: ColorJitter) -> list[Part]:
    """An orange taxi with a band of checks."""
    cabin = poly((-0.62, 0.0), (-0.4, -0.52), (0.32, -0.52), (0.62, 0.0))
    body = box(-0.98, -0.08, 0.98, 0.5, 0.18)
    parts = [
        Part(cabin, paint(24, 0.85, 0.9)),
        Part(poly((-0.48, -0.06), (-0.34, -0.4), (-0.06, -0.4), (-0.06, -0.06)), paint(200, 0.2, 0.95)),
        Part(poly((0.06, -0.06), (0.06, -0.4), (0.27, -0.4), (0.46, -0.06)), paint(200, 0.2, 0.95)),
        Part(body, paint(24, 0.85, 0.95), checks(paint.uniform(0.11, 0.14), 0.06, 0.3), WHITE),
    ]
    for x in (-0.52, 0.52):
        parts += [Part(oval(x, 0.5, 0.29), INK), Part(oval(x, 0.5, 0.12), (190, 190, 195))]
    return parts


def whistle(paint: ColorJitter) -> list[Part]:
    """A turquoise referee's whistle with rings on its barrel."""
    rings = ((0.64, 0.7), (0.44, 0.95), (0.24, 0.55))  # radius, brightness
    return [
        Part(oval(-0.86, -0.42, 0.12), WHITE),
        Part(poly((-0.3, -0.46), (0.96, -0.46), (0.96, -0.02), (0.1, 0.1)), paint(170, 0.75, 0.85)),
        *(Part(oval(-0.3, 0.18, radius), paint(170, 0.8, value)) for radius, value in rings),
        Part(poly((0.08, -0.46), (0.34, -0.46), (0.2, -0.2)), INK),
    ]


def bell(paint: ColorJitter) -> list[Part]:
    """A golden bell with level bands."""
    y = np.linspace(-0.72, 0.55, 30)
    down = (y + 0.72) / 1.27  # 0 at the shoulder, 1 at the lip
    half = 0.36 + 0.42 * down**2.2 + 0.1 * np.sqrt(down) - 0.22 * np.exp(-18 * down)
    body = np.concatenate([np.stack([half, y], 1), np.stack([-half, y], 1)[::-1]])
    bands = stripes(paint.uniform(0.28, 0.36), paint.uniform(0, 1), tilt=90, fill=0.4)
    return [
        Part(oval(0, 0.72, 0.2), paint(40, 0.6, 0.55)),
        Part(oval(0, -0.78, 0.16), paint(44, 0.8, 0.7)),
        Part(body, paint(46, 0.75, 1), bands, paint(38, 0.85, 0.8)),
        Part(box(-0.94, 0.48, 0.94, 0.7), paint(42, 0.8, 0.85)),
    ]


def cricket(paint: ColorJitter) -> list[Part]:
    """A dark green cricket with chevrons on its wing and a bent hind leg."""
    leg, pitch = paint(135, 0.6, 0.4), paint.uniform(0.2, 0.26)
    chevrons = [
        poly((x, -0.4), (x + 0.35, 0.1), (x, 0.6), (x + 0.1, 0.6), (x + 0.45, 0.1), (x + 0.1, -0.4))
        for x in np.arange(-1.2, 0.8, pitch)
    ]
    return [
        Part(bar(0.6, -0.1, 0.98, -0.85, 0.05), INK),
        Part(bar(0.5, -0.1, 0.66, -0.92, 0.05), INK),
        Part(bar(0.1, 0.3, 0.25, 0.8, 0.1), leg),
        Part(bar(0.4, 0.3, 0.62, 0.8, 0.1), leg),
        Part(oval(0.62, 0.02, 0.32), paint(140, 0.6, 0.5)),
        Part(oval(-0.15, 0.12, 0.8, 0.36), paint(138, 0.65, 0.6), chevrons, paint(130, 0.5, 0.35)),
        Part(bar(-0.05, 0.25, -0.6, -0.62, 0.22), leg),
        Part(bar(-0.6, -0.62, -0.88, 0.8, 0.11), leg),
        Part(oval(0.7, -0.06, 0.1), WHITE),
    ]


def bee(paint: ColorJitter) -> list[Part]:
    """A yellow bee with slanting black stripes."""
    wing = paint(200, 0.12, 1)
    bands = stripes(paint.uniform(0.34, 0.42), paint.uniform(0, 1), 12)
    return [
        Part(poly((-0.7, 0.1), (-0.98, 0.32), (-0.7, 0.45)), INK),
        Part(oval(-0.28, -0.42, 0.32, 0.5, tilt=-28), wing),
        Part(oval(0.2, -0.46, 0.3, 0.48, tilt=22), wing),
        Part(oval(-0.08, 0.25, 0.74, 0.5), paint(54, 0.85, 1), bands, INK),
        Part(oval(0.6, 0.12, 0.34), paint(50, 0.85, 0.9)),
        Part(oval(0.7, 0.04, 0.09), INK),
    ]


def guitar(paint: ColorJitter) -> list[Part]:
    """A brown guitar with strings."""
    grain = stripes(paint.uniform(0.12, 0.18), paint.uniform(0, 1), 90, 0.4)
    strings = [box(-1.0, y - 0.012, 1.0, y + 0.012, 0.0) for y in (-0.07, 0.0, 0.07)]
    angle = np.radians(np.linspace(0, 360, 120))
    radius = 0.5 + 0.12 * np.cos(2 * angle) - 0.09 * np.cos(angle) - 0.06 * np.cos(4 * angle)
    body = np.stack([1.35 * radius * np.cos(angle) - 0.3, 1.6 * radius * np.sin(angle)], 1)
    parts = [
        Part(body, paint(14, 0.72, 0.6), grain, paint(18, 0.65, 0.72)),
        Part(oval(-0.05, 0, 0.22), INK),
        Part(box(0.1, -0.12, 1.0, 0.12, 0.02), paint(28, 0.5, 0.4), strings, WHITE),
        Part(box(0.94, -0.2, 1.26, 0.2), paint(14, 0.6, 0.4)),
        Part(box(-0.76, -0.26, -0.62, 0.26, 0.02), INK),
    ]
    for part in parts:  # drawn level, then tilted into the square
        part.outline = rotated(0.86 * part.outline, -38, 0.03, 0.0)
        part.pattern = [rotated(0.86 * shape, -38, 0.03, 0.0) for shape in part.pattern]
    return parts


def robot(paint: ColorJitter) -> list[Part]:
    """A magenta robot's head with a grid for a mouth."""
    pitch = paint.uniform(0.13, 0.18)
    grid = stripes(pitch, fill=0.35) + stripes(pitch, tilt=90, fill=0.35)
    return [
        Part(bar(0, -0.5, 0, -0.85, 0.1), INK),
        Part(oval(0, -0.84, 0.13), paint(55, 0.7, 1)),
        Part(box(-0.98, -0.15, -0.7, 0.35), paint(300, 0.5, 0.55)),
        Part(box(0.7, -0.15, 0.98, 0.35), paint(300, 0.5, 0.55)),
        Part(box(-0.78, -0.58, 0.78, 0.9, 0.16), paint(305, 0.65, 0.88)),
        Part(oval(-0.34, -0.14, 0.2), WHITE),
        Part(oval(0.34, -0.14, 0.2), WHITE),
        Part(oval(-0.34, -0.14, 0.08), INK),
        Part(oval(0.34, -0.14, 0.08), INK),
        Part(box(-0.52, 0.28, 0.52, 0.68, 0.04), paint(305, 0.2, 1), grid, INK),
    ]


def frog(paint: ColorJitter) -> list[Part]:
    """A light green frog's face with dark spots."""
    green = paint(92, 0.7, 0.85)
    between = paint.uniform
    spots = [oval(between(-0.8, 0.8), between(-0.25, 0.6), between(0.07, 0.13))[::4] for _ in range(12)]
    lips = oval(0, 0.15, 0.6, 0.42, span=(10, 170)), oval(0, 0.15, 0.6, 0.3, span=(170, 10))
    parts = [Part(oval(x, -0.45, 0.34), green) for x in (-0.5, 0.5)]
    parts.append(Part(oval(0, 0.22, 0.95, 0.68), green, spots, paint(100, 0.75, 0.55)))
    for x in (-0.5, 0.5):
        parts += [Part(oval(x, -0.48, 0.2), WHITE), Part(oval(x, -0.46, 0.09), INK)]
    return [*parts, Part(np.concatenate(lips), paint(350, 0.6, 0.6))]


CATEGORIES = (drum, bird, siren, shell, clock, panpipes, car, whistle, bell, cricket, bee, guitar, robot, frog)
DRAWINGS: dict[str, Callable[[ColorJitter], list[Part]]] = {make.__name__: make for make in CATEGORIES}


# Pixels


def sprite(kind: str, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Paint one thing of a built-in kind.

    radius: half the sprite's side, in pixels. Returns float32 (side, side, 4): RGB, 0 to 255 and
    premultiplied by alpha, then alpha, 0 to 1. Raises KeyError for an unknown kind.
    """
    side = max(2, round(2 * radius))
    large = side * OVERSAMPLING
    unit = large / (2 + 4 * OUTLINE_WIDTH)  # pixels a radius; room for the rim
    rgba = np.zeros((large, large, 4), np.uint8)
    scratch, inside = np.empty_like(rgba), np.zeros((large, large), np.uint8)

    def pixels(points: Points) -> np.ndarray:
        return np.rint((points * unit + large / 2 - 0.5) * (1 << SUBPIXEL_BITS)).astype(np.int32)

    for part in DRAWINGS[kind](ColorJitter(rng)):
        outline = pixels(part.outline)
        cv2.polylines(
            rgba, [outline], True, (*INK, 255), max(1, round(2 * OUTLINE_WIDTH * unit)), cv2.LINE_8, SUBPIXEL_BITS
        )
        cv2.fillPoly(rgba, [outline], (*part.color, 255), cv2.LINE_8, SUBPIXEL_BITS)
        if part.pattern:
            inside[:] = 0
            cv2.fillPoly(inside, [outline], 255, cv2.LINE_8, SUBPIXEL_BITS)
            np.copyto(scratch, rgba)
            for shape in part.pattern:  # one at a time: together, overlaps would cancel out
                cv2.fillPoly(scratch, [pixels(shape)], (*part.pattern_color, 255), cv2.LINE_8, SUBPIXEL_BITS)
            cv2.copyTo(scratch, inside, rgba)
    small = cv2.resize(rgba, (side, side), interpolation=cv2.INTER_AREA).astype(np.float32)
    # Outside the paint the canvas is zero, so the average is premultiplied already. Light falls from above.
    small[..., :3] *= np.linspace(1.06, 0.82, side, dtype=np.float32)[:, None, None]
    small[..., 3] /= 255
    small[..., :3] = np.minimum(small[..., :3], 255 * small[..., 3:])
    return small


def background(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """A calm backdrop: muted gradient, a few blurred blobs, soft noise. Float32 (H, W, 3), 0 to 255."""
    y, x = np.mgrid[0:1:24j, 0:1:32j]  # everything here is smooth, so a small picture is enough
    hue, saturation, value = rng.uniform(0, 360), rng.uniform(0.06, 0.28), rng.uniform(0.55, 0.92)

    def muted() -> np.ndarray:
        turn = (hue + rng.normal(0, 25)) / 360 % 1
        return 255 * np.array(colorsys.hsv_to_rgb(turn, saturation, np.clip(value + rng.normal(0, 0.1), 0.35, 1)))

    angle = rng.uniform(0, 2 * np.pi)
    along = (np.cos(angle) * (x - 0.5) + np.sin(angle) * (y - 0.5) + 0.7) / 1.4
    image = muted() * along[..., None] + muted() * (1 - along[..., None])
    for _ in range(rng.integers(0, 5)):
        centre_x, centre_y, size = rng.uniform(0, 1), rng.uniform(0, 1), rng.uniform(0.12, 0.35)
        blob = 0.6 * np.exp(-(((x - centre_x) / size) ** 2) - ((y - centre_y) / size) ** 2)[..., None]
        image = image * (1 - blob) + muted() * blob
    image += rng.normal(0, rng.uniform(0, 5), (24, 32, 1))
    return np.clip(cv2.resize(image.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)
