"""The sounds of the built-in miniature, one for each kind in drawings.py, synthesised at 44.1 kHz.

Rhythm and pitch vary with the generator. What makes a kind recognisable happens at least twice in each
second, so any one-second window tells it.
"""

from collections.abc import Callable, Sequence
from itertools import cycle

import numpy as np

SYNTHESIS_RATE = 44_100  # Hz
WAVETABLE_SIZE = 1 << 14  # entries of a waveform table: one gather replaces a sine for each harmonic

Sound = np.ndarray  # float32 (samples,)


def slow_modulation(samples: int, rng: np.random.Generator, low: float, high: float) -> Sound:
    """A sine for swells and sweeps: -1 to 1, at a rate between low and high Hz, from a random phase."""
    turns = rng.uniform(low, high) / SYNTHESIS_RATE * np.arange(samples) + rng.uniform()
    return np.sin(2 * np.pi * turns).astype(np.float32)


def tone(hertz: np.ndarray | float, samples: int, gains: Sequence[float] = (1.0,)) -> Sound:
    """A tone of constant or moving frequency; gains are those of its harmonics, the fundamental first."""
    turn = np.arange(WAVETABLE_SIZE) * (2 * np.pi / WAVETABLE_SIZE)
    table = sum(gain * np.sin(k * turn) for k, gain in enumerate(gains, 1)).astype(np.float32)
    cycles = np.cumsum(np.broadcast_to(np.asarray(hertz, np.float64) * (WAVETABLE_SIZE / SYNTHESIS_RATE), samples))
    return table[cycles.astype(np.int64) % WAVETABLE_SIZE]


def exponential_decay(samples: int, seconds: float) -> Sound:
    """An exponential decay: 1 at first, 1/e after `seconds`."""
    return np.exp(np.arange(samples, dtype=np.float32) / np.float32(-seconds * SYNTHESIS_RATE))


def colored_noise(
    samples: int, rng: np.random.Generator, slope: float = 0.0, low: float = 20.0, high: float = 2e4
) -> Sound:
    """Unit-power noise between two frequencies; its amplitude falls with frequency to the power `slope`."""
    size = 1 << max(1, samples - 1).bit_length()  # a power of two: a fast transform
    spectrum = np.fft.rfft(rng.standard_normal(size, np.float32))
    hertz = np.fft.rfftfreq(size, 1 / SYNTHESIS_RATE)
    spectrum *= np.where((hertz >= low) & (hertz <= high), np.maximum(hertz, low) ** -slope, 0)
    return normalize_power(np.fft.irfft(spectrum)[:samples])


def normalize_power(sound: np.ndarray) -> Sound:
    """Scaled to unit power (root mean square); silence stays silent."""
    power = float(np.sqrt(np.mean(np.square(sound, dtype=np.float64)))) if sound.size else 0.0
    return (sound / power if power > 0 else sound).astype(np.float32)


def repeat_event(
    samples: int, rng: np.random.Generator, rate: float, event: Callable[[], Sound], swing: float = 0.1
) -> Sound:
    """An event `rate` times a second; `swing` moves each one by up to that part of the beat."""
    sound = np.zeros(samples, np.float32)
    beat = SYNTHESIS_RATE / rate
    for onset in np.arange(rng.uniform(0, 0.4) * beat, samples, beat):
        start = min(samples - 1, max(0, int(onset + rng.uniform(-swing, swing) * beat)))
        piece = event()[: samples - start]
        sound[start : start + len(piece)] += piece * np.float32(rng.uniform(0.75, 1))
    return sound


# The kinds: each returns `samples` samples of any loudness


def drum(samples: int, rng: np.random.Generator) -> Sound:
    """Low thumps whose pitch drops."""
    n, pitch = int(0.3 * SYNTHESIS_RATE), rng.uniform(70, 120)
    body = tone(pitch * (1 + 1.2 * exponential_decay(n, 0.03)), n) * exponential_decay(n, rng.uniform(0.08, 0.14))
    thump = body + 0.5 * colored_noise(n, rng, 0.5, high=4000) * exponential_decay(n, 0.012)
    return repeat_event(samples, rng, rng.uniform(2.4, 4.5), lambda: thump)


def bird(samples: int, rng: np.random.Generator) -> Sound:
    """Short chirps sweeping through 2.5 to 6 kHz."""

    def chirp() -> Sound:
        n = int(rng.uniform(0.05, 0.11) * SYNTHESIS_RATE)
        first, last = rng.uniform(2500, 6000, 2)
        return tone(np.linspace(first, last, n), n) * np.hanning(n)

    return repeat_event(samples, rng, rng.uniform(5, 9), chirp, 0.25)


def siren(samples: int, rng: np.random.Generator) -> Sound:
    """A wail up and down, with harmonics."""
    hertz = rng.uniform(650, 850) * 2 ** (0.5 * slow_modulation(samples, rng, 1.0, 2.2))
    return tone(hertz, samples, (1, 0.5, 0.35))


def shell(samples: int, rng: np.random.Generator) -> Sound:
    """The sea: broad noise that swells."""
    swell = 0.65 + 0.35 * slow_modulation(samples, rng, 0.3, 0.7)
    return colored_noise(samples, rng, rng.uniform(0.3, 0.6), 100, 9000) * swell


def clock(samples: int, rng: np.random.Generator) -> Sound:
    """Dry ticks and tocks."""
    n, pitch = int(0.05 * SYNTHESIS_RATE), rng.uniform(1500, 2300)

    def tick(hertz: float) -> Sound:
        ring = tone(hertz, n) + 0.6 * tone(hertz * 2.7, n)
        return ring * exponential_decay(n, 0.006) + 0.5 * colored_noise(n, rng) * exponential_decay(n, 0.0015)

    ticks = cycle([tick(pitch), tick(0.75 * pitch)])
    return repeat_event(samples, rng, rng.uniform(3.5, 6), lambda: next(ticks), 0.0)


def panpipes(samples: int, rng: np.random.Generator) -> Sound:
    """Breathy, nearly pure notes with vibrato."""
    length = int(rng.uniform(0.35, 0.6) * SYNTHESIS_RATE)
    count = -(-samples // length)
    notes = rng.uniform(420, 520) * 2 ** (rng.choice([0, 2, 4, 7, 9, 12], count) / 12)
    swell = np.tile(np.hanning(length) ** 0.3, count)[:samples]
    hertz = np.repeat(notes, length)[:samples] * (1 + 0.012 * slow_modulation(samples, rng, 4.5, 6))
    return swell * (tone(hertz, samples, (1, 0.12, 0.1)) + 0.1 * colored_noise(samples, rng, 0.3, 800, 6000))


def car(samples: int, rng: np.random.Generator) -> Sound:
    """An engine: a stack of harmonics over a low, wandering pitch."""
    hertz = rng.uniform(45, 75) * (1 + 0.12 * slow_modulation(samples, rng, 0.2, 0.6))
    stack = tone(hertz, samples, [rng.uniform(0.5, 1) / k**0.6 for k in range(1, 13)])
    return stack * (1 + 0.4 * tone(hertz / 2, samples)) + 0.5 * colored_noise(samples, rng, 0.6, 40, 2000)


def whistle(samples: int, rng: np.random.Generator) -> Sound:
    """A high tone, trilled by the pea, that rises and falls a little."""
    sweep = rng.uniform(2300, 3000) * (1 + 0.06 * slow_modulation(samples, rng, 1.5, 3))
    trill = 0.6 + 0.4 * slow_modulation(samples, rng, 28, 45)
    return trill * tone(sweep, samples, (1, 0.2)) + 0.05 * colored_noise(samples, rng, low=2000)


def bell(samples: int, rng: np.random.Generator) -> Sound:
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


def cricket(samples: int, rng: np.random.Generator) -> Sound:
    """Volleys of short, very high pulses."""
    pulses, n = int(rng.integers(3, 6)), int(0.017 * SYNTHESIS_RATE)
    volley = np.tile(np.concatenate([np.hanning(n), np.zeros(n // 4)]), pulses)
    volley = volley * tone(rng.uniform(4300, 5300), len(volley))
    return repeat_event(samples, rng, rng.uniform(3, 5.5), lambda: volley, 0.05)


def bee(samples: int, rng: np.random.Generator) -> Sound:
    """A wavering, bright buzz."""
    hertz = rng.uniform(185, 250) * (
        1 + 0.05 * slow_modulation(samples, rng, 2, 4) + 0.025 * slow_modulation(samples, rng, 6, 9)
    )
    buzz = tone(hertz, samples, [k**-0.8 for k in range(1, 11)])
    return buzz * (0.8 + 0.2 * slow_modulation(samples, rng, 9, 14))


def guitar(samples: int, rng: np.random.Generator) -> Sound:
    """A plucked chord, broken."""
    n, root = int(0.8 * SYNTHESIS_RATE), rng.uniform(190, 270)

    def pluck(hertz: float) -> Sound:
        return np.sum([tone(hertz * k, n) * exponential_decay(n, 0.5 / k) / k for k in range(1, 8)], axis=0)

    strings = [pluck(root * 2 ** (step / 12)) for step in (0, 4, 7, 12)]
    return repeat_event(samples, rng, rng.uniform(4, 6.5), lambda: strings[rng.integers(4)], 0.04)


def robot(samples: int, rng: np.random.Generator) -> Sound:
    """Fast square-wave bleeps of random pitch."""
    length = int(SYNTHESIS_RATE / rng.uniform(8, 13))
    steps = rng.choice([0, 3, 5, 7, 10, 12, 15, 17, 19, 22], -(-samples // length))
    hertz = np.repeat(rng.uniform(330, 480) * 2 ** (steps / 12), length)[:samples]
    gate = (np.arange(samples) % length < 0.75 * length).astype(np.float32)
    return gate * tone(hertz, samples, (1, 0, 1 / 3, 0, 1 / 5, 0, 1 / 7))


def frog(samples: int, rng: np.random.Generator) -> Sound:
    """Croaks: a slow train of pulses through the resonance of a throat."""
    gap, throat = int(SYNTHESIS_RATE / rng.uniform(35, 60)), rng.uniform(500, 800)
    pulse = (tone(throat, gap) + 0.5 * tone(throat * 2.3, gap)) * exponential_decay(gap, 0.006)
    count = int(rng.uniform(0.14, 0.22) * SYNTHESIS_RATE / gap)
    croak = np.tile(pulse, count) * np.hanning(count * gap)
    return repeat_event(samples, rng, rng.uniform(2.5, 3.8), lambda: croak)


CATEGORIES = (drum, bird, siren, shell, clock, panpipes, car, whistle, bell, cricket, bee, guitar, robot, frog)
SOUNDS: dict[str, Callable[[int, np.random.Generator], Sound]] = {make.__name__: make for make in CATEGORIES}


def sound(kind: str, samples: int, rng: np.random.Generator) -> Sound:
    """Synthesise a built-in kind: float32 (samples,) at 44.1 kHz, of unit power. KeyError if unknown."""
    return normalize_power(SOUNDS[kind](samples, rng))


def loop(recording: np.ndarray, samples: int, rng: np.random.Generator) -> Sound:
    """A mono recording at 44.1 kHz, made `samples` long: over and over with little gaps if it is shorter,
    from a random point if it is longer. Float32 (samples,), of unit power."""
    start = int(rng.integers(max(1, len(recording) - samples + 1)))
    piece = fade(recording[start : start + samples])
    parts, filled = [], 0
    while filled < samples:
        parts += [piece, np.zeros(int(rng.uniform(0.03, 0.2) * SYNTHESIS_RATE), np.float32)]
        filled += len(parts[-2]) + len(parts[-1])
    return normalize_power(np.concatenate(parts)[:samples])


def fade(sound: np.ndarray, seconds: float = 0.01) -> Sound:
    """With its ends faded, so that a cut does not click."""
    n = min(int(seconds * SYNTHESIS_RATE), len(sound) // 2)
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    envelope = np.concatenate([ramp, np.ones(len(sound) - 2 * n, np.float32), ramp[::-1]])
    return sound.astype(np.float32) * envelope
