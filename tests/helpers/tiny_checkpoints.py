"""Checkpoints with small sizes under the public file names, and runs that start from them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from models.audioclip import AudioCLIP
from supervised.model_options import FPNOptions, ModelOptions, VGGishOptions

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
    """A folder of checkpoints under the public names, at small sizes, each with different weights.

    Names such as "audioclip-full" stand for them if SAM4AVS_WEIGHTS is this folder.
    """
    out = tmp_path_factory.mktemp("pretrained")
    (out / "small").mkdir()
    (out / "small" / "audioclip.json").write_text(json.dumps({"model": SIZES}))
    save_file(clip(1).state_dict(), out / "small" / "audioclip.safetensors")
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
    """A small fpn segmentor; `freeze` goes to the model, the rest to the fpn."""
    vggish = VGGishOptions("random", [4, 4, 4, 8], 16, 12)
    freeze = fpn.pop("freeze", ["audio"])
    small = str(folder / "small")
    fpn_options = FPNOptions(**{"visual": small, "audio": small, "variant": small, **fpn})
    return ModelOptions("fpn", freeze, 8, vggish, fpn=fpn_options)


def arguments(composed: Path, folder: Path, out: Path, *more: str, benchmark: str = "s4") -> list[str]:
    """Words of supervised.train for a small run of the fpn segmentor."""
    root = composed / {"s4": "Single-source", "ms3": "Multi-sources"}[benchmark]
    small = folder / "small"
    words = f"--data.root {root} --data.benchmark {benchmark} --data.image_size 32 --data.audio_repeats 1"
    words += " --data.num_workers 0 --model.segmentor fpn --model.channels 8"
    words += f" --model.fpn.variant {small} --model.fpn.visual {small} --model.fpn.audio {small}"
    words += " --train.device cpu --train.epochs 2 --train.batch_size 4 --train.lr 1e-3"
    words += f" --train.backbone_lr_mult 0.1 --metric_batch 1 --out {out}"
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
