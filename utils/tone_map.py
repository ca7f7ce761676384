"""Tone-map HDR video (HLG, PQ: iPhones, televisions) to BT.709: light above white is compressed, not clipped.

Sources: ITU-R BT.2100 (transfer functions), BT.2408 (white at 203 cd/m²), BT.2087 (BT.2020 to BT.709).
"""

from functools import lru_cache

import cv2
import numpy as np

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # keys: FFmpeg's AVColorTransferCharacteristic
WHITE, PEAK = 203.0, 1000.0  # cd/m²: diffuse white, and the brightest light that is distinguished
KNEE = 0.75  # relative to white: light below it is not changed
TABLE_SIZE = 4096  # entries of the lookup tables
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
BT2020_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def tone_map(rgb: np.ndarray, transfer: str) -> np.ndarray:
    """Tone-map a frame.

    Args:
        rgb: float32 (H, W, 3) in [0, 1], encoded BT.2020.
        transfer: "PQ" or "HLG".

    Returns:
        uint8 (H, W, 3), BT.709.
    """
    light = _linear_light(transfer)[np.rint(rgb * (TABLE_SIZE - 1)).astype(np.uint16)]
    if transfer == "HLG":  # scene light; a display of 1000 cd/m² applies a gamma of 1.2
        light *= (PEAK / WHITE) * np.maximum(light @ LUMINANCE, 1e-6)[..., None] ** 0.2
    light = np.maximum(cv2.transform(light, BT2020_TO_BT709), 0)
    brightest = light.max(axis=-1, keepdims=True)
    light *= _compress(brightest) / np.maximum(brightest, 1e-6)  # one factor for all channels keeps the hue
    return _gamma_table()[np.rint(np.clip(light, 0, 1) * (TABLE_SIZE * 4 - 1)).astype(np.uint16)]


@lru_cache(maxsize=2)
def _linear_light(transfer: str) -> np.ndarray:
    """Lookup table from encoded values to linear light: relative to white for PQ, scene light in [0, 1] for HLG."""
    value = np.linspace(0, 1, TABLE_SIZE)
    if transfer == "PQ":
        root = value ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        light = 10_000 / WHITE * ratio ** (1 / 0.1593017578125)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        light = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    return light.astype(np.float32)


@lru_cache(maxsize=1)
def _gamma_table() -> np.ndarray:
    """Lookup table from linear light in [0, 1] to 8-bit values, for a display gamma of 2.4 (BT.1886)."""
    return np.rint(255 * np.linspace(0, 1, TABLE_SIZE * 4) ** (1 / 2.4)).astype(np.uint8)


def _compress(light: np.ndarray) -> np.ndarray:
    """Compress light, relative to white, above the knee so that PEAK becomes white (Reinhard's curve)."""
    headroom = 1 - KNEE
    above, maximum = np.maximum(light - KNEE, 0) / headroom, (PEAK / WHITE - KNEE) / headroom
    return np.minimum(light, KNEE) + headroom * above * (1 + above / maximum**2) / (1 + above)
