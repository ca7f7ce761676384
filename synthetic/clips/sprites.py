"""The drawings of the fourteen built-in categories; their sounds are in sounds.py.

This file is long because it is one list: each function returns the parts of one drawing, painted back to front, and
nothing else happens here. Each category has a shape, a pattern and a hue of its own; `ColorJitter` varies hue,
brightness and pattern from one sprite to the next.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np

from synthetic.clips.shapes import (
    INK,
    WHITE,
    ColorJitter,
    Part,
    bar,
    box,
    checks,
    dots,
    oval,
    poly,
    rays,
    rotated,
    stripes,
)


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


_CATEGORIES = (drum, bird, siren, shell, clock, panpipes, car, whistle, bell, cricket, bee, guitar, robot, frog)
DRAWINGS: dict[str, Callable[[ColorJitter], list[Part]]] = {make.__name__: make for make in _CATEGORIES}
