"""Audio synthesis at 44.1 kHz: tones, noise, envelopes and repeated events, which sounds.py combines."""

from collections.abc import Callable, Sequence

import numpy as np

SYNTHESIS_RATE = 44_100  # Hz
WAVETABLE_SIZE = 1 << 14  # entries of a waveform table: one gather replaces a sine for each harmonic

Waveform = np.ndarray  # float32 (samples,)


def slow_modulation(samples: int, rng: np.random.Generator, low: float, high: float) -> Waveform:
    """A sine in [-1, 1] with a random phase and a random frequency between low and high Hz, to modulate others."""
    turns = rng.uniform(low, high) / SYNTHESIS_RATE * np.arange(samples) + rng.uniform()
    return np.sin(2 * np.pi * turns).astype(np.float32)


def tone(hertz: np.ndarray | float, samples: int, gains: Sequence[float] = (1.0,)) -> Waveform:
    """A tone of constant or varying frequency.

    Args:
        hertz: the frequency, or one for each sample.
        samples: its length.
        gains: amplitudes of the harmonics, the fundamental first.
    """
    turn = np.arange(WAVETABLE_SIZE) * (2 * np.pi / WAVETABLE_SIZE)
    table = sum(gain * np.sin(k * turn) for k, gain in enumerate(gains, 1)).astype(np.float32)
    cycles = np.cumsum(np.broadcast_to(np.asarray(hertz, np.float64) * (WAVETABLE_SIZE / SYNTHESIS_RATE), samples))
    return table[cycles.astype(np.int64) % WAVETABLE_SIZE]


def exponential_decay(samples: int, seconds: float) -> Waveform:
    """An exponential envelope: 1 at the start, 1/e after `seconds`."""
    return np.exp(np.arange(samples, dtype=np.float32) / np.float32(-seconds * SYNTHESIS_RATE))


def colored_noise(
    samples: int, rng: np.random.Generator, slope: float = 0.0, low: float = 20.0, high: float = 2e4
) -> Waveform:
    """Unit-power noise between `low` and `high` Hz whose amplitude is proportional to frequency ** -slope."""
    size = 1 << max(1, samples - 1).bit_length()  # a power of two: a fast transform
    spectrum = np.fft.rfft(rng.standard_normal(size, np.float32))
    hertz = np.fft.rfftfreq(size, 1 / SYNTHESIS_RATE)
    spectrum *= np.where((hertz >= low) & (hertz <= high), np.maximum(hertz, low) ** -slope, 0)
    return normalize_power(np.fft.irfft(spectrum)[:samples])


def normalize_power(waveform: np.ndarray) -> Waveform:
    """Scale to unit power (root mean square 1); silence stays silence."""
    power = float(np.sqrt(np.mean(np.square(waveform, dtype=np.float64)))) if waveform.size else 0.0
    return (waveform / power if power > 0 else waveform).astype(np.float32)


def repeat_event(
    samples: int, rng: np.random.Generator, rate: float, event: Callable[[], Waveform], swing: float = 0.1
) -> Waveform:
    """Repeat an event `rate` times a second.

    Args:
        samples: length of the result.
        rng: source of the onsets and amplitudes.
        rate: events per second.
        event: returns the samples of one event.
        swing: by how much an onset may deviate, as a fraction of the period.
    """
    waveform = np.zeros(samples, np.float32)
    period = SYNTHESIS_RATE / rate
    for onset in np.arange(rng.uniform(0, 0.4) * period, samples, period):
        start = min(samples - 1, max(0, int(onset + rng.uniform(-swing, swing) * period)))
        piece = event()[: samples - start]
        waveform[start : start + len(piece)] += piece * np.float32(rng.uniform(0.75, 1))
    return waveform


def loop(recording: np.ndarray, samples: int, rng: np.random.Generator) -> Waveform:
    """Fit a recording to a length: repeat it with short gaps if it is shorter, cut a random excerpt if it is longer.

    Args:
        recording: float32 (n,) at 44.1 kHz.
        samples: the length wanted.
        rng: source of the excerpt and the gaps.

    Returns:
        Float32 (samples,) of unit power.
    """
    start = int(rng.integers(max(1, len(recording) - samples + 1)))
    piece = fade(recording[start : start + samples])
    parts, filled = [], 0
    while filled < samples:
        parts += [piece, np.zeros(int(rng.uniform(0.03, 0.2) * SYNTHESIS_RATE), np.float32)]
        filled += len(parts[-2]) + len(parts[-1])
    return normalize_power(np.concatenate(parts)[:samples])


def fade(waveform: np.ndarray, seconds: float = 0.01) -> Waveform:
    """Fade both ends in and out linearly, which avoids clicks. Float32, same length."""
    n = min(int(seconds * SYNTHESIS_RATE), len(waveform) // 2)
    ramp = np.linspace(0, 1, n, dtype=np.float32)
    envelope = np.concatenate([ramp, np.ones(len(waveform) - 2 * n, np.float32), ramp[::-1]])
    return waveform.astype(np.float32) * envelope
