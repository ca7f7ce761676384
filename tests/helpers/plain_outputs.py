"""The outputs that pretrained.verify compares, computed again from what the sources say, by other libraries."""

from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from PIL import Image
from segment_anything import SamAutomaticMaskGenerator, SamPredictor
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms

from models.audioclip import AudioCLIP
from models.sam import build_sam
from pretrained.known_outputs import read_known_outputs
from tests.helpers import public_files
from utils import audio
from utils.files import read_image

LABELS = ["cat", "thunderstorm", "coughing", "alarm clock", "car horn"]


@torch.no_grad()
def plain_outputs(weights: Path, inputs: Path) -> dict[str, Any]:
    """All of them by the check's id, and "dog", the embedding of a picture; call it within `small_networks`."""
    checks = {check.id: check for check in read_known_outputs().checks}
    outputs = plain_demo(weights, inputs)
    car, cats = (Image.open(inputs / name).convert("RGB") for name in ("car.png", "000000039769.jpg"))
    for name, size in (("sam-vit-h", "vit_h"), ("sam-vit-b", "vit_b")):
        network = build_sam(size)
        network.load_state_dict(torch.load(next(weights.glob(f"sam_{size}*")), weights_only=True))
        prompts = checks[f"{name}/prompts-car"].parameters["prompts"]
        outputs[f"{name}/prompts-car"] = plain_prompts(SamPredictor(network), np.asarray(car), prompts)
        if name == "sam-vit-h":
            records = SamAutomaticMaskGenerator(network).generate(np.asarray(cats))
            iou = sorted((record["predicted_iou"] for record in records), reverse=True)
            outputs[f"{name}/automatic-masks"] = {
                "masks": len(iou), "masks_above_iou_1": sum(score > 1 for score in iou),
                "first_10": iou[:10], "others": iou[10:],
            }  # fmt: skip
    outputs |= plain_vggish(weights)
    statistics = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    squeeze = [transforms.Resize((224, 224)), transforms.ToTensor(), transforms.Normalize(*statistics)]
    logits = public_files.pvt_classifier()(transforms.Compose(squeeze)(cats)[None])
    outputs["pvt-v2-b5/coco"] = {"logits": logits[0, :3].tolist()}
    visual = public_files.audioclip(2).visual
    dog = clip_transform(True)(torch.from_numpy(read_image(inputs / "dog.jpeg")).permute(2, 0, 1))
    outputs["dog"] = visual.attnpool(visual.pyramid(dog[None])[-1])[0]
    outputs["clip-rn50/dog-embedding"] = {"cosine": 1.0, "norm": outputs["dog"].norm()}
    return outputs


def clip_transform(antialias: bool) -> transforms.Compose:
    statistics = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    size = transforms.Resize(224, transforms.InterpolationMode.BICUBIC, antialias=antialias)
    steps = [size, transforms.CenterCrop(224), transforms.ConvertImageDtype(torch.float32)]
    return transforms.Compose([*steps, transforms.Normalize(*statistics)])


def plain_demo(weights: Path, inputs: Path) -> dict[str, Any]:
    """AudioCLIP's demo: three towers in train mode, cosines times 100, softmax both ways."""
    model = AudioCLIP(**public_files.AUDIOCLIP)
    model.load_state_dict(torch.load(weights / "AudioCLIP-Full-Training.pt", weights_only=True))
    files = {name: inputs / str(entry.file) for name, entry in read_known_outputs().inputs.items()}
    sounds = [name for name in files if files[name].suffix == ".wav" and name.startswith("aclp")]
    pictures = [name for name in files if files[name].suffix == ".jpg" and name.startswith("aclp")]
    waves = np.stack([soundfile.read(files[name], dtype="float32")[0] for name in sounds])
    images = [transforms.ToTensor()(Image.open(files[name]).convert("RGB")) for name in pictures]
    model.train()
    audio_features = model.audio(torch.from_numpy(waves))
    image_features = model.encode_image(torch.stack([clip_transform(False)(image) for image in images]))
    text = model.encode_text(LABELS)
    a, i, t = (features / features.norm(dim=1, keepdim=True) for features in (audio_features, image_features, text))
    scales = {
        name: float(getattr(model, name).exp().clamp(1, 100))
        for name in ("logit_scale", "logit_scale_at", "logit_scale_ai")
    }

    def table(logits: Tensor, rows: list[str], columns: list[str]) -> dict[str, dict[str, float]]:
        return {
            row: dict(zip(columns, values, strict=True))
            for row, values in zip(rows, (100 * logits.softmax(1)).tolist(), strict=True)
        }

    at, ai, it = (scales[name] * product for name, product in zip(
        ("logit_scale_at", "logit_scale_ai", "logit_scale"), (a @ t.T, a @ i.T, i @ t.T), strict=True
    ))  # fmt: skip
    features = {label: vector[[0, 1, 2, -3, -2, -1]].tolist() for label, vector in zip(LABELS, t, strict=True)}
    return {
        "audioclip-full/audio-text": table(at, sounds, LABELS),
        "audioclip-full/text-audio": table(at.T, LABELS, sounds),
        "audioclip-full/image-text": table(it, pictures, LABELS),
        "audioclip-full/audio-image": {
            "by_sound": table(ai, sounds, pictures),
            "by_picture": table(ai.T, pictures, sounds),
        },
        "audioclip-full/text-features": {"features": features, "logit_scale_at": scales["logit_scale_at"]},
    }


def plain_prompts(predictor: SamPredictor, picture: np.ndarray, prompts: dict[str, Any]) -> dict[str, Any]:
    predictor.set_image(picture)
    found = {}
    for name, prompt in prompts.items():
        points, labels = (np.array(prompt[key]) if key in prompt else None for key in ("points", "labels"))
        box = np.array(prompt["box"]) if "box" in prompt else None
        _, iou, logits = predictor.predict(points, labels, box)
        found[name] = {"iou": iou.tolist(), "iou_third": iou[2].item(), "mask_logits": logits[0, 0, :3].tolist()}
    return found


def plain_vggish(weights: Path) -> dict[str, Any]:
    state = torch.load(weights / "vggish-10086976.pth", weights_only=True)

    def statistics(samples: np.ndarray, rate: int, relu: bool) -> dict[str, Any]:
        x = torch.from_numpy(audio.log_mel(samples, rate))
        for index in (0, 3, 6, 8, 11, 13):
            x = F.relu(F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1))
            x = F.max_pool2d(x, 2) if index in (0, 3, 8, 13) else x
        x = x.permute(0, 2, 3, 1).flatten(1)
        for index in (0, 2, 4):
            x = F.linear(x, state[f"embeddings.{index}.weight"], state[f"embeddings.{index}.bias"])
            x = F.relu(x) if index < 4 or relu else x
        return {"shape": [3, 128], "mean": np.mean(x.numpy()), "std": np.std(x.numpy())}

    low, high = (np.sin(2000 * np.pi * t) for t in (np.arange(0, 3, 1 / 16000), np.linspace(0, 3, 132_300)))
    return {
        "vggish/sine-16k": statistics(low, 16_000, False),
        "vggish/sine-44k-relu": statistics(high, 44_100, True),
        "vggish/sine-44k-linear": statistics(high, 44_100, False),
    }
