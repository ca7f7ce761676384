"""VGGish's log-mel examples, frame by frame and band by band.

Source: mel_features.py and vggish_params.py of VGGish (tensorflow/models, research/audioset/vggish).
"""

import numpy as np


def log_mel(samples: np.ndarray) -> np.ndarray:
    """Log-mel examples of a waveform.

    Args:
        samples: Mono floats at 16 kHz, (samples,).

    Returns:
        Float32 (N, 1, 96, 64), an example for every 0.96 s.
    """
    window = [0.5 - 0.5 * np.cos(2 * np.pi * i / 400) for i in range(400)]
    mel = [1127 * np.log(1 + k * 31.25 / 700) for k in range(257)]
    low, high = 1127 * np.log(1 + 125 / 700), 1127 * np.log(1 + 7500 / 700)
    edges = [low + (high - low) * i / 65 for i in range(66)]
    rows = []
    for start in range(0, len(samples) - 399, 160):
        spectrum = np.abs(np.fft.rfft(samples[start : start + 400] * window, 512))
        row = []
        for m in range(64):
            left, center, right = edges[m : m + 3]
            energy = 0.0
            for k in range(1, 257):
                weight = min((mel[k] - left) / (center - left), (right - mel[k]) / (right - center))
                energy += max(0.0, weight) * spectrum[k]
            row.append(np.log(energy + 0.01))
        rows.append(row)
    count = len(rows) // 96
    return np.asarray(rows[: count * 96], np.float32).reshape(count, 1, 96, 64)
