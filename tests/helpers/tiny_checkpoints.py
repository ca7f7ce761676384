"""Small checkpoints under the public names, and runs that start from them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.audioclip import AudioCLIP
from supervised.options import FPNOptions, ModelOptions, VGGishOptions

SIZES: dict[str, Any] = {"embed_dim": 24, "vision_layers": (1, 1, 1, 1), "vision_width": 4, "audio_n_fft": 64}
SIZES |= {"audio_hop": 500, "audio_win": 64, "audio_layers": (1, 1, 1, 1), "audio_width": 8, "audio_groups": 4}
SIZES |= {"audio_width_per_group": 32, "text": False}


def clip(seed: int) -> AudioCLIP:
    torch.manual_seed(seed)
    model = AudioCLIP(**SIZES)
    for name, value in model.state_dict().items():
        if name.endswith("bn3.weight"):  # CLIP starts its residual branches at zero
            value.fill_(0.5)
    return model


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints under the public names, at small sizes, each with weights of its own."""
    out = tmp_path_factory.mktemp("pretrained")
    (out / "mini").mkdir()
    (out / "mini" / "audioclip.json").write_text(json.dumps({"model": SIZES}))
    save_file(clip(1).state_dict(), out / "mini" / "audioclip.safetensors")
    torch.save(clip(2).state_dict(), out / "AudioCLIP-Full-Training.pt")
    torch.save(clip(3).state_dict(), out / "AudioCLIP-Partial-Training.pt")
    torch.save({f"visual.{k}": v for k, v in clip(4).visual.state_dict().items()}, out / "CLIP.pt")
    resnet = {k: v for k, v in clip(5).visual.state_dict().items() if k.startswith("layer")}
    stem = {"conv1.weight": torch.zeros(64, 3, 7, 7), "bn1.weight": torch.zeros(64), "fc.bias": torch.zeros(9)}
    torch.save(resnet | stem, out / "resnet50-19c8e357.pth")
    audio = clip(6).audio.state_dict() | {"fc.weight": torch.zeros(527, 256), "fc.bias": torch.zeros(527)}
    torch.save({f"audio.{k}": v for k, v in audio.items()}, out / "ESRNXFBSP.pt")
    return out


def options(folder: Path, **fpn: Any) -> ModelOptions:
    """A small fpn segmentor; `freeze` and `ear` go to the model, the rest to the fpn."""
    ear = VGGishOptions("random", [4, 4, 4, 8], 16, 12)
    freeze = fpn.pop("freeze", ["audio"])
    named = {"visual": "mini", "audio": "mini", **fpn}
    return ModelOptions("fpn", freeze, 8, ear, fpn=FPNOptions(variant="mini", weights_dir=folder, **named))


def arguments(composed: Path, folder: Path, out: Path, *more: str, benchmark: str = "s4") -> list[str]:
    root = composed / {"s4": "Single-source", "ms3": "Multi-sources"}[benchmark]
    words = f"--data.root {root} --data.benchmark {benchmark} --data.image_size 32 --data.audio_repeats 1 --data.num_workers 0"
    words += " --model.segmentor fpn --model.channels 8 --model.fpn.variant mini --model.fpn.visual mini"
    words += f" --model.fpn.audio mini --model.fpn.weights_dir {folder} --train.device cpu --train.epochs 2 --train.batch_size 4"
    words += f" --train.lr 1e-3 --train.backbone_lr_mult 0.1 --metric_batch 1 --out {out}"
    return [*words.split(), *more]


def flat(value: Any, name: str = "") -> dict[str, Any]:
    """A nested state as one level; how long it took is left out."""
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = dict(enumerate(value)).items()
    else:
        return {} if name.endswith("seconds") else {name: value}
    return {key: found for part, inner in items for key, found in flat(inner, f"{name}.{part}").items()}


def same(one: Path, two: Path) -> None:
    """Two runs ended in the same state, bit for bit: weights, moments, average, log."""
    states = [flat(torch.load(run / "state.pt", weights_only=True)) for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        equal = torch.equal(value, states[1][name]) if isinstance(value, torch.Tensor) else value == states[1][name]
        assert equal, name
    best = [load_file(run / "best.safetensors") for run in (one, two)]
    assert all(torch.equal(value, best[1][name]) for name, value in best[0].items())
