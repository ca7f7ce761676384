"""Pictures of what a zero-shot setting saw and answered: frames, heat map with prompts, truth and mask."""

from collections.abc import Sequence

import cv2
import numpy as np

from utils.figures import GROUND_TRUTH_COLOR, PREDICTION_COLOR, ImageRows, overlay_masks
from zero_shot.methods import Prediction
from zero_shot.prompts import Prompt

POSITIVE, NEGATIVE, BOX = (255, 255, 255), (30, 30, 30), (255, 255, 0)  # RGB


def similarity_overlay(frame: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """The frame under its similarity map: frame (H, W, 3) uint8 RGB, heat (H, W) 0 to 1 -> (H, W, 3) uint8."""
    colours = cv2.applyColorMap((heat.clip(0, 1) * 255).astype(np.uint8), cv2.COLORMAP_JET)
    return cv2.addWeighted(frame, 0.4, cv2.cvtColor(colours, cv2.COLOR_BGR2RGB), 0.6, 0)


def draw_prompts(picture: np.ndarray, prompt: Prompt) -> np.ndarray:
    """Points (positive white, negative black) and boxes (yellow) on a copy of a picture (H, W, 3)."""
    drawn = np.ascontiguousarray(picture.copy())
    if prompt.points is not None and prompt.labels is not None:
        for (x, y), label in zip(prompt.points, prompt.labels, strict=True):
            centre = (round(float(x)), round(float(y)))
            cv2.circle(drawn, centre, 4, POSITIVE if label else NEGATIVE, -1, cv2.LINE_AA)
            cv2.circle(drawn, centre, 4, NEGATIVE if label else POSITIVE, 1, cv2.LINE_AA)
    for x0, y0, x1, y1 in [] if prompt.boxes is None else prompt.boxes:
        cv2.rectangle(drawn, (round(float(x0)), round(float(y0))), (round(float(x1)), round(float(y1))), BOX, 2)
    return drawn


def prediction_rows(frames: Sequence[np.ndarray], answers: Sequence[Prediction], truth: np.ndarray) -> ImageRows:
    """Rows of pictures: frames, truth (as far as there are labels), heat (where there is a map or a prompt), mask."""
    rows = {"frames": frames, "truth": overlay_masks(frames, list(truth), GROUND_TRUTH_COLOR)}
    if any(answer.similarity_map is not None or answer.prompt is not None for answer in answers):
        hot = [
            frame if answer.similarity_map is None else similarity_overlay(frame, answer.similarity_map)
            for frame, answer in zip(frames, answers, strict=True)
        ]
        rows["heat"] = [
            picture if answer.prompt is None else draw_prompts(picture, answer.prompt)
            for picture, answer in zip(hot, answers, strict=True)
        ]
    return {**rows, "mask": overlay_masks(frames, [answer.mask for answer in answers], PREDICTION_COLOR)}
