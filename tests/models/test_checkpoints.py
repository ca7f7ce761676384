"""Public checkpoints: what each mapping accepts and rejects, and damaged and unsafe files."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models.resnet import Bottleneck

from models.audioclip import AudioCLIP
from models.backbones import build_backbone, load_imagenet
from models.checkpoints import load_checkpoint, load_strict, read_state_dict
from models.esresnext import ESResNeXtFBSP
from models.key_maps import esresnext_audio, load_audio, load_audioclip, load_visual, resnet_stages, tower_state
from models.vggish import VGGish
from tests.helpers import golden_values
from utils.cli import InputError

GOLDEN = Path(__file__).parents[1] / "golden"
AUDIO: dict[str, Any] = {
    "n_fft": 64,
    "hop": 16,
    "win": 48,
    "layers": (1, 1, 1, 1),
    "width": 8,
    "groups": 2,
    "width_per_group": 8,
}
State = dict[str, Tensor]


def published(name: str) -> State:
    """The names and shapes of a public file, without values and without memory."""
    shapes = json.loads((GOLDEN / f"{name}_keys.json").read_text())
    return {key: torch.empty(shape, device="meta") for key, shape in shapes.items()}


def meta(build: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """A network at its published sizes, without memory."""
    with torch.device("meta"):
        return build(*args, **kwargs)


def small(text: bool = True) -> AudioCLIP:
    # The stem's width is the published one: torchvision's ResNet has no other.
    audio: dict[str, Any] = {f"audio_{name}": value for name, value in AUDIO.items()}
    return AudioCLIP(8, 32, (1, 1, 1, 1), text=text, text_width=16, text_layers=1, **audio)


def other_values(state: State) -> State:
    return golden_values.fill(state, seed=7)


def assert_holds(module: nn.Module, state: State) -> None:
    own = module.state_dict()
    for key, value in state.items():
        torch.testing.assert_close(own[key], value, rtol=0, atol=0, msg=key)


# --- mappings --------------------------------------------------------------------------------------------


def test_published_audioclip_fits_whole_and_by_towers() -> None:
    state, model = published("audioclip"), meta(AudioCLIP)
    assert len(state) == 861
    for load, module in ((load_audioclip, model), (load_visual, model.visual), (load_audio, model.audio)):
        assert load(module, state) == []
    assert load_audioclip(meta(AudioCLIP, text=False), state) == []
    clip = {key: value for key, value in state.items() if not key.startswith(("audio.", "logit_scale_a"))}
    assert load_visual(model.visual, clip) == []
    with pytest.raises(RuntimeError, match=r"^missing 372: .*, \.\.\.$"):
        load_audioclip(model, clip)
    with pytest.raises(RuntimeError, match=r"^missing 312: window, fbsp\.m, fbsp\.fb, \.\.\.$"):
        load_audio(model.audio, clip)


@pytest.mark.parametrize("text", [True, False])
def test_audioclip_values_arrive(text: bool) -> None:
    state = other_values(small().state_dict())
    model = small(text)
    assert load_audioclip(model, state) == []
    assert_holds(model, {key: value for key, value in state.items() if key in model.state_dict()})
    assert model.has_text == text and any(key.startswith("transformer.") for key in model.state_dict()) == text


def test_a_key_more_less_or_misshapen_changes_nothing() -> None:
    model, state = small(), other_values(small().state_dict())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    less = {key: value for key, value in state.items() if key != "visual.layer1.0.conv1.weight"}
    for change, message in (
        (less, "^missing 1: visual.layer1.0.conv1.weight$"),
        (state | {"stranger": torch.zeros(1)}, "^unexpected 1: stranger$"),
        (state | {"audio.fc.bias": torch.zeros(527)}, r"^misshapen 1: audio\.fc\.bias \(527,\) for \(8,\)$"),
        (less | {"a": torch.zeros(1), "b": torch.zeros(1)}, "^missing 1: .*; unexpected 2: a, b$"),
    ):
        with pytest.raises(RuntimeError, match=message):
            load_audioclip(model, change)
        assert_holds(model, before)
    with pytest.raises(RuntimeError, match=r"missing 1: audio\.bn1\.num_batches_tracked"):
        load_audioclip(model, {key: value for key, value in state.items() if key != "audio.bn1.num_batches_tracked"})


def test_towers_take_their_own_part() -> None:
    state = other_values(small().state_dict())
    model = small()
    text = model.text_projection.clone()
    assert load_visual(model.visual, state) == [] and load_audio(model.audio, state) == []
    assert_holds(model.visual, tower_state(state, "visual"))
    assert_holds(model.audio, tower_state(state, "audio"))
    assert torch.equal(model.text_projection, text)
    surgery = state | {"visual.attnpool.attn.qkv.weight": torch.zeros(1)}
    with pytest.raises(RuntimeError, match=r"unexpected 1: attnpool\.attn\.qkv\.weight"):
        load_visual(model.visual, surgery)


@pytest.mark.parametrize("old", [False, True])
def test_torchvision_resnet_leaves_exactly_stem_and_attention_pool(old: bool) -> None:
    visual = small().visual
    before = {key: value.clone() for key, value in visual.state_dict().items()}
    state = other_values(torchvision.models.ResNet(Bottleneck, [1, 1, 1, 1]).state_dict())
    if old:  # resnet50-19c8e357.pth is from before there were counters
        state = {key: value for key, value in state.items() if "num_batches" not in key}
    random = load_visual(visual, state)
    assert {key.split(".")[0] for key in random} == {"conv1", "conv2", "conv3", "bn1", "bn2", "bn3", "attnpool"}
    assert len([key for key in random if "num_batches" not in key]) == 24
    assert_holds(visual, {key: before[key] for key in random})
    assert_holds(visual, resnet_stages(state))
    assert set(visual.state_dict()) == set(random) | {key for key in before if key.startswith("layer")}


def test_published_resnet50_fits_the_image_tower() -> None:
    state, visual = meta(torchvision.models.resnet50).state_dict(), meta(AudioCLIP).visual
    assert len(load_visual(visual, state)) == 27
    without = {key: value for key, value in state.items() if key != "layer4.2.bn3.weight"}
    with pytest.raises(RuntimeError, match=r"^missing 1: layer4\.2\.bn3\.weight$"):
        load_visual(visual, without)
    with pytest.raises(RuntimeError, match="misshapen"):
        load_visual(visual, meta(torchvision.models.wide_resnet50_2).state_dict())
    with pytest.raises(RuntimeError, match=r"unexpected 24: .*layer3"):
        load_visual(visual, state | {f"layer3.9.{n}": torch.zeros(1) for n in range(24)})
    with pytest.raises(RuntimeError, match="unexpected"):  # the tower's own names: not what the study loads here
        load_visual(visual, visual.state_dict())


@pytest.mark.parametrize("prefix", ["", "audio."])
def test_esresnext_leaves_exactly_its_classifier(prefix: str) -> None:
    audio = small().audio
    before = {key: value.clone() for key, value in audio.state_dict().items()}
    bare = other_values(ESResNeXtFBSP(527, **AUDIO).state_dict())
    bare["fbsp.fc"] = bare["fbsp.fc"] + 0.25
    assert load_audio(audio, {prefix + key: value for key, value in bare.items()}) == ["fc.weight", "fc.bias"]
    assert_holds(audio, {key: before[key] for key in ("fc.weight", "fc.bias")})
    mapped = esresnext_audio(bare)
    assert "fbsp.fc" in mapped and len(mapped) == len(before) - 2
    assert_holds(audio, mapped)
    with pytest.raises(RuntimeError, match=r"^missing 1: fbsp\.fc$"):
        load_audio(audio, {key: value for key, value in bare.items() if key != "fbsp.fc"})


def test_other_networks_files_are_refused() -> None:
    model, vggish, resnet = meta(AudioCLIP), published("vggish"), meta(torchvision.models.resnet50).state_dict()
    for load, module in ((load_audioclip, model), (load_visual, model.visual), (load_audio, model.audio)):
        with pytest.raises(RuntimeError, match=r"missing \d+: .*; unexpected 18: features\.0\.weight") as error:
            load(module, vggish)
        assert len(str(error.value)) < 300
    with pytest.raises(RuntimeError, match=r"misshapen \d+: layer1"):
        load_audio(model.audio, resnet)
    with pytest.raises(RuntimeError, match="unexpected"):
        load_visual(model.visual, tower_state(published("audioclip"), "audio"))


def test_vggish_and_imagenet_layouts(tmp_path: Path) -> None:
    vggish = published("vggish")
    assert len(vggish) == 18 and load_strict(meta(VGGish), vggish) == []
    with pytest.raises(RuntimeError, match=r"missing 1: embeddings\.0\.bias"):
        load_strict(meta(VGGish), {key: value for key, value in vggish.items() if key != "embeddings.0.bias"})

    prefix = "encoder_backbone."
    shapes = {key: value for key, value in published("tpavi_pvt").items() if key.startswith(prefix)}
    pvt = {key.removeprefix(prefix): value for key, value in shapes.items()} | {"head.weight": torch.zeros(1)}
    load_imagenet(meta(build_backbone, "pvt_v2_b5"), pvt)

    state = other_values(torchvision.models.resnet18().state_dict())
    torch.save(state, tmp_path / "resnet18.pth")
    backbone = build_backbone("resnet18")
    load_checkpoint(backbone, tmp_path / "resnet18.pth", lambda state: load_imagenet(backbone, state))
    assert_holds(backbone, {key: value for key, value in state.items() if not key.startswith("fc.")})


# --- files -----------------------------------------------------------------------------------------------


class Intruder:
    """A pickle of this runs a command."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self) -> tuple:
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle 2", "pickle 4", "safetensors"])
def test_code_in_a_checkpoint_never_runs(tmp_path: Path, kind: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    content = {"weight": torch.zeros(2), "extra": Intruder(mark)}
    if kind in ("zip", "legacy"):
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    else:
        path.write_bytes(pickle.dumps({"extra": Intruder(mark)}, protocol=4 if kind == "pickle 4" else 2))
    message = "damaged, or not a checkpoint" if kind == "safetensors" else "refused: it holds more than tensors"
    with pytest.raises(InputError, match=f"{path.name}: {message}"):
        read_state_dict(path)
    assert not mark.exists()
    if kind == "pickle 2":  # the same bytes do run where they are trusted, so the test would notice
        pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_cut_files_are_told_in_one_line(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / ("w.safetensors" if kind == "safetensors" else "w.pth")
    state = {"weight": torch.arange(4000.0), "bias": torch.zeros(40)}
    if kind == "safetensors":
        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=kind == "zip")
    assert torch.equal(read_state_dict(path)["weight"], state["weight"])
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(InputError, match=rf"{path.name}: damaged, or not a checkpoint[^\n]*$"):
        read_state_dict(path)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_what_is_no_state_dict_is_told(tmp_path: Path) -> None:
    path, tensor = tmp_path / "w.pth", torch.zeros(2)

    def complaint(entry: str | None = None) -> str:
        with pytest.raises(InputError) as error:
            read_state_dict(path, entry)
        assert "\n" not in str(error.value)
        return str(error.value)

    assert "no such checkpoint; see pretrained/README.md" in complaint()
    for content, message in (
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-LFS pointer"),
        (b"\n<!DOCTYPE html><html>", "a web page"),
        (b"nothing of the kind", "damaged, or not a checkpoint"),
    ):
        path.write_bytes(content)
        assert message in complaint()
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), path)
    assert "a TorchScript program" in complaint()
    for saved, message in (
        (tensor, "not a plain state dict but a Tensor"),
        ({"model": {"a": tensor}, "ema": {"a": tensor}}, "not tensors: 2: model, ema (a training checkpoint?)"),
        ({"epoch": 3, "weights": {"a": tensor}}, "not tensors: 2: epoch, weights (a training checkpoint?)"),
        ({0: tensor}, "not tensors: 1: 0"),
    ):
        torch.save(saved, path)
        assert message in complaint()
    assert "has no entry 'state_dict'" in complaint(entry="state_dict")


def test_training_checkpoints_open_only_where_they_are_expected(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "model": {"module.a": torch.ones(2), "module.b.module.c": torch.ones(1)}}, tmp_path / "w")
    assert sorted(read_state_dict(tmp_path / "w", entry="model")) == ["a", "b.module.c"]
    torch.save({"state_dict": {"module.a": torch.ones(2), "b": torch.ones(1)}}, tmp_path / "w")
    assert sorted(read_state_dict(tmp_path / "w", entry="state_dict")) == ["b", "module.a"]


@pytest.mark.parametrize("entry", [None, "state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("prefix", ["", "module."])
def test_clear_wrappings_are_taken_off_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entry: str | None, prefix: str
) -> None:
    state = {f"{prefix}a": torch.ones(2), f"{prefix}b": torch.zeros(1)}
    others = {"epoch": 3, "optimizer": {"lr": 0.1, "state": {0: torch.ones(2)}}}
    torch.save(state if entry is None else {entry: state, **others}, tmp_path / "w.pth")
    assert sorted(read_state_dict(tmp_path / "w.pth")) == ["a", "b"]
    said = capsys.readouterr().err
    assert said.count("note: ") == (entry is not None) + bool(prefix)
    assert (f"its entry '{entry}'" in said) == (entry is not None) and ("'module.'" in said) == bool(prefix)


@pytest.mark.parametrize("mapped", [False, True])
def test_loading_names_file_network_and_keys_and_keeps_the_rest(tmp_path: Path, mapped: bool) -> None:
    module = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2))
    before = {key: value.clone() for key, value in module.state_dict().items()}
    state = {"0.weight": torch.ones(3, 3), "0.bias": torch.ones(3), "1.weight": torch.ones(9, 3), "x": torch.ones(1)}
    torch.save(state, tmp_path / "w.pth")
    load = (lambda state: module.load_state_dict(state)) if mapped else None  # torch alone would copy 0.weight
    with pytest.raises(InputError) as error:
        load_checkpoint(module, tmp_path / "w.pth", load)
    problem = "missing 1: 1.bias; unexpected 1: x; misshapen 1: 1.weight (9, 3) for (2, 3)"
    assert str(error.value) == f"{tmp_path / 'w.pth'}: does not fit Sequential: {problem}"
    assert_holds(module, before)
    module.load_state_dict({"0.weight": torch.ones(3, 3)}, strict=False)  # nobody else's loading is watched
