"""The semantic segmentors: the original's figures, and clips of five and ten seconds in one batch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import AudioCLIPSegmentor, TPAVISegmentor
from models.tpavi import TPAVI
from models.tpavi_segmentor import Segmentation
from supervised.losses import _distances, semantic_loss, semantic_segmentation_loss
from supervised.options import AVMOptions
from tests.helpers import golden_values as golden
from tests.helpers.tiny_checkpoints import SIZES
from tests.models.test_tpavi import NAMES, reference_state, relative

FOLDER = Path(__file__).parents[1] / "golden"
FIGURES = np.load(FOLDER / "avss_tpavi_seed1.npz")
FLAG = torch.tensor([[1.0] * 10, [1.0] * 5 + [0.0] * 5])
CLASSES = torch.tensor([0, 0, 0, 2, 17, 28, 41, 66, 70])
LOSSES = [  # rows of the figures
    AVMOptions("kl", background=0),
    AVMOptions("kl", avm_vv=True, background=0),
    AVMOptions("euclidean", normalize=True, background=0),
    AVMOptions("kl", binarize=True, background=0),
    AVMOptions("euclidean", normalize=True, avm_vv=True, background=0),
]


def semantic_state(backbone: str, gain: float = 1.0) -> dict[str, torch.Tensor]:
    """AVSBench's state dict for AVSS: 71 classes, and no bias in the layers that align audio."""
    state = {name: value for name, value in reference_state(backbone, gain).items() if "align_channel.bias" not in name}
    last = {name: torch.zeros(71, *value.shape[1:]) for name, value in state.items() if "output_conv.4." in name}
    return state | golden.fill(last, 1, gain=gain)


def labels(name: str, frames: int, size: int) -> torch.Tensor:
    """Labels of two clips of ten frames in 8 × 8 blocks, background in padding."""
    picked = CLASSES[(9 * golden.tensor(1, name, (frames, 8, 8), "uniform")).floor().long()]
    blocks = picked.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)
    return blocks.view(2, 10, size, size) * FLAG[:, :, None, None].long()


@pytest.mark.slow
@pytest.mark.parametrize("backbone", list(NAMES))
def test_golden_forward_and_loss(backbone: str) -> None:
    state = semantic_state(backbone)
    assert len(state) == {"resnet50": 626, "pvt_v2_b5": 1186}[backbone]
    model = TPAVISegmentor(backbone, classes=71).load_reference(state).eval()
    frames = golden.tensor(1, "avss_frames", (20, 3, 224, 224)).view(2, 10, 3, 224, 224) * FLAG[:, :, None, None, None]
    audio = golden.tensor(1, "avss_vggish", (20, 128), "uniform").view(2, 10, 128) * FLAG[:, :, None]
    with torch.no_grad():
        output = model.segment(frames, audio, valid=FLAG)
    logits, name = output.logits.flatten(0, 1), NAMES[backbone]
    assert relative(logits[:, ::7, ::23, ::23], FIGURES[f"{name}_pred"]) < 1e-4
    assert relative(torch.stack([logits.mean(), logits.std()]), FIGURES[f"{name}_pred_mean_std"]) < 1e-4
    assert relative(logits.mean((1, 2, 3)), FIGURES[f"{name}_frame_mean"]) < 1e-4
    assert relative(logits.std((1, 2, 3)), FIGURES[f"{name}_frame_std"]) < 1e-4
    assert (logits.argmax(1)[:, ::8, ::8].numpy() != FIGURES[f"{name}_argmax"]).sum() <= 2  # of 15 680
    assert not logits[15:].any()
    for stage in range(4):
        assert (
            relative(output.maps[stage].flatten(0, 1).flatten(1).norm(dim=1), FIGURES[f"{name}_map{stage}_norm"]) < 1e-5
        )
        aligned = output.audio[stage]
        assert aligned is not None and relative(aligned.flatten(0, 1)[:, ::16], FIGURES[f"{name}_afea{stage}"]) < 1e-5
    classes = labels("avss_label224", 20, 224)
    for clip, labeled in (("v1s", 1), ("v1m", 5)):
        weight = torch.stack([torch.ones(10), (torch.arange(10) < labeled).float()])
        for options, figures in zip(LOSSES, FIGURES[f"{name}_loss_v2_{clip}"], strict=True):
            loss = semantic_segmentation_loss(output, classes, weight, options, "published")
            assert relative(torch.stack([loss.total, loss.bce, loss.avm]).double(), figures) < 1e-5


@pytest.mark.slow
def test_golden_trajectory() -> None:
    """Four training steps, within the bounds that the figures' README gives."""
    model = TPAVISegmentor(classes=71).load_reference(semantic_state("resnet50", 0.5)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    weight = torch.stack([torch.ones(10), (torch.arange(10) < 1).float()])
    steps = json.loads((FOLDER / "avss_trajectory_resnet_seed1.json").read_text())["steps"]
    for k, figures in enumerate(steps[:3]):
        frames = golden.tensor(1, f"avss_train_frames{k}", (20, 3, 64, 64)).view(2, 10, 3, 64, 64)
        audio = golden.tensor(1, f"avss_train_vggish{k}", (20, 128), "uniform").view(2, 10, 128)
        flagged = frames * FLAG[:, :, None, None, None], audio * FLAG[:, :, None]
        output = model.segment(*flagged, valid=FLAG, decoded=weight)
        classes = labels(f"avss_train_label{k}", 20, 64)
        loss = semantic_segmentation_loss(output, classes, weight, AVMOptions("kl", background=0), "published")
        optimizer.zero_grad()
        loss.total.backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm().item()
        optimizer.step()
        assert loss.total.item() == pytest.approx(figures["total"], rel=1e-3)
        if k < 2:
            assert norm == pytest.approx(figures["grad_norm"], rel=2e-3)
            assert loss.bce.item() == pytest.approx(figures["ce"], rel=1e-4)
            assert loss.avm.item() == pytest.approx(figures["avm"], rel=1e-3)


def small(fidelity: str = "corrected", attention: str = "va") -> TPAVISegmentor:
    torch.manual_seed(3)
    model = TPAVISegmentor("resnet18", (0, 1, 2, 3), attention, 8, 6, 5, fidelity)  # type: ignore[arg-type]
    for block in model.modules():
        if isinstance(block, TPAVI):
            torch.nn.init.normal_(block.W_z[1].weight)
    return model.double()


def inputs(seconds: int = 10) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, seconds, 3, 32, 32, generator=generator, dtype=torch.float64)
    return frames, torch.rand(2, seconds, 6, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("attention", ["va", "vv", "both"])
def test_published_attends_within_five_frames(attention: str) -> None:
    model, (frames, audio) = small("published", attention).eval(), inputs()
    whole = model(frames, audio)
    assert whole.shape == (2, 10, 5, 32, 32)
    half = model(frames[:, :5], audio[:, :5])
    torch.testing.assert_close(half, whole[:, :5])
    corrected = small("corrected", attention).eval()
    torch.testing.assert_close(corrected(frames[:, :5], audio[:, :5]), half)
    assert not torch.allclose(corrected(frames, audio)[:, :5], half)
    with pytest.raises(ValueError, match="7 frames"):
        model(*(x[:, :7] for x in (frames, audio)))


@pytest.mark.parametrize("attention", ["va", "vv", "both"])
@pytest.mark.parametrize("train", [False, True])
def test_corrected_does_not_see_padding(attention: str, train: bool) -> None:
    """A padded clip gives the numbers of the clip alone, whatever the padding holds; its statistics too."""
    frames, audio = inputs()
    one, other = (small("corrected", attention).train(train) for _ in range(2))
    padded = one(frames, audio, FLAG)
    assert not padded[1, 5:].any()
    frames[1, 5:], audio[1, 5:] = 7.0, 3.0
    torch.testing.assert_close(other(frames, audio, FLAG), padded)
    if not train:
        torch.testing.assert_close(padded[1:, :5], one(frames[1:, :5], audio[1:, :5]))
        torch.testing.assert_close(padded[:1], one(frames[:1], audio[:1]))
    for (name, a), b in zip(one.named_buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b, msg=name)


def test_published_takes_padding_into_its_statistics() -> None:
    frames, audio = inputs()
    means = []
    for fidelity in ("published", "corrected"):
        model = small(fidelity).train()
        output = model.segment(frames * FLAG[:, :, None, None, None], audio, valid=FLAG)
        assert not output.logits[1, 5:].any() and not any(m[1, 5:].any() for m in output.maps)
        means.append(model.tpavi_b1.W_z[1].running_mean.clone())
    assert not torch.allclose(*means)


def test_decoding_labeled_frames_only_gives_the_same_gradients() -> None:
    frames, audio = inputs()
    weight = torch.stack([torch.ones(10), (torch.arange(10) < 1).float()]).double()
    truth = torch.randint(0, 5, (2, 10, 32, 32), generator=torch.Generator().manual_seed(1))
    grads = []
    for decoded in (None, weight):
        model = small().train()
        output = model.segment(frames, audio, valid=FLAG, decoded=decoded)
        semantic_segmentation_loss(output, truth, weight, AVMOptions("kl", stages=[0, 3])).total.backward()
        grads.append([p.grad for p in model.parameters() if p.grad is not None])
    assert len(grads[0]) == len(grads[1])
    torch.testing.assert_close(grads[0], grads[1])


def test_semantic_loss_is_the_weighted_mean_of_frames() -> None:
    logits = torch.randn(2, 3, 4, 6, 6, requires_grad=True)
    truth, weight = torch.randint(0, 4, (2, 3, 6, 6)), torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    frames = [torch.nn.functional.cross_entropy(logits[b, t][None], truth[b, t][None]) for b, t in weight.nonzero()]
    torch.testing.assert_close(semantic_loss(logits, truth, weight), torch.stack(frames).mean())
    halves = [semantic_loss(logits[b : b + 1], truth[b : b + 1], weight[b : b + 1], 2.0) for b in range(2)]
    torch.testing.assert_close(torch.stack(halves).mean(), torch.stack(frames).mean())  # of two processes
    changed = logits.detach().clone()
    changed[1, 1:] = 100.0
    torch.testing.assert_close(semantic_loss(changed, truth, weight), torch.stack(frames).mean().detach())


def test_background_of_the_mask_by_fidelity() -> None:
    output = small().eval().segment(*inputs(5))
    output.logits = torch.zeros_like(output.logits)
    output.logits[:, :, 0] = 1.0  # everything is background
    truth, weight = torch.zeros(2, 5, 32, 32, dtype=torch.long), torch.ones(2, 5)

    def avm(background: int | None, fidelity: str) -> float:
        options = AVMOptions("euclidean", background=background)  # type: ignore[arg-type]
        return semantic_segmentation_loss(output, truth, weight, options, fidelity).avm.item()  # type: ignore[arg-type]

    assert avm(None, "corrected") == avm(0, "published") != avm(70, "corrected") == avm(None, "published")


@pytest.mark.parametrize("distance", ["kl", "euclidean"])
def test_corrected_does_not_bring_frames_close_to_padding(distance: str) -> None:
    """The audio of padding, 0, is nearest to that of the first frame; the second nearest is of another clip."""
    generator = torch.Generator().manual_seed(0)
    audio, maps = torch.zeros(2, 3, 4), torch.rand(2, 3, 4, 2, 2, generator=generator)
    audio[:, :, 0] = torch.tensor([[1.0, 5.0, 9.0], [3.0, 0.0, 0.0]])
    valid = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])
    maps[1, 1:] = 0
    logits = torch.zeros(2, 3, 5, 2, 2)
    logits[:, :, 1] = 1.0  # all foreground
    truth, first = torch.zeros(2, 3, 2, 2, dtype=torch.long), torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    options = AVMOptions(distance, avm_vv=True, stages=[0])  # type: ignore[arg-type]

    def avm(fidelity: str, **given: torch.Tensor) -> torch.Tensor:
        output = Segmentation(logits, [maps], [audio])
        return semantic_segmentation_loss(output, truth, first, options, fidelity, **given).avm  # type: ignore[arg-type]

    features = maps.mean((3, 4)).flatten(0, 1)  # of six frames, the fourth the first of the other clip
    neighbor, padding = (_distances(features[index][None], features[:1], options)[0] for index in (3, 4))
    torch.testing.assert_close(avm("corrected", valid=valid), neighbor)
    torch.testing.assert_close(avm("corrected"), padding)
    torch.testing.assert_close(avm("published", valid=valid), avm("published"))
    if distance == "euclidean":
        torch.testing.assert_close(avm("published"), padding)


@pytest.mark.parametrize("fusion", ["concate", "none"])
def test_fpn_with_several_classes(fusion: str) -> None:
    torch.manual_seed(0)
    model = AudioCLIPSegmentor(fusion, audioclip=SIZES, channels=8, classes=5).double().eval()  # type: ignore[arg-type]
    frames, _ = inputs()
    waveform = torch.rand(2, 10, 4000, dtype=torch.float64) - 0.5
    with torch.no_grad():
        padded = model(frames, waveform, FLAG)
        assert padded.shape == (2, 10, 5, 32, 32) and not padded[1, 5:].any()
        torch.testing.assert_close(padded[1:, :5], model(frames[1:, :5], waveform[1:, :5]))
        features = model.encode_audio(waveform)
        first = model.segment(frames, features, valid=FLAG, decoded=FLAG * (torch.arange(10) < 1))
    torch.testing.assert_close(first.logits[:, :1], padded[:, :1])
    assert not first.logits[:, 1:].any()
