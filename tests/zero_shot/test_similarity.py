"""Similarity maps: outputs of the original, properties, errors."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.audioclip import AudioCLIP
from tests.helpers import golden_values
from zero_shot import prompts
from zero_shot.similarity import noise_waveform, redundant_feature, similarity_map

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "prompts_seed1.npz")


def golden_pair(j: int) -> tuple[Tensor, Tensor]:
    """The audio and image features of the original's outputs."""
    audio = golden_values.tensor(1, f"audio_feature{j}", (1, 1024))
    return audio / audio.norm(), golden_values.tensor(1, f"region_feature{j}", (1, 1024, 7, 7))


@pytest.mark.parametrize("way", ["rev", "fwd"])
@pytest.mark.parametrize("j", range(3))
def test_golden_map(j: int, way: str) -> None:
    ours = similarity_map(*golden_pair(j), reverse=way == "rev")
    assert ours.shape == (1, 224, 224) and ours.dtype == torch.float32
    np.testing.assert_allclose(ours[0, ::7, ::7], GOLDEN[f"{j}_{way}_map"], atol=1e-5, rtol=0)


def test_prompts_exports_similarity_map() -> None:
    assert prompts.similarity_map is similarity_map


@st.composite
def pairs(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """1 to 4 normalized audio features, and cells of any norm on any grid of 2 cells or more, with some contrast."""
    count, length = draw(st.integers(1, 4)), draw(st.integers(2, 40))
    height, width = draw(st.integers(1, 9)), draw(st.integers(2, 9))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    audio = torch.randn(count, length, generator=generator)
    dense = torch.randn(count, length, height, width, generator=generator)
    cosines = F.cosine_similarity(audio[:, :, None, None], dense, dim=1).flatten(1)
    assume((cosines.amax(dim=1) - cosines.amin(dim=1)).min() > 0.05)  # little contrast makes much of rounding
    lengths = torch.rand(count, 1, height, width, generator=generator) * 50 + 0.01
    return F.normalize(audio, dim=1), dense * lengths


def ungridded(audio: Tensor, dense: Tensor) -> Tensor:
    """The map at the size of its own grid, which resizing leaves as it is."""
    return similarity_map(audio, dense, size=(dense.shape[2], dense.shape[3]))


@settings(deadline=None, max_examples=40)
@given(pairs(), st.booleans())
def test_maps_do_not_depend_on_the_batch(pair: tuple[Tensor, Tensor], reverse: bool) -> None:
    audio, dense = pair
    together = similarity_map(audio, dense, reverse=reverse, size=(30, 50))
    for i, one in enumerate(together):
        assert torch.equal(one, similarity_map(audio[[i]], dense[[i]], reverse=reverse, size=(30, 50))[0])
    laid_out_otherwise = dense.to(memory_format=torch.channels_last)
    assert torch.equal(together, similarity_map(audio, laid_out_otherwise, reverse=reverse, size=(30, 50)))


@settings(deadline=None, max_examples=40)
@given(pairs(), st.sampled_from(["bilinear", "bicubic"]))
def test_reverse_mirrors_and_cells_span_zero_to_one(pair: tuple[Tensor, Tensor], mode: Any) -> None:
    forward, backward = (similarity_map(*pair, reverse=reverse, size=(48, 64), mode=mode) for reverse in (False, True))
    torch.testing.assert_close(backward, 1 - forward, atol=2e-5, rtol=0)
    cells = ungridded(*pair)
    torch.testing.assert_close(cells.amin(dim=(1, 2)), torch.zeros(len(cells)), atol=1e-6, rtol=0)
    torch.testing.assert_close(cells.amax(dim=(1, 2)), torch.ones(len(cells)), atol=1e-6, rtol=0)
    if mode == "bilinear":
        assert forward.min() >= 0 and forward.max() <= 1


@settings(deadline=None, max_examples=30)
@given(pairs())
def test_cells_are_scaled_cosines_of_any_norm(pair: tuple[Tensor, Tensor]) -> None:
    audio, dense = pair
    cosines = F.cosine_similarity(audio.double()[:, :, None, None], dense.double(), dim=1)
    lowest, highest = cosines.amin(dim=(1, 2), keepdim=True), cosines.amax(dim=(1, 2), keepdim=True)
    plain = ((cosines - lowest) / (highest - lowest)).float()
    torch.testing.assert_close(ungridded(audio, dense), plain, atol=2e-5, rtol=0)


@pytest.mark.parametrize("reverse", [False, True])
def test_absolute_maps_have_one_scale(reverse: bool) -> None:
    """(1 + cosine) / 2, whatever the other cells of a frame are: a frame that agrees nowhere has no 1."""
    audio = F.normalize(torch.tensor([[1.0, 0.0], [1.0, 0.0]]), dim=1)
    dense = torch.tensor([[[3.0, 0.0]], [[0.0, 2.0]]]).expand(2, 2, 1, 2).clone()  # cosines 1 and 0
    dense[1] = torch.tensor([[[0.0, -2.0]], [[1.0, 0.0]]])  # cosines 0 and -1
    found = similarity_map(audio, dense, absolute=True, reverse=reverse, size=(1, 2))
    expected = torch.tensor([[[1.0, 0.5]], [[0.5, 0.0]]])
    torch.testing.assert_close(found, 1 - expected if reverse else expected)


def test_the_redundant_feature_is_subtracted_without_normalizing_again() -> None:
    audio, dense = golden_pair(0)
    redundant = golden_pair(1)[0][0]
    taken_off = (audio - redundant) / (audio - redundant).norm()
    torch.testing.assert_close(
        similarity_map(audio, dense, redundant=redundant), similarity_map(taken_off, dense), atol=1e-5, rtol=0
    )  # the stretch to 0 ... 1 undoes any factor
    assert torch.equal(similarity_map(audio, dense, redundant=torch.zeros(1024)), similarity_map(audio, dense))
    assert (similarity_map(audio, dense, redundant=redundant) - similarity_map(audio, dense)).abs().max() > 0.1


@pytest.mark.parametrize("reverse", [False, True])
def test_a_map_without_contrast_is_zero(reverse: bool) -> None:
    audio, dense = golden_pair(0)
    same = dense[:, :, :1, :1].expand(-1, -1, 7, 7)
    lengths = torch.linspace(0.5, 3, 49).reshape(7, 7)  # leaves differences, of rounding alone
    for constant in (same, same * lengths, torch.zeros_like(dense)):
        assert not similarity_map(audio, constant, reverse=reverse).any()
    # one frame without contrast leaves the others of its batch alone
    both = similarity_map(audio.repeat(2, 1), torch.cat((same, dense)), reverse=reverse)
    assert torch.equal(both[1:], similarity_map(audio, dense, reverse=reverse)) and not both[0].any()


@pytest.mark.parametrize(
    ("audio", "dense", "redundant", "message"),
    [
        (torch.ones(1, 4), torch.full((1, 4, 2, 2), torch.nan), None, "NaN"),
        (torch.full((1, 4), torch.inf), torch.ones(1, 4, 2, 2), None, "infinity"),
        (torch.ones(1, 4), torch.ones(1, 4, 2, 2), torch.full((4,), torch.nan), "NaN"),
        (torch.ones(1, 4), torch.ones(1, 4, 2, 2), torch.ones(1, 4), r"redundant feature \(4,\)"),
        (torch.ones(2, 4), torch.ones(1, 4, 2, 2), None, r"\(N, D, h, w\)"),
        (torch.ones(1, 5), torch.ones(1, 4, 2, 2), None, r"\(N, D, h, w\)"),
        (torch.ones(4), torch.ones(4, 2, 2), None, r"\(N, D\)"),
    ],
)
def test_bad_input(audio: Tensor, dense: Tensor, redundant: Tensor | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        similarity_map(audio, dense, redundant=redundant)


def test_noise_is_numpys_of_seed_zero() -> None:
    state = np.random.get_state()  # noqa: NPY002 - the original seeds and draws from the global generator
    np.random.seed(0)  # noqa: NPY002
    uniform = 0.1 * np.random.rand(1, 220_500)  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    normal = 0.1 * np.random.randn(1, 220_500)  # noqa: NPY002
    np.random.set_state(state)  # noqa: NPY002
    assert torch.equal(noise_waveform("rand"), torch.from_numpy(uniform).float())
    assert torch.equal(noise_waveform("gaussian"), torch.from_numpy(normal).float())
    assert not noise_waveform("zero", samples=7).any() and noise_waveform("zero", samples=7).shape == (1, 7)
    with pytest.raises(ValueError, match="gauss"):
        noise_waveform("white")  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def model() -> Iterator[AudioCLIP]:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"embed_dim": 16, "text": False, "vision_layers": (1, 1, 1, 1), "vision_width": 4}
    sizes |= {"audio_n_fft": 256, "audio_hop": 70, "audio_win": 200, "audio_layers": (1, 1, 1, 1), "audio_width": 8}
    yield AudioCLIP(**sizes, audio_groups=4, audio_width_per_group=32).eval()


@pytest.mark.parametrize("kind", ["rand", "gaussian", "zero"])
def test_redundant_feature_is_the_embedding_of_noise_at_the_models_fidelity(model: AudioCLIP, kind: Any) -> None:
    heard = {}
    for model.fidelity in ("published", "corrected"):
        feature = heard[model.fidelity] = redundant_feature(model, kind)
        with torch.no_grad():
            raw = model.encode_audio(noise_waveform(kind))[0]
        torch.testing.assert_close(feature, raw / raw.norm())
        assert not feature.requires_grad
    # silence is silence at any amplitude; noise is not heard alike (docs/deviations.md, "amplitude")
    assert torch.equal(heard["published"], heard["corrected"]) == (kind == "zero")


def test_without_noise_nothing_is_subtracted(model: AudioCLIP) -> None:
    assert torch.equal(redundant_feature(model, "none"), torch.zeros(16))
    with pytest.raises(ValueError, match="noise must be"):
        redundant_feature(model, "white")  # type: ignore[arg-type]
