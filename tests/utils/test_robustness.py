"""The measures of robustness against the figures of the original functions, and at their fixed points."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from utils.robustness import (
    area_auc,
    condition_measures,
    false_positive_rate,
    harmonic_mean,
    mask_ious,
    measure_frames,
    predicted_areas,
)

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "avss_robust_seed1.json").read_text())
LOGITS = torch.from_numpy(np.load(FOLDER / "metrics_in_seed1.npz")["logits"]).float()


def test_golden() -> None:
    rates = false_positive_rate(LOGITS)
    assert rates.tolist() == GOLDEN["fpr_frames"] and rates.mean().item() == GOLDEN["fpr"]
    areas = predicted_areas((LOGITS.sigmoid() > 0.5).numpy())
    assert areas.tolist() == GOLDEN["pia_frames"]
    assert area_auc(areas) == pytest.approx(GOLDEN["auc_n"], abs=1e-12)
    assert np.sqrt(areas.mean()) == pytest.approx(GOLDEN["s_null"], abs=1e-6)
    assert 100 * harmonic_mean(0.70, 0.55) == pytest.approx(GOLDEN["harmonic_70_55"], abs=0.01)


def test_areas_and_ious_of_single_frames() -> None:
    one = np.zeros((4, 2, 5), bool)
    other = one.copy()
    one[0, 0, :4] = other[0, 0, 2:] = True  # 2 of 5
    one[1] = True  # against nothing
    one[3, 0, 0] = other[3, 0, 0] = True
    assert mask_ious(one, other).tolist() == [0.4, 0, 1, 1]
    assert predicted_areas(one).tolist() == [0.4, 1, 0, 0.1]


def test_area_auc_counts_frames_up_to_each_threshold() -> None:
    assert area_auc([0.0]) == 1 and area_auc([1.0]) == pytest.approx(0.025)
    assert area_auc([0.5]) == pytest.approx(0.525)  # the point 0.5 counts, and half the step before it
    assert area_auc([0.0, 1.0]) == pytest.approx(0.5125)


def test_an_empty_truth_scores_the_same_whatever_the_sound_if_the_mask_is_the_same() -> None:
    truth, masks = np.zeros((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    truth[0, :2] = masks[:, :1] = True
    probabilities = np.where(masks, 0.75, 0.25).astype(np.float32)
    frames = measure_frames(masks, truth, masks, probabilities)
    assert frames.same.tolist() == [0.5, 0.75] and frames.agree.tolist() == [1, 1]
    assert frames.sweep[0].tolist() == [1, 1, *[0.25] * 5, 0, 0]  # 0.1, 0.2, …
    values = condition_measures(frames, 0.625, negative=True)
    assert (values["drop"], values["agree"], values["keep"], values["pIA"]) == (0, 1, 1, 0.25)
    assert values["MJ_neg"] == 0.75 and values["FPR"] == 0.25 and values["S_null"] == 0.5
    assert values["H"] == pytest.approx(2 * 0.625 * 0.75 / 1.375)
    assert {"FPR", "MJ_neg", "H"}.isdisjoint(condition_measures(frames, 0.625, negative=False))
