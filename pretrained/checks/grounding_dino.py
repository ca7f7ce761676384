"""GroundingDINO: boxes of one picture, and the average precision on COCO."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert
from tqdm import tqdm

from pretrained.checks import Context, Outputs
from utils.cli import InputError, progress_bar_options
from utils.files import read_image
from utils.words import counted
from zero_shot.detectors.grounding_dino import GroundingDinoDetector

CAPTION, THRESHOLD = "a cat.", 0.35  # of the published boxes
BOXES_PER_PICTURE = 300  # of the published average precision


def detections(context: Context) -> Outputs:
    """Logits and boxes of the first queries, and scores and box above the threshold."""
    detector = GroundingDinoDetector(context.weights, context.device)
    (path,) = context.paths().values()
    frame = read_image(path)
    output = detector.forward(frame, CAPTION)
    scores = output.logits[0].sigmoid().amax(dim=1)
    boxes = detector.detect(frame, CAPTION, THRESHOLD)
    return {
        "logits": output.logits[0, :3, :3].tolist(),
        "boxes": output.pred_boxes[0, :3].tolist(),
        "scores": scores[scores > THRESHOLD].tolist(),
        "boxes_above_threshold": len(boxes),
        "first_box": boxes[0].tolist() if len(boxes) else [],
    }


def coco_ap(context: Context) -> Outputs:
    """Box AP on COCO's validation pictures, by pycocotools."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("this check needs the pycocotools package: pip install pycocotools") from error
    folder = context.inputs.path("coco-val2017")
    annotations = folder / "annotations" / "instances_val2017.json"
    if not annotations.is_file():
        raise InputError(f"{annotations}: no such file; {context.inputs.known['coco-val2017'].instructions}")
    truth = COCO(str(annotations))
    if len(truth.imgs) != (count := context.parameters["pictures"]):
        raise InputError(f"{annotations}: lists {counted(len(truth.imgs), 'picture')}, not {count}")
    detector = GroundingDinoDetector(context.weights, context.device)
    classes = truth.loadCats(truth.getCatIds())
    found = []
    for number, image in tqdm(sorted(truth.imgs.items()), desc="COCO", **progress_bar_options()):
        frame = read_image(folder / "val2017" / image["file_name"])
        found += [{"image_id": number, **box} for box in _best_boxes(detector, frame, classes)]
    evaluation = COCOeval(truth, truth.loadRes(found), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return {"swin_b": 100 * float(evaluation.stats[0])}


def _best_boxes(
    detector: GroundingDinoDetector, frame: np.ndarray, classes: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The best boxes of a picture over all classes, in COCO's form."""
    names = [entry["name"] for entry in classes]
    caption = " . ".join(names) + " ."
    output = detector.forward(frame, caption)
    scores = output.logits[0].sigmoid().cpu() @ _word_weights(detector, caption, names, output.logits.shape[2]).T
    best = scores.flatten().topk(min(BOXES_PER_PICTURE, scores.numel()))
    height, width = frame.shape[:2]
    boxes = box_convert(output.pred_boxes[0].cpu(), "cxcywh", "xyxy") * torch.tensor([width, height, width, height])
    results = []
    for score, index in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        left, top, right, bottom = boxes[index // len(names)].tolist()
        box = [left, top, right - left, bottom - top]
        results.append({"category_id": classes[index % len(names)]["id"], "bbox": box, "score": score})
    return results


def _word_weights(detector: GroundingDinoDetector, caption: str, names: list[str], tokens: int) -> Tensor:
    """For each name the weights of its tokens in the caption, which sum to one; (names, tokens)."""
    spans = detector.tokenizer(caption, return_offsets_mapping=True)["offset_mapping"]
    weights, start = torch.zeros(len(names), tokens), 0
    for row, name in zip(weights, names, strict=True):
        end = start + len(name)
        for index, (first, last) in enumerate(spans[:tokens]):
            row[index] = float(start <= first < last <= end)
        start = end + len(" . ")
    return weights / weights.sum(dim=1, keepdim=True).clamp(min=1)
