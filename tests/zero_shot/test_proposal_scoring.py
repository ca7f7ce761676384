"""Proposal scoring: equality with torchvision, properties, differences of the fidelities, errors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from reference import images as reference
from utils.dataset import NORMALIZATION
from zero_shot.proposal_scoring import (
    crop_proposal,
    prepare_crops,
    proposal_probabilities,
    select_proposals,
    union_masks,
)

FRAME = np.random.default_rng(0).integers(1, 256, (30, 40, 3), dtype=np.uint8)  # nothing in it is black


def record(mask: np.ndarray) -> dict[str, Any]:
    """A proposal as SAM's generator describes it: w and h are differences of the outermost indices."""
    rows, columns = np.nonzero(mask)
    x, y = int(columns.min()), int(rows.min())
    return {"segmentation": mask, "bbox": [x, y, int(columns.max()) - x, int(rows.max()) - y]}


def rectangle(y: int, x: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros(FRAME.shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    return mask


masks = st.integers(0, 2**32 - 1).map(
    lambda seed: np.random.default_rng(seed).random(FRAME.shape[:2]) > 0.98 - 0.3 * (seed % 3)
)


@settings(deadline=None, max_examples=40)
@given(masks.filter(np.any))
def test_corrected_crops_hold_all_of_the_mask_and_nothing_else(mask: np.ndarray) -> None:
    crop = crop_proposal(FRAME, record(mask), "corrected")
    assert crop is not None
    lit: np.ndarray = crop.max(axis=2) > 0
    assert lit.sum() == mask.sum()  # every pixel of the mask, and black beside
    assert lit[[0, -1]].any(axis=1).all() and lit[:, [0, -1]].any(axis=0).all()  # as tight as can be
    np.testing.assert_array_equal(crop[lit], FRAME[mask])


@settings(deadline=None, max_examples=40)
@given(masks.filter(lambda mask: np.ptp(np.nonzero(mask), axis=1).min() > 0 if mask.any() else False))
def test_published_crops_are_pils_and_lose_a_row_and_a_column(mask: np.ndarray) -> None:
    """docs/deviations.md, "crop edge"."""
    proposal = record(mask)
    x, y, width, height = proposal["bbox"]
    black = Image.fromarray(np.where(mask[..., None], FRAME, 0).astype(np.uint8))
    published = crop_proposal(FRAME, proposal, "published")
    corrected = crop_proposal(FRAME, proposal, "corrected")
    assert published is not None and corrected is not None
    np.testing.assert_array_equal(published, np.asarray(black.crop((x, y, x + width, y + height))))
    np.testing.assert_array_equal(published, corrected[:-1, :-1])


@pytest.mark.parametrize("thin", [(4, 7, 1, 9), (4, 7, 9, 1), (4, 7, 1, 1)])
def test_thin_proposals_are_lost_only_in_published(thin: tuple[int, int, int, int]) -> None:
    proposal = record(rectangle(*thin))
    assert crop_proposal(FRAME, proposal, "published") is None
    crop = crop_proposal(FRAME, proposal, "corrected")
    assert crop is not None and crop.shape == (*thin[2:], 3) and crop.all()


def test_an_empty_mask_gives_no_crop() -> None:
    empty = {"segmentation": np.zeros(FRAME.shape[:2], bool), "bbox": [0, 0, 0, 0]}
    assert crop_proposal(FRAME, empty, "published") is None
    assert crop_proposal(FRAME, empty, "corrected") is None


def test_crop_errors() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        crop_proposal(FRAME[:20], record(rectangle(1, 1, 5, 5)), "corrected")
    with pytest.raises(ValueError, match="fidelity"):
        crop_proposal(FRAME, record(rectangle(1, 1, 5, 5)), "right")  # type: ignore[arg-type]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([32, 64, 96]), st.integers(0, 2**32 - 1))
def test_crops_are_preprocessed_as_by_torchvision(height: int, width: int, size: int, seed: int) -> None:
    crop = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = prepare_crops([crop], size)
    torch.testing.assert_close(ours[0], reference.crop_image(crop, size), atol=2e-4, rtol=0)


@pytest.mark.parametrize("shape", [(224, 224), (150, 223), (61, 37), (1, 60), (90, 2)])
def test_crops_at_the_published_size(shape: tuple[int, int]) -> None:
    crop = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    ours = prepare_crops([crop])[0]
    torch.testing.assert_close(ours, reference.crop_image(crop, 224), atol=2e-4, rtol=0)


def test_antialiasing_changes_enlarged_crops() -> None:
    """So antialiasing must be off."""
    crop = np.random.default_rng(2).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    image = torch.from_numpy(crop).permute(2, 0, 1) / 255.0
    smooth = v2.functional.resize(image, 96, v2.InterpolationMode.BICUBIC, antialias=True)
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALIZATION["clip"])
    assert (prepare_crops([crop], 96)[0] - (smooth - mean) / std).abs().max() > 0.2


def test_crops_are_not_clamped_and_do_not_mix() -> None:
    stripes = np.zeros((20, 20, 3), np.uint8)
    stripes[:, ::4] = 255
    grey = np.full((5, 9, 3), 128, np.uint8)
    together = prepare_crops([stripes, grey], 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in NORMALIZATION["clip"])
    colours = together[0] * std + mean
    assert colours.min() < -0.05 and colours.max() > 1.05
    torch.testing.assert_close(together[1], ((128 / 255 - mean) / std).expand(3, 64, 64), atol=1e-5, rtol=0)
    assert torch.equal(together, torch.cat([prepare_crops([crop], 64) for crop in (stripes, grey)]))
    assert prepare_crops([], 64).shape == (0, 3, 64, 64)


def test_a_thin_crop_never_grows_to_its_full_length(monkeypatch: pytest.MonkeyPatch) -> None:
    largest, real = [], torch.nn.functional.grid_sample

    def watched(*args: Any, **kwargs: Any) -> Tensor:
        result = real(*args, **kwargs)
        largest.append(result.numel())
        return result

    monkeypatch.setattr(torch.nn.functional, "grid_sample", watched)
    prepare_crops([np.full((1, 2000, 3), 9, np.uint8)], 224)  # whole, it would be 224 × 448 000
    assert largest == [3 * 224 * 224]


def test_probabilities_are_the_softmax_of_scaled_cosines() -> None:
    generator = torch.Generator().manual_seed(3)
    images, sound = torch.randn(6, 16, generator=generator), torch.randn(16, generator=generator)
    cosines = [float(image @ sound / image.norm() / sound.norm()) for image in images]
    total = sum(math.exp(7.0 * cosine) for cosine in cosines)
    ours = proposal_probabilities(images, sound, scale=7.0)
    np.testing.assert_allclose(ours, [math.exp(7.0 * cosine) / total for cosine in cosines], rtol=1e-5)
    torch.testing.assert_close(proposal_probabilities(images * 9, sound / 3, scale=7.0), ours)
    assert proposal_probabilities(images[:1], sound).tolist() == [1.0]  # alone, it is certain
    assert proposal_probabilities(images[:0], sound).shape == (0,)
    assert torch.equal(proposal_probabilities(images, sound), proposal_probabilities(images, sound, scale=100.0))


def test_probability_errors() -> None:
    with pytest.raises(ValueError, match=r"\(K, D\)"):
        proposal_probabilities(torch.ones(3, 4), torch.ones(5))
    with pytest.raises(ValueError, match="NaN"):
        proposal_probabilities(torch.full((3, 4), torch.nan), torch.ones(4))


@st.composite
def selections(draw: st.DrawFn) -> tuple[Tensor, list[int], int]:
    """Probabilities of those of `total` proposals that gave a crop."""
    total = draw(st.integers(0, 8))
    kept = sorted(draw(st.sets(st.integers(0, total - 1)))) if total else []
    logits = torch.randn(len(kept), generator=torch.Generator().manual_seed(draw(st.integers(0, 2**31))))
    return (3 * logits).softmax(0), kept, total


@settings(deadline=None, max_examples=80)
@given(selections(), st.sampled_from([0.0, 0.2, 0.5, 0.9]))
def test_fidelities_differ_only_after_a_skipped_crop(case: tuple[Tensor, list[int], int], threshold: float) -> None:
    """docs/deviations.md, "index shift"."""
    probabilities, kept, total = case
    for rule in ("threshold", "top1"):
        corrected = select_proposals(probabilities, kept, total, threshold, rule, "corrected")
        published = select_proposals(probabilities, kept, total, threshold, rule, "published")
        assert corrected == [kept[i] for i in published]
        assert set(corrected) <= set(kept) and all(0 <= i < total for i in published)
    above = select_proposals(probabilities, kept, total, threshold)
    assert above == [k for k, p in zip(kept, probabilities, strict=True) if p > threshold]
    assert len(above) <= 1 or threshold < 0.5
    assert select_proposals(probabilities, kept, total, rule="top1") == (
        [kept[int(probabilities.argmax())]] if kept else []
    )


def test_after_a_skipped_crop_published_selects_the_wrong_mask() -> None:
    probabilities = torch.tensor([0.1, 0.9])
    assert select_proposals(probabilities, [0, 2], 3, fidelity="corrected") == [2]
    assert select_proposals(probabilities, [0, 2], 3, fidelity="published") == [1]
    assert (
        select_proposals(probabilities, [0, 1], 3, fidelity="published")
        == select_proposals(probabilities, [0, 1], 3)
        == [1]
    )
    assert select_proposals(torch.tensor([0.5, 0.5]), [0, 1], 2) == []  # not above one half


@pytest.mark.parametrize(
    ("kept", "total"), [([0], 2), ([0, 1, 2], 3), ([1, 0], 2), ([0, 0], 2), ([0, 2], 2), ([-1, 0], 2)]
)
def test_selection_errors(kept: list[int], total: int) -> None:
    with pytest.raises(ValueError, match="indices"):
        select_proposals(torch.tensor([0.4, 0.6]), kept, total)
    with pytest.raises(ValueError, match="rule"):
        select_proposals(torch.tensor([0.4, 0.6]), [0, 1], 2, rule="most")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fidelity"):
        select_proposals(torch.tensor([0.4, 0.6]), [0, 1], 2, fidelity="old")  # type: ignore[arg-type]


def test_union_is_the_originals_product_and_empty_without_masks() -> None:
    generator = np.random.default_rng(4)
    several = generator.random((3, 30, 40)) > 0.7
    product = np.zeros((30, 40))
    for mask in several:
        product = 1 - (1 - product) * (1 - mask.astype(float))
    for given_masks in (list(several), torch.from_numpy(several), torch.from_numpy(several).float()):
        ours = union_masks(given_masks, (30, 40))
        assert ours.dtype == bool
        np.testing.assert_array_equal(ours, product > 0)
    assert union_masks([]).shape == (224, 224) and not union_masks([]).any()
    with pytest.raises(ValueError, match="mask"):
        union_masks(list(several), (40, 30))


def test_no_proposal_and_no_crop_end_in_an_empty_mask() -> None:
    """docs/deviations.md, "empty prompts": the original stops."""
    crops = [crop_proposal(FRAME, record(rectangle(3, 3, 1, 5)), "published")]
    images = prepare_crops([crop for crop in crops if crop is not None], 32)
    features = images.flatten(1)[:, :8]
    probabilities = proposal_probabilities(features, torch.ones(8))
    assert select_proposals(probabilities, [], 1, fidelity="published") == []
    assert select_proposals(probabilities, [], 1, rule="top1", fidelity="published") == []
    assert not union_masks([], (30, 40)).any()
