"""How SAM's small weights are evaluated, on scenes that they were not trained on: prompts, and mask proposals.

Everything goes through segment-anything's own SamPredictor and SamAutomaticMaskGenerator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import numpy as np
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from synthetic.clips.assets import AssetLibrary
from synthetic.training.sam_data import EVAL_STREAM, MIN_AREA, draw_labeled_frame
from synthetic.training.sam_prompts import (
    LabeledFrame,
    Prompt,
    background_prompt,
    box_prompt,
    center_prompt,
    dense_prompt,
    peak_prompt,
    point_prompt,
)

Thresholds = dict[str, float]
Matches = tuple[np.ndarray, np.ndarray]  # IoUs of proposals and objects (n, objects), predicted IoUs (n,)

POINTS_PER_SIDE = 16  # objects are at least 40 pixels wide, so each of them gets several points
THRESHOLD_GRID = {
    "pred_iou_thresh": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88),
    "stability_score_thresh": (0.8, 0.9, 0.95),
    "box_nms_thresh": (0.7, 0.5),
}
FIXED_THRESHOLDS = {"stability_score_offset": 1.0}  # segment-anything's default
TUNING_SEED = 1_000_000  # of the scenes on which the thresholds are chosen; evaluation uses others


def eval_frames(assets: AssetLibrary, seed: int, count: int) -> list[LabeledFrame]:
    """Frames of unseen scenes."""
    return [draw_labeled_frame(assets, np.random.default_rng([seed, EVAL_STREAM, k])) for k in range(count)]


def iou_with_each(mask: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of a mask, bool (h, w), with each of others, bool (..., h, w)."""
    return (mask & others).sum((-2, -1)) / np.maximum((mask | others).sum((-2, -1)), 1)


def eval_prompts(image: LabeledFrame, target: int, rng: np.random.Generator) -> dict[str, Prompt]:
    """One prompt of each type that the study's methods give, by name."""
    return {
        "center": center_prompt(image, target),
        "point": point_prompt(image, target, rng),
        "pair": point_prompt(image, target, rng, negatives=1),
        "peaks": peak_prompt(image, target, rng, int(rng.integers(1, 10)), int(rng.integers(2, 10))),
        "dense": dense_prompt(image, target, rng, round(2 ** rng.uniform(2, 7)), 0.3),
        "box": box_prompt(image, target, rng),
        "loose_box": box_prompt(image, target, rng, noise=0.15),
    }


def predict_masks(predictor: SamPredictor, prompt: Prompt, multimask: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Predict masks, bool (3 or 1, 224, 224), and their IoUs for a prompt on the predictor's image."""
    if prompt.box:
        masks, scores, _ = predictor.predict(box=prompt.points.ravel(), multimask_output=multimask)
    else:
        masks, scores, _ = predictor.predict(prompt.points, prompt.labels, multimask_output=multimask)
    return masks, scores


def evaluate_prompts(sam: Sam, images: Sequence[LabeledFrame], seed: int) -> dict[str, float]:
    """Evaluate the masks that each type of prompt gives for every visible object.

    Args:
        sam: the model.
        images: the frames.
        seed: of the prompts.

    Returns:
        objects: their number.
        center, point, ...: mean IoU of the mask, of three, with the highest predicted IoU.
        *_best: mean IoU of the best of the three masks.
        *_single: mean IoU of the single mask.
        score_error, score_correlation: of the predicted IoU with the true one.
        background_score: mean over frames of the highest predicted IoU at a background point, which should be low.
    """
    predictor, rng = SamPredictor(sam), np.random.default_rng([seed, EVAL_STREAM])
    values: dict[str, list[float]] = defaultdict(list)
    scores: list[tuple[float, float]] = []
    for image in images:
        predictor.set_image(image.frame)
        for target in np.flatnonzero(image.masks.sum((1, 2)) >= MIN_AREA):
            ground_truth = image.masks[target]
            for name, prompt in eval_prompts(image, int(target), rng).items():
                masks, predicted = predict_masks(predictor, prompt)
                true = iou_with_each(ground_truth, masks)
                values[name].append(true[predicted.argmax()])
                scores += zip(predicted, true, strict=True)
                if name in ("center", "box"):
                    values[f"{name}_best"].append(true.max())
                    single = predict_masks(predictor, prompt, multimask=False)[0]
                    values[f"{name}_single"] += iou_with_each(ground_truth, single).tolist()
        if on_background := background_prompt(image, rng):
            values["background_score"].append(predict_masks(predictor, on_background)[1].max())
    predicted, true = np.array(scores).T
    means = {name: float(np.mean(each)) for name, each in values.items()}
    quality = {
        "score_error": float(np.abs(predicted - true).mean()),
        "score_correlation": float(np.corrcoef(predicted, true)[0, 1]),
    }
    return {"objects": float(len(values["point"]))} | {name: round(v, 4) for name, v in (means | quality).items()}


def propose(sam: Sam, image: LabeledFrame, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """The mask proposals of a frame, bool (n, 224, 224), and their predicted IoUs (n,)."""
    generator = SamAutomaticMaskGenerator(sam, POINTS_PER_SIDE, 256, **thresholds)
    records = generator.generate(image.frame)
    masks = np.array([record["segmentation"] for record in records], bool).reshape(-1, *image.frame.shape[:2])
    return masks, np.array([record["predicted_iou"] for record in records])


def match_proposals(sam: Sam, images: Sequence[LabeledFrame], thresholds: Thresholds) -> list[Matches]:
    """The IoUs of the proposals of each frame with its visible objects."""
    matches = []
    for image in images:
        masks, scores = propose(sam, image, thresholds)
        objects = image.masks[image.masks.sum((1, 2)) >= MIN_AREA]
        ious = np.array([iou_with_each(mask, objects) for mask in masks]).reshape(len(masks), len(objects))
        matches.append((ious, scores))
    return matches


def summarize_proposals(matches: Sequence[Matches], min_score: float = 0.0) -> dict[str, float]:
    """Evaluate the proposals with a predicted IoU above `min_score`.

    Returns:
        recall_50, recall_75: fraction of objects with a proposal of at least that IoU.
        best_iou: mean over objects of the best IoU.
        precision_50: fraction of proposals with an IoU of at least 0.5 with an object.
        proposals: mean number per frame.
    """
    kept = [ious[scores > min_score] for ious, scores in matches]
    best_of_object = np.concatenate([ious.max(axis=0, initial=0) for ious in kept])
    best_of_proposal = np.concatenate([ious.max(axis=1, initial=0) for ious in kept])
    return {
        "recall_50": round(float((best_of_object >= 0.5).mean()), 4),
        "recall_75": round(float((best_of_object >= 0.75).mean()), 4),
        "best_iou": round(float(best_of_object.mean()), 4),
        "precision_50": round(float((best_of_proposal >= 0.5).mean()), 4) if len(best_of_proposal) else 0.0,
        "proposals": round(len(best_of_proposal) / len(matches), 2),
    }


def choose_thresholds(sam: Sam, images: Sequence[LabeledFrame]) -> Thresholds:
    """Choose the thresholds of SamAutomaticMaskGenerator for these weights.

    They maximize the mean of both recalls, minus a tenth for each proposal per object in excess of one.
    """
    best, chosen = -np.inf, {}
    lowest = min(THRESHOLD_GRID["pred_iou_thresh"])
    for stability, nms in product(THRESHOLD_GRID["stability_score_thresh"], THRESHOLD_GRID["box_nms_thresh"]):
        common = {"stability_score_thresh": stability, **FIXED_THRESHOLDS, "box_nms_thresh": nms}
        matches = match_proposals(sam, images, {"pred_iou_thresh": lowest, **common})
        objects = float(np.mean([ious.shape[1] for ious, _ in matches]))
        # Non-maximum suppression goes by predicted IoU, so it keeps whatever it would keep under a higher threshold.
        for threshold in THRESHOLD_GRID["pred_iou_thresh"]:
            metrics = summarize_proposals(matches, threshold)
            recall = (metrics["recall_50"] + metrics["recall_75"]) / 2
            value = recall - 0.1 * max(0, metrics["proposals"] / objects - 1)
            if value > best:
                best, chosen = value, {"pred_iou_thresh": threshold, **common}
    return chosen
