"""What transformers' processors give for CLAP, GroundingDINO, SAM 2.1, EdgeTAM and SAM 3, for pretrained.verify.

Their networks have one implementation, but what surrounds them has two: these functions use transformers' own
processors and post-processing as the sources of the published outputs do, and the project uses neither.
"""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
import transformers
from PIL import Image

from pretrained.known_outputs import read_known_outputs
from tests.helpers.public_files import ESC50
from utils.audio import quantize_int16, resample

SAM2_CLASSES = {"sam2": "Sam2Model", "edgetam": "EdgeTamModel"}


@torch.no_grad()
def transformers_outputs(weights: Path, inputs: Path) -> dict[str, Any]:
    """All of them by the check's id."""
    checks = {check.id: check for check in read_known_outputs().checks}
    outputs = _clap(weights / "clap-htsat-unfused", inputs)
    outputs["groundingdino-swint/coco"] = _boxes(weights / "grounding-dino-tiny", inputs / "000000039769.jpg")
    outputs["sam3/cat-ear"] = _instances(weights / "sam3", inputs / "000000077595.jpg")
    car = checks["sam2.1/car"]
    prompt = {"points": [[1000, 600]], "labels": [1], "multimask": True}
    outputs["sam2.1/car"] = {
        name: _sam2(weights / name, "sam2", inputs / "car.png", prompt)[1][0].tolist() for name in car.checkpoints
    }
    for check, family in (("sam2.1-tiny/truck", "sam2"), ("edgetam/truck", "edgetam")):
        (name,) = checks[check].checkpoints
        outputs[check] = {}
        for label, prompt in checks[check].parameters["prompts"].items():
            picture = inputs / f"{prompt['picture']}.jpg"
            logits, iou = _sam2(weights / name, family, picture, prompt)
            order = iou[0].argsort(descending=True)
            outputs[check][label] = {
                "iou": iou[:, 0].tolist(),
                "iou_sorted": iou[0, order].tolist(),
                "best_mask_logits": logits[0, order[0], :3, :3].tolist(),
            }
    return outputs


def _clap(folder: Path, inputs: Path) -> dict[str, Any]:
    """The means of embeddings, and the ranks of the first fold of ESC-50."""
    network = transformers.ClapModel.from_pretrained(folder).eval()
    extract = transformers.ClapFeatureExtractor.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)

    def mean(names: list[str], padding: str) -> float:
        values = []
        for name in names:
            samples, _ = soundfile.read(inputs / f"librispeech-{name}.wav")
            features = extract(samples, sampling_rate=48_000, padding=padding, return_tensors="pt")
            pooled = network.audio_model(**features).pooler_output
            values.append(torch.nn.functional.normalize(network.audio_projection(pooled)))
        return float(torch.cat(values).mean())

    labels = sorted({label.replace("_", " ") for _, _, label in ESC50})
    text = tokenizer([f"This is a sound of {label}" for label in labels], padding=True, return_tensors="pt")
    ranks = []
    for name, fold, label in ESC50:
        if fold == 1:
            samples, rate = soundfile.read(inputs / "ESC-50" / "audio" / name, dtype="float32")
            sound = quantize_int16(resample(samples, rate, 48_000).astype(np.float32))
            audio = extract(sound, sampling_rate=48_000, padding="repeatpad", return_tensors="pt")
            scores = network(**text, **audio).logits_per_audio[0]
            order = scores.argsort(descending=True).tolist()
            ranks.append(1 + order.index(labels.index(label.replace("_", " "))))
    below = lambda k: float(np.mean([rank <= k for rank in ranks]))  # noqa: E731
    return {
        "clap/librispeech-means": {
            key: {padding: mean(names, padding) for padding in ("repeatpad", "repeat", "pad")}
            for key, names in (("last", ["last"]), ("first_four", list("0123")))
        },
        "clap/esc50-first-split": {
            "mean_rank": np.mean(ranks), "median_rank": np.median(ranks), "recall_at_1": below(1),
            "recall_at_5": below(5), "recall_at_10": below(10), "map_at_10": np.mean([1 / rank for rank in ranks]),
        },
    }  # fmt: skip


def _boxes(folder: Path, path: Path) -> dict[str, Any]:
    """GroundingDINO's boxes of "a cat.", by its processor."""
    network = transformers.GroundingDinoForObjectDetection.from_pretrained(folder).eval()
    image_processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    processor = transformers.GroundingDinoProcessor(image_processor, transformers.AutoTokenizer.from_pretrained(folder))
    picture = Image.open(path).convert("RGB")
    given = processor(images=picture, text="a cat.", return_tensors="pt")
    output = network(**given)
    (found,) = processor.post_process_grounded_object_detection(
        output, given["input_ids"], threshold=0.35, target_sizes=[picture.size[::-1]]
    )
    return {
        "logits": output.logits[0, :3, :3].tolist(),
        "boxes": output.pred_boxes[0, :3].tolist(),
        "scores": found["scores"].tolist(),
        "boxes_above_threshold": len(found["scores"]),
        "first_box": found["boxes"][0].tolist(),
    }


def _instances(folder: Path, path: Path) -> dict[str, Any]:
    """SAM 3's instances of "ear", by its processor and one call for picture and text."""
    network = transformers.Sam3Model.from_pretrained(folder).eval()
    processor = transformers.Sam3Processor.from_pretrained(folder)
    picture = Image.open(path).convert("RGB")
    output = network(**processor(images=picture, text="ear", return_tensors="pt"))
    (found,) = processor.post_process_instance_segmentation(output, threshold=0.5, target_sizes=[picture.size[::-1]])
    best = output.pred_logits[0].topk(3)
    return {
        "scores": best.values.sigmoid().tolist(),
        "logits": best.values.tolist(),
        "box": output.pred_boxes[0, best.indices[0]].tolist(),
        "instance_score": found["scores"][:1].tolist(),
        "instance_box": found["boxes"][:1].tolist(),
    }


def _sam2(folder: Path, family: str, path: Path, prompt: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (K, M, h, w) and predicted IoU (K, M), by the family's processor."""
    network = getattr(transformers, SAM2_CLASSES[family]).from_pretrained(folder).eval()
    processor = transformers.Sam2Processor(transformers.AutoImageProcessor.from_pretrained(folder))
    given: dict[str, Any] = {}
    if "points" in prompt:
        given = {"input_points": [[prompt["points"]]], "input_labels": [[prompt["labels"]]]}
    if "boxes" in prompt:
        given["input_boxes"] = [prompt["boxes"]]
    tensors = processor(images=Image.open(path).convert("RGB"), **given, return_tensors="pt")
    output = network(**tensors, multimask_output=prompt["multimask"])
    return output.pred_masks[0], output.iou_scores[0]
