"""HDR films (HLG, PQ: iPhones, televisions) for ordinary screens: light above white is compressed, not cut.

Sources: ITU-R BT.2100 (transfer functions), BT.2408 (white at 203 cd/m²), BT.2087 (BT.2020 to BT.709).
"""

from functools import lru_cache

import cv2
import numpy as np

HDR_TRANSFERS = {16: "PQ", 18: "HLG"}  # by FFmpeg's AVColorTransferCharacteristic
WHITE, PEAK = 203.0, 1000.0  # cd/m²: of paper, and of the brightest light that is told from white
KNEE = 0.75  # of white: below it light stays as it is
STEPS = 4096  # of the tables
LUMINANCE = np.array([0.2627, 0.6780, 0.0593], np.float32)  # of BT.2020
BT2020_TO_BT709 = np.array([[1.6605, -0.5876, -0.0728], [-0.1246, 1.1329, -0.0083], [-0.0182, -0.1006, 1.1187]])


def tone_map(rgb: np.ndarray, transfer: str) -> np.ndarray:
    """Encoded BT.2020 RGB, float32 (H, W, 3) in 0 to 1, to uint8 RGB of BT.709. transfer: "PQ" or "HLG"."""
    light = _light(transfer)[np.rint(rgb * (STEPS - 1)).astype(np.uint16)]
    if transfer == "HLG":  # the scene's light; a display of 1000 cd/m² adds a gamma of 1.2
        light *= (PEAK / WHITE) * np.maximum(light @ LUMINANCE, 1e-6)[..., None] ** 0.2
    light = np.maximum(cv2.transform(light, BT2020_TO_BT709), 0)
    brightest = light.max(axis=-1, keepdims=True)
    light *= _compressed(brightest) / np.maximum(brightest, 1e-6)  # all three alike: hues stay
    return _encoded()[np.rint(np.clip(light, 0, 1) * (STEPS * 4 - 1)).astype(np.uint16)]


@lru_cache(maxsize=2)
def _light(transfer: str) -> np.ndarray:
    """Light by encoded value: PQ in units of white, HLG's scene from 0 to 1."""
    value = np.linspace(0, 1, STEPS)
    if transfer == "PQ":
        root = value ** (1 / 78.84375)
        ratio = np.maximum(root - 0.8359375, 0) / (18.8515625 - 18.6875 * root)
        found = 10_000 / WHITE * ratio ** (1 / 0.1593017578125)
    else:
        a, b, c = 0.17883277, 0.28466892, 0.55991073
        found = np.where(value <= 0.5, value**2 / 3, (np.exp((value - c) / a) + b) / 12)
    return found.astype(np.float32)


@lru_cache(maxsize=1)
def _encoded() -> np.ndarray:
    """The 8-bit value of light from 0 to 1, for a screen of gamma 2.4 (BT.1886)."""
    return np.rint(255 * np.linspace(0, 1, STEPS * 4) ** (1 / 2.4)).astype(np.uint8)


def _compressed(light: np.ndarray) -> np.ndarray:
    """Light in units of white: up to the knee as it is, then bent so that PEAK becomes white (Reinhard's curve)."""
    room = 1 - KNEE
    above, most = np.maximum(light - KNEE, 0) / room, (PEAK / WHITE - KNEE) / room
    return np.minimum(light, KNEE) + room * above * (1 + above / most**2) / (1 + above)
