"""The TPAVI segmentor and its losses: the original's figures, and the textbook form of the attention."""

import json
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from models import TPAVISegmentor
from models.backbones import build_backbone, load_imagenet, rename_pvt_key
from models.decoder import Atrous, Decoder, ResidualConv
from models.tpavi import TPAVI
from models.tpavi_segmentor import Segmentation
from reference.tpavi import tpavi as reference_tpavi
from supervised.losses import AVMOptions, resize_logits, segmentation_loss
from tests.helpers import golden_values as golden

FOLDER = Path(__file__).parents[1] / "golden"
FIGURES = np.load(FOLDER / "tpavi_seed1.npz")
NAMES = {"resnet50": "resnet", "pvt_v2_b5": "pvt"}


def reference_state(backbone: str, gain: float = 1.0) -> dict[str, torch.Tensor]:
    shapes = json.loads((FOLDER / f"tpavi_{NAMES[backbone]}_keys.json").read_text())
    kinds = {name: torch.long if name.endswith("num_batches_tracked") else torch.float32 for name in shapes}
    return golden.fill({name: torch.zeros(shape, dtype=kinds[name]) for name, shape in shapes.items()}, 1, gain=gain)


def relative(ours: torch.Tensor, theirs: np.ndarray) -> float:
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("backbone", list(NAMES))
def test_golden_forward_and_loss(backbone: str) -> None:
    model = TPAVISegmentor(backbone=backbone, stages=(0, 1, 2, 3)).load_reference(reference_state(backbone)).eval()
    frames = golden.tensor(1, "frames", (5, 3, 224, 224))[None]
    audio = golden.tensor(1, "vggish", (5, 128), "uniform")[None]
    with torch.no_grad():
        output = model.segment(frames, audio)
    name = NAMES[backbone]
    assert relative(output.logits[0, :, None, ::9, ::9], FIGURES[f"{name}_pred"]) < 1e-4
    whole = torch.stack([output.logits.mean(), output.logits.std()])
    assert relative(whole, FIGURES[f"{name}_pred_mean_std"]) < 1e-4
    for stage in range(4):
        assert relative(output.maps[stage][0, :, ::16, ::3, ::3], FIGURES[f"{name}_map{stage}"]) < 1e-4
        aligned = output.audio[stage]
        assert aligned is not None and relative(aligned[..., ::4], FIGURES[f"{name}_afea{stage}"]) < 1e-5
    truth = (golden.tensor(1, "gt", (1, 1, 1, 224, 224)) > 0.5).float()[:, :, 0]
    loss = segmentation_loss(output, truth, AVMOptions("cosine", weight=0.5))
    ours = torch.stack([loss.total, loss.bce, loss.avm]).double()
    assert relative(ours, FIGURES[f"{name}_loss_s4"]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("benchmark", ["s4", "ms3"])
def test_golden_trajectory(benchmark: str) -> None:
    """Four training steps. The first is exact, gradient included. Then Adam divides each gradient by its own size,
    which turns rounding in the near-zero ones into whole steps: the same code on one thread, two threads and in
    float64 spreads by 4e-4, 4e-3 and 2e-2 in the loss of steps 2, 3 and 4. The bounds are about twice that.
    """
    model = TPAVISegmentor().load_reference(reference_state("resnet50", gain=0.5)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    steps = json.loads((FOLDER / f"trajectory_tpavi_resnet_{benchmark}_seed1.json").read_text())
    avm = AVMOptions("kl", weight=0.5) if benchmark == "ms3" else None
    for k, (figures, bound) in enumerate(zip(steps, (1e-5, 1e-3, 1e-2, 5e-2), strict=True)):
        shape = (1, 1, 1, 224, 224) if benchmark == "s4" else (5, 1, 224, 224)
        truth = (golden.tensor(1, f"gt{k}", shape) > 0.5).float().reshape(1, -1, 224, 224)
        frames = golden.tensor(1, f"frames{k}", (5, 3, 224, 224))[None]
        audio = golden.tensor(1, f"vggish{k}", (5, 128), "uniform")[None]
        loss = segmentation_loss(output := model.segment(frames, audio), truth, avm)
        optimizer.zero_grad()
        loss.total.backward()
        grads = [p.grad for p in model.parameters() if p.grad is not None]
        norm = torch.stack([grad.norm() for grad in grads]).norm().item()
        optimizer.step()
        assert loss.total.item() == pytest.approx(figures["total"], rel=bound)
        assert loss.bce.item() == pytest.approx(figures["bce"], rel=bound)
        assert loss.avm.item() == pytest.approx(figures["avm"], rel=bound * 2, abs=1e-7)
        if k == 0:
            assert norm == pytest.approx(figures["grad_norm"], rel=1e-3)
            assert output.logits.mean().item() == pytest.approx(figures["logit_mean"], rel=1e-4)
            assert output.logits.std().item() == pytest.approx(figures["logit_std"], rel=1e-4)


@pytest.mark.parametrize("with_audio", [True, False])
@pytest.mark.parametrize("train", [True, False])
def test_linear_attention_equals_the_full_matrix(with_audio: bool, train: bool) -> None:
    torch.manual_seed(0)
    block = TPAVI(channels=16, audio_features=6).double().train(train)
    torch.nn.init.normal_(block.W_z[1].weight)
    maps = torch.randn(2, 5, 16, 4, 3, dtype=torch.float64, requires_grad=True)
    audio = torch.rand(2, 5, 6, dtype=torch.float64) if with_audio else None
    inputs = [maps, *(p for name, p in block.named_parameters() if with_audio or "align" not in name)]
    linear = block(maps, audio)[0]
    weights = torch.randn_like(linear)
    full = reference_tpavi(block, maps, audio)
    torch.testing.assert_close(linear, full)
    for a, b in zip(
        torch.autograd.grad((linear * weights).sum(), inputs),
        torch.autograd.grad((full * weights).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(a, b, atol=1e-9, rtol=1e-6)


def test_block_starts_as_the_identity() -> None:
    block = TPAVI(16, 6)
    maps = torch.randn(1, 5, 16, 2, 2)
    expected = block.norm_layer(maps.movedim(2, -1)).movedim(-1, 2)
    torch.testing.assert_close(block(maps, torch.rand(1, 5, 6))[0], expected)


def plain_decoder(decoder: Decoder, maps: list[torch.Tensor]) -> torch.Tensor:
    """AVSBench's decoder as one reads it in `model/ResNet_AVSModel.py`; the first ReLU of a unit works in place."""

    def refined(x: torch.Tensor, unit: ResidualConv) -> torch.Tensor:
        x = x.clamp(min=0)
        inner = F.conv2d(x, unit.conv1.weight, unit.conv1.bias, padding=1).clamp(min=0)
        return F.conv2d(inner, unit.conv2.weight, unit.conv2.bias, padding=1) + x

    x = torch.zeros_like(maps[3])
    for place, path in zip((3, 2, 1, 0), (decoder.path4, decoder.path3, decoder.path2, decoder.path1), strict=True):
        x = maps[3] if place == 3 else x + refined(maps[place], path.resConfUnit1)
        x = F.interpolate(refined(x, path.resConfUnit2), scale_factor=2, mode="bilinear", align_corners=True)
    first, _, second, _, last = decoder.output_conv
    x = F.interpolate(F.conv2d(x, first.weight, first.bias, padding=1), scale_factor=2, mode="bilinear")
    x = F.conv2d(x, second.weight, second.bias, padding=1).clamp(min=0)
    return F.conv2d(x, last.weight, last.bias)[:, 0]


def test_decoder_equals_the_plain_form() -> None:
    torch.manual_seed(5)
    decoder = Decoder(8).double()
    maps = [torch.randn(2, 8, 24 >> i, 16 >> i, dtype=torch.float64) for i in range(4)]
    for output in (decoder(maps), decoder([m.requires_grad_() for m in maps])):
        torch.testing.assert_close(output, plain_decoder(decoder, maps))
        assert output.shape == (2, 96, 64)


def test_atrous_convolutions_are_summed() -> None:
    torch.manual_seed(6)
    block = Atrous(6, 4).double()
    x = torch.randn(2, 6, 20, 22, dtype=torch.float64)
    parts = [
        F.conv2d(x, conv.weight, conv.bias, padding=rate, dilation=rate)
        for conv, rate in zip(block.conv2d_list, (3, 6, 12, 18), strict=True)
    ]
    torch.testing.assert_close(block(x), torch.stack(parts).sum(0))
    weights = torch.cat([conv.weight.flatten() for conv in Atrous(64, 16).conv2d_list])
    assert abs(weights.mean()) < 1e-3 and weights.std().item() == pytest.approx(0.01, rel=0.02)


def test_default_sizes_are_avsbenchs() -> None:
    block, decoder = TPAVI().state_dict(), Decoder().state_dict()
    assert block["align_channel.weight"].shape == (256, 128) and block["theta.weight"].shape == (128, 256, 1, 1, 1)
    assert decoder["path1.resConfUnit1.conv1.weight"].shape == (256, 256, 3, 3)
    assert [decoder[f"output_conv.{i}.weight"].shape[:2] for i in (0, 2, 4)] == [(128, 256), (32, 128), (1, 32)]


def small(attention: Literal["va", "vv", "both"] = "va", stages: tuple[int, ...] = (0, 1, 2, 3)) -> TPAVISegmentor:
    torch.manual_seed(1)
    model = TPAVISegmentor("resnet18", stages, attention, channels=16, audio_features=6).eval()
    for name, parameter in model.named_parameters():
        if "W_z.1.weight" in name:
            torch.nn.init.ones_(parameter)
    return model


def test_clips_of_a_batch_do_not_mix() -> None:
    model, frames, audio = small(), torch.randn(3, 5, 3, 64, 64), torch.rand(3, 5, 6)
    with torch.no_grad():
        together = model(frames, audio)
        apart = torch.cat([model(frames[i : i + 1], audio[i : i + 1]) for i in range(3)])
    assert together.shape == (3, 5, 64, 64)
    torch.testing.assert_close(together, apart, atol=1e-4, rtol=1e-4)


def test_sound_matters_only_where_it_should() -> None:
    frames, audio = torch.randn(1, 5, 3, 64, 64), torch.rand(1, 5, 6)
    with torch.no_grad():
        assert not torch.allclose(small()(frames, audio), small()(frames, audio + 1))
        assert torch.equal(small("vv")(frames, audio), small("vv")(frames, None))
        outputs = {kind: small(kind).segment(frames, audio) for kind in ("va", "vv", "both")}
    assert outputs["vv"].audio == [None] * 4
    assert small(stages=()).segment(frames, audio).audio == [None] * 4
    torch.testing.assert_close(outputs["both"].audio[3], outputs["va"].audio[3])
    with pytest.raises(ValueError, match="needs audio features"):
        small()(frames, None)


def test_faults() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        small()(torch.randn(1, 5, 3, 60, 64), torch.rand(1, 5, 6))
    with pytest.raises(ValueError, match="unknown backbone 'alexnet'"):
        TPAVISegmentor("alexnet")
    with pytest.raises(ValueError, match="stages"):
        TPAVISegmentor("resnet18", stages=(0, 4))
    state = reference_state("resnet50")
    del state["conv1.conv2d_list.0.weight"]
    state["stranger.weight"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match=r"missing 1: conv1\.conv2d_list\.0\.weight; unexpected 1: stranger"):
        TPAVISegmentor().load_reference(state)


@pytest.mark.parametrize("name", ["resnet18", "pvt_v2_b0"])
def test_public_imagenet_files_load(name: str) -> None:
    """A state dict in the public layout (classifier, old ResNets without counters) reaches every tensor."""
    source, target = build_backbone(name), build_backbone(name)
    state = {k: torch.randn_like(v) if v.is_floating_point() else v for k, v in source.state_dict().items()}
    if name.startswith("pvt"):
        public = {f"{_public_pvt(key)}": value for key, value in state.items()}
        assert {rename_pvt_key(key) for key in public} == set(state)
        public |= {"head.weight": torch.zeros(1000, 256), "head.bias": torch.zeros(1000)}
    else:
        public = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
        public |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    load_imagenet(target, public)
    for key, value in target.state_dict().items():
        assert torch.equal(value, state[key]), key
    public.pop(next(iter(public)))
    with pytest.raises(RuntimeError, match="Missing"):
        load_imagenet(target, public)


def _public_pvt(key: str) -> str:
    parts = key.split(".")
    if parts[0] == "patch_embed":
        return ".".join(["patch_embed1", *parts[1:]])
    level, kind = int(parts[1]) + 1, parts[2]
    rest = parts[3:]
    if "dwconv" in rest:
        rest.insert(rest.index("dwconv"), "dwconv")
    return ".".join([{"downsample": "patch_embed", "blocks": "block", "norm": "norm"}[kind] + str(level), *rest])


# Losses: each flag against its formula, written out for one frame at a time.


@pytest.fixture
def scene() -> tuple:
    torch.manual_seed(4)
    output = small().segment(torch.randn(2, 5, 3, 64, 96), torch.rand(2, 5, 6))
    output.logits = 0.4 * torch.randn(2, 5, 64, 96)  # pooled, on either side of the threshold and near it
    return output, (torch.rand(2, 5, 64, 96) > 0.5).float()


@pytest.mark.parametrize("pool", ["avg", "max"])
@pytest.mark.parametrize("distance", ["kl", "euclidean"])
@pytest.mark.parametrize("threshold, normalise, closer", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_masked_avm(scene: tuple, pool: str, distance: str, threshold: int, normalise: int, closer: int) -> None:
    output, truth = scene
    avm = AVMOptions(distance, 0.3, [1, 3], pool, bool(threshold), bool(normalise), bool(closer))  # type: ignore[arg-type]
    loss = segmentation_loss(output, truth, avm)
    expected = torch.zeros(())
    for stage in (1, 3):
        maps, audio = output.maps[stage].flatten(0, 1), output.audio[stage].flatten(0, 1)
        pooled = getattr(F, f"adaptive_{pool}_pool2d")(output.logits.flatten(0, 1)[:, None], maps.shape[-2:])
        visual = []
        for mask, features in zip(pooled.sigmoid(), maps, strict=True):
            if threshold:
                hard = (mask > 0.5).float()
                visual.append((hard * features).sum((1, 2)) / (hard.sum() + 1e-6))
            else:
                visual.append((mask * features).mean((1, 2)))
        v, a = torch.stack(visual), audio
        if normalise:
            v, a = F.normalize(v, dim=1), F.normalize(a, dim=1)
        targets = [a]
        if closer:
            apart = [[(a[i] - a[j]).norm() + (10 if i == j else 0) for j in range(10)] for i in range(10)]
            targets.append(v[[int(torch.stack(row).argmin()) for row in apart]])
        for target in targets:
            for t, s in zip(target, v, strict=True):
                if distance == "kl":
                    p, q = t.softmax(0), s.softmax(0)
                    expected = expected + (p * (p.log() - q.log())).sum()
                else:
                    expected = expected + (t - s + 1e-6).norm() / 10
    torch.testing.assert_close(loss.avm, expected / 2, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss.total, loss.bce + 0.3 * loss.avm)


def test_first_frame_supervision(scene: tuple) -> None:
    output, truth = scene
    expected = F.binary_cross_entropy_with_logits(output.logits[:, 0], truth[:, 0])
    torch.testing.assert_close(segmentation_loss(output, truth[:, :1]).total, expected)


def test_a_saturated_loss_is_bounded_and_nan_is_seen() -> None:
    """The logarithm is clamped at -100, as the original's on probabilities is; a NaN is the caller's to see."""
    masks = torch.ones(1, 5, 8, 8)
    for logit, expected in ((-200.0, 100.0), (200.0, 0.0), (float("nan"), float("nan"))):
        loss = segmentation_loss(Segmentation(torch.full((1, 5, 8, 8), logit), [], []), masks)
        torch.testing.assert_close(loss.total, torch.tensor(expected), equal_nan=True)
        assert loss.avm == 0


def test_logits_of_another_size_are_resized_first() -> None:
    torch.manual_seed(7)
    logits, masks = torch.randn(2, 5, 8, 8), (torch.rand(2, 5, 32, 32) > 0.5).float()
    resized = F.interpolate(logits, (32, 32), mode="bilinear", align_corners=False)
    assert resize_logits(resized, masks) is resized
    assert torch.equal(resize_logits(logits, masks), resized)
    expected = F.binary_cross_entropy_with_logits(resized, masks)
    torch.testing.assert_close(segmentation_loss(Segmentation(logits, [], []), masks).total, expected)


def test_avm_needs_audio() -> None:
    output = small("vv").segment(torch.randn(1, 5, 3, 64, 64), None)
    with pytest.raises(ValueError, match="no audio"):
        segmentation_loss(output, torch.zeros(1, 5, 64, 64), AVMOptions("kl"))
