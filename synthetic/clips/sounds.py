"""The sounds of the built-in categories, which sprites.py draws: one function for each.

Rhythm and pitch vary randomly. The characteristic part of each sound occurs at least twice in each second, so that any
window of one second suffices to recognize it. Amplitudes are arbitrary; `synthesize` normalizes them.
"""

from collections.abc import Callable
from itertools import cycle

import numpy as np

from synthetic.clips.synthesis import (
    SYNTHESIS_RATE,
    Waveform,
    colored_noise,
    exponential_decay,
    normalize_power,
    repeat_event,
    slow_modulation,
    tone,
)


def drum(samples: int, rng: np.random.Generator) -> Waveform:
    """Low thumps whose pitch drops."""
    n, pitch = int(0.3 * SYNTHESIS_RATE), rng.uniform(70, 120)
    body = tone(pitch * (1 + 1.2 * exponential_decay(n, 0.03)), n) * exponential_decay(n, rng.uniform(0.08, 0.14))
    thump = body + 0.5 * colored_noise(n, rng, 0.5, high=4000) * exponential_decay(n, 0.012)
    return repeat_event(samples, rng, rng.uniform(2.4, 4.5), lambda: thump)


def bird(samples: int, rng: np.random.Generator) -> Waveform:
    """Short chirps sweeping through 2.5 to 6 kHz."""

    def chirp() -> Waveform:
        n = int(rng.uniform(0.05, 0.11) * SYNTHESIS_RATE)
        first, last = rng.uniform(2500, 6000, 2)
        return tone(np.linspace(first, last, n), n) * np.hanning(n)

    return repeat_event(samples, rng, rng.uniform(5, 9), chirp, 0.25)


def siren(samples: int, rng: np.random.Generator) -> Waveform:
    """A wail up and down, with harmonics."""
    hertz = rng.uniform(650, 850) * 2 ** (0.5 * slow_modulation(samples, rng, 1.0, 2.2))
    return tone(hertz, samples, (1, 0.5, 0.35))


def shell(samples: int, rng: np.random.Generator) -> Waveform:
    """The sea: broad noise that swells."""
    swell = 0.65 + 0.35 * slow_modulation(samples, rng, 0.3, 0.7)
    return colored_noise(samples, rng, rng.uniform(0.3, 0.6), 100, 9000) * swell


def clock(samples: int, rng: np.random.Generator) -> Waveform:
    """Dry ticks and tocks."""
    n, pitch = int(0.05 * SYNTHESIS_RATE), rng.uniform(1500, 2300)

    def tick(hertz: float) -> Waveform:
        ring = tone(hertz, n) + 0.6 * tone(hertz * 2.7, n)
        return ring * exponential_decay(n, 0.006) + 0.5 * colored_noise(n, rng) * exponential_decay(n, 0.0015)

    ticks = cycle([tick(pitch), tick(0.75 * pitch)])
    return repeat_event(samples, rng, rng.uniform(3.5, 6), lambda: next(ticks), 0.0)


def panpipes(samples: int, rng: np.random.Generator) -> Waveform:
    """Breathy, nearly pure notes with vibrato."""
    length = int(rng.uniform(0.35, 0.6) * SYNTHESIS_RATE)
    count = -(-samples // length)
    notes = rng.uniform(420, 520) * 2 ** (rng.choice([0, 2, 4, 7, 9, 12], count) / 12)
    swell = np.tile(np.hanning(length) ** 0.3, count)[:samples]
    hertz = np.repeat(notes, length)[:samples] * (1 + 0.012 * slow_modulation(samples, rng, 4.5, 6))
    return swell * (tone(hertz, samples, (1, 0.12, 0.1)) + 0.1 * colored_noise(samples, rng, 0.3, 800, 6000))


def car(samples: int, rng: np.random.Generator) -> Waveform:
    """An engine: a stack of harmonics over a low, wandering pitch."""
    hertz = rng.uniform(45, 75) * (1 + 0.12 * slow_modulation(samples, rng, 0.2, 0.6))
    stack = tone(hertz, samples, [rng.uniform(0.5, 1) / k**0.6 for k in range(1, 13)])
    return stack * (1 + 0.4 * tone(hertz / 2, samples)) + 0.5 * colored_noise(samples, rng, 0.6, 40, 2000)


def whistle(samples: int, rng: np.random.Generator) -> Waveform:
    """A high tone, trilled by the pea, that rises and falls a little."""
    sweep = rng.uniform(2300, 3000) * (1 + 0.06 * slow_modulation(samples, rng, 1.5, 3))
    trill = 0.6 + 0.4 * slow_modulation(samples, rng, 28, 45)
    return trill * tone(sweep, samples, (1, 0.2)) + 0.05 * colored_noise(samples, rng, low=2000)


def bell(samples: int, rng: np.random.Generator) -> Waveform:
    """Inharmonic partials that ring on."""
    n, pitch = int(1.2 * SYNTHESIS_RATE), rng.uniform(550, 900)
    ratios, gains, rings = (
        (0.5, 1, 1.19, 2, 2.66, 4.1),
        (0.4, 1, 0.6, 0.8, 0.5, 0.5),
        (50, 45, 35, 30, 20, 12),
    )
    partials = zip(ratios, gains, rings, strict=True)
    toll = sum(gain * tone(pitch * ratio, n) * exponential_decay(n, ring / 100) for ratio, gain, ring in partials)
    return repeat_event(samples, rng, rng.uniform(2.0, 3.2), lambda: toll, 0.03)


def cricket(samples: int, rng: np.random.Generator) -> Waveform:
    """Volleys of short, very high pulses."""
    pulses, n = int(rng.integers(3, 6)), int(0.017 * SYNTHESIS_RATE)
    volley = np.tile(np.concatenate([np.hanning(n), np.zeros(n // 4)]), pulses)
    volley = volley * tone(rng.uniform(4300, 5300), len(volley))
    return repeat_event(samples, rng, rng.uniform(3, 5.5), lambda: volley, 0.05)


def bee(samples: int, rng: np.random.Generator) -> Waveform:
    """A wavering, bright buzz."""
    hertz = rng.uniform(185, 250) * (
        1 + 0.05 * slow_modulation(samples, rng, 2, 4) + 0.025 * slow_modulation(samples, rng, 6, 9)
    )
    buzz = tone(hertz, samples, [k**-0.8 for k in range(1, 11)])
    return buzz * (0.8 + 0.2 * slow_modulation(samples, rng, 9, 14))


def guitar(samples: int, rng: np.random.Generator) -> Waveform:
    """A plucked chord, broken."""
    n, root = int(0.8 * SYNTHESIS_RATE), rng.uniform(190, 270)

    def pluck(hertz: float) -> Waveform:
        return np.sum([tone(hertz * k, n) * exponential_decay(n, 0.5 / k) / k for k in range(1, 8)], axis=0)

    strings = [pluck(root * 2 ** (step / 12)) for step in (0, 4, 7, 12)]
    return repeat_event(samples, rng, rng.uniform(4, 6.5), lambda: strings[rng.integers(4)], 0.04)


def robot(samples: int, rng: np.random.Generator) -> Waveform:
    """Fast square-wave bleeps of random pitch."""
    length = int(SYNTHESIS_RATE / rng.uniform(8, 13))
    steps = rng.choice([0, 3, 5, 7, 10, 12, 15, 17, 19, 22], -(-samples // length))
    hertz = np.repeat(rng.uniform(330, 480) * 2 ** (steps / 12), length)[:samples]
    gate = (np.arange(samples) % length < 0.75 * length).astype(np.float32)
    return gate * tone(hertz, samples, (1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7))


def frog(samples: int, rng: np.random.Generator) -> Waveform:
    """Croaks: a slow train of pulses through the resonance of a throat."""
    gap, throat = int(SYNTHESIS_RATE / rng.uniform(35, 60)), rng.uniform(500, 800)
    pulse = (tone(throat, gap) + 0.5 * tone(throat * 2.3, gap)) * exponential_decay(gap, 0.006)
    count = int(rng.uniform(0.14, 0.22) * SYNTHESIS_RATE / gap)
    croak = np.tile(pulse, count) * np.hanning(count * gap)
    return repeat_event(samples, rng, rng.uniform(2.5, 3.8), lambda: croak)


def applause(samples: int, rng: np.random.Generator) -> Waveform:
    """Many hands: short bursts of noise without rhythm. Of no drawing, as the following ones."""
    n = int(0.03 * SYNTHESIS_RATE)
    clap = lambda: colored_noise(n, rng, 0.2, 700, 5000) * exponential_decay(n, 0.006)  # noqa: E731
    return repeat_event(samples, rng, rng.uniform(45, 70), clap, 1.0)


def thunder(samples: int, rng: np.random.Generator) -> Waveform:
    """A deep rumble."""
    return colored_noise(samples, rng, 0.9, 25, 180) * (0.6 + 0.4 * slow_modulation(samples, rng, 1.5, 4))


def telephone(samples: int, rng: np.random.Generator) -> Waveform:
    """Two steady tones that are interrupted together."""
    chord = tone(rng.uniform(430, 450), samples) + tone(rng.uniform(1180, 1220), samples)
    return chord * (slow_modulation(samples, rng, 2, 2.5) > -0.3)


def theremin(samples: int, rng: np.random.Generator) -> Waveform:
    """A pure low tone that glides."""
    return tone(rng.uniform(130, 170) * 2 ** (0.4 * slow_modulation(samples, rng, 0.4, 0.8)), samples)


_CATEGORIES = (drum, bird, siren, shell, clock, panpipes, car, whistle, bell, cricket, bee, guitar, robot, frog)
SOUNDS: dict[str, Callable[[int, np.random.Generator], Waveform]] = {make.__name__: make for make in _CATEGORIES}
OFFSCREEN_SOUNDS = {make.__name__: make for make in (applause, thunder, telephone, theremin)}


def synthesize(category: str, samples: int, rng: np.random.Generator) -> Waveform:
    """The sound of a built-in category: float32 (samples,) at 44.1 kHz, of unit power; KeyError if unknown."""
    return normalize_power({**SOUNDS, **OFFSCREEN_SOUNDS}[category](samples, rng))
