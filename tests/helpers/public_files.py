"""Files in the layout of the public checkpoints and inputs of pretrained.verify, at small sizes with random weights."""

import csv
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import timm
import torch
import torchvision
import yaml
from torch import Tensor, nn

from models.audioclip import AudioCLIP
from models.sam import SAM_CONFIGS
from models.vggish import VGGish
from pretrained.checks import clip as clip_checks
from pretrained.known_outputs import KNOWN_OUTPUTS
from reference.random_sam import MINI, random_sam
from utils.dataset import normalize_frames
from utils.files import png_bytes, wav_bytes
from zero_shot.method_options import ProposalOptions
from zero_shot.segmenters.sam import SamSegmenter

# Embeddings are as long as the public ones, of which single entries are published.
AUDIOCLIP: dict[str, Any] = {
    "vision_layers": (1, 1, 1, 1), "vision_width": 8, "audio_n_fft": 128, "audio_hop": 500, "audio_win": 128,
    "audio_layers": (1, 1, 1, 1), "audio_width": 8, "audio_groups": 4, "audio_width_per_group": 32,
    "text_width": 32, "text_heads": 2, "text_layers": 2,
}  # fmt: skip
VGGISH: dict[str, Any] = {"widths": (4, 8, 8, 8), "hidden": 32}
SYNSETS = ("n01440764", "n02123045", "n03100240")  # classes of ImageNet
# File, fold and class: enough classes for the rank of the right one to depend on the sound.
CATEGORIES = ("dog", "door_wood_knock", "rain", "crow", "sea_waves", "clock_tick")
ESC50 = [(f"{k}.wav", 1 + k // 6, label) for k, label in enumerate((*CATEGORIES, "dog"))]
COUNTS = {"recordings": {"esc50": len(ESC50), "us8k": 3}, "pictures": 6}
SOUNDS = 44_100 * 5  # samples


@contextmanager
def small_networks() -> Iterator[None]:
    """Build the networks of pretrained.verify at the sizes of these files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("models.audioclip.AudioCLIP", partial(AudioCLIP, **AUDIOCLIP))
        patch.setattr(clip_checks, "AudioCLIP", partial(AudioCLIP, **AUDIOCLIP))
        patch.setattr("models.vggish.VGGish", partial(VGGish, **VGGISH))
        patch.setattr("pretrained.checks.classifiers.RESNET50", "resnet18")
        patch.setattr("pretrained.checks.classifiers.PVT_V2_B5", "pvt_v2_b0")
        for name in ("vit_h", "vit_b"):
            patch.setitem(SAM_CONFIGS, name, MINI)
        yield


def audioclip(seed: int) -> AudioCLIP:
    """A small AudioCLIP whose outputs depend on the input."""
    torch.manual_seed(seed)
    model = AudioCLIP(**AUDIOCLIP)
    for name, value in model.state_dict().items():
        if name.endswith("bn3.weight"):  # CLIP starts its residual branches at zero
            value.fill_(0.5)
        elif name.endswith("bias") and value.numel():
            value.copy_(0.1 * torch.randn_like(value))
    _set_statistics(model)
    return model.eval()


@torch.no_grad()
def _set_statistics(model: AudioCLIP) -> None:
    """Let BatchNorm's statistics be those of some pictures and sounds, as after training."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    random = np.random.default_rng(0)
    images = normalize_frames([picture(random, 224, 224) for _ in range(8)], "clip")
    sounds = np.stack([sound(random, 44_100, 44_100) for _ in range(8)])
    model.train()
    model.encode_image(images)
    model.audio(torch.from_numpy(sounds.astype(np.float32)))


def vggish(seed: int) -> VGGish:
    """A small VGGish whose outputs depend on the input."""
    torch.manual_seed(seed)
    model = VGGish(**VGGISH)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, std=0.1)
    return model


def sam(seed: int) -> nn.Module:
    """A small SAM of which some proposals pass the default thresholds."""
    network = random_sam(MINI, seed, logit_std=200)
    frame = picture(np.random.default_rng(seed), 120, 160)
    options = ProposalOptions(8, -1e9, 0.0, 1.0, 1.0)
    scores = [proposal["predicted_iou"] for proposal in SamSegmenter(network).propose([frame], options)[0]]
    last = network.mask_decoder.iou_prediction_head.layers[-1]
    with torch.no_grad():
        last.bias += 0.88 - float(np.quantile(scores, 0.8))
    return network


def write_checkpoints(folder: Path) -> None:
    """Write the files that pretrained/checkpoints.yaml names."""
    full, partial_ = audioclip(1).state_dict(), audioclip(2).state_dict()
    torch.save(full, folder / "AudioCLIP-Full-Training.pt")
    torch.save(partial_, folder / "AudioCLIP-Partial-Training.pt")
    audio = ("audio.", "logit_scale_")
    torch.save({k: v for k, v in partial_.items() if not k.startswith(audio)}, folder / "CLIP.pt")
    for name, seed in (("sam_vit_h_4b8939.pth", 3), ("sam_vit_b_01ec64.pth", 4)):
        torch.save(sam(seed).state_dict(), folder / name)
    torch.save(vggish(5).state_dict(), folder / "vggish-10086976.pth")
    torch.save(torchvision.models.resnet18().state_dict(), folder / "resnet50-19c8e357.pth")
    torch.save({_pvt_key(k): v for k, v in pvt_classifier().state_dict().items()}, folder / "pvt_v2_b5.pth")


def write_transformers_folders(folder: Path) -> None:
    """Write the folders that pretrained/checkpoints.yaml names."""
    from synthetic.random_grounding import save_clap, save_detector  # imports that take seconds
    from synthetic.random_sam2 import random_network, save_network, tiny_config
    from tests.helpers.random_sam3 import save_sam3

    save_clap(folder / "clap-htsat-unfused")
    for name in ("grounding-dino-tiny", "grounding-dino-base"):
        save_detector(folder / name)
    sizes = [("sam2", f"sam2.1-hiera-{size}") for size in ("tiny", "small", "base-plus", "large")]
    for seed, (family, name) in enumerate([*sizes, ("edgetam", "edgetam")]):
        network = random_network(tiny_config(family, video=False), seed)
        nn.init.normal_(network.no_memory_embedding)  # zero otherwise, as if nothing were added
        save_network(network, folder / name)
    save_sam3(folder / "sam3", seed=2)


def pvt_classifier() -> nn.Module:
    """timm's smallest PVT-v2 with its classifier, in eval mode, always the same."""
    torch.manual_seed(6)
    network = timm.create_model("pvt_v2_b0", pretrained=False).eval()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:  # norms and biases are ones and zeros at first
                parameter.add_(0.3 * torch.randn_like(parameter))
    return network


def _pvt_key(key: str) -> str:
    """The public code's key for timm's."""
    parts = key.split(".")
    if parts[0] == "patch_embed":
        return ".".join(["patch_embed1", *parts[1:]])
    if parts[0] != "stages":
        return key
    stage, rest = int(parts[1]) + 1, parts[3:]
    if parts[2] == "downsample":
        return ".".join([f"patch_embed{stage}", *rest])
    if parts[2] == "norm":
        return ".".join([f"norm{stage}", *rest])
    return ".".join([f"block{stage}", *rest]).replace(".dwconv.", ".dwconv.dwconv.")


def picture(random: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Colored fields, smooth, with more red than blue, (H, W, 3)."""
    fields = random.integers(0, 256, (5, 6, 3)).astype(np.float32) * [1.0, 0.7, 0.4]
    return cv2.resize(fields, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255).astype(np.uint8)


def sound(random: np.random.Generator, samples: int, rate: int) -> np.ndarray:
    """A tone with overtones and noise whose level changes, int16."""
    time = np.arange(samples) / rate
    pitch, speed = random.uniform(100, 2000), random.uniform(0.5, 6)
    tone = sum(np.sin(2 * np.pi * pitch * k * time) / k for k in range(1, 6))
    level = random.uniform(0.1, 0.5) * (0.6 + 0.4 * np.sin(2 * np.pi * speed * time))
    noise = random.uniform(0, 0.3) * random.standard_normal(samples)
    return (20_000 * level * (tone / 2 + noise)).clip(-32768, 32767).astype(np.int16)


def write_inputs(folder: Path) -> None:
    """Write the files and data sets that pretrained/known_outputs.yaml names."""
    random = np.random.default_rng(7)
    for entry in yaml.safe_load(KNOWN_OUTPUTS.read_text(encoding="utf-8"))["inputs"].values():
        path = folder / entry["file"]
        if path.suffix == ".wav":
            rate = 16_000 if "librispeech" in path.name else 44_100
            samples = 2_800 * rate // 1000 if rate == 16_000 else SOUNDS  # CLAP's paddings differ for 2.8 s
            path.write_bytes(wav_bytes(sound(random, samples, rate), rate))
        elif path.suffix:
            path.write_bytes(png_bytes(picture(random, 260, 330)))  # whatever the suffix: no decoder's rounding
    _write_esc50(folder / "ESC-50", random)
    _write_us8k(folder / "UrbanSound8K", random)
    _write_imagenet(folder / "imagenet-val", random)
    _write_coco(folder / "coco-val2017", random)


def _write_esc50(folder: Path, random: np.random.Generator) -> None:
    rows = [(name, fold, CATEGORIES.index(label), label) for name, fold, label in ESC50]
    _write_csv(folder / "meta" / "esc50.csv", ("filename", "fold", "target", "category"), rows)
    (folder / "audio").mkdir()
    for name, *_ in rows:
        (folder / "audio" / name).write_bytes(wav_bytes(sound(random, SOUNDS, 44_100), 44_100))


def _write_us8k(folder: Path, random: np.random.Generator) -> None:
    rows = [(f"{k}.wav", 1 + k, k, ("siren", "air_conditioner", "jackhammer")[k]) for k in range(3)]
    _write_csv(folder / "metadata" / "UrbanSound8K.csv", ("slice_file_name", "fold", "classID", "class"), rows)
    for name, fold, *_ in rows:
        (folder / "audio" / f"fold{fold}").mkdir(parents=True)
        stereo = np.stack([sound(random, 48_000, 48_000), sound(random, 48_000, 48_000)], axis=1)
        (folder / "audio" / f"fold{fold}" / name).write_bytes(wav_bytes(stereo, 48_000))


def _write_csv(path: Path, head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    path.parent.mkdir(parents=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])


def _write_imagenet(folder: Path, random: np.random.Generator) -> None:
    for synset in SYNSETS:
        (folder / synset).mkdir(parents=True)
        for number in range(2):
            (folder / synset / f"{number}.JPEG").write_bytes(png_bytes(picture(random, 300, 240)))


def _write_coco(folder: Path, random: np.random.Generator) -> None:
    for name in ("val2017", "annotations"):
        (folder / name).mkdir(parents=True)
    images, boxes = [], []
    for number in range(1, COUNTS["pictures"] + 1):  # type: ignore[operator]
        images.append({"id": number, "file_name": f"{number:012}.jpg", "height": 60, "width": 80})
        (folder / "val2017" / f"{number:012}.jpg").write_bytes(png_bytes(picture(random, 60, 80)))
        box = [10, 10, 30, 20]
        boxes.append(
            {"id": number, "image_id": number, "category_id": 1 + number % 2, "bbox": box, "area": 600, "iscrowd": 0}
        )
    classes = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": boxes, "categories": classes}
    (folder / "annotations" / "instances_val2017.json").write_text(json.dumps(content))


def known_outputs(path: Path, expected: Callable[[str], Any] | None = None) -> Path:
    """Write known_outputs.yaml for these inputs: without checksums, with their numbers of recordings and pictures.

    Args:
        path: to write to.
        expected: other values by the check's id, instead of the published ones; None keeps a check's.
    """
    content = yaml.safe_load(KNOWN_OUTPUTS.read_text(encoding="utf-8"))
    for entry in content["inputs"].values():
        entry.pop("sha256", None)
        entry.pop("size", None)
    for check in content["checks"]:
        parameters = check.get("parameters", {})
        parameters |= {name: value for name, value in COUNTS.items() if name in parameters}
        if expected and (values := expected(check["id"])) is not None:
            check["expected"] = values
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def largest(values: Any, pattern: Any) -> Any:
    """Of each innermost group of nested values the largest, as many as the published ones have."""
    if any(isinstance(inner, dict) for inner in pattern.values()):
        return {key: largest(values[key], inner) for key, inner in pattern.items()}
    return dict(sorted(values.items(), key=lambda item: -item[1])[: len(pattern)])


def same_structure(values: Any, pattern: Any) -> Any:
    """Those of nested values that the published ones have, too, as plain numbers."""
    if isinstance(pattern, dict):
        return {key: same_structure(values[key], inner) for key, inner in pattern.items()}
    if isinstance(pattern, list):
        return [same_structure(each, inner) for each, inner in zip(values, pattern, strict=False)]
    return values.item() if isinstance(values, Tensor | np.generic) else values
