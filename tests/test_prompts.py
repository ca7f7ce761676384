"""Prompts: golden figures of the original, plain forms, properties, faults."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from tests import plain
from zero_shot.prompts import Prompt, choose_mask, component_boxes, dense_points, peak_points, top_points

GOLDEN = np.load(Path(__file__).parent / "golden" / "prompts_seed1.npz")
CELLS = np.load(Path(__file__).parent / "golden" / "prompts_cells_seed1.npz")
RULES = {"multi_box": "multi_box", "total_box": "total", "single_maxscore": "maxscore", "single_maxarea": "maxarea"}
golden_maps = pytest.mark.parametrize("key", [f"{j}_{way}" for j in range(3) for way in ("rev", "fwd")])


def golden_map(key: str) -> np.ndarray:
    """The map whose figures these are, to the last bit on every processor: on its plateaus a rule sees rounding.

    Its cells are kept (what tests.test_similarity.golden_pair gives, whose maps are held to 1e-5 there) and resized as
    the figures' processor did.
    """
    return plain.enlarged(CELLS[key], (224, 224))


def golden_points(key: str) -> tuple[np.ndarray, np.ndarray]:
    return GOLDEN[f"{key}_xy"], GOLDEN[f"{key}_label"]


def points_of(prompt: Prompt) -> tuple[np.ndarray, np.ndarray]:
    assert prompt.points is not None and prompt.labels is not None and prompt.boxes is None
    assert prompt.points.dtype == np.float64 and prompt.points.shape == (len(prompt.labels), 2)
    return prompt.points, prompt.labels


def boxes_of(prompt: Prompt) -> np.ndarray:
    assert prompt.boxes is not None and prompt.points is None and prompt.labels is None
    assert prompt.boxes.dtype == np.int64 and prompt.boxes.shape[1:] == (4,)
    return prompt.boxes


def maps(side: int = 40) -> st.SearchStrategy[np.ndarray]:
    """Maps as the study's are (cells resized bilinearly) and coarse ones full of ties, of any size up to `side`."""

    def smooth(seed: int, grid: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
        cells = torch.rand(1, 1, *grid, generator=torch.Generator().manual_seed(seed))
        return torch.nn.functional.interpolate(cells, size, mode="bilinear", align_corners=False)[0, 0].numpy()

    def coarse(seed: int, levels: int, size: tuple[int, int]) -> np.ndarray:
        return (np.random.default_rng(seed).integers(0, levels + 1, size) / levels).astype(np.float32)

    seeds, sizes = st.integers(0, 2**32 - 1), st.tuples(st.integers(14, side), st.integers(14, side))
    grids = st.tuples(st.integers(2, 7), st.integers(2, 7))
    return st.one_of(st.builds(smooth, seeds, grids, sizes), st.builds(coarse, seeds, st.integers(1, 9), sizes))


thresholds = st.sampled_from([0.0, 0.3, 0.5, 0.55, 0.6, 0.65, 0.7, 0.85, 0.99, 1.0])


@golden_maps
def test_golden_top(key: str) -> None:
    xy, label = golden_points(f"{key}_top")
    points, labels = points_of(top_points(golden_map(key)))
    np.testing.assert_array_equal(points, xy)
    np.testing.assert_array_equal(labels, label)


@golden_maps
@pytest.mark.parametrize("threshold", [0.6, 0.65])
def test_golden_peaks(key: str, threshold: float) -> None:
    xy, label = golden_points(f"{key}_peak{threshold}")
    published, labels = points_of(peak_points(golden_map(key), threshold, "published"))
    np.testing.assert_array_equal(published, xy)
    np.testing.assert_array_equal(labels, label)
    corrected, labels = points_of(peak_points(golden_map(key), threshold))
    np.testing.assert_array_equal(corrected[:, 0], xy[:, 0])
    np.testing.assert_array_equal(labels, label)


@golden_maps
@pytest.mark.parametrize("threshold", [0.85, 0.7])
def test_golden_dense(key: str, threshold: float) -> None:
    sm = golden_map(key)
    xy, label = golden_points(f"{key}_dense{threshold}")
    points, labels = points_of(dense_points(sm, threshold))
    np.testing.assert_array_equal(labels, label)
    for kind in (1, 0):
        ours, theirs = points[labels == kind], xy[label == kind]
        heights = [np.sort(sm[chosen[:, 1].astype(int), chosen[:, 0].astype(int)]) for chosen in (ours, theirs)]
        np.testing.assert_array_equal(heights[0], heights[1])
        # Whoever is above the lowest (below the highest) of the chosen has no tie to lose.
        clear = {tuple(p) for p in theirs.tolist() if sm[int(p[1]), int(p[0])] != heights[1][0 if kind else -1]}
        assert clear and clear <= {tuple(p) for p in ours.tolist()}


@golden_maps
@pytest.mark.parametrize("rule", RULES)
def test_golden_boxes(key: str, rule: Any) -> None:
    np.testing.assert_array_equal(
        boxes_of(component_boxes(golden_map(key), 0.55, rule)), GOLDEN[f"{key}_{RULES[rule]}0.55"]
    )


@settings(deadline=None, max_examples=40)
@given(maps())
def test_top_points_are_the_first_highest_and_the_first_lowest(sm: np.ndarray) -> None:
    points, labels = points_of(top_points(sm))
    assert labels.tolist() == [1, 0]
    for (x, y), extreme in zip(points, (sm.max(), sm.min()), strict=True):
        row, column = int(y - 0.5), int(x - 0.5)
        assert sm[row, column] == extreme
        assert not (sm.ravel()[: row * sm.shape[1] + column] == extreme).any()


@settings(deadline=None, max_examples=60)
@given(maps(24), thresholds)
def test_corrected_peaks_are_the_true_local_extrema(sm: np.ndarray, threshold: float) -> None:
    peaks, troughs = plain.peaks(sm, threshold)
    points, labels = points_of(peak_points(sm, threshold))
    assert [tuple(p) for p in points[labels == 1]] == peaks
    assert [tuple(p) for p in points[labels == 0]] == troughs
    assert (np.diff(labels) <= 0).all()  # the wanted first


def hill(*places: tuple[int, int], size: tuple[int, int] = (30, 50)) -> np.ndarray:
    """A map that rises to 1 at each (x, y) and is 0.1 far from all of them."""
    y, x = np.mgrid[: size[0], : size[1]]
    near = np.max([np.exp(-((x - px) ** 2 + (y - py) ** 2) / 30) for px, py in places], axis=0)
    return (0.1 + 0.9 * near).astype(np.float32)


def test_published_peaks_lie_on_the_diagonal_and_corrected_ones_on_the_hills() -> None:
    """docs/deviations.md, "point order"."""
    sm = hill((40, 5), (10, 20))
    published, labels = points_of(peak_points(sm, 0.6, "published"))
    assert published[labels == 1].tolist() == [[40, 40], [10, 10]]
    corrected, labels = points_of(peak_points(sm, 0.6))
    assert corrected[labels == 1].tolist() == [[40, 5], [10, 20]]


@pytest.mark.parametrize("fidelity", ["published", "corrected"])
def test_a_border_cell_is_a_plateau_and_no_peak_in_either_fidelity(fidelity: Any) -> None:
    """docs/deviations.md, "border cells": kept, so that the published thresholds keep their meaning."""
    cells = torch.zeros(1, 1, 7, 7)
    cells[0, 0, 0, 3], cells[0, 0, 4, 5] = 1.0, 0.8  # the higher one is on the border
    cells[0, 0, 4, 4] = cells[0, 0, 3, 5] = 0.1  # a cell among equals makes four equal pixels, no strict peak either
    sm = torch.nn.functional.interpolate(cells, (224, 224), mode="bilinear", align_corners=False)[0, 0]
    points, labels = points_of(peak_points(sm, 0.6, fidelity))
    assert len(points[labels == 1]) == 1 and 160 <= points[0, 0] < 192
    assert sm.argmax() // 224 < 16 and sm.max() > 0.9


def test_without_a_peak_the_whole_summit_stands_in_and_without_a_trough_every_zero() -> None:
    cells = torch.full((1, 1, 7, 7), 0.5)
    cells[0, 0, 0, 0], cells[0, 0, 6, 6] = 1.0, 0.0
    sm = torch.nn.functional.interpolate(cells, (224, 224), mode="bilinear", align_corners=False)[0, 0]
    points, labels = points_of(peak_points(sm, 0.6))
    corner = [[x, y] for y in range(16) for x in range(16)]
    assert points[labels == 1].tolist() == corner
    assert points[labels == 0].tolist() == [[x + 208, y + 208] for x, y in corner]
    points, labels = points_of(peak_points(sm + 0.1, 0.6))  # no zero on the map: nothing is unwanted
    assert points[labels == 1].tolist() == corner and not (labels == 0).any()


@settings(deadline=None, max_examples=60)
@given(maps(60), thresholds)
def test_dense_points_part_the_grid_at_their_heights(sm: np.ndarray, threshold: float) -> None:
    height, width = sm.shape
    rows, columns = height // 7, width // 7
    points, labels = points_of(dense_points(sm, threshold))
    wanted, unwanted = points[labels == 1], points[labels == 0]
    assert len(wanted) == len(unwanted) <= rows * columns // 2
    assert len(np.unique(points, axis=0)) == len(points)
    steps = points / (width / columns, height / rows) - 0.5
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)
    cells = torch.nn.functional.interpolate(torch.from_numpy(sm)[None, None], (rows, columns), mode="bilinear")[0, 0]
    heights = cells.numpy()[steps[:, 1].round().astype(int), steps[:, 0].round().astype(int)]
    ranked = np.sort(cells.numpy().ravel())
    np.testing.assert_array_equal(np.sort(heights[labels == 1]), ranked[len(ranked) - len(wanted) :])
    np.testing.assert_array_equal(np.sort(heights[labels == 0]), ranked[: len(unwanted)])
    reached = int((ranked >= np.float32(threshold)).sum())
    assert len(wanted) == min(max(1, reached), rows * columns // 2)


def test_dense_grid_of_a_224_pixel_map_is_every_seventh_pixel() -> None:
    sm = golden_map("0_fwd")
    points, _ = points_of(dense_points(sm, 0.0))
    assert len(points) == 1024 and points.min() == 3.5 and points.max() == 220.5
    first = sm[3::7, 3::7].ravel().argsort(kind="stable")[512:]
    np.testing.assert_array_equal(points[:512], np.stack((first % 32, first // 32), 1) * 7 + 3.5)


@settings(deadline=None, max_examples=60)
@given(maps(), thresholds)
def test_boxes_cover_what_they_claim(sm: np.ndarray, threshold: float) -> None:
    above = sm >= np.float32(threshold)
    labels, count = ndimage.label(above, structure=np.ones((3, 3)))
    slices = ndimage.find_objects(labels)
    components = [[x.start, y.start, x.stop - 1, y.stop - 1] for y, x in slices]
    areas = np.bincount(labels.ravel(), minlength=count + 1)[1:]

    several = boxes_of(component_boxes(sm, threshold, "multi_box")).tolist()
    total = boxes_of(component_boxes(sm, threshold, "total_box")).tolist()
    score = boxes_of(component_boxes(sm, threshold, "single_maxscore")).tolist()
    area = boxes_of(component_boxes(sm, threshold, "single_maxarea")).tolist()
    assert sorted(several) == sorted(components)
    assert len(total) == len(score) == len(area) == min(1, count)
    if count:
        y, x = np.nonzero(above)
        assert total == [[x.min(), y.min(), x.max(), y.max()]]
        assert score == [components[labels.ravel()[sm.argmax()] - 1]]
        assert area[0] in [box for box, size in zip(components, areas, strict=True) if size == areas.max()]


@pytest.mark.parametrize("rule", RULES)
def test_nothing_above_the_threshold_gives_no_box(rule: Any) -> None:
    """docs/deviations.md, "empty prompts": the original stops, or takes the box of the background."""
    prompt = component_boxes(hill((20, 10)), 1.01, rule)
    assert prompt.empty and boxes_of(prompt).shape == (0, 4)


@pytest.mark.parametrize("level", [0.0, 0.5, 1.0])
def test_a_constant_map_prompts_nothing(level: float) -> None:
    sm = np.full((30, 50), level, np.float32)
    assert top_points(sm).empty and peak_points(sm, 0.6).empty and dense_points(sm, 0.6).empty
    for rule in RULES:
        assert component_boxes(sm, 0.4, rule).empty  # type: ignore[arg-type]
    assert Prompt().empty and not top_points(hill((20, 10))).empty


def test_tensors_and_arrays_of_any_precision_prompt_alike() -> None:
    sm = hill((40, 5), (10, 20))
    for rule in (top_points, lambda m: peak_points(m, 0.6), lambda m: dense_points(m, 0.6)):
        expected = points_of(rule(sm))
        for other in (torch.from_numpy(sm), sm.astype(np.float64), torch.from_numpy(sm).double().requires_grad_()):
            np.testing.assert_array_equal(points_of(rule(other))[0], expected[0])
    # A threshold counts in the map's precision, wherever it was computed.
    at_threshold = np.array([[0.55, 0.1], [0.1, 0.1]], np.float32)
    assert not component_boxes(at_threshold, np.float64(0.55), "multi_box").empty


@pytest.mark.parametrize(
    "sm", [np.zeros((2, 3, 4)), np.zeros((0, 3)), np.full((3, 3), np.nan), np.array([[np.inf, 0]])]
)
def test_bad_maps(sm: Any) -> None:
    for rule in (
        top_points,
        lambda m: peak_points(m, 0.6),
        lambda m: dense_points(m, 0.6),
        lambda m: component_boxes(m, 0.6, "total_box"),
    ):
        with pytest.raises(ValueError, match="map"):
            rule(sm)


def test_bad_rules() -> None:
    with pytest.raises(ValueError, match="box rule 'all'"):
        component_boxes(hill((20, 10)), 0.5, "all")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fidelity"):
        peak_points(hill((20, 10)), 0.5, "correct")  # type: ignore[arg-type]


def test_choose_mask() -> None:
    masks = np.zeros((3, 4, 5), bool)
    masks[0, 0], masks[1], masks[2, :2] = True, True, True
    for given_masks, scores in ((masks, [0.2, 0.1, 0.9]), (torch.from_numpy(masks), torch.tensor([0.2, 0.1, 0.9]))):
        assert choose_mask(given_masks, scores, "max_score") == 2
        assert choose_mask(given_masks, scores, "max_area") == 1
    assert choose_mask(masks[[0, 1, 1]], [0.5, 0.7, 0.7], "max_score") == 1
    assert choose_mask(masks[[0, 1, 1]], [0.5, 0.7, 0.7], "max_area") == 1
    assert choose_mask(masks[:1], [0.5], "max_area") == 0
    for candidates, predicted in ((masks[:0], []), (masks, [0.5, 0.5]), (masks[0], [0.5] * 4)):
        with pytest.raises(ValueError, match="masks"):
            choose_mask(candidates, predicted, "max_score")
    with pytest.raises(ValueError, match="method"):
        choose_mask(masks, [0.2, 0.1, 0.9], "max_iou")  # type: ignore[arg-type]
