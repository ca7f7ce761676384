"""The training of a tiny tracker: its steps are those of tracking, and it writes a folder that tracks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from synthetic import train_tracker
from synthetic.clips.assets import open_assets
from synthetic.random_sam2 import image_processor
from zero_shot.segmenters.sam2 import Sam2Segmenter, upscale
from zero_shot.segmenters.sam2_families import FAMILIES, load_network
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


def test_a_network_is_trained_written_and_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_tracker, "EVALUATION_CLIPS", 1)
    monkeypatch.setattr(train_tracker, "BATCH", 2)
    arguments = ["--out", str(tmp_path / "net"), "--minutes", "0.01"]
    assert train_tracker.main(arguments) == 0
    first = load_network(tmp_path / "net", "sam2", tracks=True)[0].state_dict()
    assert "carried" in (tmp_path / "net" / "evaluation.txt").read_text()
    assert train_tracker.main(arguments) == 0
    second = load_network(tmp_path / "net", "sam2", tracks=True)[0].state_dict()
    assert any(not torch.equal(first[name], second[name]) for name in first)
    assert train_tracker.main(["--out", str(tmp_path / "net"), "--evaluate"]) == 0
