"""AudioCLIPSegmentor: the original's figures for every fusion, a plain form, properties, faults."""

import copy
import json
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from models import AudioCLIPSegmentor
from models.audioclip import AudioCLIP
from models.audioclip_segmentor import Fusion
from models.fpn import SemanticHead
from models.vggish import VGGish
from tests import golden_values as golden

GOLDEN = Path(__file__).parent / "golden"
FUSIONS = get_args(Fusion)
NECK = 3_789_569  # parameters of neck and head with 3072 channels at the coarsest level
TOWERS = {"visual_encoder": "visual", "audio_encoder": "audio"}
# Of the logits, in float64: what the original's float32 rounds. Where maps and sound are multiplied, the products are
# nearly the same at every location, and group normalisation looks at the difference.
ROUNDING = {"concate": 2e-4, "skip": 1e-4}
OTHER_ROUNDING = 1e-5


def relative(ours: Tensor, theirs: np.ndarray | Tensor) -> float:
    theirs = torch.as_tensor(theirs)
    return ((ours - theirs).norm() / theirs.norm()).item()


def reference_name(key: str) -> str:
    first, _, rest = key.partition(".")
    return ".".join([{ours: theirs for theirs, ours in TOWERS.items()}.get(first, first), rest])


def reference_state(model: AudioCLIPSegmentor, *begin: str) -> dict[str, Tensor]:
    """Golden values in the original's names of what begins with `begin` (all of the model if empty)."""
    own = {reference_name(k): v for k, v in model.state_dict().items() if k.startswith(begin or ("",))}
    return golden.fill(own, 1, skip=("audio_encoder.fbsp.",))


# --- the published network -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def towers() -> tuple[AudioCLIP, dict[str, Tensor]]:
    clip = AudioCLIP(text=False)
    return clip, reference_state(AudioCLIPSegmentor(audioclip=clip), "visual", "audio")


@pytest.fixture(scope="module")
def seen(towers: tuple[AudioCLIP, dict[str, Tensor]]) -> dict[torch.dtype, list[Tensor]]:
    """The image tower's maps of the golden frames, which all fusions share, in both precisions."""
    clip, state = towers
    model = AudioCLIPSegmentor(audioclip=clip)
    model.load_reference(state | reference_state(model, "neck", "head")).eval()
    assert model.fidelity == "published"
    frames = golden.tensor(1, "frames", (5, 3, 224, 224))
    exact = copy.deepcopy(model.visual).double()
    with torch.no_grad():
        return {x.dtype: tower.pyramid(x) for tower, x in ((model.visual, frames), (exact, frames.double()))}


@pytest.mark.parametrize(
    "fusion, upsample", [(f, "bilinear") for f in FUSIONS if f != "none"] + [("concate", "nearest")]
)
@torch.no_grad()
def test_golden_logits(
    towers: Any,
    seen: dict[torch.dtype, list[Tensor]],
    fusion: Any,
    upsample: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """From given features of the sound: behind the audio tower of these weights rounding is all there is.

    fpn_heard_seed1.npy is what that tower made of golden.audio(1, "audio", 5.0, 44_100), second by second, each five
    times over, on a machine where every figure of the original was met to 1e-6.
    """
    clip, state = towers
    model = AudioCLIPSegmentor(fusion, upsample, audioclip=clip)
    model.load_reference(state | reference_state(model, "neck", "head")).eval()
    heard = torch.from_numpy(np.load(GOLDEN / "fpn_heard_seed1.npy"))[None]
    figures = np.load(GOLDEN / "fpn_seed1.npz")
    rounding = ROUNDING.get(fusion, OTHER_ROUNDING)
    for dtype, bound in ((torch.float64, rounding), (torch.float32, 10 * rounding)):
        model.to(dtype)
        monkeypatch.setattr(model.visual, "pyramid", lambda frames, dtype=dtype: list(seen[dtype]))
        logits = model.segment(torch.zeros(1, 5, 3, 224, 224), heard.to(dtype)).logits
        assert relative(logits[0, :, None, ::9, ::9], figures[f"{fusion}_{upsample}"]) < bound
        assert relative(torch.stack([logits.mean(), logits.std()]), figures[f"{fusion}_{upsample}_mean_std"]) < bound


def test_names_and_sizes(towers: Any) -> None:
    clip, _ = towers
    published = {k: tuple(v) for k, v in json.loads((GOLDEN / "fpn_concate_keys.json").read_text()).items()}
    model = AudioCLIPSegmentor("concate", audioclip=clip)
    assert {reference_name(k): tuple(v.shape) for k, v in model.state_dict().items()} == published
    extra = {"naive_concate": 256 * 1024, "score_fusion": -256 * 1023, "skip": -256 * 2048, "none": -256 * 1024}
    for fusion in FUSIONS:
        model = AudioCLIPSegmentor(fusion, audioclip=clip)
        assert sum(p.numel() for p in [*model.neck.parameters(), *model.head.parameters()]) == NECK + extra.get(
            fusion, 0
        )


def test_reference_files_of_1616_entries(towers: Any) -> None:
    """The second names are in force; the first serve alone; the text tower and the scales are left out."""
    clip, state = towers
    model = AudioCLIPSegmentor("concate", audioclip=clip)
    head = reference_state(model, "neck", "head")
    names = json.loads((GOLDEN / "audioclip_keys.json").read_text())
    aliases = {f"aclp.{key}": torch.full(shape, 7.0) for key, shape in names.items()}
    assert len(aliases | state | head) == 1616
    model.load_reference(aliases | state | head)
    assert torch.equal(model.visual.conv1.weight, state["visual_encoder.conv1.weight"])
    assert torch.equal(model.projection.weight, state["audio_encoder.fc.weight"])
    model.load_reference(aliases | head)
    assert (model.visual.conv1.weight == 7).all() and (model.projection.weight == 7).all()
    deaf = AudioCLIPSegmentor("none", audioclip=clip)
    deaf.load_reference(aliases | state | reference_state(deaf, "neck", "head"))
    assert deaf.audio is None and torch.equal(deaf.visual.conv1.weight, state["visual_encoder.conv1.weight"])


def test_published_vggish_variant_loads() -> None:
    """Its files hold AudioCLIP's own audio tower as well, unused, and VGGish in its place."""
    model = AudioCLIPSegmentor(audio="vggish")
    assert model.audio_projector is not None and tuple(model.audio_projector.weight.shape) == (1024, 128)
    names = json.loads((GOLDEN / "audioclip_keys.json").read_text())
    state = {f"aclp.{key}": torch.zeros(shape) for key, shape in names.items()}
    for key, value in model.state_dict().items():
        theirs = key.replace("visual.", "visual_encoder.", 1) if key.startswith("visual.") else key
        state[theirs.replace("audio.", "audio_encoder.audio_backbone.", 1)] = torch.full_like(value, 3)
    model.load_reference(state)
    assert all((value == 3).all() for value in model.state_dict().values())


# --- at small sizes --------------------------------------------------------------------------------------

SIZES: dict[str, Any] = {"embed_dim": 24, "vision_layers": (1, 1, 1, 1), "vision_width": 4, "audio_n_fft": 64}
SIZES |= {"audio_hop": 64, "audio_win": 64, "audio_layers": (1, 1, 1, 1), "audio_width": 8, "audio_groups": 4}
SIZES |= {"audio_width_per_group": 32}


def small(fusion: Any = "concate", upsample: Any = "bilinear", seed: int = 0, **more: Any) -> AudioCLIPSegmentor:
    torch.manual_seed(seed)
    if more.get("audio") == "vggish":
        more["vggish"] = VGGish((4, 4, 4, 8), 16, 12)
    model = AudioCLIPSegmentor(fusion, upsample, SIZES, channels=16, **more)
    for name, value in model.state_dict().items():
        if name.endswith(("bn3.weight", "downsample.1.weight")):  # CLIP starts its residual branches at zero
            value.fill_(1.0)
    return model.eval()


def inputs(videos: int = 2, side: int = 64, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    frames = torch.randn(videos, 5, 3, side, side, generator=generator)
    return frames, torch.rand(videos, 5, 2000, generator=generator) - 0.5


def plain_fusion(fusion: Fusion, x: Tensor, e: Tensor, a: Tensor) -> Tensor:
    """What one location gives to the neck."""
    if fusion in ("normed_concate", "score_fusion"):
        e, a = e / e.norm(), a / a.norm()
    parts = {
        "concate": [x, e * a],
        "normed_concate": [x, e * a],
        "naive_concate": [x, e, a],
        "score_fusion": [x, (e @ a)[None]],
        "skip": [e * a],
        "noprior": [x, a],
        "none": [x],
    }
    return torch.cat(parts[fusion])


def plain_form(model: AudioCLIPSegmentor, frames: Tensor, sounds: Tensor) -> Tensor:
    """The model as its description reads, one frame at a time, from the towers' own outputs."""
    lines = []
    for image, sound in zip(frames.flatten(0, 1), sounds.flatten(0, 1), strict=True):
        *finer, x4 = model.visual.pyramid(image[None])
        e, _ = model.visual.attnpool.dense(x4)
        a = torch.zeros(24)
        if model.audio is not None:
            a = model.projection(model.audio.pool(sound[None] * 32768))[0]  # type: ignore[operator]
        cells = []
        for row in range(x4.shape[2]):
            for column in range(x4.shape[3]):
                cells.append(plain_fusion(model.fusion, x4[0, :, row, column], e[0, :, row, column], a))
        fused = torch.stack(cells, 1).reshape(1, -1, *x4.shape[2:])
        state = model.state_dict()
        streams = []
        for level, x in enumerate([*finer, fused]):
            weight, bias = (state[f"neck.lateral_convs.{level}.{part}"] for part in ("weight", "bias"))
            streams.append(torch.einsum("oc,nchw->nohw", weight[:, :, 0, 0], x) + bias[:, None, None])
        for level in (3, 2, 1):
            size = streams[level - 1].shape[2:]
            corners = False if model.neck.upsample == "bilinear" else None
            coarse = F.interpolate(streams[level], size, mode=model.neck.upsample, align_corners=corners)
            streams[level - 1] += coarse
        total = torch.zeros(1, 8, *finer[0].shape[2:])
        for level, x in enumerate(streams):
            x = F.conv2d(x, state[f"neck.fpn_convs.{level}.weight"], state[f"neck.fpn_convs.{level}.bias"], padding=1)
            for place in range(0, 4 * max(1, level), 4):
                conv, norm = (f"head.scale_heads.{level}.{place + step}" for step in (0, 1))
                x = F.conv2d(x, state[f"{conv}.weight"], state[f"{conv}.bias"])
                groups = x.reshape(1, 2, -1)
                centred = groups - groups.mean(2, keepdim=True)
                x = (centred / (groups.var(2, correction=0, keepdim=True) + 1e-5).sqrt()).reshape(x.shape)
                x = (x * state[f"{norm}.weight"][:, None, None] + state[f"{norm}.bias"][:, None, None]).relu()
                if level:
                    size = [2 * side for side in x.shape[2:]]
                    x = F.interpolate(x, size, mode="bilinear", align_corners=True)
            total += x
        logit = F.conv2d(total, state["head.seg_conv.weight"], state["head.seg_conv.bias"])
        lines.append(F.interpolate(logit, image.shape[1:], mode="bilinear", align_corners=True)[0, 0])
    return torch.stack(lines).unflatten(0, frames.shape[:2])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
@torch.no_grad()
def test_plain_form(fusion: Any, upsample: Any) -> None:
    model = small(fusion, upsample)
    assert model.fidelity == "corrected"
    frames, sounds = inputs(1, 96)
    logits = model(frames, sounds)
    assert logits.shape == (1, 5, 96, 96) and logits.std() > 1e-3
    torch.testing.assert_close(logits, plain_form(model, frames, sounds), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fusion", FUSIONS)
@torch.no_grad()
def test_sound_matters_unless_nothing_is_fused(fusion: Any) -> None:
    model = small(fusion)
    frames, sounds = inputs(1)
    changed = model(frames, sounds.flip(1))
    assert torch.equal(model(frames, sounds), changed) == (fusion == "none")
    if fusion == "none":
        assert torch.equal(model(frames, None), changed) and model.listen(sounds) is None
    else:
        with pytest.raises(ValueError, match="give it sounds"):
            model(frames, None)


@given(videos=st.integers(1, 3), seed=st.integers(0, 9), fusion=st.sampled_from(FUSIONS), kind=st.booleans())
@settings(max_examples=8, deadline=None)
@torch.no_grad()
def test_clips_and_seconds_do_not_mix(videos: int, seed: int, fusion: Any, kind: bool) -> None:
    model = small(fusion, audio="vggish" if kind else "audioclip")
    frames, sounds = inputs(videos, 32, seed)
    if kind:
        sounds = torch.randn(videos, 5, 1, 96, 64)
    together = model(frames, sounds)
    order = torch.randperm(videos * 5)
    shuffled = model(
        frames.flatten(0, 1)[order].unflatten(0, frames.shape[:2]),
        sounds.flatten(0, 1)[order].unflatten(0, frames.shape[:2]),
    )
    torch.testing.assert_close(shuffled.flatten(0, 1), together.flatten(0, 1)[order], atol=1e-5, rtol=1e-3)


@torch.no_grad()
def test_vggish_takes_the_place_of_the_audio_tower() -> None:
    model = small(audio="vggish")
    assert not any(key.startswith("audio.fbsp") for key in model.state_dict())
    frames, examples = inputs(1)[0], torch.randn(1, 5, 1, 96, 64)
    heard = model.listen(examples)
    assert heard is not None and heard.shape == (1, 5, 12) and model.projection is model.audio_projector
    assert torch.equal(model(frames, examples), model.segment(frames, heard).logits)
    assert "audio_projector.weight" not in small("none", audio="vggish").state_dict()


@torch.no_grad()
def test_fidelity_is_the_amplitude_of_the_sound() -> None:
    model, (frames, sounds) = small(fidelity="published"), inputs(1)
    assert torch.equal(small()(frames, sounds / 32768), model(frames, sounds))
    assert AudioCLIPSegmentor(audioclip=AudioCLIP(**SIZES, text=False, fidelity="published")).fidelity == "published"


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_trained_weight_gets_a_gradient(fusion: Any) -> None:
    """Several processes wait for each other's gradients, so a weight without one stops them."""
    model = small(fusion).train()
    model(*inputs(2)).square().mean().backward()
    learnt = {name for name, p in model.named_parameters() if p.requires_grad}
    assert learnt == {name for name, p in model.named_parameters() if p.grad is not None}
    assert any(name.startswith("visual.attnpool") for name in learnt) == (fusion not in ("none", "noprior"))


def test_faults() -> None:
    with pytest.raises(ValueError, match="unknown fusion 'sum'; choose from concate"):
        small("sum")
    with pytest.raises(ValueError, match="audio must be"):
        AudioCLIPSegmentor(audio="clap")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="upsample must be"):
        small(upsample="bicubic")
    with pytest.raises(ValueError, match="multiple of 4"):
        SemanticHead(16, 6)
    with pytest.raises(ValueError, match="48×64; both sides must be multiples of 32"):
        small()(torch.zeros(1, 5, 3, 64, 48), inputs(1)[1])
    with pytest.raises(ValueError, match="peaks at 20000"):
        small()(inputs(1)[0], torch.full((1, 5, 2000), 2e4))
    with pytest.raises(ValueError, match="does not listen"):
        _ = small("none").projection
    model = small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = {reference_name(key): value + 1 for key, value in before.items()}
    del state["head.seg_conv.bias"]
    with pytest.raises(RuntimeError, match=r"missing 1: head\.seg_conv\.bias; unexpected 1: stranger"):
        model.load_reference(state | {"stranger": torch.zeros(1)})
    with pytest.raises(RuntimeError, match=r"misshapen 1: neck\.lateral_convs\.3\.weight"):
        small("skip").load_reference({reference_name(key): value for key, value in before.items()})
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.fidelity == "corrected"
