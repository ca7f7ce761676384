"""What the miniature SAM is measured by, on scenes that it has not seen: answers to prompts, and proposals.

Everything goes through segment-anything's own SamPredictor and SamAutomaticMaskGenerator.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import product

import cv2
import numpy as np
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from segment_anything.modeling import Sam

from synthetic import sam_data as data
from synthetic.assets import AssetLibrary
from synthetic.sam_data import Prompt, Scene

Thresholds = dict[str, float]

POINTS_PER_SIDE = 16  # things are 40 pixels wide and more, so that each gets several points
GRID = {  # the thresholds that are tried
    "pred_iou_thresh": (0.5, 0.6, 0.7, 0.75, 0.8, 0.85, 0.88),
    "stability_score_thresh": (0.8, 0.9, 0.95),
    "box_nms_thresh": (0.7, 0.5),
}
DEFAULTS = {"stability_score_offset": 1.0}  # segment-anything's own is kept
TUNING_SEED = 1_000_000  # the seed of the scenes that thresholds are chosen on; those to measure on have others


def eval_scenes(cast: AssetLibrary, seed: int, count: int) -> list[Scene]:
    """Unseen scenes."""
    return [data.draw_scene_image(cast, np.random.default_rng([seed, data.MEASURING, k])) for k in range(count)]


def iou_with_each(mask: np.ndarray, others: np.ndarray) -> np.ndarray:
    """IoU of masks (..., h, w) with a mask (h, w)."""
    return (mask & others).sum((-2, -1)) / np.maximum((mask | others).sum((-2, -1)), 1)


def centre_prompt(picture: Scene, thing: int) -> Prompt:
    """The point of a thing that lies farthest from its edge."""
    depth = cv2.distanceTransform(np.pad(picture.masks[thing].astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    row, column = np.unravel_index(depth.argmax(), depth.shape)
    return Prompt(np.array([[column, row]], float), np.ones(1), thing)


def prompts(picture: Scene, thing: int, rng: np.random.Generator) -> dict[str, Prompt]:
    """One prompt of each sort that the study gives."""
    return {
        "centre": centre_prompt(picture, thing),
        "point": data.point_prompt(picture, thing, rng),
        "pair": data.point_prompt(picture, thing, rng, negatives=1),
        "peaks": data.peaks_prompt(picture, thing, rng, int(rng.integers(1, 10)), int(rng.integers(2, 10))),
        "dense": data.dense_prompt(picture, thing, rng, round(2 ** rng.uniform(2, 7)), 0.3),
        "box": data.box_prompt(picture, thing, rng),
        "loose_box": data.box_prompt(picture, thing, rng, noise=0.15),
    }


def predict_mask(predictor: SamPredictor, prompt: Prompt, multimask: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Masks (3 or 1, 224, 224) and their predicted IoUs for a prompt on the predictor's image."""
    if prompt.box:
        masks, scores, _ = predictor.predict(box=prompt.points.ravel(), multimask_output=multimask)
    else:
        masks, scores, _ = predictor.predict(prompt.points, prompt.labels, multimask_output=multimask)
    return masks, scores


def predict_masks(sam: Sam, seen: Sequence[Scene], seed: int) -> dict[str, float]:
    """Mean IoU of what each sort of prompt gives, for every thing that shows.

    `centre`, `point`, ...: the mask of three with the highest predicted IoU. *_best: the best of three, which nobody
    knows. *_single: the single mask. score_error, score_correlation: of the predicted IoU with the true one.
    background_score: the highest predicted IoU at a point on the background, which should be low.
    """
    predictor, rng = SamPredictor(sam), np.random.default_rng([seed, data.MEASURING])
    found: dict[str, list[float]] = defaultdict(list)
    scores: list[tuple[float, float]] = []
    for picture in seen:
        predictor.set_image(picture.frame)
        for thing in np.flatnonzero(picture.masks.sum((1, 2)) >= data.MIN_AREA):
            for name, prompt in prompts(picture, int(thing), rng).items():
                masks, predicted = predict_mask(predictor, prompt)
                true = iou_with_each(picture.masks[thing], masks)
                found[name].append(true[predicted.argmax()])
                scores += zip(predicted, true, strict=True)
                if name in ("centre", "box"):
                    found[f"{name}_best"].append(true.max())
                    found[f"{name}_single"] += iou_with_each(
                        picture.masks[thing], predict_mask(predictor, prompt, False)[0]
                    ).tolist()
        if prompt_off := data.background_prompt(picture, rng):
            found["background_score"].append(predict_mask(predictor, prompt_off)[1].max())
    predicted, true = np.array(scores).T
    means = {name: float(np.mean(values)) for name, values in found.items()}
    quality = {
        "score_error": float(np.abs(predicted - true).mean()),
        "score_correlation": float(np.corrcoef(predicted, true)[0, 1]),
    }
    return {"things": float(len(found["point"]))} | {name: round(v, 4) for name, v in (means | quality).items()}


def propose(sam: Sam, picture: Scene, thresholds: Thresholds) -> tuple[np.ndarray, np.ndarray]:
    """The proposals of a frame, (n, 224, 224), and their predicted IoUs."""
    generator = SamAutomaticMaskGenerator(sam, POINTS_PER_SIDE, 256, **thresholds)
    records = generator.generate(picture.frame)
    masks = np.array([record["segmentation"] for record in records], bool).reshape(-1, *picture.frame.shape[:2])
    return masks, np.array([record["predicted_iou"] for record in records])


Table = tuple[np.ndarray, np.ndarray]  # IoUs of proposals and things (n, things), predicted IoUs (n,)


def match_proposals(sam: Sam, seen: Sequence[Scene], thresholds: Thresholds) -> list[Table]:
    """How the proposals of each picture lie on the things that show."""
    tables = []
    for picture in seen:
        masks, scores = propose(sam, picture, thresholds)
        things = picture.masks[picture.masks.sum((1, 2)) >= data.MIN_AREA]
        ious = np.array([iou_with_each(mask, things) for mask in masks]).reshape(len(masks), len(things))
        tables.append((ious, scores))
    return tables


def summarize(tables: Sequence[Table], least: float = 0.0) -> dict[str, float]:
    """Of proposals with a predicted IoU of at least `least`.

    recall_50, recall_75: how many things have a proposal of at least that IoU. best: mean over things of the best
    IoU. on_target: how many proposals have an IoU of .5 or more with a thing. proposals: for each frame.
    """
    kept = [table[scores > least] for table, scores in tables]
    best = np.concatenate([table.max(axis=0, initial=0) for table in kept])
    hits = np.concatenate([table.max(axis=1, initial=0) for table in kept])
    return {
        "recall_50": round(float((best >= 0.5).mean()), 4),
        "recall_75": round(float((best >= 0.75).mean()), 4),
        "best": round(float(best.mean()), 4),
        "on_target": round(float((hits >= 0.5).mean()), 4) if len(hits) else 0.0,
        "proposals": round(len(hits) / len(tables), 2),
    }


def choose_thresholds(sam: Sam, seen: Sequence[Scene]) -> Thresholds:
    """The stock generator's thresholds that serve these weights best.

    That is: the highest mean of both recalls less a tenth for every proposal more than there are things.
    """
    best, chosen = -np.inf, {}
    least = min(GRID["pred_iou_thresh"])
    for stability, nms in product(GRID["stability_score_thresh"], GRID["box_nms_thresh"]):
        common = {"stability_score_thresh": stability, **DEFAULTS, "box_nms_thresh": nms}
        tables = match_proposals(sam, seen, {"pred_iou_thresh": least, **common})
        things = float(np.mean([table.shape[1] for table, _ in tables]))
        for limit in GRID["pred_iou_thresh"]:  # what a higher one keeps, non-maximum suppression keeps before the rest
            found = summarize(tables, limit)
            value = (found["recall_50"] + found["recall_75"]) / 2 - 0.1 * max(0, found["proposals"] / things - 1)
            if value > best:
                best, chosen = value, {"pred_iou_thresh": limit, **common}
    return chosen
