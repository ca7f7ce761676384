"""score.py: anybody's masks, in any layout and encoding, get the numbers of our own metrics, and bad ones are named."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import score
from reference import metrics as reference
from scoring.binary import RULES
from utils.frame_counts import set_metrics
from utils.layout import AVSBench, Clip
from utils.metrics import count_frames
from utils.paths import REPOSITORY
from utils.robustness import area_auc

CLIPS = (("dog_barking", "a_1000_6000"), ("dog_barking", "b"), ("race_car", "a"))
RNG = np.random.default_rng(0)
TRUTH = (RNG.random((3, 5, 224, 224)) > 0.6) & (np.arange(224) < 150)
TRUTH[1, 3:] = False  # frames without a sounding object
LEVELS = RNG.integers(0, 256, (3, 5, 224, 224)).astype(np.uint8)
Write = Callable[[Path, np.ndarray], None]


def write_gray(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), pixels)


def write_palette(path: Path, indices: np.ndarray, colors: list[int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(colors)
    image.save(path)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """S4 with three test clips that have nothing but masks."""
    folder = tmp_path_factory.mktemp("s4")
    lines = ["name,start,category,split", *(f"{name},0,{category},test" for category, name in CLIPS)]
    (folder / "s4_meta_data.csv").write_text("\n".join(lines) + "\n")
    for masks, clip in zip(TRUTH, AVSBench(folder, "s4").split("test"), strict=True):
        for mask, path in zip(masks, AVSBench(folder, "s4").masks(clip), strict=True):
            write_gray(path, mask.astype(np.uint8) * 255)
    return folder


def write_masks(folder: Path, template: str, pixels: np.ndarray = LEVELS, first: int = 1) -> Path:
    """Masks under names by a template of {c} (category), {v} (video) and {k}."""
    for clip, (category, name) in enumerate(CLIPS):
        for second in range(5):
            write_gray(folder / template.format(c=category, v=name, k=second + first), pixels[clip, second])
    return folder


def run(root: Path, masks: Path, out: Path, *more: str) -> int:
    return score.main(["--benchmark", "s4", "--root", str(root), "--masks", str(masks), "--out", str(out), *more])


def scores(out: Path) -> dict[str, dict[str, float]]:
    return json.loads((out / "scores.json").read_text())["models"]


def logits(probabilities: np.ndarray) -> torch.Tensor:
    return torch.logit(torch.from_numpy(probabilities))


@pytest.mark.parametrize(
    ("template", "first"),
    [
        ("{c}/{v}/{v}_{k}.png", 0),  # AVSBench, AVSegFormer
        ("{c}/{v}/{v}_{k}.png", 1),  # this repository
        ("{c}/{v}/{v}.mp4_{k}.png", 1),  # Sam4AVS
        ("{c}/{v}/{k:05d}.png", 0),
        ("{v}/{v}_{k}.png", 0),
        ("test/{v}/{k}_video_mask.png", 1),  # AL-Ref-SAM2
        ("{v}_{k}.png", 1),
        ("{c}/{v}/frame_{k}.png", 0),
        ("{v}/mask{k:05d}.png", 1),
        ("{c}/{v}/masks/pred_{v}_{k}.png", 1),
    ],
)
def test_every_layout_gets_the_same_numbers(root: Path, tmp_path: Path, template: str, first: int) -> None:
    masks = write_masks(tmp_path / "masks", template, first=first)
    assert run(root, masks, tmp_path / "out") == 0
    probabilities = LEVELS.astype(np.float32) / np.float32(255)
    videos = [count_frames(logits(p), torch.from_numpy(t).float()) for p, t in zip(probabilities, TRUTH, strict=True)]
    found = scores(tmp_path / "out")["masks"]
    for rule, (name, batch) in RULES.items():
        assert found[rule] == pytest.approx(set_metrics(videos, batch)[name], abs=1e-6), rule
    assert {batch for name, (_, batch) in RULES.items() if "batch" in name} == {1, 2, 4}
    # Batches of two videos share a threshold; the last one has a single video.
    pairs = [
        reference.f_score(logits(p).flatten(0, 1), torch.from_numpy(t).float().flatten(0, 1))
        for p, t in zip((probabilities[:2], probabilities[2:]), (TRUTH[:2], TRUTH[2:]), strict=True)
    ]
    assert found["m_f_batch_2"] == pytest.approx(np.mean(pairs), abs=1e-6)
    # And both agree with the textbook form.
    flat = logits(probabilities).flatten(0, 1), torch.from_numpy(TRUTH).float().flatten(0, 1)
    assert found["m_j"] == pytest.approx(reference.mean_iou(*flat), abs=1e-6)
    assert found["m_f_whole_set"] == pytest.approx(reference.f_score(*flat), abs=1e-6)


@pytest.mark.parametrize("size", [(512, 512), (640, 360), (225, 448)])
def test_ground_truths_of_another_size_score_1(root: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    for masks, (category, name) in zip(TRUTH, CLIPS, strict=True):
        for second, mask in enumerate(masks):
            large = Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)
            write_gray(tmp_path / f"masks/{category}/{name}/{name}_{second}.png", np.asarray(large))
    assert run(root, tmp_path / "masks", tmp_path / "out", "--resize") == 0
    found = scores(tmp_path / "out")["masks"]
    assert found["iou_dataset"] == 1 and found["m_j"] == pytest.approx(1, abs=1e-9)
    assert found["m_f_whole_set"] == pytest.approx(1, abs=1e-9)


def test_every_encoding_gets_the_same_numbers(root: Path, tmp_path: Path) -> None:
    binary = LEVELS > 150
    colors = [0, 0, 0, 128, 0, 0, 0, 128, 0]
    encodings: dict[str, Write] = {
        "black_and_white": lambda path, mask: write_gray(path, mask.astype(np.uint8) * 255),
        "zero_and_one": lambda path, mask: write_gray(path, mask.astype(np.uint8)),
        "sixteen_bits": lambda path, mask: write_gray(path, mask.astype(np.uint16) * 65535),
        "gray_palette": lambda path, mask: Image.fromarray(mask.astype(np.uint8) * 255).convert("P").save(path),
        "rgb": lambda path, mask: write_gray(path, np.repeat(mask.astype(np.uint8)[..., None] * 255, 3, 2)),
        "palette": lambda path, mask: write_palette(path, mask * 2, colors),
        "index": lambda path, mask: write_gray(path, mask.astype(np.uint8) * 28),
    }
    folders = []
    for name, write in encodings.items():
        for clip, (category, video) in enumerate(CLIPS):
            for second in range(5):
                path = tmp_path / name / category / video / f"{video}_{second}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                write(path, binary[clip, second])
        folders.append(str(tmp_path / name))
    first, *others = folders[:-1]
    assert run(root, Path(first), tmp_path / "out", "--other", *others) == 0
    assert run(root, Path(folders[-1]), tmp_path / "index", "--format", "index") == 0
    found = scores(tmp_path / "out") | scores(tmp_path / "index")
    assert {entry["format"] for entry in found.values()} == {"binary", "palette", "index"}
    tensors = [torch.from_numpy(array).float() for array in (binary, TRUTH)]
    videos = [count_frames(mask, truth) for mask, truth in zip(*tensors, strict=True)]
    for rule, (name, batch) in RULES.items():  # the same as our evaluation gives 0/1 masks
        expected = pytest.approx(set_metrics(videos, batch)[name], abs=1e-6)
        assert [entry[rule] for entry in found.values()] == [expected] * len(encodings), rule
    with (tmp_path / "out" / "per_frame.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["model"] == "palette"]
    assert len(rows) == 15 and rows[8]["name"] == "b" and rows[8]["second"] == "4"
    np.testing.assert_allclose([float(row["predicted_area"]) for row in rows], binary.mean((2, 3)).ravel(), atol=1e-6)
    assert len((tmp_path / "out" / "per_video.csv").read_text().splitlines()) == 1 + 3 * len(folders[:-1])


def test_fixed_points_of_sound_conditions(root: Path, tmp_path: Path) -> None:
    """The whole frame, nothing, a model that ignores the sound, and one that goes quiet."""
    shape = LEVELS.shape
    white, black = np.full(shape, 255, np.uint8), np.zeros(shape, np.uint8)
    perfect = TRUTH.astype(np.uint8) * 255
    folders = {
        name: str(write_masks(tmp_path / name, "{c}/{v}/{v}_{k}.png", pixels))
        for name, pixels in {"white": white, "black": black, "truth": perfect}.items()
    }
    pairs = {"foreground": ("white", "white"), "empty": ("black", "black"), "ignores": ("truth", "truth")}
    pairs["gates"] = ("black", "truth")  # silent, original
    masks, original = ([folders[pair[i]] for pair in pairs.values()] for i in (0, 1))
    for at, name in ((masks, "m"), (original, "o")):  # a folder may be given once only, so each pair gets its own
        for index, folder in enumerate(at):
            link = tmp_path / f"{name}{index}"
            link.mkdir()
            for child in Path(folder).iterdir():
                (link / child.name).symlink_to(child)
            at[index] = str(link)
    words = ["--other", *masks[1:], "--names", *pairs, "--audio-condition", "silent", "--original", *original]
    assert run(root, Path(masks[0]), tmp_path / "out", *words) == 0
    found = scores(tmp_path / "out")
    foreground, empty, ignores, gates = (found[name] for name in pairs)
    assert (foreground["pIA"], foreground["S_null"], foreground["quiet"]) == (1, 1, 0)
    assert foreground["AUC_N"] == pytest.approx(0.025, abs=1e-12)
    assert (empty["pIA"], empty["AUC_N"], empty["agree"], empty["drop"], empty["MJ_neg"]) == (0, 1, 1, 0, 1)
    assert (ignores["agree"], ignores["keep"], ignores["drop"]) == (1, 1, 0)
    assert ignores["pIA"] == pytest.approx(TRUTH.mean(), abs=1e-12) and ignores["FPR"] == ignores["pIA"]
    assert (gates["pIA"], gates["quiet"], gates["AUC_N"]) == (0, 1, 1)
    m_j = 1.0  # of the truth itself
    assert gates["H"] == pytest.approx(2 * m_j / (m_j + 1), abs=1e-6)
    assert gates["drop"] == pytest.approx(1 - 2 / 15, abs=1e-6)  # the two empty frames score 1 under both
    assert area_auc(np.ones(3)) == pytest.approx(0.025)


def damage_missing(masks: Path) -> None:
    (masks / "dog_barking/b/b_3.png").unlink()


def damage_size(masks: Path) -> None:
    write_gray(masks / "dog_barking/b/b_3.png", np.zeros((360, 240), np.uint8))


def damage_values(masks: Path) -> None:
    write_gray(masks / "race_car/a/a_1.png", LEVELS[0, 0])


def damage_color(masks: Path) -> None:
    write_gray(masks / "race_car/a/a_1.png", np.full((224, 224, 3), (1, 2, 3), np.uint8))


def damage_file(masks: Path) -> None:
    (masks / "race_car/a/a_1.png").write_bytes(b"\x89PNG\r\n\x1a\nno more")


def damage_frames(masks: Path) -> None:
    write_gray(masks / "race_car/a/a_6.png", np.zeros((224, 224), np.uint8))


def damage_twin(masks: Path) -> None:
    write_gray(masks / "a_1.png", np.zeros((224, 224), np.uint8))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_missing, "1 mask is missing: {m}: dog_barking/b number 3"),
        (damage_size, "1 mask has another size: {m}/dog_barking/b/b_3.png is 240×360, not 224×224; see --resize"),
        (damage_values, "1 mask has unexpected values: {m}/race_car/a/a_1.png holds other values"),
        (damage_color, "1 mask has unexpected values: {m}/race_car/a/a_1.png is colored"),
        (damage_file, "1 mask cannot be read: {m}/race_car/a/a_1.png not a readable image"),
        (damage_frames, "1 clip has a wrong number of frames: {m}: a has 5 seconds, but also masks 6"),
        (damage_twin, "1 mask is of the same second as another: race_car/a/a_1.png and a_1.png"),
    ],
)
def test_a_bad_mask_is_named_and_counted(
    root: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    message: str,
) -> None:
    binary = (LEVELS > 150).astype(np.uint8) * 255
    good = write_masks(tmp_path / "good", "{c}/{v}/{v}_{k}.png", binary)
    masks = write_masks(tmp_path / "masks", "{c}/{v}/{v}_{k}.png", binary)
    monkeypatch.setattr("scoring.decode.SAMPLE", 1)  # the format is decided before the bad file is met
    damage(masks)
    assert run(root, masks, tmp_path / "out", "--other", str(good)) == 1
    errors = capsys.readouterr().err
    assert message.format(m=masks) in errors and "no score for 1 of 2 models" in errors
    found = scores(tmp_path / "out")
    assert "m_j" not in found["masks"] and found["good"]["m_j"] > 0
    with (tmp_path / "out" / "problems.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 1
    for incomplete in ("empty", "skip"):
        assert run(root, masks, tmp_path / incomplete, "--incomplete", incomplete) == 0
    whole = damage in (damage_frames, damage_twin)
    assert scores(tmp_path / "skip")["masks"]["scored_clips"] == (3 if whole else 2)
    assert scores(tmp_path / "empty")["masks"]["scored_clips"] == 3
    if damage is damage_size:
        assert run(root, masks, tmp_path / "resized", "--resize") == 0


def test_stray_files_are_counted_and_ignored(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_masks(tmp_path / "masks", "{c}/{v}/{v}_{k}.png")
    for name in ("dog_barking/b/mask_pred_b_1.png", "dog_barking/b/b_vis1.png", "log.txt", "race_car/z/z_1.png"):
        path = masks / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    assert run(root, masks, tmp_path / "out") == 0
    assert "4 files are no masks of these clips and were ignored" in capsys.readouterr().err


def test_files_of_several_names_in_the_folders_of_clips_are_refused(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    masks = write_masks(tmp_path / "masks", "{v}/mask_{k}.png")
    write_gray(masks / "b" / "frame_1.png", LEVELS[0, 0])
    assert run(root, masks, tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "has files of several names" in error and "b/frame_1.png" in error and error.count("\n") == 1


def test_black_masks_do_not_decide_the_format(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.decode.SAMPLE", 2)  # the first and the last
    pixels = np.zeros((*LEVELS.shape, 3), np.uint8)
    pixels[1, 2, :50] = (0, 0, 128)
    assert run(root, write_masks(tmp_path / "masks", "{v}/{v}_{k}.png", pixels), tmp_path / "out") == 0
    assert scores(tmp_path / "out")["masks"]["format"] == "palette"


def test_bad_usage_is_one_line(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    masks = write_masks(tmp_path / "masks", "{c}/{v}/{v}_{k}.png", (LEVELS > 99).astype(np.uint8) * 3)
    (tmp_path / "empty").mkdir()
    for words, message in (
        (["--masks", str(tmp_path / "none")], "no such folder"),
        (["--masks", str(tmp_path / "empty")], "has no mask of 3 clips"),
        (["--masks", str(masks)], "may be class indices or probabilities"),
        (["--masks", str(masks), "--format", "index", "--rule", "iou"], "--rule iou: choose from m_j"),
        (["--masks", str(masks), "--original", str(masks)], "--original needs --audio-condition"),
        (["--masks", str(masks), "--unknown-colors", "background"], "--unknown-colors is of avss"),
        (["--masks", str(masks), "--split", "val"], "no val clips"),
        (["--masks", str(masks), "--other", str(masks)], "the same folder was given twice"),
        (["--masks", str(masks), "--names", "a", "b"], "2 names for 1 model"),
    ):
        assert score.main(["--benchmark", "s4", "--root", str(root), "--out", str(tmp_path / "out"), *words]) == 1
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, error


def test_two_clips_of_one_name_are_told_apart_by_their_category(tmp_path: Path) -> None:
    clips = [Clip("x", "test", "dog"), Clip("x", "test", "cat")]
    from scoring.folders import find_predictions

    for category in ("dog", "cat"):
        write_gray(tmp_path / category / "x" / "x_1.png", np.zeros((4, 4), np.uint8))
    write_gray(tmp_path / "x_2.png", np.zeros((4, 4), np.uint8))  # of which?
    found = find_predictions(tmp_path, clips)
    assert {index: list(files.values()) for index, files in found.files.items()} == {
        0: [tmp_path / "dog/x/x_1.png"],
        1: [tmp_path / "cat/x/x_1.png"],
    }
    assert [problem.where for problem in found.problems] == ["x_2.png"]


def test_starts_without_torch() -> None:
    code = "import sys, score; print(sorted({'torch', 'pandas', 'librosa', 'matplotlib'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
