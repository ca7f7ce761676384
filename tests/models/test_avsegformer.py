"""AVSegFormer: the original's figures, what its checkpoints must hold, and shortcuts beside their textbook forms."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models import AVSegFormer
from models.avsegformer import MaskPrediction
from models.avsegformer_transformer import EncoderLayer, Mixer, QueryGenerator, QueryLayer, sine_positions
from models.checkpoints import load_checkpoint
from models.deformable_attention import DeformableAttention, reference_points
from supervised.avsegformer_losses import mask_loss, semantic_mask_loss
from supervised.model import AVSModel
from supervised.model_options import AVSegFormerOptions, ModelOptions, VGGishOptions
from supervised.optim import build_optimizer
from supervised.options import TrainOptions
from tests.helpers import golden_values as golden
from utils.cli import InputError

FOLDER = Path(__file__).parents[1] / "golden"
S4, MORE, RECTANGLES, MODULES = (
    np.load(FOLDER / f"avsegformer_{name}_seed1.npz") for name in ("s4", "more", "rect", "modules")
)
NAMES = {"resnet50": "resnet", "pvt_v2_b5": "pvt"}
LEVELS = [(28, 28), (14, 14), (7, 7)]


def relative(ours: Tensor, theirs: np.ndarray | list[float]) -> float:
    return float(np.linalg.norm(ours.detach().numpy() - theirs) / np.linalg.norm(theirs))


def reference_shapes(backbone: str, classes: int = 1) -> dict[str, list[int]]:
    shapes = json.loads((FOLDER / f"avsegformer_{NAMES[backbone]}_keys.json").read_text())
    return shapes | {f"head.{name}.4.weight": [classes, 32, 1, 1] for name in ("fc", "attn_fc")}


def reference_state(backbone: str, classes: int = 1, gain: float = 1.0) -> dict[str, Tensor]:
    """The state dict of the original that the figures belong to, but for VGGish, which takes no part in them."""
    shapes = {k: v for k, v in reference_shapes(backbone, classes).items() if not k.startswith("vggish.")}
    kinds = {name: torch.long if name.endswith("num_batches_tracked") else torch.float32 for name in shapes}
    return golden.fill({name: torch.zeros(shape, dtype=kinds[name]) for name, shape in shapes.items()}, 1, gain=gain)


def clip(frames: str, audio: str, seconds: int, height: int, width: int) -> tuple[Tensor, Tensor]:
    images = golden.tensor(1, frames, (seconds, 3, height, width))[None]
    return images, golden.tensor(1, audio, (seconds, 128), "uniform")[None]


def published(backbone: str, classes: int = 1) -> AVSegFormer:
    return AVSegFormer(backbone, classes).load_reference(reference_state(backbone, classes)).eval()


def is_golden(logits: Tensor, figures: Any, name: str, step: tuple[int, int]) -> None:
    """Logits (T, H, W) against a sample of the original's, their mean and their deviation."""
    assert relative(logits[:, None, :: step[0], :: step[1]], figures[name]) < 1e-4
    assert relative(torch.stack([logits.mean(), logits.std()]), figures[f"{name}_mean_std"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list(NAMES))
def test_golden_frames_that_are_not_square(backbone: str) -> None:
    with torch.no_grad():
        logits = published(backbone)(*clip("frames_rect", "vggish_rect", 2, 160, 256))
    assert logits.shape == (1, 2, 160, 256)
    is_golden(logits[0], RECTANGLES, f"{NAMES[backbone]}_rect_logits", (7, 9))


class Recorder:
    """Keeps what modules are given and what they return."""

    def __init__(self, model: AVSegFormer) -> None:
        self.given: dict[str, Any] = {}
        self.returned: dict[str, Any] = {}
        head = model.head
        modules = {"backbone": model.backbone, "audio_proj": model.audio_proj, "encoder": head.encoder}
        modules |= {"decoder": head.decoder, "mixer": head.mixer, "fc": head.fc, "out_conv": head.out_conv}
        for name, module in modules.items():
            module.register_forward_hook(self._keep(name))

    def _keep(self, name: str) -> Callable[..., None]:
        def hook(module: nn.Module, given: Any, returned: Any) -> None:
            self.given[name], self.returned[name] = given, returned

        return hook


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list(NAMES))
def test_golden_parts_and_losses(backbone: str) -> None:
    name, model = NAMES[backbone], published(backbone)
    parts = Recorder(model)
    frames, audio = clip("frames", "vggish", 5, 224, 224)
    with torch.no_grad():
        output = model.segment(frames, audio)
    is_golden(output.logits[0], S4, f"{name}_logits", (9, 9))
    features = parts.given["fc"][0]
    sampled = {
        "audio_feat": parts.returned["audio_proj"][0, :, ::8],
        "query": parts.given["decoder"][0][:, ::30, ::16],
        "src": parts.given["encoder"][0][:, ::41, ::16],
        "pos": parts.given["encoder"][1][::41, ::16],
        "memory": parts.returned["encoder"][:, ::41, ::16],
        "decoded": parts.returned["decoder"][:, ::30, ::16],
        "mask_before": parts.returned["out_conv"][:, ::16, ::9, ::9],
        "gate": parts.returned["mixer"][:, ::4],
        "mask_feature": output.mask_feature[0, :, ::16, ::9, ::9],
        "pred_feature": (features - output.mask_feature[0])[:, ::16, ::9, ::9],
    }
    for level, x in enumerate(parts.returned["backbone"], 1):
        sampled[f"x{level}"] = x[:, ::32, ::7, ::7]
        assert relative(torch.stack([x.mean(), x.std()]), S4[f"{name}_x{level}_mean_std"]) < 1e-4
    for part, ours in sampled.items():
        assert relative(ours, S4[f"{name}_{part}"]) < 1e-4, part
    masks = {"s4": golden.tensor(1, "gt", (1, 1, 1, 224, 224)), "ms3": golden.tensor(1, "gt5", (5, 1, 224, 224))}
    for benchmark, values in masks.items():
        for form in ("dice", "bce"):
            loss = mask_loss(output, (values > 0.5).float().view(1, -1, 224, 224), form)  # type: ignore[arg-type]
            ours = torch.stack([loss.total, loss.main, loss.mix])
            assert relative(ours, S4[f"{name}_loss_{benchmark}_{form}"]) < 1e-5
    with torch.no_grad():
        other = model(frames, golden.tensor(1, "vggish_other", (5, 128), "uniform")[None])
    assert relative(other[0, :, None, ::9, ::9], S4[f"{name}_logits_other_audio"]) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list(NAMES))
def test_golden_at_512(backbone: str) -> None:
    with torch.no_grad():
        logits = published(backbone)(*clip("frames512", "vggish512", 2, 512, 512))
    is_golden(logits[0], MORE, f"{NAMES[backbone]}_512_logits", (21, 21))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list(NAMES))
def test_golden_avss_with_padded_frames(backbone: str) -> None:
    name, model = NAMES[backbone], published(backbone, classes=71)
    frames, audio = clip("framesavss", "vggishavss", 10, 224, 224)
    valid = torch.tensor([[1.0] * 5 + [0.0] * 5])
    with torch.no_grad():
        output = model.segment(frames, audio, valid=valid)
    logits = output.logits[0]
    assert logits.shape == (10, 71, 224, 224)
    assert relative(logits[:5, ::10, ::16, ::16], MORE[f"{name}_avss_logits"]) < 1e-4
    whole = torch.stack([logits[:5].mean(), logits[:5].std()])
    assert relative(whole, MORE[f"{name}_avss_logits_mean_std"]) < 1e-4
    agree = logits.argmax(1)[:5, ::16, ::16].numpy() == MORE[f"{name}_avss_argmax"]
    assert agree.mean() > 0.998  # two classes may be as close as rounding
    assert not logits[5:].any() and not output.mask_feature[0, 5:].any()
    labels = (4 * golden.tensor(1, "avss_label", (10, 224, 224), "uniform")).floor().long() * 17
    loss = semantic_mask_loss(output, labels[None], torch.tensor([[1.0] + [0.0] * 9]))
    assert relative(torch.stack([loss.total, loss.main, loss.mix]), MORE[f"{name}_avss_loss"]) < 1e-5


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """Of backbone, head and audio_proj, and of all."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts.setdefault(name.partition(".")[0], []).append(parameter.grad.norm())
    norms = {name: torch.stack(found).norm().item() for name, found in parts.items()}
    return norms | {"all": float(np.linalg.norm(list(norms.values())))}


@pytest.mark.slow
@pytest.mark.parametrize("run", ["resnet_s4_full", "resnet_s4_frozen", "resnet_ms3_full", "pvt_s4_full"])
def test_golden_trajectory(run: str) -> None:
    """Steps on the same clip, as a run under "published" makes them. Batch statistics of a frozen backbone go on."""
    figures = json.loads((FOLDER / f"avsegformer_trajectory_{run}_seed1.json").read_text())
    backbone = "resnet50" if run.startswith("resnet") else "pvt_v2_b5"
    options = ModelOptions("avsegformer", backbone=backbone, avsegformer=AVSegFormerOptions(dropout=0.0))  # type: ignore[arg-type]
    options.vggish = VGGishOptions("random", [4, 4, 4, 8], 16)
    whole = AVSModel(options, "published")
    model = whole.segmentor
    assert isinstance(model, AVSegFormer)
    model.load_reference(reference_state(backbone, gain=0.5))
    for module in model.modules():
        if type(module).__name__ == "DropPath":
            module.drop_prob = 0.0  # type: ignore[assignment]
    start = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = build_optimizer(whole, TrainOptions(lr=2e-5, optimizer="adamw", weight_decay=1e-2), "published")
    whole.freeze_backbone("frozen" in run)
    whole.train()
    frames, audio = clip("frames", "vggish", 5, 224, 224)
    truth = golden.tensor(1, "gt5", (5, 1, 224, 224)) if "ms3" in run else golden.tensor(1, "gt", (1, 1, 1, 224, 224))
    masks = (truth > 0.5).float().view(1, -1, 224, 224)
    # Of loss and gradient norm: the optimizer divides each gradient by its own size, which makes steps of rounding.
    for step, close, bound in zip(figures["steps"], (1e-5, 2e-5, 5e-5), (2e-4, 2e-3, 2e-2), strict=False):
        output = whole({"frames": frames, "audio_features": audio}, masks.shape[1])
        loss = mask_loss(output, masks)
        optimizer.zero_grad()
        loss.total.backward()
        assert loss.total.item() == pytest.approx(step["total"], rel=close)
        assert loss.main.item() == pytest.approx(step["iou"], rel=close)
        assert loss.mix.item() == pytest.approx(step["mix"], rel=close)
        norms = gradient_norms(model)
        assert norms.pop("all") == pytest.approx(step["grad_norm"], rel=bound)
        for part, norm in norms.items():
            assert norm == pytest.approx(step["grad_norm_by_part"][part], rel=0, abs=bound * step["grad_norm"])
        if "ms3" in run:  # else the figures are those of all frames, and the head sees the first alone
            assert output.logits.std().item() == pytest.approx(step["logits_std"], rel=bound)
        optimizer.step()
    for name, norm in figures.get("running_norm", {}).items():
        ours = model.state_dict()[name.replace("layer4_1", "layer4")]
        assert ours.norm().item() == pytest.approx(norm, rel=1e-3)
    for part, norm in figures["update_norm"].items():
        moved = [(p.detach() - start[n]).norm() for n, p in model.named_parameters() if n.startswith(f"{part}.")]
        assert torch.stack(moved).norm().item() == pytest.approx(norm, rel=1e-2, abs=1e-12)


# Modules, each filled by its own names.


def filled(module: Any) -> Any:
    module.load_state_dict(golden.fill(module.state_dict(), 1))
    return module.eval()


def test_golden_positions() -> None:
    ours = sine_positions(7, 5, 256).T.unflatten(1, (7, 5))
    assert relative(ours[::8], MODULES["positional_7x5"]) < 1e-6


def test_golden_query_generator_and_mixer() -> None:
    audio = golden.tensor(1, "audio_feat", (2, 1, 256))[:, 0]
    queries = filled(QueryGenerator(300, 6, 256, 8, 1024))(audio)
    assert relative(queries[:, ::20, ::8], MODULES["generator_out"]) < 1e-5
    maps = golden.tensor(1, "mixer_map", (2, 256, 14, 14))
    mixed = maps * filled(Mixer(256, 8))(maps, audio)[:, :, None, None]
    assert relative(mixed[:, ::8, ::3, ::3], MODULES["mixer_out"]) < 1e-5


def test_golden_encoder_and_decoder_layer() -> None:
    tokens = golden.tensor(1, "deform_value", (2, 1029, 256))
    positions = golden.tensor(1, "deform_pos", (1, 1029, 256))[0]
    encoded = filled(EncoderLayer(256, 8, 2048, 3, 0.1))(tokens, positions, reference_points(LEVELS), LEVELS)
    assert relative(encoded[:, ::21, ::8], MODULES["encoder_layer_out"]) < 1e-5
    layer = nn.TransformerDecoderLayer(256, 8, 2048, 0.1, activation="gelu", batch_first=True)
    theirs = {key.replace("multihead_attn", "cross_attn"): value for key, value in layer.state_dict().items()}
    ours = {key.replace("cross_attn", "multihead_attn"): value for key, value in golden.fill(theirs, 1).items()}
    layer.load_state_dict(ours)
    decoded = layer.eval()(golden.tensor(1, "decoder_query", (2, 300, 256)), tokens)
    assert relative(decoded[:, ::20, ::8], MODULES["decoder_layer_out"]) < 1e-5


# Shortcuts, each beside the form that it replaces.


def test_attention_to_one_audio_feature() -> None:
    torch.manual_seed(0)
    layer = QueryLayer(16, 4, 32).double()
    queries, audio = torch.randn(3, 5, 16, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    ours = layer(queries, audio)
    x = layer.norm1(queries + layer.self_attn(queries, queries, queries)[0])
    x = layer.norm2(x + layer.cross_attn(x, audio[:, None], audio[:, None])[0])
    torch.testing.assert_close(ours, layer.norm3(x + layer.ffn(x)))
    # The optimizer decays what has a gradient, be it zero.
    ours.square().sum().backward()
    gradient = layer.cross_attn.in_proj_weight.grad
    assert gradient is not None and not gradient[:32].any() and gradient[32:].any()


def test_the_mixer_projects_its_query_and_its_result() -> None:
    torch.manual_seed(0)
    mixer = Mixer(16, 4).double()
    maps, audio = torch.randn(3, 16, 6, 5, dtype=torch.float64), torch.randn(3, 16, dtype=torch.float64)
    key, value = mixer.kv_proj(maps.flatten(2).mT).unflatten(-1, (2, 4, 4)).permute(2, 0, 3, 1, 4)
    query = mixer.q_proj(audio).unflatten(-1, (4, 1, 4))
    read = F.scaled_dot_product_attention(query, key, value)
    torch.testing.assert_close(mixer(maps, audio), mixer.proj(read.flatten(1)).sigmoid())


def test_the_products_with_the_queries_need_not_exist() -> None:
    head = tiny().head.double()
    decoded, feature = torch.randn(2, 7, 32, dtype=torch.float64), torch.randn(2, 32, 6, 4, dtype=torch.float64)
    x = torch.einsum("nqc,nchw->nqhw", decoded, feature)
    expected = head.mlp[2](head.mlp[1](head.mlp[0](x).relu()).relu())
    torch.testing.assert_close(head._mix_queries(decoded, feature), expected)


# What holds at any size.


def tiny(classes: int = 1, dropout: float = 0.0, fidelity: Any = "corrected") -> AVSegFormer:
    torch.manual_seed(1)
    sizes: dict[str, Any] = {"channels": 32, "heads": 4, "layers": 2, "queries": 7, "hidden": 64, "audio_features": 6}
    return AVSegFormer("resnet18", classes, dropout=dropout, fidelity=fidelity, **sizes).eval()


def tiny_clips(batch: int = 2, seconds: int = 3) -> tuple[Tensor, Tensor]:
    torch.manual_seed(2)
    return torch.randn(batch, seconds, 3, 64, 96), torch.rand(batch, seconds, 6)


def test_every_second_is_segmented_alone() -> None:
    model, (frames, audio) = tiny(), tiny_clips()
    with torch.no_grad():
        together = model(frames, audio)
        alone = model(frames[1:, 2:], audio[1:, 2:])
        assert not torch.allclose(model(frames, audio + 1), together)
    assert together.shape == (2, 3, 64, 96) and alone.shape == (1, 1, 64, 96)
    torch.testing.assert_close(alone, together[1:, 2:], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(32, 32), (32, 160), (128, 96)])
def test_any_multiple_of_32(size: tuple[int, int]) -> None:
    with torch.no_grad():
        output = tiny(classes=3).segment(torch.randn(1, 2, 3, *size), torch.rand(1, 2, 6))
    assert output.logits.shape == (1, 2, 3, *size) and output.logits.isfinite().all()
    assert output.mask_feature.shape == (1, 2, 32, size[0] // 4, size[1] // 4) and output.mask_feature.min() >= 0


@pytest.mark.parametrize("train, kind", [(True, "valid"), (False, "valid"), (True, "decoded")])
def test_only_frames_that_are_asked_for_reach_the_head(train: bool, kind: str) -> None:
    """In training all frames make the published batch statistics, and gradients are those of the same among all."""
    frames, audio = tiny_clips()
    valid = torch.tensor([[1, 1, 0], [0, 1, 1]])
    gradients = []
    for ask in ({}, {kind: valid, "num_labeled": 2}):
        model = tiny(classes=3, fidelity="published").train(train)
        output = model.segment(frames, audio, **ask)  # type: ignore[arg-type]
        logits, feature = (x[:, :2] * valid[:, :2, None, None, None] for x in (output.logits, output.mask_feature))
        (logits.cos().sum() + feature.square().sum()).backward()
        gradients.append([logits.detach(), feature.detach(), *(p.grad for p in model.parameters())])
    assert model.segment(frames, audio, num_labeled=1).logits.shape == (2, 1, 3, 64, 96)
    for name, all_frames, few in zip(["logits", "feature", *dict(model.named_parameters())], *gradients, strict=True):
        torch.testing.assert_close(all_frames, few, rtol=1e-3, atol=1e-3, msg=name)


@pytest.mark.parametrize("fidelity, train", [("corrected", True), ("corrected", False), ("published", True)])
def test_corrected_does_not_see_padding(fidelity: str, train: bool) -> None:
    """Neither what padding holds nor its presence changes real frames or batch statistics."""
    frames, audio = tiny_clips()
    valid = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    loud_frames, loud_audio = frames.clone(), audio.clone()
    loud_frames[1, 2], loud_audio[1, 2] = 7.0, 3.0
    real = valid.bool()
    alone = {"frames": frames[real][None], "audio": audio[real][None]}
    found = []
    for clips in ((frames, audio, valid), (loud_frames, loud_audio, valid), (alone["frames"], alone["audio"], None)):
        model = tiny(classes=3, fidelity=fidelity).train(train)
        with torch.no_grad():
            output = model.segment(clips[0], clips[1], valid=clips[2])
        kept = real if clips[2] is not None else torch.ones(1, 5, dtype=torch.bool)
        assert not output.logits[~kept].any() and not output.mask_feature[~kept].any()
        buffers = dict(model.named_buffers())
        found.append({"logits": output.logits[kept], "feature": output.mask_feature[kept], **buffers})
    for other in found[1:]:
        if fidelity == "corrected":
            torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-5)
        else:  # in training padding enters batch statistics
            assert not torch.allclose(other["backbone.bn1.running_mean"], found[0]["backbone.bn1.running_mean"])


@pytest.mark.parametrize("train, passed", [(True, 6), (False, 5)])
def test_published_padding_passes_the_backbone_in_training_only(train: bool, passed: int) -> None:
    model, seen = tiny(classes=3, fidelity="published").train(train), []
    model.backbone.register_forward_pre_hook(lambda _, given: seen.append(len(given[0])))
    with torch.no_grad():
        model(*tiny_clips(), torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]]))
    assert seen == [passed]


def test_dropout_is_where_the_original_has_it() -> None:
    model, (frames, audio) = tiny(dropout=0.5), tiny_clips()
    layers = [module for name, module in model.named_modules() if name.startswith(("head.encoder", "head.decoder"))]
    assert {m.p for m in layers if isinstance(m, nn.Dropout)} == {0.5}
    attention = [m for m in model.modules() if isinstance(m, nn.MultiheadAttention)]
    assert sorted(m.dropout for m in attention) == [0.0] * 4 + [0.5] * 4  # query generator, decoder
    with torch.no_grad():
        torch.testing.assert_close(model(frames, audio), tiny()(frames, audio))


def test_initialization() -> None:
    head = tiny().head
    apart = {p for m in head.modules() if isinstance(m, DeformableAttention) for p in m.parameters()}
    skipped = {*apart, head.level_embed, head.fc[4].weight}  # the last has too few numbers to tell
    for parameter in (p for p in head.parameters() if p.dim() > 1 and p not in skipped):
        area = parameter[0, 0].numel()
        limit = (6 / (area * sum(parameter.shape[:2]))) ** 0.5
        assert 0.8 * limit < parameter.abs().max() <= limit * (1 + 1e-6)
    assert 0.7 < head.level_embed.std() < 1.3


def test_bfloat16() -> None:
    model, (frames, audio) = tiny(), tiny_clips(1, 2)
    with torch.no_grad():
        expected = model(frames, audio)
        with torch.autocast("cpu", torch.bfloat16):
            half = model(frames, audio)
    assert (half.float() - expected).norm() < 0.05 * expected.norm()


@pytest.mark.slow
def test_compiled() -> None:
    """One graph, forward and backward. Its kernels are PyTorch's own, so that no compiler is needed."""
    model, (frames, audio) = tiny(), tiny_clips(1, 2)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    outputs = [run(frames, audio) for run in (model, compiled)]
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-5)
    parameters = list(model.head.parameters())
    gradients = [torch.autograd.grad(output.square().sum(), parameters) for output in outputs]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("size", [(60, 64), (64, 100)])
def test_sizes_that_are_no_multiples_of_32(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=rf"^frames are {size[1]}×{size[0]}; both sides must be multiples of 32$"):
        tiny()(torch.randn(1, 1, 3, *size), torch.rand(1, 1, 6))


def test_audio_of_other_frames() -> None:
    with pytest.raises(ValueError, match=r"^audio is for \(2, 3\) \(clips, seconds\), frames \(1, 3\)$"):
        tiny()(torch.randn(1, 3, 3, 64, 64), torch.rand(2, 3, 6))


# Checkpoints. On the meta device nothing has values, so whole state dicts cost nothing.


def hollow(backbone: str = "resnet50", classes: int = 1) -> AVSegFormer:
    with torch.device("meta"):
        return AVSegFormer(backbone, classes)


def hollow_state(backbone: str = "resnet50", classes: int = 1) -> dict[str, Tensor]:
    shapes = reference_shapes(backbone, classes)
    kinds = {name: torch.long if name.endswith("num_batches_tracked") else torch.float32 for name in shapes}
    return {name: torch.empty(shape, dtype=kinds[name], device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    "backbone, classes, entries, parameters",
    [
        # The published numbers, less VGGish, the second branch, head.fpn and head.attn_fc.
        ("resnet50", 1, 853 - 18 - 174 - 6 - 5, 150_902_528 - 72_141_184 - 22_063_104 - 1_770_240 - 331_968),
        ("resnet50", 71, 853 - 18 - 174 - 6 - 5, 150_907_008 - 72_141_184 - 22_063_104 - 1_770_240 - 334_208),
        ("pvt_v2_b5", 1, 1413 - 18 - 6 - 5, 186_053_504 - 72_141_184 - 1_770_240 - 331_968),
        ("pvt_v2_b5", 71, 1413 - 18 - 6 - 5, 186_057_984 - 72_141_184 - 1_770_240 - 334_208),
    ],
)
@pytest.mark.filterwarnings("ignore:for .*copying from a non-meta parameter:UserWarning")
def test_a_published_state_dict_is_used_entirely(backbone: str, classes: int, entries: int, parameters: int) -> None:
    model = hollow(backbone, classes).load_reference(hollow_state(backbone, classes))
    assert len(model.state_dict()) == entries
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("backbone, used, unused", [("resnet50", 650, 203), ("pvt_v2_b5", 1384, 29)])
def test_strict_in_both_directions(backbone: str, used: int, unused: int) -> None:
    """Of every single entry it is seen if it is missing, has another shape, or is not AVSegFormer's."""
    model, whole = hollow(backbone), hollow_state(backbone)
    last = "head.fc.4.weight"
    reshaped = {key: torch.empty(*value.shape, 2, device="meta") for key, value in whole.items()}
    with pytest.raises(RuntimeError, match=rf"^unexpected {unused}: [^;]*; misshapen {used}: [^;]*$"):
        model.load_reference(reshaped)
    told_by = [last, "head.query_generator.query.weight", "backbone.patch_embed1.proj.weight", "backbone.conv1.weight"]
    kept = {key: whole[key] for key in told_by if key in whole}
    with pytest.raises(RuntimeError, match=rf"^missing {used - 3}: \S+ \S+ \S+ \.\.\.$"):
        model.load_reference(kept)
    with pytest.raises(RuntimeError, match=r"^missing 1: head\.fc\.4\.weight; unexpected 1: head\.stranger$"):
        model.load_reference({"head.stranger" if key == last else key: value for key, value in whole.items()})


def test_other_models(tmp_path: Path) -> None:
    """One line each, also of a file, which it names."""
    old = {key: value for key, value in hollow_state().items() if "query_generator" not in key}
    cases = {
        r"the weights are of an AVSegFormer with a pvt_v2 backbone; this model has a resnet": hollow_state("pvt_v2_b5"),
        r"the weights are of an AVSegFormer with classes=71; this model has classes=1": hollow_state(classes=71),
        r"the weights are of an AVSegFormer before August 2023, without query generator, .*": old,
        r"missing \d+: .*; unexpected 1: module\.weight": {"module.weight": torch.empty(1, device="meta")},
    }
    model = hollow()
    for message, state in cases.items():
        with pytest.raises(RuntimeError, match=f"^{message}$"):
            model.load_reference(state)
        if len(state) > 1:
            path = tmp_path / "S4_best.pth"
            named = ("head.fc.4.weight", "backbone.conv1.weight", "backbone.patch_embed1.proj.weight")
            kept = [key for key in state if key in named or key.startswith("head.query_generator.query")]
            torch.save({key: torch.zeros(state[key].shape) for key in kept}, path)
            with pytest.raises(InputError, match=f"S4_best.pth: does not fit AVSegFormer: {message}$"):
                load_checkpoint(model, path, model.load_reference)
    with pytest.raises(RuntimeError, match=r"with a resnet backbone; this model has a pvt_v2$"):
        hollow("pvt_v2_b5").load_reference(hollow_state())
    with pytest.raises(ValueError, match="unknown backbone 'alexnet'"):
        AVSegFormer("alexnet")


# Losses.

LOSSES = json.loads((FOLDER / "avsegformer_losses_seed1.json").read_text())


def loss_and_gradients(loss: Callable[[MaskPrediction], Any], logits: Tensor, feature: Tensor) -> tuple[Tensor, Tensor]:
    output = MaskPrediction(logits.requires_grad_(), feature.requires_grad_())
    found = loss(output)
    gradients = torch.autograd.grad(found.total, [output.logits, output.mask_feature])
    return torch.stack([found.total, found.main, found.mix]), torch.stack([g.norm() for g in gradients])


@pytest.mark.parametrize("form", ["dice", "bce"])
@pytest.mark.parametrize("benchmark", ["s4", "ms3"])
def test_golden_losses(benchmark: str, form: Any) -> None:
    masks = (golden.tensor(1, "loss_gt", (10, 1, 48, 48)) > 0.5).float().view(2, 5, 48, 48)
    masks[0, 3] = 0
    masks = masks[:, :1] if benchmark == "s4" else masks
    logits = golden.tensor(1, "loss_pred", (10, 1, 48, 48), scale=2).view(2, 5, 48, 48)
    feature = golden.tensor(1, "loss_feature", (10, 256, 12, 12)).view(2, 5, 256, 12, 12)
    terms, gradients = loss_and_gradients(lambda output: mask_loss(output, masks, form), logits, feature)
    assert relative(terms, LOSSES[f"{benchmark}_{form}"]) < 1e-5
    assert relative(gradients, LOSSES[f"{benchmark}_{form}_grad_norm"]) < 1e-5


def test_golden_semantic_loss() -> None:
    logits = golden.tensor(1, "loss_avss_pred", (20, 71, 24, 24)).view(2, 10, 71, 24, 24)
    feature = golden.tensor(1, "loss_avss_feature", (20, 256, 6, 6)).view(2, 10, 256, 6, 6)
    labels = (4 * golden.tensor(1, "loss_avss_label", (20, 24, 24), "uniform")).floor().long().view(2, 10, 24, 24) * 17
    labelled = torch.tensor([[1] + [0] * 9, [1] * 10])
    terms, gradients = loss_and_gradients(lambda o: semantic_mask_loss(o, labels, labelled), logits, feature)
    assert relative(terms, LOSSES["avss"]) < 1e-5
    assert relative(gradients, LOSSES["avss_grad_norm"]) < 1e-5


def test_an_empty_mask_teaches_nothing() -> None:
    logits, feature = torch.randn(1, 1, 8, 8), torch.rand(1, 1, 4, 2, 2)
    terms, gradients = loss_and_gradients(lambda output: mask_loss(output, torch.zeros(1, 1, 8, 8)), logits, feature)
    torch.testing.assert_close(terms, torch.tensor([1.1, 1.0, 0.1]))
    assert not gradients.any()


@pytest.mark.parametrize("form", ["dice", "bce"])
def test_a_loss_of_nan_is_nan(form: Any) -> None:
    output = MaskPrediction(torch.full((1, 1, 8, 8), torch.nan), torch.rand(1, 1, 4, 2, 2))
    assert mask_loss(output, torch.ones(1, 1, 8, 8), form).total.isnan()
