"""The metrics of AVSS by each rule: the original's figures, its form, and what tells the rules apart."""

import json
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

from reference.metrics import semantic_sums
from tests.helpers import golden_values as golden
from utils.semantic import CLASSES, SemanticMetrics

FOLDER = Path(__file__).parents[1] / "golden"
FIGURES = json.loads((FOLDER / "avss_metrics_seed1.json").read_text())
INPUTS = np.load(FOLDER / "avss_metrics_seed1.npz")
RULES = {  # name: part of the figures, and its names for mIoU and F
    "published": ("all", "miou", "f_score"),
    "published_nobg": ("all", "miou_noBg", "f_score_noBg"),
    "real": ("real", "miou", "f_score"),
    "seen": ("real", "miou_seen", "f_seen"),
    "truth": ("real", "miou_truth", "f_truth"),
    "foreground": ("real", "miou_truth_fg", "f_truth_fg"),
}


@pytest.fixture(scope="module")
def logits() -> torch.Tensor:
    guess = one_hot(torch.from_numpy(INPUTS["guess"]).long(), 71).permute(0, 3, 1, 2)
    logits = golden.tensor(1, "avss_logits", (40, 71, 32, 32)) + 5 * guess
    logits[:, [5, 12, 33, 48, 59]] -= 100
    return logits * torch.from_numpy(INPUTS["flag"])[:, None, None, None]


def test_golden_rules(logits: torch.Tensor) -> None:
    metrics = SemanticMetrics(classes=71)
    metrics.add(logits, torch.from_numpy(INPUTS["label"]), torch.from_numpy(INPUTS["flag"]))
    numbers = metrics.result()
    for rule, (part, miou, f) in RULES.items():
        assert numbers[f"miou_{rule}"] == pytest.approx(FIGURES[part][miou], abs=1e-6), rule
        assert numbers[f"f_{rule}"] == pytest.approx(FIGURES[part][f], abs=1e-6), rule
    assert numbers["miou_pooled"] == pytest.approx(FIGURES["real"]["miou_pooled_truth"], abs=1e-12)
    assert numbers["classes_truth"] == FIGURES["real"]["classes_truth"]
    assert numbers["classes_seen"] == FIGURES["real"]["classes"]
    assert (numbers["frames"], numbers["padded_frames"]) == (30, 10)
    assert numbers["miou_truth"] == pytest.approx(numbers["miou_real"] * 71 / 8, rel=1e-12)


def test_sums_are_those_of_the_plain_form(logits: torch.Tensor) -> None:
    labels = torch.from_numpy(INPUTS["label"]).long()
    scores = SemanticMetrics().add(logits, labels)
    iou, f, frames = semantic_sums(logits, labels)
    np.testing.assert_allclose(sum(each.iou for each in scores), iou, atol=1e-5)
    np.testing.assert_allclose(sum(each.f for each in scores), f, atol=1e-5)
    assert np.array_equal(sum(each.frames for each in scores), frames)


def test_padding_is_counted_without_being_computed() -> None:
    """A clip of which only the real frames are scored has the numbers of one with padded frames of logits 0."""
    rng = np.random.default_rng(0)
    predicted, labels = rng.integers(0, 9, (2, 10, 8, 8))
    predicted[5:] = labels[5:] = 0
    whole, part = SemanticMetrics(), SemanticMetrics()
    whole.add_classes(predicted, labels, np.arange(10) < 5)
    part.add_clip(3, predicted[:5], labels[:5], length=10)
    assert part.result() == {**whole.result(), "videos": 1}
    assert whole.result()["miou_published"] > whole.result()["miou_real"]
    assert len(part.clips[3]) == 5


def test_perfect_predictions_and_absent_classes() -> None:
    """Classes that are absent from the set count as 0 in the original's rule, whatever the prediction."""
    labels = np.zeros((4, 8, 8), int)
    labels[:, :4] = np.array([3, 4, 5, 3])[:, None, None]
    metrics = SemanticMetrics()
    metrics.add_classes(labels, labels)
    numbers = metrics.result()
    assert numbers["miou_real"] == pytest.approx(4 / 71) and numbers["f_real"] == pytest.approx(4 / 71)
    for rule in ("truth", "seen", "foreground", "pooled"):
        assert numbers[f"miou_{rule}"] == pytest.approx(1)


def test_one_wrong_pixel_in_every_frame() -> None:
    """The example of docs/metrics.md."""
    labels = np.zeros((2, 4, 4), int)
    labels[0, :2] = 41
    predicted = labels.copy()
    predicted[:, 3, 3] = 7
    metrics = SemanticMetrics()
    metrics.add_clip(0, predicted, labels, length=10)
    numbers = {name: round(value, 4) for name, value in metrics.result().items()}
    assert numbers["miou_published"] == round((7 / 8 + 15 / 16 + 8) / 10 / 71 + 1 / 71, 4) == 0.0279
    assert numbers["miou_real"] == round(((7 / 8 + 15 / 16) / 2 + 1) / 71, 4) == 0.0268
    assert numbers["miou_seen"] == round(((7 / 8 + 15 / 16) / 2 + 1) / 3, 4) == 0.6354
    assert numbers["miou_truth"] == round(((7 / 8 + 15 / 16) / 2 + 1) / 2, 4) == 0.9531
    assert numbers["miou_foreground"] == 1
    assert numbers["miou_pooled"] == round((22 / 24 + 1) / 2, 4) == 0.9583
    without = SemanticMetrics()
    without.add_clip(0, labels, labels, length=10)
    assert without.result()["miou_seen"] == 1  # one invented class costs a third of this rule


def test_nobg_drops_the_last_class() -> None:
    labels = np.zeros((1, 4, 4), int)
    labels[0, :2] = CLASSES.index("woman")
    metrics = SemanticMetrics()
    metrics.add_classes(labels, labels)
    numbers = metrics.result()
    assert numbers["miou_published"] == pytest.approx(2 / 71) and numbers["miou_published_nobg"] == pytest.approx(
        1 / 70
    )


def test_parts_of_two_processes_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    predicted, labels = rng.integers(0, 71, (2, 6, 8, 8))
    whole, parts = SemanticMetrics(), [SemanticMetrics(), SemanticMetrics()]
    for clip in range(3):
        frames = slice(2 * clip, 2 * clip + 2)
        for metrics in (whole, parts[clip % 2]):
            metrics.add_clip(clip, predicted[frames], labels[frames], length=5)
    monkeypatch.setattr("accelerate.utils.gather_object", lambda _: [dict(vars(part)) for part in parts])
    parts[0].gather(2)
    assert parts[0].result() == pytest.approx(whole.result(), rel=1e-12) and parts[0].clips == whole.clips


def test_memory_does_not_grow_with_the_number_of_clips() -> None:
    rng = np.random.default_rng(2)
    predicted, labels = rng.integers(0, 71, (2, 10, 64, 64), np.uint8)

    def kept(clips: int) -> int:
        tracemalloc.start()
        metrics = SemanticMetrics()
        for _ in range(clips):
            metrics.add_classes(predicted, labels)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return size

    kept(1)
    assert kept(40) < kept(4) + 4096


def test_per_class_rows() -> None:
    labels = np.zeros((2, 4, 4), int)
    labels[0, :2] = 41
    metrics = SemanticMetrics()
    metrics.add_classes(labels, labels)
    rows = metrics.per_class()
    assert len(rows) == 71 and (rows[41]["name"], rows[41]["iou"], rows[41]["labeled_pixels"]) == ("man", 1.0, 8)
    assert rows[40]["frames"] == 0


def test_refused() -> None:
    metrics = SemanticMetrics()
    good = np.zeros((1, 71, 4, 4), np.float32)
    with pytest.raises(ValueError, match="no frame"):
        metrics.result()
    with pytest.raises(ValueError, match=r"not \(N, 71, H, W\)"):
        metrics.add(good[:, :70], np.zeros((1, 4, 4), int))
    with pytest.raises(ValueError, match="NaN"):
        metrics.add(np.where(good == 0, np.nan, good), np.zeros((1, 4, 4), int))
    with pytest.raises(ValueError, match="differ"):
        metrics.add(good, np.zeros((1, 4, 5), int))
    for label in (71, -1, 255):
        with pytest.raises(ValueError, match="labels must be from 0 to 70"):
            metrics.add(good, np.full((1, 4, 4), label))
    assert metrics.frames == 0
