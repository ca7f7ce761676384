"""M_J and M_F against the original's figures and the textbook form."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from reference import metrics as reference
from utils.frame_counts import FrameCounts, threshold_levels, thresholds
from utils.metrics import Metrics, count_frames, f_score, mean_iou

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "metrics_seed1.json").read_text())
INPUT = np.load(FOLDER / "metrics_in_seed1.npz")
LOGITS = torch.from_numpy(INPUT["logits"]).float()
MASKS = torch.from_numpy(np.unpackbits(INPUT["gt"])[: LOGITS.numel()].reshape(LOGITS.shape)).float()


@pytest.mark.parametrize("name", list(GOLDEN))
def test_golden(name: str) -> None:
    metric, _, frames = name.partition("_")
    logits, masks = LOGITS, MASKS
    if frames == "binary":
        logits = (LOGITS > 0).float()
    else:
        begin, end = map(int, frames.split("_"))
        logits, masks = LOGITS[begin:end], MASKS[begin:end]
    ours = mean_iou(logits, masks) if metric == "iou" else f_score(logits, masks)
    assert ours == pytest.approx(GOLDEN[name], abs=1e-6)


def test_levels_are_exact_at_every_threshold() -> None:
    steps = thresholds()
    beside = [np.nextafter(steps, np.float32(-1)), steps, np.nextafter(steps, np.float32(2))]
    values = np.concatenate([*beside, np.random.default_rng(0).random(50_000, np.float32)])
    values = values[(values >= 0) & (values <= 1)][None]
    np.testing.assert_array_equal(threshold_levels(values), np.searchsorted(steps, values, side="right"))


def test_thresholds_are_torchs() -> None:
    torchs = torch.linspace(0, 1 - 1e-10, 255).numpy()
    np.testing.assert_array_max_ulp(thresholds(), torchs, 1)  # torch's last digit depends on the processor
    assert thresholds()[127] == 0.5 and thresholds()[254] == 1


def test_counts_are_those_of_every_threshold() -> None:
    logits, truth = LOGITS[:3].clone(), MASKS[:3] > 0
    logits[:, :9] = 40.0  # of probability 1, which reaches the last threshold too
    counts = count_frames(logits, MASKS[:3])
    reached = logits.sigmoid()[:, None] >= torch.from_numpy(thresholds().copy())[:, None, None]
    np.testing.assert_array_equal(counts.predicted, reached.sum((2, 3)))
    np.testing.assert_array_equal(counts.true_positives, (reached & truth[:, None]).sum((2, 3)))
    np.testing.assert_array_equal(counts.positives, truth.sum((1, 2)))


frames_and_masks = st.integers(0, 2**32 - 1).map(
    lambda seed: (
        torch.from_numpy(np.random.default_rng(seed).normal(0, 3, (3, 9, 7)).astype(np.float32)),
        torch.from_numpy((np.random.default_rng(seed).random((3, 9, 7)) > 0.4 + 0.3 * (seed % 3)).astype(np.float32)),
    )
)


@settings(deadline=None, max_examples=30)
@given(frames_and_masks)
def test_equals_the_plain_form(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    logits, masks = pair
    assert f_score(logits, masks) == pytest.approx(reference.f_score(logits, masks), abs=1e-6)
    assert mean_iou(logits, masks) == pytest.approx(reference.mean_iou(logits, masks), abs=1e-6)


def collect(order: list[int]) -> Metrics:
    metrics = Metrics()
    for video in order:
        metrics.add(video, LOGITS[video * 2 : video * 2 + 2], MASKS[video * 2 : video * 2 + 2])
    return metrics


def test_counts_of_masks_are_those_of_their_probabilities() -> None:
    draw = np.random.default_rng(0)
    masks, truths = (torch.from_numpy(draw.random((6, 9, 7)) < 0.4) for _ in range(2))
    truths[1], masks[2], masks[3], truths[4] = False, False, True, True
    truths[5] = masks[5] = False
    pixels = [[int(m.sum()), int((m & t).sum()), int(t.sum()), m.numel()] for m, t in zip(masks, truths, strict=True)]
    found, expected = FrameCounts.of_masks(np.array(pixels, np.int32)), count_frames(masks.float(), truths.float())
    for name in FrameCounts.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_whole_set_numbers_ignore_batches_and_order() -> None:
    results = [collect(order).result(batch) for order in ([0, 1, 2, 3, 4], [3, 1, 4, 0, 2]) for batch in (1, 2, 5)]
    for name in ("m_f_whole_set", "iou_dataset", "frames", "videos"):
        assert len({result[name] for result in results}) == 1
    assert results[0] == results[3] and results[1] == results[4]  # order never matters
    assert len({result["m_f"] for result in results}) == 3  # but M_F depends on the batch


def test_batch_rule_is_the_originals() -> None:
    result = collect([0, 1, 2, 3, 4]).result(metric_batch=2)
    batches = [slice(0, 4), slice(4, 8), slice(8, 10)]  # the last has fewer frames and the same weight
    assert result["m_f"] == pytest.approx(np.mean([reference.f_score(LOGITS[b], MASKS[b]) for b in batches]), abs=1e-6)
    assert result["m_j"] == pytest.approx(np.mean([reference.mean_iou(LOGITS[b], MASKS[b]) for b in batches]), abs=1e-6)
    assert result["m_f_whole_set"] == pytest.approx(GOLDEN["f_0_10"], abs=1e-6)


def test_dataset_iou() -> None:
    chosen, truth = LOGITS > 0, MASKS > 0.5
    empty = ~truth.flatten(1).any(1)
    inter = (chosen & truth).flatten(1).sum(1)
    union = (chosen | truth).flatten(1).sum(1)
    inter[empty], union[empty] = (~chosen).flatten(1).sum(1)[empty], truth[0].numel()
    ours = collect([0, 1, 2, 3, 4]).result(1)["iou_dataset"]
    assert ours == pytest.approx((inter.sum() / union.sum()).item(), abs=1e-6)


def test_faults() -> None:
    with pytest.raises(ValueError, match="must both be"):
        count_frames(LOGITS, MASKS[:3])
    with pytest.raises(ValueError, match="0 and 1 only"):
        count_frames(LOGITS, MASKS * 0.5)
    with pytest.raises(ValueError, match="0 and 1 only"):
        count_frames(LOGITS, MASKS * 255)
    with pytest.raises(ValueError, match="NaN"):
        count_frames(LOGITS * float("nan"), MASKS)
    with pytest.raises(ValueError, match="no video"):
        Metrics().result(1)
