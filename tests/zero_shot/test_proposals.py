"""Proposals against `SamAutomaticMaskGenerator`: the same records in the same order."""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from models.sam import SamConfig
from reference.random_sam import MINI, random_sam
from zero_shot.segmenters.proposals import ProposalOptions, generate_proposals
from zero_shot.segmenters.sam import SamSegmenter
from zero_shot.segmenters.sam_decoder import PROMPTS_PER_CHUNK, FastDecoder

Records = list[dict[str, Any]]
EVERYTHING = ProposalOptions(9, -1e9, 0.0, 1.0, 1.0)
SHAPES = [(224, 224), (90, 160), (161, 97)]


def patchwork(shape: tuple[int, int], seed: int) -> np.ndarray:
    """A frame of 4×4 plain fields, (H, W, 3)."""
    fields = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return cv2.resize(fields, shape[::-1], interpolation=cv2.INTER_NEAREST)


def between(records: Records, key: str, share: float) -> float:
    """A threshold that about `share` of the values lie below, in the widest gap near there: no rounding crosses it."""
    values = np.sort([record[key] for record in records if np.isfinite(record[key])])
    middle = round(share * (len(values) - 1))
    near = values[max(0, middle - 10) : middle + 11]
    widest = np.diff(near).argmax()
    return float(near[widest : widest + 2].mean())


def stock(sam: Sam, frame: np.ndarray, options: ProposalOptions) -> Records:
    return SamAutomaticMaskGenerator(sam, **vars(options)).generate(frame)


def assert_same(ours: Records, theirs: Records) -> None:
    assert len(ours) == len(theirs)
    different = pixels = 0
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys()
        for key in ("point_coords", "crop_box"):
            assert one[key] == other[key]
        for key in other:
            assert type(one[key]) is type(other[key])
        assert one["segmentation"].dtype == bool and one["segmentation"].shape == other["segmentation"].shape
        wrong = int((one["segmentation"] != other["segmentation"]).sum())
        assert abs(one["area"] - other["area"]) <= wrong
        assert one["bbox"] == other["bbox"] or wrong
        assert one["predicted_iou"] == pytest.approx(other["predicted_iou"], abs=1e-5)
        pixel = 1 / max(100, one["area"])  # the score is a ratio of two counts of pixels
        assert one["stability_score"] == pytest.approx(other["stability_score"], abs=2 * pixel, nan_ok=True)
        different += wrong
        pixels += one["segmentation"].size
    assert different <= 1e-4 * pixels


@pytest.mark.parametrize(("seed", "shape"), list(zip([2, 3, 4], SHAPES, strict=True)))
def test_records_equal_segment_anything(seed: int, shape: tuple[int, int]) -> None:
    sam, frame = random_sam(seed=seed), patchwork(shape, seed)
    segmenter = SamSegmenter(sam)
    every = generate_proposals(segmenter, [frame], EVERYTHING)[0]
    assert len(every) == 3 * EVERYTHING.points_per_side**2
    assert_same(every, stock(sam, frame, EVERYTHING))
    iou, stability = between(every, "predicted_iou", 0.6), between(every, "stability_score", 0.4)
    found = []
    for options in (
        replace(EVERYTHING, pred_iou_thresh=iou, box_nms_thresh=0.9),
        replace(EVERYTHING, pred_iou_thresh=iou, stability_score_thresh=stability),
        ProposalOptions(7, 0.0, stability / 2, 0.5, 0.7),
    ):
        ours = generate_proposals(segmenter, [frame], options)[0]
        assert_same(ours, stock(sam, frame, options))
        found.append(len(ours))
    assert found[0] > 3 and 10 < found[1] < 0.4 * len(every) and found[2] > 0


@pytest.mark.parametrize("options", [ProposalOptions(6, pred_iou_thresh=1e9), ProposalOptions(6, -1e9, 1.1)])
def test_frames_without_a_proposal_give_an_empty_list(options: ProposalOptions) -> None:
    sam = random_sam()
    frames = [patchwork(shape, 0) for shape in SHAPES[:2]]
    assert (
        generate_proposals(SamSegmenter(sam), frames, options)
        == [[], []]
        == [stock(sam, frame, options) for frame in frames]
    )
    assert generate_proposals(SamSegmenter(sam), [], options) == []


def test_defaults_are_those_of_segment_anything() -> None:
    generator = SamAutomaticMaskGenerator(random_sam())
    assert len(generator.point_grids[0]) == ProposalOptions().points_per_side ** 2
    for name, value in vars(ProposalOptions()).items():
        assert name == "points_per_side" or getattr(generator, name) == value


def test_the_memory_budget_changes_no_record() -> None:
    sam = random_sam(seed=3)
    frames = [patchwork(shape, seed) for seed, shape in enumerate(SHAPES[1:])]
    threshold = between(generate_proposals(SamSegmenter(sam), frames, EVERYTHING)[0], "predicted_iou", 0.8)
    options = replace(EVERYTHING, points_per_side=17, pred_iou_thresh=threshold)
    assert options.points_per_side**2 > PROMPTS_PER_CHUNK
    large, *others = (
        generate_proposals(SamSegmenter(sam, memory_mib=memory), frames, options) for memory in (4096, 32, 1)
    )
    assert sum(map(len, large)) > 100
    others.append([generate_proposals(SamSegmenter(sam), [frame], options)[0] for frame in frames])
    for other in others:
        for one, two in zip(large, other, strict=True):
            assert_same(one, two)


def test_only_required_masks_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    masks = FastDecoder.masks

    def counted(*arguments: Any) -> torch.Tensor:
        made.append(len(arguments[3]))
        return masks(*arguments)

    monkeypatch.setattr(FastDecoder, "masks", counted)
    segmenter, frame = SamSegmenter(random_sam()), patchwork((90, 160), 0)
    threshold = between(generate_proposals(segmenter, [frame], EVERYTHING)[0], "predicted_iou", 0.9)
    assert sum(made) == 3 * 9**2
    made.clear()
    kept = generate_proposals(segmenter, [frame], replace(EVERYTHING, pred_iou_thresh=threshold))[0]
    assert sum(made) == len(kept) and 0 < len(kept) < 40


def test_cached_proposals_are_identical(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segmenter = SamSegmenter(random_sam(seed=2), cache=tmp_path)
    frames = [patchwork(shape, 1) for shape in SHAPES]
    frames.append(frames[0])
    first = generate_proposals(segmenter, frames, EVERYTHING)
    entries = sorted(tmp_path.rglob("*.safetensors"))
    assert [path.relative_to(tmp_path).parts[0] for path in entries] == ["embedding"] * 3 + ["proposals"] * 3
    monkeypatch.setattr("zero_shot.segmenters.proposals._propose", None)  # whoever calls it now fails
    again = generate_proposals(SamSegmenter(random_sam(seed=2), cache=tmp_path), frames, EVERYTHING)
    for one, other in zip(chain(*first), chain(*again), strict=True):
        assert (one.pop("segmentation") == other.pop("segmentation")).all()
        assert str(one) == str(other)  # as text, for a stability may be nan
    with pytest.raises(TypeError):
        generate_proposals(segmenter, frames, replace(EVERYTHING, box_nms_thresh=0.5))
    with pytest.raises(TypeError):
        generate_proposals(SamSegmenter(random_sam(seed=3), cache=tmp_path), frames, EVERYTHING)


def test_cached_masks_take_one_bit_per_pixel(tmp_path: Path) -> None:
    options = replace(EVERYTHING, points_per_side=8)
    generate_proposals(SamSegmenter(random_sam(), cache=tmp_path), [patchwork((161, 97), 0)], options)
    (entry,) = (tmp_path / "proposals").rglob("*.safetensors")
    assert entry.stat().st_size < 3 * 8**2 * (161 * 97 / 8 + 100) + 1000


def test_a_damaged_entry_is_recomputed(tmp_path: Path) -> None:
    segmenter, frame = SamSegmenter(random_sam(), cache=tmp_path), patchwork((90, 160), 0)
    first = generate_proposals(segmenter, [frame], EVERYTHING)
    (entry,) = (tmp_path / "proposals").rglob("*.safetensors")
    entry.write_bytes(entry.read_bytes()[:-7])
    with pytest.warns(UserWarning, match="damaged"):
        assert_same(generate_proposals(segmenter, [frame], EVERYTHING)[0], first[0])


def test_bf16_stays_near_float32() -> None:
    """Predicted IoU within .15 of a spread of several, 97 of 100 mask pixels the same."""
    frame = patchwork((224, 224), 0)
    rough, fine = (
        generate_proposals(
            SamSegmenter(random_sam(), precision=precision), [frame], replace(EVERYTHING, points_per_side=6)
        )[0]
        for precision in ("bf16", "fp32")
    )
    rough, fine = ([*sorted(records, key=lambda r: (r["point_coords"], r["area"]))] for records in (rough, fine))
    scores = np.array([[record["predicted_iou"] for record in records] for records in (rough, fine)])
    assert 0 < np.abs(np.sort(scores[0]) - np.sort(scores[1])).max() < 0.15 < np.ptp(scores[1]) / 10
    wrong = [(one["segmentation"] != other["segmentation"]).mean() for one, other in zip(rough, fine, strict=True)]
    assert np.mean(wrong) < 0.03


@pytest.mark.slow
def test_records_of_a_vit_b_equal_segment_anything(tmp_path: Path) -> None:
    """At ViT-B's own size: relative positions, windows that need padding, 4096 image tokens."""
    sam = random_sam("vit_b", seed=2)
    segmenter = SamSegmenter(sam, cache=tmp_path)
    frames = [patchwork(shape, 2) for shape in ((224, 224), (120, 224))]
    everything = replace(EVERYTHING, points_per_side=4)
    every = generate_proposals(segmenter, frames, everything)
    assert_same(every[0], stock(sam, frames[0], everything))
    iou, stability = between(every[1], "predicted_iou", 0.4), between(every[1], "stability_score", 0.3)
    options = replace(everything, pred_iou_thresh=iou, stability_score_thresh=stability)
    ours = generate_proposals(segmenter, frames[1:], options)[0]
    assert len(every[0]) == 48 and 5 < len(ours) < 40
    assert_same(ours, stock(sam, frames[1], options))


def test_other_sizes() -> None:
    sizes = SamConfig(**{**vars(MINI), "image_size": 128, "relative": True, "window": 3, "channels": 32})
    sam, frame = random_sam(sizes, seed=5), patchwork((60, 100), 5)
    assert_same(generate_proposals(SamSegmenter(sam), [frame], EVERYTHING)[0], stock(sam, frame, EVERYTHING))
