"""Runs of AVSegFormer: its recipe, its data, its audio towers; killed and resumed, shared among processes, refused."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn

from supervised import distributed, evaluate, optim, state, train
from supervised.data import open_dataset
from supervised.distributed import Attention, Dropout, set_video_lengths
from supervised.model import AVSModel, InputSpec
from supervised.model_options import AVSegFormerOptions, ModelOptions, VGGishOptions
from supervised.options import DataOptions, Options, TrainOptions
from supervised.trainer import Trainer
from tests.helpers.tiny_checkpoints import folder, same
from utils.config import from_yaml

__all__ = ["folder"]  # a fixture

REPOSITORY = Path(__file__).parents[2]
SMALL = VGGishOptions("random", [4, 4, 4, 8], 16, 12)
HEAD: dict[str, Any] = {"heads": 4, "layers": 1, "queries": 3, "hidden": 16}
RECIPE = "--train.optimizer adamw --train.weight_decay 1e-2 --train.freeze_backbone_epochs 1 --train.batch_size 2"


def options(**more: Any) -> ModelOptions:
    head = AVSegFormerOptions(**{**HEAD, **more.pop("head", {})})
    small: dict[str, Any] = {"channels": 32, "vggish": SMALL, "backbone": "resnet18", "weights": "random"}
    return ModelOptions("avsegformer", **{**small, **more}, avsegformer=head)


def arguments(composed: Path, out: Path, *more: str, benchmark: str = "s4") -> list[str]:
    root = composed / {"s4": "Single-source", "ms3": "Multi-sources"}[benchmark]
    words = f"--data.root {root} --data.benchmark {benchmark} --data.image_size 64 --data.num_workers 0"
    words += " --model.segmentor avsegformer --model.backbone resnet18 --model.weights random --model.channels 32"
    words += " --model.vggish.weights random --model.vggish.widths [4,4,4,8] --model.vggish.hidden 16"
    words += "".join(f" --model.avsegformer.{name} {value}" for name, value in HEAD.items())
    words += f" --train.device cpu --train.epochs 2 --train.lr 1e-3 {RECIPE} --metric_batch 2 --out {out}"
    return [*words.split(), *more]


# --- end to end ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark, fidelity, size", [("s4", "published", 96), ("ms3", "corrected", 224)])
def test_train_then_evaluate(composed: Path, tmp_path: Path, benchmark: str, fidelity: str, size: int) -> None:
    """Under "published" also val and test are at the size of the training masks."""
    run, more = tmp_path / "run", ["--fidelity", fidelity, "--data.mask_size", "96"]
    assert train.main(arguments(composed, run, *more, benchmark=benchmark)) == 0
    log = pd.read_csv(run / "log.csv")
    assert list(log.columns)[:4] == ["epoch", "loss", "main", "mix"] and np.isfinite(log.to_numpy()).all()
    np.testing.assert_allclose(log["loss"], log["main"] + log["mix"], rtol=1e-5)
    assert evaluate.main(["--run-dir", str(run), "--masks", "--sheets", "1"]) == 0
    result = pd.read_json(run / "metrics.json", typ="series")
    assert (result["metric_batch"], result["mask_size"], result["image_size"]) == (2, size, 64)
    assert {Image.open(path).size for path in (run / "masks").rglob("*.png")} == {(size, size)}


@pytest.mark.parametrize("fidelity", ["corrected", pytest.param("published", marks=pytest.mark.slow)])
def test_classes(composed_avss: Path, tmp_path: Path, fidelity: str) -> None:
    """AVSS: clips of five and ten seconds, of some of which only the first frame is labeled."""
    run = tmp_path / "run"
    root = ["--data.root", str(composed_avss), "--data.benchmark", "avss", "--data.image_size", "32"]
    more = [*root, "--data.mask_size", "56", "--train.epochs", "1", "--fidelity", fidelity]
    assert train.main(arguments(composed_avss, run, *more)) == 0
    log = pd.read_csv(run / "log.csv")
    np.testing.assert_allclose(log["loss"], log["main"] + log["mix"], rtol=1e-5)
    assert evaluate.main(["--run-dir", str(run)]) == 0
    assert 0 <= pd.read_json(run / "metrics.json", typ="series")["miou_pooled"] <= 1


@pytest.mark.slow
@pytest.mark.parametrize("fidelity", ["published", "corrected"])
def test_killed_at_any_step_it_ends_as_if_it_had_not_been(
    composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fidelity: str
) -> None:
    """Also at the boundary between the epoch with a frozen backbone and the next."""
    more = ["--fidelity", fidelity, "--data.fraction", "0.4", "--train.checkpoint_minutes", "0"]
    assert train.main(arguments(composed, tmp_path / "whole", *more)) == 0
    for count in (1, 2):
        steps, original = iter(range(1, 100)), optim.lr_factor

        def factor(*words: Any, steps: Any = steps, count: int = count, original: Any = original) -> float:
            if next(steps) > count:
                raise KeyboardInterrupt
            return original(*words)

        monkeypatch.setattr(optim, "lr_factor", factor)
        assert train.main(arguments(composed, tmp_path / "cut", *more)) == 130
        monkeypatch.undo()
    assert train.main(arguments(composed, tmp_path / "cut", *more)) == 0
    same(tmp_path / "whole", tmp_path / "cut")


# --- the frozen backbone and the optimizer ---------------------------------------------------------------


def batch(seed: int = 0, num_frames: int = 2) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(2, num_frames, 3, 32, 32, generator=generator)
    return {"frames": frames, "audio_features": torch.rand(2, num_frames, 12, generator=generator)}


@pytest.mark.parametrize("backbone", ["resnet18", "pvt_v2_b0"])
@pytest.mark.parametrize("fidelity", ["published", "corrected"])
def test_a_frozen_backbone(backbone: str, fidelity: Any) -> None:
    """Weights stay, undecayed. Published: batch statistics and stochastic depth go on. Corrected: neither does."""
    torch.manual_seed(0)
    model = AVSModel(options(backbone=backbone, head={"dropout": 0.0}), fidelity)
    optimizer = optim.build_optimizer(model, TrainOptions(optimizer="adamw", weight_decay=0.1), fidelity)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.freeze_backbone(True)
    model.train()
    model(batch()).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    in_backbone = {name for name in changed if name.startswith("segmentor.backbone.")}
    statistics = {name for name in before if name.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert in_backbone == (statistics if fidelity == "published" else set())
    assert "segmentor.head.fc.0.weight" in changed
    frames = batch()["frames"].flatten(0, 1)
    with torch.no_grad():
        repeated = [model.visual_tower(frames)[-1] for _ in range(8)]
    drops = any(not torch.equal(repeated[0], other) for other in repeated[1:])
    assert drops == (backbone == "pvt_v2_b0" and fidelity == "published")
    model.freeze_backbone(False)
    model.train()
    model(batch()).logits.square().sum().backward()
    optimizer.step()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert {name for name, _ in model.visual_tower.named_parameters(prefix="segmentor.backbone")} <= changed


def test_the_backbone_is_frozen_for_as_many_epochs(
    composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen: dict[int, set[bool]] = {}
    original = Trainer.train_step

    def step(self: Trainer, *words: Any) -> Any:
        frozen.setdefault(self.progress.epoch, set()).add(self.model.backbone_frozen)
        return original(self, *words)

    monkeypatch.setattr(Trainer, "train_step", step)
    more = ["--data.fraction", "0.4", "--train.epochs", "3", "--train.freeze_backbone_epochs", "2"]
    assert train.main(arguments(composed, tmp_path / "run", *more)) == 0
    assert frozen == {0: {True}, 1: {True}, 2: {False}}


def test_a_state_with_weights_that_are_not_finite_is_refused(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more, path = ["--data.fraction", "0.4", "--train.epochs"], tmp_path / "run" / "state.pt"
    assert train.main(arguments(composed, tmp_path / "run", *more, "1")) == 0
    progress, saved = state.load_state(path)
    saved["model"]["segmentor.head.fc.0.weight"][0, 0] = torch.nan
    state.save_state(path, progress, saved)
    assert train.main(arguments(composed, tmp_path / "run", *more, "2")) == 1
    assert "its weights are not finite" in capsys.readouterr().err


def test_published_decays_all_parameters() -> None:
    for fidelity, spared in (("published", False), ("corrected", True)):
        model = AVSModel(options(), fidelity)  # type: ignore[arg-type]
        recipe = TrainOptions(optimizer="adamw", weight_decay=1e-2)
        groups = optim.param_groups(model, recipe, fidelity)  # type: ignore[arg-type]
        decay = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        norms = [m for m in model.segmentor.modules() if isinstance(m, nn.LayerNorm | nn.GroupNorm | nn.BatchNorm2d)]
        expected = {id(p) for norm in norms for p in norm.parameters()} if spared else set()
        assert {key for key, value in decay.items() if value == 0} == expected and len(norms) > 10


# --- data ------------------------------------------------------------------------------------------------


def test_frames_and_masks_are_resized_as_the_original_does(composed: Path) -> None:
    """By torchvision's Resize of PIL images: bilinear, and nearest for masks, whatever is asked."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.functional import resize

    asked = DataOptions("ms3", composed / "Multi-sources", image_size=512, mask_size=512)
    clips = open_dataset(asked, InputSpec("raw", "none"), "train")  # type: ignore[arg-type]
    clip, item = clips.clips[0], clips[0]
    for frame, path in zip(item["frames"].numpy(), clips.data.frames(clip), strict=True):
        with Image.open(path) as image:
            assert np.array_equal(frame, np.asarray(resize(image.convert("RGB"), [512, 512])))
    for mask, path in zip(item["masks"].numpy(), clips.data.masks(clip), strict=True):
        with Image.open(path) as image:
            theirs = resize(image.convert("P"), [512, 512], InterpolationMode.BILINEAR)
        assert np.array_equal(mask > 0, np.asarray(theirs) > 0) and set(np.unique(mask)) <= {0, 1}


# --- audio towers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "segmentor, audio",
    [
        ("avsegformer", "small"),
        pytest.param("avsegformer", "esresnext-fbsp", marks=pytest.mark.slow),
        pytest.param("avsegformer", "random", marks=pytest.mark.slow),
        ("tpavi", "small"),
    ],
)
def test_audioclip_in_place_of_vggish(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmentor: str, audio: str
) -> None:
    """Its frozen tower is computed once; a layer that the checkpoint lacks is trained; at random all is."""
    monkeypatch.setenv("SAM4AVS_WEIGHTS", str(folder))
    small = str(folder / "small")
    weights = small if audio == "small" else audio
    more = f"--model.audio {weights} --model.variant {small} --model.backbone audioclip"
    more += f" --model.weights {small} --data.audio_repeats 1 --data.fraction 0.4 --train.epochs 1"
    more += f" --model.segmentor {segmentor}"
    more += " --model.freeze [] --train.batch_size 4" if audio == "random" else " --train.batch_size 4"
    run = tmp_path / "run"
    assert train.main(arguments(composed, run, *more.split())) == 0
    assert evaluate.main(["--run-dir", str(run), "--audio", "silent"]) == 0
    model = AVSModel(from_yaml(Options, run / "config.yaml").model)
    assert model.inputs == ("clip", "waveform") and model.audio_is_static == (audio != "random")
    trained = {name for name, p in model.named_parameters() if p.requires_grad and name.startswith("audioclip_audio.")}
    layer = {"audioclip_audio.fc.weight", "audioclip_audio.fc.bias"}
    assert trained == layer if audio == "esresnext-fbsp" else bool(trained) == (audio == "random")
    assert not any("attnpool" in name for name, p in model.named_parameters() if p.requires_grad)
    records = {record.tower: record for record in model.load_pretrained()}
    assert records["visual"].random == [] and (records["audio"].file is None) == (audio == "random")


# --- processes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("videos, world", [(4, 2), (5, 3)])
def test_dropout_decides_as_one_process_does(videos: int, world: int) -> None:
    """Each process's share is what PyTorch's own modules make of the whole batch."""
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(8, 2, dropout=0.4, batch_first=True)
    x, memory = torch.randn(videos * 2, 3, 8), torch.randn(videos * 2, 5, 8)
    torch.manual_seed(1)
    whole = [nn.Dropout(0.4)(x), attention(x, memory, memory, need_weights=False)[0]]
    for rank in range(world):
        mine = distributed.rank_slice(list(range(videos)), rank, world)
        parts = nn.ModuleList([Dropout(0.4, True, rank, world), Attention(attention, rank, world)])
        set_video_lengths(parts, [5] * videos)
        x_part, memory_part = (value.unflatten(0, (videos, 2))[mine].flatten(0, 1) for value in (x, memory))
        torch.manual_seed(1)
        ours = [parts[0](x_part), parts[1](x_part, memory_part, memory_part)[0]]
        for value, expected in zip(ours, whole, strict=True):
            torch.testing.assert_close(value, expected.unflatten(0, (videos, 2))[mine].flatten(0, 1))
    torch.testing.assert_close(parts.eval()[1](x, memory, memory)[0], attention.eval()(x, memory, memory)[0])
    assert parts[1].state_dict().keys() == attention.state_dict().keys()


def test_all_dropout_is_converted(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("is_initialized", True), ("get_world_size", 2), ("get_rank", 0)):
        monkeypatch.setattr(dist, name, lambda value=value: value)
    model = AVSModel(options(head={"layers": 2}))
    names = list(model.state_dict())
    distributed.convert_sync_batchnorm(model)
    assert list(model.state_dict()) == names
    left = [m for m in model.modules() if isinstance(m, nn.Dropout) and m.p]
    left += [m for m in model.modules() if isinstance(m, nn.MultiheadAttention) and m.dropout]
    # An encoder layer has one for its three places, a decoder layer four; each attention of the decoder has its own.
    # In a single process, PyTorch's attention draws the same.
    assert not left and sum(isinstance(m, Dropout) for m in model.modules()) == 2 * (1 + 4 + 2)


@pytest.mark.slow
def test_two_processes_train_as_one(composed: Path, tmp_path: Path) -> None:
    """One step with a frozen backbone and one without; dropout is active."""
    one, two = tmp_path / "one", tmp_path / "two"
    more = ["--data.fraction", "0.4", "--train.batch_size", "4", "--train.lr", "1e-6", "--fidelity", "published"]
    assert train.main(arguments(composed, one, *more)) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    command = [*launch, "supervised.train", *arguments(composed, two, *more)]
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
    assert run.returncode == 0, run.stderr[-3000:]
    logs = [pd.read_csv(run / "log.csv") for run in (one, two)]
    for name in ("loss", "main", "mix", "val_m_f"):
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=2e-3)
    (_, alone), (_, shared) = (state.load_state(run / "state.pt") for run in (one, two))
    moments = [saved["optimizer"]["state"] for saved in (alone, shared)]
    scale = max(float(value["exp_avg"].norm()) for value in moments[0].values())
    assert moments[0].keys() == moments[1].keys() and scale > 0
    for key, value in moments[0].items():
        apart = float((moments[1][key]["exp_avg"] - value["exp_avg"]).norm())
        assert apart <= 2e-3 * float(value["exp_avg"].norm()) + 1e-5 * scale


# --- precision and compilation ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, bound",
    [
        ("--train.precision bf16", 1e-2),
        pytest.param(
            "--train.compile true",
            1e-3,
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(
                    " " in torch.__file__, reason="PyTorch's compiler does not link in a folder with a space"
                ),
            ],
        ),
    ],
)
def test_bfloat16_and_compiled_runs(composed: Path, tmp_path: Path, more: str, bound: float) -> None:
    """A frozen and a trained backbone. Without dropout, whose draws a compiled kernel makes in another order.

    The learning rate is small, so that rounding does not grow from step to step: at 1e-3, the second epoch's loss in
    bfloat16 is 1 % off on one processor and 6 % on another; at 1e-6, at most .03 %.
    """
    plain = ["--data.fraction", "0.4", "--model.avsegformer.dropout", "0", "--train.lr", "1e-6"]
    assert train.main(arguments(composed, tmp_path / "plain", *plain)) == 0
    assert train.main(arguments(composed, tmp_path / "other", *plain, *more.split())) == 0
    logs = [pd.read_csv(tmp_path / run / "log.csv")[["loss", "main", "mix"]] for run in ("plain", "other")]
    np.testing.assert_allclose(logs[0], logs[1], rtol=bound)


# --- published checkpoints -------------------------------------------------------------------------------


def reference_state(model: AVSModel) -> dict[str, Tensor]:
    """The weights as AVSegFormer's code saves them, with VGGish and what it does not use."""
    assert model.vggish is not None
    state = {f"vggish.{key}": value for key, value in model.vggish.state_dict().items()}
    renames = {"head.encoder.": "head.transformer.encoder.", "head.decoder.": "head.transformer.decoder."}
    renames |= {"head.mixer.": "head.fusion_block.", "head.mlp.": "head.mlp.layers."}
    for key, value in model.segmentor.state_dict().items():
        name = next((new + key.removeprefix(old) for old, new in renames.items() if key.startswith(old)), key)
        if name.startswith(("backbone.layer3.", "backbone.layer4.")):
            state[name.replace(".layer3.", ".layer3_2.").replace(".layer4.", ".layer4_2.")] = torch.full_like(value, 3)
            name = name.replace(".layer3.", ".layer3_1.").replace(".layer4.", ".layer4_1.")
        state[name.replace("multihead_attn", "cross_attn") if "decoder" in name else name] = value
        if key.startswith("head.fc."):
            state[key.replace(".fc.", ".attn_fc.")] = torch.full_like(value, 3)
        if key.startswith("head.out_conv.0."):
            state |= {
                f"head.fpn.up{level}.1.{key.rpartition('.')[2]}": torch.full_like(value, 3) for level in (1, 2, 3)
            }
    return state


def reference_words(composed: Path, file: Path, *more: str) -> list[str]:
    words = arguments(composed, file.parent / "out", "--data.mask_size", "96", "--model.vggish.features", "12", *more)
    (file.parent / "row.yaml").write_text("fidelity: corrected\n")
    return ["--reference", str(file), "--config", str(file.parent / "row.yaml"), *words]


def test_evaluate_a_published_checkpoint(composed: Path, tmp_path: Path) -> None:
    """Under "published", with the VGGish that is in the file."""
    torch.manual_seed(3)
    model = AVSModel(options(), "published")
    file = tmp_path / "S4_best.pth"
    torch.save(reference_state(model), file)
    words = reference_words(composed, file, "--model.vggish.weights", str(tmp_path / "missing.pth"))
    assert evaluate.main([*words, "--masks"]) == 0
    result = pd.read_json(tmp_path / "out" / "metrics.json", typ="series")
    assert (result["fidelity"], result["mask_size"], list(result["checkpoints"])) == ("published", 96, [str(file)])
    asked = DataOptions("s4", composed / "Single-source", image_size=64, num_workers=0)
    clips = open_dataset(asked, model.inputs, "test")
    item = clips[0]
    with torch.no_grad():
        logits = model.eval()({"frames": item["frames"][None], "log_mel": item["log_mel"][None]}).logits
    predicted = nn.functional.interpolate(logits, (96, 96), mode="bilinear")[0] > 0
    folder_of_clip = tmp_path / "out" / "masks" / clips.clips[0].category / clips.clips[0].name
    masks = [np.asarray(Image.open(path)) > 0 for path in sorted(folder_of_clip.glob("*.png"))]
    assert (np.stack(masks) == predicted.numpy()).mean() > 0.999


@pytest.mark.parametrize(
    "change, message",
    [
        ("classes", "of an AVSegFormer with classes=71; this model has classes=1"),
        ("backbone", "of an AVSegFormer with a pvt_v2 backbone; this model has a resnet"),
        ("queries", "of an AVSegFormer before August 2023, without query generator, which is another model"),
        ("vggish", "VGGish in it: missing 1: features.0.weight"),
        ("stranger", "unexpected 1: head.stranger"),
    ],
)
def test_other_checkpoints(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], change: str, message: str
) -> None:
    state = reference_state(AVSModel(options(), "published"))
    if change == "classes":
        state["head.fc.4.weight"] = torch.zeros(71, *state["head.fc.4.weight"].shape[1:])
    elif change == "backbone":
        state["backbone.patch_embed1.proj.weight"] = torch.zeros(1)
    elif change == "queries":
        state = {key: value for key, value in state.items() if not key.startswith("head.query_generator.")}
    elif change == "vggish":
        del state["vggish.features.0.weight"]
    else:
        state["head.stranger"] = torch.zeros(1)
    file = tmp_path / "S4_best.pth"
    torch.save(state, file)
    assert evaluate.main(reference_words(composed, file)) == 1
    told = capsys.readouterr().err
    assert f"{file}: does not fit" in told and message in told and told.count("\n") == 1


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more, message",
    [
        ("--data.image_size 500", "data.image_size is 500; it must be a multiple of 32"),
        ("--model.channels 48", "model.channels is 48; it must be a multiple of 32 and of model.avsegformer.heads"),
        ("--model.avsegformer.heads 5", "it must be a multiple of 32 and of model.avsegformer.heads"),
        ("--model.avsegformer.hidden 15", "model.avsegformer.hidden is 15; it must be a multiple of 2"),
        ("--loss.distance kl", "loss.distance needs an audio feature at each stage, which the avsegformer segmentor"),
    ],
)
def test_bad_options(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, message: str
) -> None:
    assert train.main(arguments(composed, tmp_path / "run", *more.split())) == 1
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and not (tmp_path / "run").exists()
