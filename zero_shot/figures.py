"""Images of predictions: frames with similarity maps, prompts and masks drawn on them."""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.figures import GROUND_TRUTH_COLOR, PREDICTION_COLOR, ImageRows, overlay_masks
from zero_shot.methods import Prediction
from zero_shot.prompts import Prompt

FOREGROUND_COLOR, BACKGROUND_COLOR, BOX_COLOR = (255, 255, 255), (30, 30, 30), (255, 255, 0)  # RGB


def resize_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask (H, W) bool at another size (height, width), with smooth edges."""
    if mask.shape == size:
        return mask
    return cv2.resize(mask.astype(np.float32), size[::-1], interpolation=cv2.INTER_LINEAR) > 0.5


def similarity_overlay(image: np.ndarray, similarity_map: np.ndarray) -> np.ndarray:
    """An image (H, W, 3) uint8 RGB under a similarity map (h, w) in [0, 1] of any size."""
    if similarity_map.shape != image.shape[:2]:
        similarity_map = cv2.resize(similarity_map, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    colors = cv2.applyColorMap((similarity_map.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.addWeighted(image, 0.4, cv2.cvtColor(colors, cv2.COLOR_BGR2RGB), 0.6, 0)


def draw_prompts(image: np.ndarray, prompt: Prompt) -> np.ndarray:
    """A copy of an image (H, W, 3) uint8 RGB with points (foreground white, background black) and boxes (yellow)."""
    drawn = np.ascontiguousarray(image.copy())
    if prompt.points is not None and prompt.labels is not None:
        for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
            center = (round(float(x)), round(float(y)))
            cv2.circle(drawn, center, 4, FOREGROUND_COLOR if label else BACKGROUND_COLOR, -1, cv2.LINE_AA)
            cv2.circle(drawn, center, 4, BACKGROUND_COLOR if label else FOREGROUND_COLOR, 1, cv2.LINE_AA)
    for x0, y0, x1, y1 in [] if prompt.boxes is None else prompt.boxes:
        cv2.rectangle(drawn, (round(float(x0)), round(float(y0))), (round(float(x1)), round(float(y1))), BOX_COLOR, 2)
    return drawn


def heatmap_image(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """An image (H, W, 3) of any size under the similarity map of a prediction, if there is one."""
    if prediction.similarity_map is None:
        return image
    return similarity_overlay(image, prediction.similarity_map)


def prompt_image(image: np.ndarray, prediction: Prediction) -> np.ndarray:
    """An image (H, W, 3) of any size with the prompts of a prediction, which are in pixels of its mask."""
    prompt = prediction.prompt
    if prompt is None:
        return image
    y, x = np.array(image.shape[:2]) / prediction.mask.shape
    points = None if prompt.points is None else prompt.points * (x, y)
    boxes = None if prompt.boxes is None else prompt.boxes * (x, y, x, y)
    return draw_prompts(image, Prompt(points, prompt.labels, boxes))


def prediction_rows(
    frames: Sequence[np.ndarray], predictions: Sequence[Prediction], ground_truth: np.ndarray
) -> ImageRows:
    """Rows of images of one clip, for `utils.figures.grid_image`.

    Args:
        frames: (H, W, 3) uint8 RGB, one per second.
        predictions: one per frame.
        ground_truth: masks (n, H, W) bool of the first n frames.

    Returns:
        Rows "frames", "ground_truth", "heatmap" (if there are similarity maps or prompts) and "prediction".
    """
    rows = {"frames": frames, "ground_truth": overlay_masks(frames, list(ground_truth), GROUND_TRUTH_COLOR)}
    if any(prediction.similarity_map is not None or prediction.prompt is not None for prediction in predictions):
        rows["heatmap"] = [
            prompt_image(heatmap_image(frame, prediction), prediction)
            for frame, prediction in zip(frames, predictions, strict=True)
        ]
    return {**rows, "prediction": overlay_masks(frames, [p.mask for p in predictions], PREDICTION_COLOR)}
