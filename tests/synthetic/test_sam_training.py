"""SAM's small weights: training from the command line, prompts, losses, evaluation, and the shipped weights."""

import json
from argparse import Namespace
from collections.abc import Callable
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from torch.utils.data import DataLoader

from models.registry import create_model
from models.sam import SamConfig, build_sam
from models.weights import MINI_DIR
from synthetic.clips.assets import BuiltinLibrary
from synthetic.train import main
from synthetic.training import sam_data, sam_eval, sam_prompts, sam_training
from synthetic.training.sam_prompts import LabeledFrame
from synthetic.training.sam_task import SamTask
from utils.cli import InputError
from utils.files import wav_bytes

TINY = {
    **sam_training.SIZES,
    "width": 16,
    "depth": 2,
    "heads": 2,
    "global_blocks": [1],
    "image_size": 64,
    "window": 2,
    "channels": 16,
    "decoder_mlp": 16,
    "decoder_heads": 2,
    "iou_hidden": 8,
}
QUICK = ["--sizes", json.dumps(TINY), "--frames", "1", "--evaluation-seeds", "0", "--workers", "0"]


def train(out: Path, *more: str, steps: int = 4) -> int:
    return main(["sam", "--out", str(out), "--steps", str(steps), "--batch", "2", *QUICK, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four steps, done in one go."""
    out = tmp_path_factory.mktemp("mini") / "whole"
    assert train(out) == 0
    return out


@pytest.fixture(scope="module")
def image() -> LabeledFrame:
    return sam_data.draw_labeled_frame(BuiltinLibrary(), np.random.default_rng(3))


# Training


def test_training_writes_weights_metadata_and_curve(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [f"sam.{s}" for s in ("json", "png", "safetensors")]
    notes = json.loads((trained / "sam.json").read_text())
    assert notes["model"] == TINY
    assert notes["steps_done"] == notes["recipe"]["steps"] == 4
    assert notes["recipe"]["background_from"] == 2
    assert "exact masks" in notes["recipe"]["supervision"]
    assert list(notes["metrics"]) == ["proposal thresholds", "scenes, seed 0"]
    assert cv2.imread(str(trained / "sam.png")) is not None
    assert sum(p.numel() for p in create_model("sam_mini", trained).parameters()) == notes["parameters"]
    before = (trained / "sam.safetensors").read_bytes()
    assert train(trained) == 0
    assert "finished, 4 steps" in capsys.readouterr().out
    assert (trained / "sam.safetensors").read_bytes() == before


def test_a_training_stopped_by_minutes_resumes(trained: Path, tmp_path: Path) -> None:
    for _ in range(4):  # each call manages one step
        assert train(tmp_path, "--minutes", "1e-6") == 0
    assert (tmp_path / "sam.safetensors").read_bytes() == (trained / "sam.safetensors").read_bytes()
    assert not (tmp_path / "sam.state.pt").exists()


def test_evaluate_gives_the_recorded_metrics(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sam", "--out", str(trained), "--evaluate", *QUICK]) == 0
    printed = capsys.readouterr().out
    figures = json.loads((trained / "sam.json").read_text())["metrics"]
    for name in ("center", "score_error", "recall_50"):
        line = next(line for line in printed.splitlines() if line.startswith(f"{name} "))
        assert float(line.split()[2]) == pytest.approx(figures["scenes, seed 0"][name], abs=1e-3)


def test_trains_on_pictures_from_a_folder(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for name, gray in (("one", 40), ("two", 220), ("multimask", 130)):
        cv2.imwrite(str(folder / f"{name}.png"), np.full((50, 60, 4), (gray, 40, 200, 255), np.uint8))
        (folder / f"{name}.wav").write_bytes(wav_bytes(np.full(4000, 9000, np.int16), 8000))
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    cv2.imwrite(str(photographs / "wall.jpg"), np.full((90, 120, 3), 120, np.uint8))
    arguments = ["--pictures", str(folder), "--backgrounds", str(photographs), "--start", str(trained), "--seed", "4"]
    assert train(tmp_path, *arguments, steps=1) == 0
    recipe = json.loads((tmp_path / "sam.json").read_text())["recipe"]
    assert "3 categories, " in recipe["data"] and "1 photograph, " in recipe["data"]
    assert recipe["start"] == f"the weights in {trained}"


def test_the_loss_falls() -> None:
    task = SamTask(Namespace(sizes=json.dumps(TINY), steps=40, seed=0, pictures=None, backgrounds=None, batch=2))
    model = task.build(task.sizes)
    heads = task.auxiliary_heads(model)
    batch = next(iter(DataLoader(task.dataset(0), batch_size=2)))
    optimizer = torch.optim.AdamW([*model.parameters(), *heads.parameters()], lr=3e-3)
    losses = []
    for _ in range(25):
        loss = task.loss(model, heads, batch, 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


# Scenes and prompts


def test_samples_depend_on_seed_and_index_alone() -> None:
    plan = sam_data.Curriculum(8, 5)
    stream = sam_data.PromptDataset(BuiltinLibrary(), plan, batch_size=2, start=3, image_size=64)
    alone, helped = (list(DataLoader(stream, batch_size=2, num_workers=n)) for n in (0, 1))
    assert len(alone) == 5
    for one, other in zip(alone, helped, strict=True):
        assert torch.equal(one["image"], other["image"])
        for name in ("points", "labels", "targets"):
            assert all(torch.equal(a, b) for a, b in zip(one[name], other[name], strict=True))
    later = sam_data.PromptDataset(BuiltinLibrary(), plan, batch_size=2, start=4, image_size=64)
    assert torch.equal(later[0]["image"], stream[2]["image"])
    assert not torch.equal(stream[0]["image"], stream[1]["image"])
    another = sam_data.PromptDataset(BuiltinLibrary(), sam_data.Curriculum(8, 6), batch_size=2, start=3, image_size=64)
    assert not torch.equal(another[0]["image"], stream[0]["image"])


def test_frames_are_scaled_as_the_predictor_scales_them(image: LabeledFrame) -> None:
    sam = build_sam(SamConfig(**TINY))
    seen: list[torch.Tensor] = []
    handle = sam.image_encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    SamPredictor(sam).set_image(image.frame)
    handle.remove()
    assert torch.equal(sam.preprocess(sam_data.image_tensor(image.frame, 64)[None].float()), seen[0])


def test_augmentation_transforms_frame_and_masks_alike(image: LabeledFrame) -> None:
    other = LabeledFrame(np.zeros((224, 224, 3), np.uint8), image.masks)
    other.frame[image.masks[0]] = 255
    for seed in range(6):
        changed = sam_data.augment(other, np.random.default_rng(seed))
        assert sam_eval.iou_with_each(changed.masks[0], changed.frame[..., 0] > 100) > 0.95
        assert not np.array_equal(changed.masks, image.masks)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), step=st.integers(0, 99))
def test_prompts_lie_in_their_masks(seed: int, step: int, image: LabeledFrame) -> None:
    plan = sam_data.Curriculum(100, 0)
    groups = plan.prompts(image, step, np.random.default_rng(seed))
    assert [len(group) for group in groups] == [sam_data.NUM_POINTS, len(sam_data.BOX_NOISE), sam_data.NUM_PAIRS, 1]
    for group in groups:
        assert len({prompt.points.shape for prompt in group}) == 1
        for prompt in group:
            assert len(prompt.labels) == len(prompt.points)
            assert (prompt.points >= 0).all()
            assert (prompt.points <= 223).all()
    points, boxes, pairs, (many,) = groups

    def inside(prompt: sam_prompts.Prompt, index: int) -> bool:
        x, y = prompt.points[index].astype(int)
        return bool(image.masks[prompt.target, y, x] if prompt.target >= 0 else image.masks[:, y, x].any())

    assert {prompt.target for prompt in points} >= set(range(len(image.masks)))
    assert all(inside(prompt, 0) for prompt in (*points, *pairs) if prompt.target >= 0)
    off = [prompt for prompt in points if prompt.target < 0]
    assert len(off) == (step >= 30)
    assert not any(inside(prompt, 0) for prompt in off)
    assert not any(inside(prompt, 1) for prompt in pairs)
    assert all((box.points[0] <= box.points[1]).all() for box in boxes)
    positives, negatives = plan.num_points(step)
    assert many.labels.sum() == positives
    assert len(many.labels) == positives + (negatives or positives)
    if negatives:
        assert inside(many, 0)
        assert not any(inside(many, index) for index in range(positives, positives + negatives))
    else:
        assert set(np.unique(many.points % 7)) == {3.5}


def test_a_dense_prompt_without_noise_points_at_the_object(image: LabeledFrame) -> None:
    for target, mask in enumerate(image.masks):
        prompt = sam_prompts.dense_prompt(image, target, np.random.default_rng(0), 8, 0.0)
        x, y = prompt.points.astype(int).T
        assert mask[y, x][:8].mean() > 0.7
        assert not mask[y, x][8:].any()


def test_a_box_without_noise_is_the_bounding_box(image: LabeledFrame) -> None:
    (left, top), (right, low) = sam_prompts.box_prompt(image, 0, np.random.default_rng(0)).points.astype(int)
    assert image.masks[0, top : low + 1, left : right + 1].sum() == image.masks[0].sum()
    assert all(edge.any() for edge in image.masks[0][[top, low]])
    assert all(edge.any() for edge in image.masks[0].T[[left, right]])


def test_a_full_frame_has_no_background_prompt() -> None:
    full = LabeledFrame(np.zeros((224, 224, 3), np.uint8), np.ones((1, 224, 224), bool))
    assert sam_prompts.background_prompt(full, np.random.default_rng(0)) is None


def test_steps_have_different_prompts() -> None:
    plan = sam_data.Curriculum(1000, 0)
    dense = [plan.num_points(step)[0] for step in range(1, 1000, 2)]
    assert min(dense) == 1
    assert 0.95 * sam_data.MAX_POINTS < max(dense) <= sam_data.MAX_POINTS
    assert {plan.num_points(step) for step in range(0, 1000, 2)} == {(p, n) for p in range(1, 10) for n in range(2, 10)}
    rates = [plan.lr_factor(step) for step in range(1000)]
    assert rates[0] < 0.02
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert 0 < rates[-1] < 1e-4


# Model and loss


def test_batched_decoding_equals_the_predictor(image: LabeledFrame) -> None:
    sam = sam_training.build_sam_mini(TINY, 0).eval().requires_grad_(False)
    rng = np.random.default_rng(0)
    other = sam_data.draw_labeled_frame(BuiltinLibrary(), np.random.default_rng(4))
    images = torch.stack([sam_data.image_tensor(p.frame, 64) for p in (image, other)])
    embedding = sam.image_encoder(sam.preprocess(images.float()))
    predictor = SamPredictor(sam)
    for make in (
        sam_prompts.point_prompt,
        partial(sam_prompts.peak_prompt, positives=3, negatives=2),
        sam_prompts.box_prompt,
    ):
        prompts = [make(p, 0, rng) for p in (other, image, other)]
        points = torch.from_numpy(np.stack([p.points for p in prompts]) * (64 / 224)).float()
        labels = torch.from_numpy(np.stack([p.labels for p in prompts])).float()
        logits, scores = sam_training.decode(sam, embedding, points, labels, torch.tensor([1, 0, 1]))
        for row, (prompt, shown) in enumerate(zip(prompts, (other, image, other), strict=True)):
            predictor.set_image(shown.frame)
            where = {"box": prompt.points.ravel()} if prompt.box else {"point_coords": prompt.points}
            where |= {} if prompt.box else {"point_labels": prompt.labels}
            for multimask, kept in ((True, slice(1, 4)), (False, slice(0, 1))):
                _, iou, low = predictor.predict(**where, multimask_output=multimask)
                np.testing.assert_allclose(logits[row, kept], low, atol=1e-5)
                np.testing.assert_allclose(scores[row, kept], iou, atol=1e-5)


def perfect(masks: torch.Tensor, target: int) -> torch.Tensor:
    """Logits (1, 4, 64, 64) that are sure of a mask."""
    area = torch.nn.functional.adaptive_avg_pool2d(masks[:, target].float(), 64)
    return (40 * (area - 0.5)).expand(1, 4, 64, 64) * sam_training.MASK_LOGIT_SCALE


def test_loss_of_perfect_masks_and_scores(image: LabeledFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    masks = torch.from_numpy(np.ascontiguousarray(image.masks))[None]
    sam, heads = sam_training.build_sam_mini(TINY, 0), sam_training.AuxiliaryHeads(16)
    batch = {
        "image": torch.zeros(1, 3, 64, 64, dtype=torch.uint8),
        "masks": masks,
        "points": [torch.zeros(1, 1, 1, 2)],
        "labels": [torch.ones(1, 1, 1)],
    }
    logits, scores = perfect(masks, 1), torch.ones(1, 4)
    monkeypatch.setattr(sam_training, "decode", lambda *_: (logits, scores))

    def losses(target: int) -> dict[str, float]:
        parts = sam_training.training_losses(sam, heads, {**batch, "targets": [torch.tensor([[target]])]})
        return {name: part.item() for name, part in parts.items()}

    right, wrong = losses(1), losses(0)
    assert right["mask"] < 0.15
    assert right["iou"] < 0.01
    assert wrong["mask"] > 2
    assert wrong["iou"] == pytest.approx(2, abs=0.02)
    scores.zero_()
    assert losses(0)["iou"] < 0.01
    scores.fill_(0.5)
    assert losses(1)["iou"] == pytest.approx(0.5, abs=0.08)  # a grid of 64 does not get every pixel right


def test_a_background_point_changes_the_iou_loss_alone(image: LabeledFrame) -> None:
    sam, heads = sam_training.build_sam_mini(TINY, 0), sam_training.AuxiliaryHeads(16)
    stream = sam_data.PromptDataset(BuiltinLibrary(), sam_data.Curriculum(10, 0), 2, 0, 64)
    batch = next(iter(DataLoader(stream, batch_size=2)))
    first = sam_training.training_losses(sam, heads, batch)
    batch["points"] = [torch.cat([batch["points"][0], torch.full((2, 1, 1, 2), 5.0)], 1), *batch["points"][1:]]
    batch["labels"] = [torch.cat([batch["labels"][0], torch.ones(2, 1, 1)], 1), *batch["labels"][1:]]
    batch["targets"] = [torch.cat([batch["targets"][0], torch.tensor([[-1], [-1]])], 1), *batch["targets"][1:]]
    second = sam_training.training_losses(sam, heads, batch)
    for name in ("mask", "multimask", "auxiliary"):
        assert second[name].item() == pytest.approx(first[name].item(), rel=1e-5)
    assert second["iou"].item() != pytest.approx(first["iou"].item(), rel=1e-5)


def test_auxiliary_heads_separate_objects() -> None:
    masks = torch.zeros(1, 2, 224, 224)
    masks[0, 0, :112, :112], masks[0, 1, 112:, 112:] = 1, 1
    heads = sam_training.AuxiliaryHeads(3)
    with torch.no_grad():
        for parameter in heads.parameters():
            parameter.zero_()
        heads.foreground.weight[:, :2], heads.foreground.weight[:, 2] = 20, -20
        heads.affinity.weight[:3, :, 0, 0] = torch.eye(3)
        heads.scale.copy_(torch.tensor([20.0, -10.0]))
    right = torch.zeros(1, 3, 4, 4)
    right[0, 0, :2, :2], right[0, 1, 2:, 2:], right[0, 2, :2, 2:], right[0, 2, 2:, :2] = 1, 1, 1, 1
    assert heads(right, masks) < 0.01
    merged = right.clone()
    merged[0, 0] += merged[0, 1]
    merged[0, 1] = 0
    assert heads(merged, masks) > 1
    assert heads(right.flip(3), masks) > 5


# Evaluation


class Oracle(SamPredictor):
    """Predicts the object at the first point or the center of the box, if any, with a high IoU."""

    seen: LabeledFrame

    def __init__(self, sam: Sam):
        del sam

    def set_image(self, image: np.ndarray, image_format: str = "RGB") -> None:
        type(self).seen = next(p for p in SCENES if p.frame is image)

    def predict(self, point_coords=None, point_labels=None, box=None, mask_input=None, multimask_output=True, **_):
        places = np.array(box).reshape(2, 2).mean(0, keepdims=True) if box is not None else point_coords[:1]
        x, y = places[0].astype(int)
        under = self.seen.masks[self.seen.masks[:, y, x]]
        mask = under[0] if len(under) else np.zeros((224, 224), bool)
        masks = np.stack([np.ones_like(mask), mask, np.zeros_like(mask)])[: 3 if multimask_output else 1]
        return masks, np.array([0.3, 0.9 if len(under) else 0.2, 0.0])[: len(masks)], None


SCENES = sam_eval.eval_frames(BuiltinLibrary(), 0, 2)


def test_metrics_of_perfect_predictions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sam_eval, "SamPredictor", Oracle)
    found = sam_eval.evaluate_prompts(build_sam(SamConfig(**TINY)), SCENES, 0)
    assert found["objects"] == sum(len(p.masks) for p in SCENES)
    assert found["center"] == found["point"] == found["pair"] == found["center_best"] == 1
    assert found["center_single"] < 0.3
    assert found["background_score"] == pytest.approx(0.3)
    assert found["score_correlation"] > 0.9


def test_proposals_are_summarized_over_objects() -> None:
    matches = [
        (np.array([[0.9, 0.0], [0.6, 0.1], [0.0, 0.2]]), np.array([0.95, 0.8, 0.7])),
        (np.zeros((0, 1)), np.zeros(0)),
        (np.array([[0.7]]), np.array([0.9])),
    ]
    summary = sam_eval.summarize_proposals(matches)
    assert summary == {
        "recall_50": 0.5,
        "recall_75": 0.25,
        "best_iou": pytest.approx((0.9 + 0.2 + 0 + 0.7) / 4),
        "precision_50": 0.75,
        "proposals": 1.33,
    }
    few = sam_eval.summarize_proposals(matches, 0.9)
    assert (few["recall_50"], few["proposals"], few["precision_50"]) == (0.25, 0.33, 1)
    assert sam_eval.summarize_proposals(matches, 1.0)["precision_50"] == 0


def test_thresholds_trade_recall_for_proposals(monkeypatch: pytest.MonkeyPatch) -> None:
    def fixed_matches(sam: Sam, images: object, thresholds: dict[str, float]) -> list[sam_eval.Matches]:
        if thresholds["stability_score_thresh"] > 0.8:
            return [(np.array([[0.9, 0.0]]), np.array([0.99]))]
        spurious = [[0.9, 0.0], [0.0, 0.9], *[[0.1, 0.0]] * 9]
        return [(np.array(spurious), np.array([0.99, 0.83, *[0.72] * 9]))]

    monkeypatch.setattr(sam_eval, "match_proposals", fixed_matches)
    chosen = sam_eval.choose_thresholds(build_sam(SamConfig(**TINY)), [])
    assert chosen == {
        "pred_iou_thresh": 0.75,
        "stability_score_thresh": 0.8,
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.7,
    }


# The shipped weights


@pytest.fixture(scope="module")
def shipped() -> Sam:
    return create_model("sam_mini")


def test_the_shipped_weights_are_small_and_ready(shipped: Sam) -> None:
    assert not shipped.training
    assert not any(p.requires_grad for p in shipped.parameters())
    assert sum(path.stat().st_size for path in MINI_DIR.glob("sam.*")) < 5.8e6
    assert sum(path.stat().st_size for path in MINI_DIR.iterdir()) < 10e6


def test_the_shipped_weights_answer_prompts(shipped: Sam) -> None:
    found = sam_eval.evaluate_prompts(shipped, sam_eval.eval_frames(BuiltinLibrary(), 77, 8), 77)
    assert min(found["center"], found["point"], found["pair"], found["box"]) >= 0.7
    assert min(found["peaks"], found["dense"], found["loose_box"]) >= 0.6
    assert found["background_score"] < 0.5 < found["center"]


def test_the_shipped_weights_propose_with_the_stock_generator(shipped: Sam) -> None:
    thresholds = json.loads((MINI_DIR / "sam.json").read_text())["metrics"]["proposal thresholds"]
    assert thresholds.pop("points_per_side") == sam_eval.POINTS_PER_SIDE
    assert thresholds["stability_score_offset"] == 1.0
    found = sam_eval.summarize_proposals(
        sam_eval.match_proposals(shipped, sam_eval.eval_frames(BuiltinLibrary(), 78, 4), thresholds)
    )
    assert found["recall_50"] >= 0.9
    assert found["proposals"] < 8
    assert found["precision_50"] > 0.7


@pytest.mark.slow
def test_the_shipped_weights_reach_their_metrics(shipped: Sam) -> None:
    figures = json.loads((MINI_DIR / "sam.json").read_text())["metrics"]["scenes, seed 0"]
    found = sam_eval.evaluate_prompts(shipped, sam_eval.eval_frames(BuiltinLibrary(), 0, 40), 0)
    for name in ("center", "point", "box", "dense", "score_error"):
        assert found[name] == pytest.approx(figures[name], abs=0.01)


# Bad input


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "x"],
        ["--batch", "0"],
        ["--frames", "0"],
        ["--evaluate", "--start", "x"],
        ["--evaluation-seeds", "-1"],
    ],
)
def test_bad_usage(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["sam", "--out", str(tmp_path), *arguments])
    assert stop.value.code == 2


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda out: ["--pictures", str(out / "nowhere")], "no such folder"),
        (lambda out: ["--start", str(out / "nowhere")], "no such checkpoint"),
        (lambda out: ["--sizes", '{"width": -1}'], "--sizes"),
        (lambda out: ["--sizes", '{"width": 15, "heads": 2}'], "--sizes"),
        (lambda out: ["--sizes", "{"], "--sizes"),
        (lambda out: ["--sizes", "[]"], "--sizes"),
        (lambda out: ["--lr", "0.1"], "another recipe"),
    ],
)
def test_errors_are_reported_in_one_line(
    trained: Path,
    tmp_path: Path,
    arrange: Callable[[Path], list[str]],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for path in trained.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    assert train(tmp_path, *arrange(tmp_path)) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert message in error


def test_loading_reports_what_is_wrong(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        create_model("sam_mini", tmp_path)
    (tmp_path / "sam.safetensors").write_bytes((trained / "sam.safetensors").read_bytes())
    (tmp_path / "sam.json").write_text("[]")
    with pytest.raises(InputError, match="sizes of a network"):
        create_model("sam_mini", tmp_path)
    (tmp_path / "sam.json").write_text(json.dumps({"model": {**TINY, "depth": 1}}))
    with pytest.raises(InputError, match="does not fit Sam"):
        create_model("sam_mini", tmp_path)
