"""How runs are trained: initial weights, frozen towers, parameter groups, schedules, precomputed audio features."""

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file
from torch import Tensor, nn

from models.audioclip_segmentor import AudioCLIPSegmentor
from supervised import optim, train
from supervised.audio_features import extract_audio_features
from supervised.data import NEGATIVE_KINDS, open_dataset
from supervised.losses import segmentation_loss
from supervised.model import AVSModel
from supervised.model_options import ModelOptions, VGGishOptions
from supervised.options import Options, TrainOptions
from tests.helpers.tiny_checkpoints import SIZES, arguments, clip, folder, options
from utils.cli import InputError
from utils.config import from_yaml
from utils.sound_conditions import AudioCondition

__all__ = ["folder"]  # a fixture

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def registered_names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of pretrained/checkpoints.yaml stand for the small checkpoints."""
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(folder))


def batch(model: AVSModel, videos: int = 2, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    audio: dict[str, Tensor] = {
        "log_mel": torch.randn(videos, 5, 1, 96, 64, generator=generator),
        "waveform": torch.rand(videos, 5, 4000, generator=generator) - 0.5,
    }
    frames = torch.randn(videos, 5, 3, 32, 32, generator=generator)
    masks = (torch.rand(videos, 1, 224, 224, generator=generator) > 0.5).float()
    return {"frames": frames, "masks": masks, model.inputs.audio: audio[model.inputs.audio]}


def steps(model: AVSModel, optimizer: torch.optim.Optimizer, count: int = 2) -> None:
    """A few training steps."""
    model.train()
    for k in range(count):
        items = batch(model, seed=k)
        loss = segmentation_loss(model(items, 1), items["masks"])
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()


# --- initial weights -------------------------------------------------------------------------------------

STEM = ("conv1.", "conv2.", "conv3.", "bn1.", "bn2.", "bn3.", "attnpool.")
GRID: list[tuple[str, str, int | None, tuple[str, ...]]] = [  # tower, name, seed of the weights, what stays random
    ("visual", "small", 1, ()),
    ("visual", "audioclip-full", 2, ()),
    ("visual", "audioclip-partial", 3, ()),
    ("visual", "clip-rn50", 4, ()),
    ("visual", "resnet50", 5, STEM),
    ("visual", "random", None, ("",)),
    ("audio", "small", 1, ()),
    ("audio", "audioclip-full", 2, ()),
    ("audio", "audioclip-partial", 3, ()),
    ("audio", "esresnext-fbsp", 6, ("fc.",)),
    ("audio", "random", None, ("",)),
]


@pytest.mark.parametrize("tower, name, seed, random", GRID)
def test_each_tower_starts_from_what_its_name_says(
    folder: Path, tower: str, name: str, seed: int | None, random: tuple[str, ...]
) -> None:
    torch.manual_seed(99)
    model = AVSModel(options(folder, **{tower: str(folder / name) if name == "small" else name}))
    before = {key: value.clone() for key, value in getattr(model, f"{tower}_tower").state_dict().items()}
    found = {start.tower: start for start in model.load_pretrained()}
    assert set(found) == {"visual", "audio"}
    kept = [key for key in before if random and key.startswith(random)]
    assert found[tower].random == kept
    assert (found[tower].file is None) == (name == "random")
    assert all(key in str(found[tower]) for key in kept) or name == "random"
    source = clip(seed or 0)
    for key, value in getattr(model, f"{tower}_tower").state_dict().items():
        expected = before[key] if key in kept else getattr(source, tower).state_dict()[key]
        assert torch.equal(value, expected), key


def test_vggish_starts_from_its_file(folder: Path, tmp_path: Path) -> None:
    asked = options(folder, audio="vggish")
    public = AVSModel(asked).audio_tower
    assert public is not None
    torch.save(public.state_dict(), tmp_path / "vggish.pth")
    asked.vggish.weights = str(tmp_path / "vggish.pth")
    model = AVSModel(asked)
    assert [start.file for start in model.load_pretrained()][1] == tmp_path / "vggish.pth"
    assert model.audio_tower is not None
    assert all(torch.equal(v, public.state_dict()[k]) for k, v in model.audio_tower.state_dict().items())


@pytest.mark.parametrize(
    "tower, name, file",
    [
        ("visual", "clip-rn50", "CLIP.pt"),
        ("visual", "resnet50", "resnet50-19c8e357.pth"),
        ("audio", "esresnext-fbsp", "ESRNXFBSP.pt"),
        ("audio", "audioclip-partial", "AudioCLIP-Partial-Training.pt"),
    ],
)
def test_missing_weights_name_the_file_and_how_to_get_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tower: str, name: str, file: str
) -> None:
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    model = AVSModel(options(folder, **{tower: name}))
    path = tmp_path / file
    with pytest.raises(InputError, match=f"{path}: no such checkpoint; python -m pretrained.download {name} gets it$"):
        model.load_pretrained()
    model = AVSModel(options(folder, **{tower: str(tmp_path / "other" / file)}))
    with pytest.raises(InputError, match=f"pretrained.download {name} --to {tmp_path / 'other'} gets it$"):
        model.load_pretrained()


def test_both_towers_missing_are_named_at_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(tmp_path))
    model = AVSModel(options(folder, visual="clip-rn50", audio="esresnext-fbsp"))
    command = "python -m pretrained.download clip-rn50 esresnext-fbsp gets them$"
    with pytest.raises(InputError, match=f"2 checkpoints are missing in {tmp_path}; {command}"):
        model.load_pretrained()


def test_a_row_without_its_weights(capsys: pytest.CaptureFixture[str], composed: Path, tmp_path: Path) -> None:
    config = REPOSITORY / "supervised" / "configs" / "s4_tpavi_resnet50.yaml"
    root = ["--data.root", str(composed / "Single-source"), "--model.weights", str(tmp_path / "pvt_v2_b5.pth")]
    assert train.main(["--config", str(config), *root, "--out", str(tmp_path / "run")]) == 1
    told = capsys.readouterr().err
    assert "pvt_v2_b5.pth: no such checkpoint; python -m pretrained.download pvt-v2-b5 --to" in told
    assert not (tmp_path / "run").exists()


def test_what_a_run_starts_from_is_written_down(
    composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ["--model.fpn.audio", "esresnext-fbsp", "--train.epochs", "1", "--data.fraction", "0.3"]
    assert train.main(arguments(composed, folder, tmp_path / "run", *more)) == 0
    record = json.loads((tmp_path / "run" / "initial_weights.json").read_text())
    assert record["audio"]["random"] == ["fc.weight", "fc.bias"] and len(record["audio"]["sha256"]) == 64
    assert record["visual"] == record["visual"] | {"random": []}
    told = capsys.readouterr()
    assert "ESRNXFBSP.pt; random: fc.weight, fc.bias" in told.out + told.err


# --- which weights are trained, and how ------------------------------------------------------------------


def named_groups(model: AVSModel, train_options: TrainOptions, fidelity: Any) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter in the optimiser."""
    names = {id(p): name for name, p in model.named_parameters()}
    optimizer = optim.build_optimizer(model, train_options, fidelity)
    return {names[id(p)]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}


def test_head_and_backbone_have_their_rates(folder: Path) -> None:
    asked = TrainOptions(lr=1e-3, backbone_lr_mult=0.1)
    found = named_groups(AVSModel(options(folder)), asked, "corrected")
    assert {name.split(".")[1] for name in found} == {"visual", "neck", "head"}
    assert all(rates == (1e-4 if ".visual." in name else 1e-3, 0) for name, rates in found.items())
    found = named_groups(AVSModel(options(folder, freeze=[])), asked, "corrected")
    assert found["segmentor.audio.fc.weight"] == found["segmentor.audio.fbsp.m"] == (1e-4, 0)
    found = named_groups(AVSModel(options(folder, audio="esresnext-fbsp")), asked, "corrected")
    heads = [name for name in found if ".audio." in name]
    assert heads == ["segmentor.audio.fc.weight", "segmentor.audio.fc.bias"] and found[heads[0]] == (1e-3, 0)
    for freeze in ([], ["audio"]):
        found = named_groups(AVSModel(options(folder, audio="vggish", freeze=freeze)), asked, "corrected")
        assert found["segmentor.audio_projector.weight"] == (1e-3, 0)
        assert any(name.startswith("segmentor.audio.") for name in found) == (not freeze)
        assert found.get("segmentor.audio.embeddings.0.weight", (1e-3, 0)) == (1e-3, 0)
    found = named_groups(AVSModel(options(folder, freeze=["audio", "visual"])), asked, "corrected")
    assert {name.split(".")[1] for name in found} == {"neck", "head"}


def test_adamw_spares_what_normalises(folder: Path) -> None:
    model = AVSModel(options(folder))
    asked = TrainOptions(optimizer="adamw", weight_decay=0.5)
    norms = {
        f"{name}.{part}"
        for name, layer in model.named_modules()
        if isinstance(layer, nn.BatchNorm2d | nn.GroupNorm)
        for part in ("weight", "bias")
    }
    corrected = named_groups(model, asked, "corrected")
    assert {name for name, (_, decay) in corrected.items() if not decay} == norms & set(corrected)
    assert {decay for _, decay in named_groups(model, asked, "published").values()} == {0.5}
    assert {decay for _, decay in named_groups(model, TrainOptions(weight_decay=0.5), "corrected").values()} == {0.0}


def test_the_optimizer_is_the_one_asked_for(folder: Path) -> None:
    model = AVSModel(options(folder))
    for name, kind in (("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)):
        optimizer = optim.build_optimizer(model, TrainOptions(optimizer=name), "corrected")  # type: ignore[arg-type]
        assert type(optimizer) is kind


def moved(model: AVSModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}


@pytest.mark.parametrize("freeze", [["audio"], ["audio", "visual"]])
@pytest.mark.parametrize("fidelity", ["published", "corrected"])
def test_frozen_towers(folder: Path, fidelity: Any, freeze: list[str]) -> None:
    """Corrected: nothing in them moves. Published: their weights stay, their statistics drift."""
    model = AVSModel(options(folder, freeze=freeze), fidelity)
    model.load_pretrained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    steps(model, optim.build_optimizer(model, TrainOptions(), fidelity))
    changed = moved(model, before)
    towers = {name for name in changed if name.startswith(tuple(f"segmentor.{tower}." for tower in freeze))}
    assert all(name.endswith(("running_mean", "running_var", "num_batches_tracked")) for name in towers)
    assert bool(towers) == (fidelity == "published")
    assert "segmentor.audio.bn1.running_mean" in changed or fidelity == "corrected"
    assert "segmentor.neck.fpn_convs.0.weight" in changed
    assert ("segmentor.visual.conv1.weight" in changed) == ("visual" not in freeze)


def test_published_freezing_is_the_original_program(folder: Path) -> None:
    """The original only leaves the audio tower out of the optimiser: all in train mode, gradients thrown away."""
    model = AVSModel(options(folder), "published")
    model.load_pretrained()
    plain = AudioCLIPSegmentor(audioclip=SIZES, channels=8, fidelity="published").train()
    plain.load_state_dict(model.segmentor.state_dict())
    steps(model, optim.build_optimizer(model, TrainOptions(lr=1e-3, backbone_lr_mult=0.1), "published"))
    groups = [
        {"params": [*plain.neck.parameters(), *plain.head.parameters()], "lr": 1e-3},
        {"params": list(plain.visual.parameters()), "lr": 1e-4},
    ]
    optimizer = torch.optim.Adam(groups)
    for k in range(2):
        items = batch(model, seed=k)
        logits = torch.nn.functional.interpolate(plain(items["frames"], items["waveform"]), (224, 224), mode="bilinear")
        optimizer.zero_grad()
        torch.nn.functional.binary_cross_entropy(logits[:, :1].sigmoid(), items["masks"]).backward()
        optimizer.step()
    assert any(p.grad is not None for p in plain.audio.parameters())  # type: ignore[union-attr]
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(model.segmentor.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_the_layer_that_esresnext_lacks_is_trained(folder: Path) -> None:
    model = AVSModel(options(folder, audio="esresnext-fbsp"))
    model.load_pretrained()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert model.audio_is_static  # up to that layer
    steps(model, optim.build_optimizer(model, TrainOptions(), "corrected"))
    audio = {name for name in moved(model, before) if name.startswith("segmentor.audio.")}
    assert audio == {"segmentor.audio.fc.weight", "segmentor.audio.fc.bias"}


@pytest.mark.parametrize(
    "fpn, fidelity, expected",
    [
        ({}, "corrected", ("clip", "waveform")),
        ({"visual": "resnet50"}, "corrected", ("imagenet", "waveform")),
        ({"visual": "resnet50"}, "published", ("clip", "waveform")),
        ({"audio": "vggish"}, "corrected", ("clip", "log_mel")),
        ({"audio": "vggish"}, "published", ("imagenet", "log_mel")),
        ({"audio": "vggish", "visual": "resnet50"}, "corrected", ("imagenet", "log_mel")),
        ({"fusion": "none"}, "published", ("clip", "none")),
    ],
)
def test_what_a_model_wants_of_the_data(folder: Path, fpn: dict[str, Any], fidelity: Any, expected: Any) -> None:
    assert AVSModel(options(folder, **fpn), fidelity).inputs == expected


@pytest.mark.parametrize("segmentor", ["fpn", "tpavi"])
def test_decoding_only_labelled_frames_changes_nothing(folder: Path, segmentor: str) -> None:
    asked = options(folder) if segmentor == "fpn" else ModelOptions(backbone="resnet18", channels=8)
    if segmentor == "tpavi":
        asked.vggish = VGGishOptions("random", [4, 4, 4, 8], 16, 12)
    model = AVSModel(asked).train()
    items, found = batch(model), []
    for labelled in (None, 1):
        model.zero_grad()
        output = model(items, labelled)
        assert output.logits.shape[1] == (labelled or 5)
        segmentation_loss(output, items["masks"]).total.backward()
        found.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, rtol=1e-3, atol=1e-6)


def test_rates_warm_up_and_fall() -> None:
    asked = TrainOptions(warmup_steps=3, schedule="cosine")
    found = [optim.lr_factor(step, 12, asked) for step in range(12)]
    assert found[:4] == [0.25, 0.5, 0.75, 1.0] and found[-1] == pytest.approx(0.0)
    assert all(a > b for a, b in itertools.pairwise(found[3:]))
    assert {optim.lr_factor(step, 12, TrainOptions()) for step in range(12)} == {1.0}
    assert optim.lr_factor(0, 1, TrainOptions(schedule="cosine")) == 1.0
    assert optim.lr_factor(1, 2, TrainOptions(schedule="cosine")) == pytest.approx(0.0)


def test_every_group_gets_its_rate_times_the_factor() -> None:
    groups = [{"params": [nn.Parameter(torch.ones(2))], "name": name} for name in ("head", "backbone")]
    optimizer = torch.optim.Adam(groups, lr=7.0)
    optim.set_lr(optimizer, 0.5, TrainOptions(lr=1e-2, backbone_lr_mult=0.1))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-3, 5e-4])


def test_moments_of_other_shapes_are_refused() -> None:
    parameter = nn.Parameter(torch.ones(2, 3))
    optimizer = torch.optim.Adam([parameter])
    parameter.sum().backward()
    optimizer.step()
    optim.check_optimizer_state(optimizer)  # its count of steps is a scalar
    optimizer.state[parameter]["exp_avg"] = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"exp_avg is \(3, 2\) for \(2, 3\)"):
        optim.check_optimizer_state(optimizer)


def test_the_average_follows_the_weights(folder: Path) -> None:
    assert optim.build_ema(AVSModel(options(folder)), 0) is None
    model = AVSModel(options(folder, freeze=[]))
    average = optim.build_ema(model, 0.75)
    expected: dict[str, Tensor] = {}
    assert average is not None
    optimizer = optim.build_optimizer(model, TrainOptions(lr=1e-2), "corrected")
    for k in range(3):
        steps(model, optimizer, 1)
        average.update_parameters(model)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                expected[name] = value.clone() if k == 0 else 0.75 * expected[name] + 0.25 * value
    for name, value in expected.items():
        torch.testing.assert_close(average.module.state_dict()[name], value)


# --- audio features of a frozen tower, computed once ------------------------------------------------------


@pytest.mark.parametrize("audio", ["small", "vggish"])
def test_audio_is_encoded_once(
    composed: Path, folder: Path, tmp_path: Path, audio: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    original = AVSModel.encode_audio

    def encode(self: AVSModel, audio: Tensor) -> Tensor:
        calls.append(len(audio))
        return original(self, audio)

    monkeypatch.setattr(AVSModel, "encode_audio", encode)
    audio = str(folder / "small") if audio == "small" else audio
    more = ["--model.fpn.audio", audio, "--data.cache", str(tmp_path / "cache"), "--model.vggish.weights", "random"]
    more += ["--model.vggish.widths", "[4,4,4,8]", "--model.vggish.hidden", "16"]
    count = 0
    assert train.main(arguments(composed, folder, tmp_path / "one", *more)) == 0
    data = from_yaml(Options, tmp_path / "one" / "config.yaml").data
    for split in ("train", "val"):
        inputs = AVSModel(options(folder, audio=audio)).inputs
        count += len(open_dataset(data, inputs, split))
    assert calls == [1] * count, "every clip once, though there are two epochs"
    calls.clear()
    assert train.main(arguments(composed, folder, tmp_path / "two", *more)) == 0
    assert not calls, "the second run takes all from the cache"
    for name, value in load_file(tmp_path / "one" / "best.safetensors").items():
        assert torch.equal(load_file(tmp_path / "two" / "best.safetensors")[name], value)


def test_precomputed_features_are_those_of_the_tower(composed: Path, folder: Path, tmp_path: Path) -> None:
    model = AVSModel(options(folder))
    model.load_pretrained()
    asked = Options()
    asked.data.root, asked.data.audio_repeats, asked.data.image_size = composed / "Single-source", 1, 32
    clips = open_dataset(asked.data, model.inputs, "val")
    features = extract_audio_features(model, clips, Accelerator(cpu=True), cache=tmp_path)
    assert features.shape == (len(clips), 5, 256)
    items = torch.utils.data.default_collate([clips[i] for i in range(len(clips))])
    with torch.no_grad():
        direct = model.eval().segmentor(items["frames"], items["waveform"])
        ours = model({"frames": items["frames"], "audio_features": features}).logits
    torch.testing.assert_close(ours, direct, rtol=1e-4, atol=1e-5)
    clips.audio_features = features
    assert torch.equal(clips[1]["audio_features"], features[1]) and "waveform" not in clips[1]
    conditions: tuple[AudioCondition, ...] = ("silent", "shuffled")
    for condition in conditions:
        other_clips = open_dataset(asked.data, model.inputs, "val")
        other_clips.set_sound(condition)
        other = extract_audio_features(model, other_clips, Accelerator(cpu=True), cache=tmp_path)
        assert not torch.equal(other, features)
        same = torch.equal(other.flatten(1).sort(0)[0].sum(0), features.flatten(1).sort(0)[0].sum(0))
        assert same == (condition == "shuffled")
    trained = AVSModel(options(folder, freeze=[]))
    assert not trained.audio_is_static and not AVSModel(options(folder), "published").audio_is_static
    assert AVSModel(options(folder, audio="vggish"), "published").audio_is_static
    assert not AVSModel(options(folder, fusion="none")).audio_is_static


def test_negatives_have_another_sound_and_an_empty_mask(composed: Path, folder: Path) -> None:
    """The same ones with and without precomputed features, in any order, and others in the next epoch."""
    model = AVSModel(options(folder))
    model.load_pretrained()
    asked = Options()
    asked.data.root, asked.data.audio_repeats, asked.data.image_size = composed / "Single-source", 1, 32
    clips, plain = (open_dataset(asked.data, model.inputs, "train") for _ in range(2))
    clips.use_negatives(0.6, seed=3)
    kinds = {}
    for epoch in range(12):
        clips.set_epoch(epoch)
        kinds[epoch] = [clips.condition_of(index) for index in range(len(clips))]
    drawn = list(itertools.chain(*kinds.values()))
    assert {*NEGATIVE_KINDS, "original"} == set(drawn) and kinds[0] != kinds[1]
    assert 1 - drawn.count("original") / len(drawn) == pytest.approx(0.6, abs=0.15)
    clips.set_epoch(0)
    assert [clips.condition_of(index) for index in reversed(range(len(clips)))] == kinds[0][::-1]
    for index, kind in enumerate(kinds[0]):
        item, before = clips[index], plain[index]
        assert torch.equal(item["frames"], before["frames"])
        assert torch.equal(item["waveform"], before["waveform"]) == (kind == "original")
        assert item["masks"].any() == (kind == "original") and before["masks"].any()
        if kind == "silent":
            assert not item["waveform"].any()


def test_training_with_negatives_is_the_same_with_precomputed_features(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--train.negatives", "0.5", "--train.epochs", "2"]
    assert train.main(arguments(composed, folder, tmp_path / "one", *words)) == 0
    monkeypatch.setattr(AVSModel, "audio_is_static", property(lambda self: False))
    assert train.main(arguments(composed, folder, tmp_path / "two", *words)) == 0
    ones, others = (load_file(tmp_path / name / "best.safetensors") for name in ("one", "two"))
    for name, value in ones.items():
        torch.testing.assert_close(others[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("more", ["--model.fpn.fusion none", "--model.segmentor tpavi --loss.distance kl"])
def test_negatives_need_audio_and_no_avm_loss(
    composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str
) -> None:
    assert train.main(arguments(composed, folder, tmp_path / "run", "--train.negatives", "0.5", *more.split())) == 1
    assert "train.negatives needs a model with audio" in capsys.readouterr().err
