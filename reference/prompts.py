"""Point prompts from a similarity map, pixel by pixel."""

import numpy as np

Points = list[tuple[int, int]]


def peak_points(similarity: np.ndarray, threshold: float) -> tuple[Points, Points]:
    """Local maxima and minima of a similarity map.

    Beyond the map lie zeros, which count in the fallbacks too.

    Args:
        similarity: (H, W).
        threshold: Maxima must be above it, minima below 1 - threshold.

    Returns:
        Positive and negative points as (x, y), row by row; where there is no local extremum, the global ones.
    """
    height, width = similarity.shape
    highest, lowest = max(similarity.max(), 0), min(similarity.min(), 0)
    pixels = [(x, y) for y in range(height) for x in range(width)]

    def at(x: int, y: int) -> np.float32:
        return similarity[y, x] if 0 <= x < width and 0 <= y < height else np.float32(0)

    def neighbors(x: int, y: int) -> list[np.float32]:
        return [at(x - 1, y), at(x + 1, y), at(x, y - 1), at(x, y + 1)]

    upper, lower = np.float32(threshold), np.float32(1 - threshold)
    maxima = [p for p in pixels if at(*p) > upper and all(at(*p) > other for other in neighbors(*p))]
    minima = [p for p in pixels if at(*p) < lower and all(at(*p) < other for other in neighbors(*p))]
    return maxima or [p for p in pixels if at(*p) == highest], minima or [p for p in pixels if at(*p) == lowest]
