"""A composed scene: sprites that move over a background, and the part of each pixel that each of them covers.

Frames and exact masks are rendered from the same layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from utils.layout import FRAME_SIZE


@dataclass(frozen=True)
class MovingSprite:
    """A sprite and its trajectory. Lengths in pixels, x to the right and y down.

    Attributes:
        sprite: float32 (h, w, 4), premultiplied RGBA.
        start: (x, y) of its center at 0 s.
        end: (x, y) of its center at the end of the clip.
        bob: amplitude of its vertical oscillation.
        tilt: mean rotation in degrees, around which it oscillates by 5 degrees.
        phase: of both oscillations, in turns.
        seconds: length of the clip.
    """

    sprite: np.ndarray
    start: np.ndarray
    end: np.ndarray
    bob: float = 0.0
    tilt: float = 0.0
    phase: float = 0.0
    seconds: float = 5.0

    def center(self, time: float) -> np.ndarray:
        """(x, y) of its center at a time in seconds."""
        offset = self.bob * np.sin(2 * np.pi * (0.5 * time + self.phase))
        return self.start + (self.end - self.start) * (time / self.seconds) + np.array([0, offset])

    def layer(self, time: float, size: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
        """Render it at a time in seconds.

        Args:
            time: in seconds.
            size: height and width of the frame.

        Returns:
            The rows and columns of the frame that it may cover, and its premultiplied RGBA pixels there.
        """
        angle = np.radians(self.tilt + 5 * np.sin(2 * np.pi * (0.4 * time + self.phase)))
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        half = (np.array(self.sprite.shape[1::-1]) - 1) / 2
        center, reach = self.center(time), np.abs(rotation) @ half + 1
        low = np.clip(np.floor(center - reach), 0, size[::-1]).astype(int)
        high = np.clip(np.ceil(center + reach) + 1, low, size[::-1]).astype(int)
        region = slice(low[1], high[1]), slice(low[0], high[0])
        if (high == low).any():
            return region, np.zeros((high[1] - low[1], high[0] - low[0], 4), np.float32)
        matrix = np.column_stack([rotation, center - low - rotation @ half])
        return region, cv2.warpAffine(self.sprite, matrix, tuple(int(n) for n in high - low))


@dataclass(frozen=True)
class Scene:
    """A background and the sprites in front of it.

    Attributes:
        background: float32 (H, W, 3), RGB in [0, 255].
        sprites: in back-to-front order.
    """

    background: np.ndarray
    sprites: Sequence[MovingSprite]

    def frame(self, time: float) -> np.ndarray:
        """The frame at a time in seconds: uint8 (H, W, 3) RGB."""
        image = self.background.copy()
        for sprite in self.sprites:
            region, pixels = sprite.layer(time, image.shape[:2])
            if not pixels.size:
                continue
            image[region] *= cv2.merge([1 - pixels[..., 3]] * 3)  # faster than broadcasting over the channels
            image[region] += cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB)
        return cv2.convertScaleAbs(image)  # rounds

    def visible_fractions(self, time: float, size: tuple[int, int] = FRAME_SIZE) -> np.ndarray:
        """The fraction of each pixel that each sprite covers visibly, at a time in seconds.

        Resized as the preprocessing resizes frames, so that it holds for the frames that the models are given.

        Args:
            time: in seconds.
            size: height and width of the result.

        Returns:
            Float32 (sprites, *size) in [0, 1].
        """
        fractions = np.zeros((*self.background.shape[:2], len(self.sprites)), np.float32)
        for index, sprite in enumerate(self.sprites):
            region, pixels = sprite.layer(time, fractions.shape[:2])
            fractions[region] *= 1 - pixels[..., 3:]
            fractions[region][..., index] = pixels[..., 3]
        resized = cv2.resize(fractions, size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.moveaxis(resized.reshape(*size, -1), 2, 0)
