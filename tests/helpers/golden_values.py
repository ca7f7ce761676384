"""Weights and inputs that need no file: every value follows from a seed and a name.

The golden figures in ``tests/golden`` were computed by the original programs on exactly these values, so a
test fills our model the same way, runs it on the same input and compares the outputs.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import torch


def generator(seed: int, name: str) -> np.random.Generator:
    """Generator seeded by the first eight bytes of SHA-256 of ``"seed:name"``, read little-endian."""
    key = hashlib.sha256(f"{seed}:{name}".encode()).digest()[:8]
    return np.random.default_rng(int.from_bytes(key, "little"))


def tensor(
    seed: int,
    name: str,
    shape: Iterable[int],
    kind: Literal["normal", "uniform"] = "normal",
    scale: float = 1.0,
) -> torch.Tensor:
    """Float32 tensor of ``shape``: zero-mean normal of deviation ``scale``, or uniform on [0, ``scale``)."""
    size = tuple(shape)
    draw = generator(seed, name)
    values = draw.standard_normal(size) if kind == "normal" else draw.random(size)
    # Drawn and scaled in float64, rounded once. The reshape matters for 0-d tensors only.
    return torch.from_numpy(np.asarray(values * scale, dtype=np.float32)).reshape(size)


def fill(
    state: Mapping[str, torch.Tensor], seed: int, skip: Iterable[str] = (), gain: float = 1.0
) -> dict[str, torch.Tensor]:
    """State dict with the names of ``state`` and fresh values, sized so that a deep network stays finite.

    Integers, scalars, ``*window`` and every name that contains a word of ``skip`` are copied. With n standard
    normal: ``*running_var`` = 1 + |n|/10, ``*running_mean`` and ``*bias`` = n/10, other vectors = 1 + n/10,
    matrices = gain·n·√(1/fan_in), kernels of more dimensions = gain·n·√(2/fan_in).
    """
    words = tuple(skip)
    filled = {}
    for name, old in state.items():
        kept = name.endswith("window") or any(word in name for word in words)
        if kept or old.ndim == 0 or not old.is_floating_point():
            filled[name] = old.clone()
            continue
        noise = tensor(seed, name, old.shape)
        if name.endswith("running_var"):
            filled[name] = 1 + noise.abs() / 10
        elif name.endswith(("running_mean", "bias")):
            filled[name] = noise / 10
        elif old.ndim == 1:
            filled[name] = 1 + noise / 10
        else:
            variance = (1 if old.ndim == 2 else 2) / math.prod(old.shape[1:])
            filled[name] = noise * float(gain * math.sqrt(variance))
    return filled


def audio(seed: int, name: str, seconds: float, rate: int) -> np.ndarray:
    """Mono float32 waveform within ±0.5: a chirp from 200 Hz, a hum at 440 Hz and faint noise."""
    time = np.arange(round(seconds * rate)) / rate
    chirp = 0.25 * np.sin(2 * np.pi * (200 * time + 300 * time * time))
    hum = 0.15 * np.sin(2 * np.pi * 440 * time)
    hiss = 0.02 * generator(seed, name).standard_normal(time.size)
    return (chirp + hum + hiss).clip(-0.5, 0.5).astype(np.float32)
