"""Segment Anything: predicted IoU of prompts, and the proposals that this project makes of the automatic masks."""

import numpy as np

from models.registry import create_model
from pretrained.checks import Context, Outputs
from utils.files import read_image
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters.sam import SamSegmenter

FIRST = 10  # of the automatic masks, whose scores are compared more closely


def prompts(context: Context) -> Outputs:
    """Predicted IoU of three masks for each prompt of the check, and three logits of the first mask."""
    segmenter, frame = _load(context), _picture(context)
    embedding = segmenter.embed([frame])[0]
    found = {}
    for name, prompt in context.parameters["prompts"].items():
        points = np.array(prompt["points"], np.float64) if "points" in prompt else None
        boxes = np.array([prompt["box"]], np.float64) if "box" in prompt else None
        logits, iou = segmenter.decode(embedding, points=points, labels=prompt.get("labels"), boxes=boxes)
        corner = logits[0, 0, 0, :3].tolist()
        found[name] = {"iou": iou[0].tolist(), "iou_third": iou[0, 2].item(), "mask_logits": corner}
    return found


def automatic_masks(context: Context) -> Outputs:
    """Number and predicted IoU of the proposals with the default options."""
    proposals = _load(context).propose([_picture(context)], ProposalOptions())[0]
    scores = sorted((proposal["predicted_iou"] for proposal in proposals), reverse=True)
    above = sum(score > 1 for score in scores)
    return {"masks": len(scores), "masks_above_iou_1": above, "first_10": scores[:FIRST], "others": scores[FIRST:]}


def _load(context: Context) -> SamSegmenter:
    name = context.checkpoint.replace("-", "_")  # sam-vit-h is the file of sam_vit_h
    return SamSegmenter(create_model(name, context.weights).to(context.device))


def _picture(context: Context) -> np.ndarray:
    (path,) = context.paths().values()
    return read_image(path)
