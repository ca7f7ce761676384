"""The training of a tiny tracker: its steps are those of tracking, and it writes a folder that tracks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from synthetic import train_tracker
from synthetic.clips.assets import open_assets
from synthetic.clips.sampling import LEVELS
from synthetic.random_sam2 import image_processor
from zero_shot.segmenters.sam2 import Sam2Segmenter, upscale
from zero_shot.segmenters.sam2_families import FAMILIES
from zero_shot.segmenters.sam2_tracker import MaskTracker


def test_training_carries_masks_as_tracking_does() -> None:
    """For each of two clips at once what MaskTracker finds for it alone, but for the rounding of feature maps."""
    model = train_tracker.new_network(seed=2).eval().requires_grad_(False)
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, torch.nn.Linear | torch.nn.Conv2d):
                layer.weight.mul_(3)  # with small weights all masks are alike
        torch.nn.init.constant_(model.mask_decoder.pred_obj_score_head.proj_out.bias, 1000.0)
    processor = image_processor(model)
    assets, rng = open_assets(None, None), np.random.default_rng(5)
    clips = [train_tracker.draw_clip(assets, rng) for _ in range(2)]
    prepared = [train_tracker.prepare_clip(processor, frames, masks[:, :1]) for frames, masks in clips]
    video, first = torch.stack([each for each, _ in prepared]), torch.stack([masks[0, 0] for _, masks in prepared])
    logits = train_tracker.carry_batch(model, video, first)
    tracker = MaskTracker(Sam2Segmenter(model, processor), FAMILIES["sam2"])
    masks = (upscale(logits, (224, 224)) > 0).numpy()
    assert 0.02 < masks.mean() < 0.98
    for number, (frames, truth) in enumerate(clips):
        carried = tracker.carry(frames, 0, truth[0, :1])[1:, 0]
        assert (carried != masks[number]).mean() < 0.02


def test_a_network_is_trained_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same seed gives the same network, and a folder that holds one is not overwritten."""
    monkeypatch.setattr(train_tracker, "EVALUATION_CLIPS", 1)
    monkeypatch.setattr(train_tracker, "BATCH", 2)
    weights = []
    for name in ("one", "two"):
        assert train_tracker.main(["--out", str(tmp_path / name), "--steps", "2"]) == 0
        weights.append((tmp_path / name / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] and "carried" in (tmp_path / "one" / "evaluation.txt").read_text()
    assert "note: it carries masks worse than leaving them" in capsys.readouterr().out, "after two steps"
    assert train_tracker.main(["--out", str(tmp_path / "one")]) == 1
    assert "holds a network already" in capsys.readouterr().err
    assert train_tracker.main(["--out", str(tmp_path / "one"), "--evaluate"]) == 0


def test_training_clips_are_of_both_levels_and_their_objects_stay_visible() -> None:
    assets, rng = open_assets(None, None), np.random.default_rng(1)
    areas = [train_tracker.draw_clip(assets, rng)[1].mean((2, 3)) for _ in range(12)]
    smallest = min(each.min() for each in areas)
    assert all(each.size for each in areas) and LEVELS["hard"].min_visible <= smallest < LEVELS["plain"].min_visible
