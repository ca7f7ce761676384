"""AudioCLIP's small weights: training from the command line, training pairs, evaluation, and the shipped weights."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from models.audioclip import AudioCLIP
from models.registry import create_model
from models.weights import MINI_DIR
from synthetic.clips.assets import BuiltinLibrary
from synthetic.train import main
from synthetic.training import audioclip_eval, audioclip_task
from synthetic.training.audioclip_data import EASY_SIDE, ClipPairs, Sample, ScenePairs
from synthetic.training.audioclip_eval import AUDIO_REPEATS, crop_target, evaluate_retrieval, scene_eval_rounds
from synthetic.training.audioclip_training import (
    SIZES,
    Curriculum,
    PairDataset,
    contrastive_loss,
    embed,
    make_mosaics,
    mosaic_quadrants,
    similarities,
)
from synthetic.training.transforms import crop_close
from utils.cli import InputError
from utils.dataset import AVSDataset, normalize_frames
from utils.layout import AVSBench

TINY = {
    **SIZES,
    "embed_dim": 16,
    "vision_width": 4,
    "audio_n_fft": 256,
    "audio_hop": 512,
    "audio_win": 256,
    "audio_width": 4,
}
QUICK = ["--sizes", json.dumps(TINY), "--rounds", "1", "--evaluation-seeds", "0", "--workers", "0"]


def train(out: Path, *more: str, steps: int = 4) -> int:
    return main(["audioclip", "--out", str(out), "--steps", str(steps), "--batch", "4", *QUICK, *more])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four steps, done in one go."""
    out = tmp_path_factory.mktemp("mini") / "whole"
    assert train(out) == 0
    return out


@pytest.fixture(scope="module")
def scenes() -> ScenePairs:
    return ScenePairs(BuiltinLibrary(), 5)


# Training


def test_training_writes_weights_metadata_and_curve(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sorted(path.name for path in trained.iterdir()) == [f"audioclip.{s}" for s in ("json", "png", "safetensors")]
    notes = json.loads((trained / "audioclip.json").read_text())
    assert notes["model"] == TINY
    assert notes["steps_done"] == notes["recipe"]["steps"] == 4
    assert (notes["recipe"]["easy_until"], notes["recipe"]["mosaics_from"]) == (1, 3)
    assert "no category" in notes["recipe"]["supervision"]
    assert set(notes["metrics"]) == {"single objects, seed 0", "whole frames, seed 0"}
    assert cv2.imread(str(trained / "audioclip.png")) is not None
    assert sum(p.numel() for p in create_model("audioclip", trained).parameters()) == notes["parameters"]
    before = (trained / "audioclip.safetensors").read_bytes()
    assert train(trained) == 0
    assert "finished, 4 steps" in capsys.readouterr().out
    assert (trained / "audioclip.safetensors").read_bytes() == before


def test_a_training_stopped_by_minutes_resumes(trained: Path, tmp_path: Path) -> None:
    for _ in range(4):  # each call manages one step
        assert train(tmp_path, "--minutes", "1e-6") == 0
    assert (tmp_path / "audioclip.safetensors").read_bytes() == (trained / "audioclip.safetensors").read_bytes()
    assert not (tmp_path / "audioclip.state.pt").exists()


def test_an_interrupted_training_resumes(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = iter(range(9))

    def interrupted(model: AudioCLIP, frames: torch.Tensor, sounds: torch.Tensor, mosaic: bool) -> torch.Tensor:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return contrastive_loss(model, frames, sounds, mosaic)

    monkeypatch.setattr(audioclip_task, "contrastive_loss", interrupted)
    assert train(tmp_path) == 130
    assert json.loads((tmp_path / "audioclip.json").read_text())["steps_done"] == 2
    assert train(tmp_path) == 0
    assert (tmp_path / "audioclip.safetensors").read_bytes() == (trained / "audioclip.safetensors").read_bytes()


def test_trains_on_clips_and_evaluates_on_their_test_split(composed: Path, trained: Path, tmp_path: Path) -> None:
    for name, folder in (("s4", "Single-source"), ("ms3", "Multi-sources")):
        out = tmp_path / name
        assert train(out, "--data", str(composed / folder), "--start", str(trained), steps=1) == 0
        notes = json.loads((out / "audioclip.json").read_text())
        assert notes["recipe"]["easy_until"] == 0
        assert notes["recipe"]["data"].startswith(f"{name} clips")
        assert set(notes["metrics"]) == {f"test clips, second {k}" for k in (0, 2, 4)}
        assert main(["audioclip", "--out", str(out), "--evaluate", "--data", str(composed / folder)]) == 0


# Pairs


def test_pairs_depend_on_seed_and_index_alone(scenes: ScenePairs) -> None:
    one, same = scenes.item(3, 1, True), ScenePairs(BuiltinLibrary(), 5).item(3, 1, True)
    assert np.array_equal(one.frame, same.frame)
    assert np.array_equal(one.audio, same.audio)
    others = [scenes.item(3, 2, True), scenes.item(4, 1, True), ScenePairs(BuiltinLibrary(), 6).item(3, 1, True)]
    assert not any(np.array_equal(one.frame, other.frame) for other in others)
    stream = PairDataset(scenes, Curriculum(5, easy_until=4, mosaics_from=5), batch_size=2, start=3)
    alone, helped = (list(DataLoader(stream, batch_size=2, num_workers=n)) for n in (0, 1))
    assert [tuple(frames.shape) for frames, _ in alone] == [(2, 128, 128, 3), (2, 224, 224, 3)]
    assert torch.equal(alone[0][0][1], torch.from_numpy(one.frame))
    assert all(torch.equal(a, b) for x, y in zip(alone, helped, strict=True) for a, b in zip(x, y, strict=True))


def test_training_pairs_carry_no_category_or_mask(scenes: ScenePairs) -> None:
    sample = scenes.item(0, 0, False)
    assert (sample.category, sample.visible_categories, sample.mask) == ("", (), None)


@pytest.mark.parametrize("easy", [True, False])
def test_scenes(scenes: ScenePairs, easy: bool) -> None:
    draw = scenes.single_object if easy else scenes.whole_frame
    sample = draw("drum", np.random.default_rng(1))
    assert sample.frame.shape == (224, 224, 3)
    assert sample.mask is not None
    assert 0.02 < sample.mask.mean() < 0.25
    assert "drum" in sample.visible_categories
    assert (len(sample.visible_categories) == 1) == easy
    red, green, blue = sample.frame[sample.mask].mean(axis=0)  # the drum is red
    assert red > 1.15 * max(green, blue)
    assert sample.audio.shape == (44_100,)
    assert sample.audio.dtype == np.float32
    assert np.abs(sample.audio).max() <= 1
    power = np.abs(np.fft.rfft(sample.audio)) ** 2
    assert power[9_000:].sum() < 1e-5 * power.sum()


def test_easy_pairs_are_small_and_some_are_black_or_close_ups(scenes: ScenePairs) -> None:
    frames = [scenes.item(0, place, True).frame for place in range(40)]
    assert {frame.shape for frame in frames} == {(EASY_SIDE, EASY_SIDE, 3)}
    corners = np.array([np.mean([f[y, x].max() < 20 for y in (0, -1) for x in (0, -1)]) for f in frames])
    assert 0.2 < (corners >= 0.5).mean() < 0.6  # black, unless the object covers a corner
    dark = scenes.single_object("bee", np.random.default_rng(4), EASY_SIDE, black=True)
    assert dark.mask is not None
    seen = cv2.resize(dark.mask.astype(np.uint8), (EASY_SIDE, EASY_SIDE), interpolation=cv2.INTER_NEAREST) > 0
    around = cv2.dilate(seen.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    assert dark.frame[~around].max() == 0
    assert dark.frame[seen].mean() > 60


def test_a_close_up_is_the_center_square_of_the_box() -> None:
    frame, mask = np.zeros((40, 60, 3), np.uint8), np.zeros((40, 60), bool)
    frame[10:20, 15:45] = 200
    mask[10:20, 15:45] = True
    assert (crop_close(frame, mask, 64) == 200).all()
    frame[10:20, 25:35, 0] = 90  # the middle square of the box
    assert (crop_close(frame, mask, 64)[..., 0] == 90).all()
    near = [crop_close(frame, mask, 64, np.random.default_rng(seed)) for seed in range(5)]
    assert all(picture.shape == (64, 64, 3) for picture in near)
    assert any((picture != near[0]).any() for picture in near)
    assert all((picture > 0).mean() > 0.75 for picture in near)  # a tenth of the box off at most
    assert crop_close(frame, np.zeros_like(mask), 64).shape == (64, 64, 3)  # nothing marked: the whole frame
    mask[:] = False
    mask[39, 59] = True  # one pixel in the corner
    assert crop_close(frame, mask, 64, np.random.default_rng(0)).shape == (64, 64, 3)


def test_clips_are_read_as_the_data_set_reads_them(composed: Path) -> None:
    data = AVSBench(composed / "Single-source", "s4")
    pairs = ClipPairs(data, "test", 0, 1)
    item = AVSDataset(data, "test", images="clip", audio="waveform", audio_repeats=5)[1]
    sample = pairs.read(1, 3, mask=True)
    assert torch.equal(normalize_frames(torch.from_numpy(sample.frame[None]), "clip")[0], item["frames"][3])
    assert np.array_equal(np.tile(sample.audio, 5), item["waveform"][3].numpy())
    assert sample.mask is not None
    assert np.array_equal(sample.mask, item["masks"][3].numpy() > 0)
    assert sample.category == item["category"]


def test_a_batch_never_holds_a_clip_twice(composed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = AVSBench(composed / "Single-source", "s4")
    pairs = ClipPairs(data, "train", 0, 3)
    read: list[int] = []
    blank = Sample(np.zeros((8, 8, 3), np.uint8), np.zeros(8, np.float32))

    def record(index: int, second: int) -> Sample:
        read.append(index)
        return blank

    monkeypatch.setattr(pairs, "read", record)
    whole = len(pairs.clips) // 3
    for step in range(2 * whole):
        for place in range(3):
            pairs.item(step, place, False)
    for epoch in (read[: 3 * whole], read[3 * whole :]):
        assert len(set(epoch)) == 3 * whole


def test_the_curriculum_has_its_stages_in_order() -> None:
    plan = Curriculum.of(1000)
    assert (plan.easy_until, plan.mosaics_from) == (350, 700)
    assert [plan.is_easy(step) for step in (0, 349, 350, 699, 700, 701, 702)] == [
        True,
        True,
        False,
        False,
        True,
        False,
        True,
    ]
    assert [plan.is_mosaic(step) for step in (0, 350, 699, 700, 701, 702)] == [False, False, False, True, False, True]
    rates = [plan.lr_factor(step) for step in range(1000)]
    assert rates[0] == pytest.approx(1 / 50)
    assert max(rates) == pytest.approx(1, abs=0.01)
    assert rates[700] == 0.5
    assert 0 < rates[999] < 1e-4
    assert not any(Curriculum.of(1000, easy=False).is_easy(step) for step in range(1000))


def test_mosaics_and_back() -> None:
    frames = torch.arange(8 * 2 * 3 * 1).reshape(8, 2, 3, 1)
    mosaics = make_mosaics(frames)
    assert mosaics.shape == (2, 4, 6, 1)
    assert torch.equal(mosaics[1, :2, 3:], frames[5])  # to the right of the fifth
    assert torch.equal(mosaics[1, 2:, :3], frames[6])
    assert torch.equal(mosaic_quadrants(mosaics.permute(0, 3, 1, 2)), frames.permute(0, 3, 1, 2))


# Similarities and evaluation


def test_similarities_are_pooled_and_maximum_local_cosines(trained: Path, scenes: ScenePairs) -> None:
    model = create_model("audioclip", trained)
    samples = [scenes.whole_frame(category, np.random.default_rng(0)) for category in ("car", "bell", "bee")]
    frames = torch.from_numpy(np.stack([s.frame for s in samples]))
    sounds = torch.from_numpy(np.stack([s.audio for s in samples]))[:2]
    with torch.inference_mode():
        found = similarities(*embed(model, sounds, frames))
        audio = model.encode_audio(sounds)
        images = normalize_frames(frames, "clip")
        pooled = F.cosine_similarity(audio[:, None], model.encode_image(images)[None], dim=-1)
        torch.testing.assert_close(found["pooled"], pooled)
        for name, surgery in (("surgery", True), ("dense", False)):
            dense = model.image_pyramid(images, surgery=surgery)[1].flatten(2)
            cosines = F.cosine_similarity(audio[:, None, :, None], dense[None], dim=2)
            torch.testing.assert_close(found[name], cosines.amax(dim=2))


def test_metrics_of_perfect_and_wrong_retrieval(
    trained: Path, scenes: ScenePairs, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = create_model("audioclip", trained)
    rounds = scene_eval_rounds(scenes, 1, 1, easy=False)
    found: dict[str, int] = {}

    def perfect_match(audio: torch.Tensor, images: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        found.update({name: len(x) for name, x in images.items()})
        return dict.fromkeys(images, torch.eye(len(audio)))

    names = ("surgery", "dense", "pooled", "crops")
    monkeypatch.setattr(audioclip_eval, "similarities", perfect_match)
    perfect = evaluate_retrieval(model, rounds, repeats=1)
    assert [perfect[f"retrieval_{name}"] for name in names] == [1, 1, 1, 1]
    assert found == dict.fromkeys(names, 14)
    assert perfect["category_visible"] == 1
    assert perfect["oracle_accuracy"] < 1
    assert perfect["chance"] == pytest.approx(1 / 14, abs=1e-4)
    assert perfect["area"] == pytest.approx(np.mean([s.mask.mean() for s in rounds[0] if s.mask is not None]), abs=1e-4)
    monkeypatch.setattr(
        audioclip_eval, "similarities", lambda audio, images: dict.fromkeys(names, torch.eye(len(audio)).roll(1, 0))
    )
    assert evaluate_retrieval(model, rounds, repeats=1)["retrieval_surgery"] == 0
    monkeypatch.setattr(audioclip_eval, "similarities", perfect_match)
    without = [[replace(rounds[0][0], mask=np.zeros((224, 224), bool)), *rounds[0][1:]], *rounds]
    assert "retrieval_crops" not in evaluate_retrieval(model, without, repeats=1)


def test_crops_follow_the_mask(scenes: ScenePairs) -> None:
    sample = scenes.whole_frame("frog", np.random.default_rng(3))
    assert sample.mask is not None
    cut = crop_target(sample)
    assert cut is not None
    assert np.array_equal(cut.any(axis=2).sum(), (sample.frame * sample.mask[..., None]).any(axis=2).sum())
    rows, columns = np.nonzero(sample.mask)
    assert cut.shape == (np.ptp(rows) + 1, np.ptp(columns) + 1, 3)
    assert crop_target(replace(sample, mask=None)) is None
    assert crop_target(replace(sample, mask=np.zeros((224, 224), bool))) is None


# The shipped weights


def test_the_shipped_weights_retrieve_and_localize(scenes: ScenePairs) -> None:
    model = create_model("audioclip", "mini")
    assert not model.training
    assert sum(path.stat().st_size for path in MINI_DIR.glob("audioclip.*")) < 5e6
    alone = evaluate_retrieval(model, scene_eval_rounds(scenes, 77, 3, easy=True))
    assert min(alone["retrieval_surgery"], alone["retrieval_pooled"]) >= 0.8
    whole = evaluate_retrieval(model, scene_eval_rounds(scenes, 77, 3, easy=False))
    assert whole["hit_surgery"] >= 3 * whole["area"]
    assert whole["hit_surgery_bicubic"] >= 0.7
    assert min(alone["retrieval_crops"], whole["retrieval_crops"]) >= 0.9


def test_the_shipped_weights_embed_one_and_five_seconds_alike(scenes: ScenePairs) -> None:
    model = create_model("audioclip", "mini")
    rng = np.random.default_rng(2)
    sounds = torch.from_numpy(
        np.stack([scenes.single_object(category, rng, 64).audio for category in scenes.assets.categories])
    )
    with torch.inference_mode():
        cosines = F.cosine_similarity(model.encode_audio(sounds), model.encode_audio(sounds.repeat(1, AUDIO_REPEATS)))
    assert cosines.min() > 0.8
    assert cosines.mean() > 0.95


@pytest.mark.slow
def test_the_shipped_weights_reach_their_metrics(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["audioclip", "--evaluate", "--evaluation-seeds", "0"]) == 0
    printed = capsys.readouterr().out
    figures = json.loads((MINI_DIR / "audioclip.json").read_text())["metrics"]
    for name in ("retrieval_surgery", "retrieval_crops", "hit_surgery"):
        shown = next(line.split()[1:] for line in printed.splitlines() if line.startswith(name))
        kept = [figures[f"{title}, seed 0"][name] for title in ("single objects", "whole frames")]
        assert [float(number) for number in shown] == pytest.approx(kept, abs=0.02)


# Bad input


@pytest.mark.parametrize(
    "arguments",
    [
        ["--data", "x", "--pictures", "y"],
        ["--data", "x", "--backgrounds", "y"],
        ["--batch", "1"],
        ["--steps", "0"],
        ["--lr", "0"],
        ["--minutes", "-1"],
        ["--evaluate", "--start", "x"],
        ["--steps", "many"],
    ],
)
def test_bad_usage(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["audioclip", "--out", str(tmp_path), *arguments])
    assert stop.value.code == 2


def damaged_state(out: Path) -> list[str]:
    (out / "audioclip.state.pt").write_bytes(b"x")
    notes = json.loads((out / "audioclip.json").read_text())
    (out / "audioclip.json").write_text(json.dumps({**notes, "metrics": {}}))
    return []


def no_metadata(out: Path) -> list[str]:
    (out / "audioclip.json").unlink()
    return []


def broken_metadata(out: Path) -> list[str]:
    (out / "audioclip.json").write_text("{")
    return []


@pytest.mark.parametrize(
    ("arrange", "message"),
    [
        (lambda out: ["--data", str(out)], "contains no s4_meta_data.csv"),
        (lambda out: ["--pictures", str(out / "nowhere")], "no such folder"),
        (lambda out: ["--start", str(out / "nowhere")], "no such checkpoint"),
        (lambda out: ["--sizes", '{"embed_dim": -1}'], "--sizes"),
        (lambda out: ["--sizes", "{"], "--sizes"),
        (lambda out: ["--sizes", '{"depth": 3}'], "--sizes"),
        (lambda out: ["--lr", "0.1"], "another recipe"),
        (damaged_state, "damaged"),
        (no_metadata, "without audioclip.json"),
        (broken_metadata, "unreadable"),
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


def test_too_few_clips_for_a_batch(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train(tmp_path, "--data", str(composed / "Single-source"), "--batch", "500") == 1
    assert "fewer than a --batch" in capsys.readouterr().err


def test_loading_reports_what_is_wrong(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        create_model("audioclip", tmp_path)
    (tmp_path / "audioclip.safetensors").write_bytes((trained / "audioclip.safetensors").read_bytes())
    (tmp_path / "audioclip.json").write_text("[]")
    with pytest.raises(InputError, match="sizes of a network"):
        create_model("audioclip", tmp_path)
    (tmp_path / "audioclip.json").write_text(json.dumps({"model": {**TINY, "embed_dim": 32}}))
    with pytest.raises(InputError, match="does not fit AudioCLIP"):
        create_model("audioclip", tmp_path)
