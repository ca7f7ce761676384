"""SAM 2.1, EdgeTAM and SAM 3 by the transformers package, from folders that its save_pretrained writes."""

from typing import Any

import numpy as np
from torch import Tensor

from pretrained.checks import Context, Outputs
from utils.files import read_image
from zero_shot.detectors.sam3 import Sam3Detector
from zero_shot.segmenters.sam2 import Sam2Segmenter
from zero_shot.segmenters.sam2_families import load_network

CAR_POINT = {"points": [[1000, 600]], "labels": [1], "multimask": True}  # in pixels of the picture
CORNER = 3  # rows and columns of a mask's published logits


def car(context: Context) -> Outputs:
    """Predicted IoU of three masks for one point, under the name of the checkpoint."""
    (path,) = context.paths().values()
    _, iou = _prompt(_load(context), read_image(path), CAR_POINT)
    return {context.checkpoint: iou[0].tolist()}


def prompts(context: Context) -> Outputs:
    """By prompt of the check: predicted IoU of the first mask of each box, IoU of all masks sorted, and best mask."""
    segmenter, paths, found = _load(context), context.paths(), {}
    for name, prompt in context.parameters["prompts"].items():
        logits, iou = _prompt(segmenter, read_image(paths[prompt["picture"]]), prompt)
        found[name] = {
            "iou": iou[:, 0].tolist(),
            "iou_sorted": sorted(iou[0].tolist(), reverse=True),
            "best_mask_logits": logits[0, iou[0].argmax(), :CORNER, :CORNER].tolist(),
        }
    return found


def concept(context: Context) -> Outputs:
    """SAM 3 for a text: the highest scores and logits, the best box relative to the picture, and an instance."""
    detector, text = Sam3Detector(context.weights, context.device), context.parameters["text"]
    (path,) = context.paths().values()
    frame = read_image(path)
    output = detector.forward(frame, text)
    logits, order = output.pred_logits[0].sort(descending=True)
    (found,) = detector.find(frame, [text], context.parameters["threshold"], min_presence=0.0)
    return {
        "scores": logits[:3].sigmoid().tolist(),  # without the presence score
        "logits": logits[:3].tolist(),
        "box": output.pred_boxes[0, order[0]].tolist(),
        "instance_score": found.scores[:1].tolist(),
        "instance_box": found.boxes[:1].tolist(),
    }


def _load(context: Context) -> Sam2Segmenter:
    family = "edgetam" if context.checkpoint == "edgetam" else "sam2"
    model, processor = load_network(context.weights, family, tracks=False)
    return Sam2Segmenter(model.to(context.device), processor)


def _prompt(segmenter: Sam2Segmenter, picture: np.ndarray, prompt: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Low-resolution logits (K, M, h, w) and predicted IoU (K, M); K is 1 for points, all in one prompt."""
    (embedding,) = segmenter.embed([picture])
    arrays = {key: np.array(prompt[key], np.float64) for key in ("points", "boxes") if key in prompt}
    return segmenter.decode(
        embedding,
        points=arrays.get("points"),
        labels=np.array(prompt["labels"]) if "labels" in prompt else None,
        boxes=arrays.get("boxes"),
        multimask=prompt["multimask"],
    )
