"""score.py on AVSS: the original's figures from PNG masks, and masks that are no classes."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch.nn.functional import one_hot

import score
from scoring.semantic import RULES
from tests.helpers import golden_values as golden
from utils.classes import PALETTE
from utils.files import write_text
from utils.robustness import condition_measures, measure_frames

FOLDER = Path(__file__).parents[1] / "golden"
FIGURES = json.loads((FOLDER / "avss_metrics_seed1.json").read_text())
INPUTS = np.load(FOLDER / "avss_metrics_seed1.npz")
SUBSETS = ("v2", "v1m", "v2", "v1m")  # ten and five frames, as in the figures
KEYS = {"published": ("all", "miou", "f_score"), "published_nobg": ("all", "miou_noBg", "f_score_noBg")}
KEYS |= {"real": ("real", "miou", "f_score"), "seen": ("real", "miou_seen", "f_seen")}
KEYS |= {"truth": ("real", "miou_truth", "f_truth"), "foreground": ("real", "miou_truth_fg", "f_truth_fg")}


def write_colors(path: Path, classes: np.ndarray, size: int = 224) -> None:
    colors = np.repeat(np.repeat(PALETTE[classes], size // 32, 0), size // 32, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(colors, cv2.COLOR_RGB2BGR))


@pytest.fixture(scope="module")
def predicted() -> np.ndarray:
    """(4, 10, 32, 32), the classes that the original predicts for the figures."""
    guess = one_hot(torch.from_numpy(INPUTS["guess"]).long(), 71).permute(0, 3, 1, 2)
    logits = golden.tensor(1, "avss_logits", (40, 71, 32, 32)) + 5 * guess
    logits[:, [5, 12, 33, 48, 59]] -= 100
    logits *= torch.from_numpy(INPUTS["flag"])[:, None, None, None]
    return logits.argmax(1).numpy().astype(np.uint8).reshape(4, 10, 32, 32)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AVSS with four test clips that have nothing but labels, of 32×32 pixels."""
    folder = tmp_path_factory.mktemp("avss")
    rows = [f"clip{i},clip{i},0,0,dog,test,{subset}" for i, subset in enumerate(SUBSETS)]
    write_text(folder / "metadata.csv", "\n".join(["vid,uid,s_min,s_sec,a_obj,split,label", *rows]) + "\n")
    for i, subset in enumerate(SUBSETS):
        for k in range(10 if subset == "v2" else 5):
            label = INPUTS["label"].reshape(4, 10, 32, 32)[i, k].astype(int)
            write_colors(folder / subset / f"clip{i}" / "labels_rgb" / f"{k}.png", label, 32)
    return folder


def run(root: Path, masks: Path, out: Path, *more: str) -> int:
    return score.main(["--benchmark", "avss", "--root", str(root), "--masks", str(masks), "--out", str(out), *more])


def write_masks(folder: Path, predicted: np.ndarray, template: str = "{v}/{v}_{k}.png", padding: bool = False) -> Path:
    for i, subset in enumerate(SUBSETS):
        for k in range(10 if subset == "v2" or padding else 5):
            write_colors(folder / template.format(v=f"clip{i}", k=k), predicted[i, k])
    return folder


@pytest.mark.parametrize("layout", ["AVSBench", "AL-Ref-SAM2", "indices"])
def test_the_originals_figures_follow_from_masks(
    root: Path, tmp_path: Path, predicted: np.ndarray, layout: str
) -> None:
    if layout == "indices":
        for i, subset in enumerate(SUBSETS):
            for k in range(10 if subset == "v2" else 5):
                path = tmp_path / "masks" / subset / f"clip{i}" / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(path), cv2.resize(predicted[i, k], (224, 224), interpolation=cv2.INTER_NEAREST))
    elif layout == "AVSBench":
        write_masks(tmp_path / "masks", predicted, padding=True)
    else:
        for i, subset in enumerate(SUBSETS):
            for k in range(10 if subset == "v2" else 5):
                write_colors(tmp_path / "masks" / f"clip{i}" / f"{k + 1}_video_mask.png", predicted[i, k])
    assert run(root, tmp_path / "masks", tmp_path / "out") == 0
    (found,) = json.loads((tmp_path / "out" / "scores.json").read_text())["models"].values()
    for rule, (part, miou, f) in KEYS.items():
        assert found[f"miou_{rule}"] == pytest.approx(FIGURES[part][miou], abs=1e-6), rule
        assert found[f"f_{rule}"] == pytest.approx(FIGURES[part][f], abs=1e-6), rule
    assert found["miou_pooled"] == pytest.approx(FIGURES["real"]["miou_pooled_truth"], abs=1e-9)
    assert set(RULES) <= set(found) and found["format"] == ("index" if layout == "indices" else "palette")
    with (tmp_path / "out" / "per_frame.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 30
    with (tmp_path / "out" / "per_class.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 71


def damage_color(masks: Path) -> None:
    cv2.imwrite(str(masks / "clip1/clip1_2.png"), np.full((224, 224, 3), (1, 2, 3), np.uint8))


def damage_size(masks: Path) -> None:
    write_colors(masks / "clip1/clip1_2.png", np.zeros((32, 32), int), 320)


def damage_missing(masks: Path) -> None:
    (masks / "clip2/clip2_9.png").unlink()


def damage_frames(masks: Path) -> None:
    write_colors(masks / "clip2/clip2_10.png", np.zeros((32, 32), int))


@pytest.mark.parametrize(
    "damage, message",
    [
        (
            damage_color,
            "1 mask has colors outside the palette: {m}/clip1/clip1_2.png has 50176 of 50176 pixels such as (3, 2, 1)",
        ),
        (damage_size, "1 mask has another size: {m}/clip1/clip1_2.png is 320×320, not 224×224"),
        (damage_missing, "1 mask is missing: {m}: clip2 number 9"),
        (damage_frames, "1 clip has a wrong number of frames: {m}: clip2 has 10 seconds, but also masks 10"),
    ],
)
def test_masks_that_are_no_classes_are_named(
    root: Path,
    tmp_path: Path,
    predicted: np.ndarray,
    capsys: pytest.CaptureFixture[str],
    damage: Callable[[Path], None],
    message: str,
) -> None:
    masks = write_masks(tmp_path / "masks", predicted)
    damage(masks)
    assert run(root, masks, tmp_path / "out") == 1
    assert message.format(m=masks) in capsys.readouterr().err
    assert run(root, masks, tmp_path / "skip", "--incomplete", "skip") == 0


def test_sound_conditions_are_measured_on_the_foreground(root: Path, tmp_path: Path, predicted: np.ndarray) -> None:
    """The measures of S4 and MS3, of classes above 0 in the real frames; a mask that changes class is kept."""
    silent = np.where(np.arange(32) < 20, predicted, 0).astype(np.uint8)  # (H, W): the right part falls silent
    silent[1] = 0
    silent[2] = np.where(predicted[2] > 0, predicted[2] % 70 + 1, 0)
    folders = [write_masks(tmp_path / name, classes) for name, classes in (("silent", silent), ("before", predicted))]
    words = ["--audio-condition", "silent", "--original"]
    assert run(root, folders[0], tmp_path / "out", *words, str(folders[1])) == 0
    (found,) = json.loads((tmp_path / "out" / "scores.json").read_text())["models"].values()
    assert "miou_truth" not in found
    real = [(i, k) for i, subset in enumerate(SUBSETS) for k in range(10 if subset == "v2" else 5)]
    after, before, truth = (
        np.stack([classes[i, k] > 0 for i, k in real])
        for classes in (silent, predicted, INPUTS["label"].reshape(4, 10, 32, 32))
    )
    m_j = float(measure_frames(before, truth, before).same.mean())
    expected = condition_measures(measure_frames(after, truth, before), m_j, negative=True)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    assert 0 < found["drop"] < m_j and 0 < found["agree"] < 1
    # A model that ignores the sound, and the measures that need no masks under the original sound.
    assert run(root, folders[1], tmp_path / "same", *words, str(folders[1])) == 0
    (same,) = json.loads((tmp_path / "same" / "scores.json").read_text())["models"].values()
    assert (same["agree"], same["keep"], same["drop"]) == (1, 1, 0) and same["pIA"] == pytest.approx(before.mean())
    assert run(root, folders[0], tmp_path / "alone", "--audio-condition", "mixed") == 0
    (alone,) = json.loads((tmp_path / "alone" / "scores.json").read_text())["models"].values()
    assert alone["pIA"] == found["pIA"] and {"agree", "drop", "H", "FPR"}.isdisjoint(alone)


def test_a_missing_mask_of_the_original_sound_is_named(
    root: Path, tmp_path: Path, predicted: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    silent, before = (write_masks(tmp_path / name, predicted) for name in ("silent", "before"))
    (before / "clip2/clip2_3.png").unlink()
    words = ["--audio-condition", "silent", "--original", str(before)]
    assert run(root, silent, tmp_path / "out", *words) == 1
    assert f"1 mask is missing: {before}: clip2 number 3" in capsys.readouterr().err
    assert run(root, silent, tmp_path / "skip", *words, "--incomplete", "skip") == 0
    (found,) = json.loads((tmp_path / "skip" / "scores.json").read_text())["models"].values()
    assert found["scored_clips"] == 3 and found["agree"] == 1


@pytest.mark.parametrize("kind", ["labels_rgb", "labels_semantic"])
def test_pixels_of_no_class_in_ground_truths(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    write_text(tmp_path / "metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label\nclip0,clip0,0,0,dog,test,v1m\n")
    truth, masks = tmp_path / "v1m" / "clip0" / kind, tmp_path / "masks" / "clip0"
    classes = np.full((5, 32, 32), 17)
    classes[:, :3] = 0
    for k, label in enumerate(classes):
        write_colors(masks / f"{k}.png", label)
        pixels = np.kron(label, np.ones((7, 7))).astype(np.uint8) if kind == "labels_semantic" else None
        if pixels is None:
            write_colors(truth / f"{k}.png", label)
            pixels = cv2.imread(str(truth / f"{k}.png"))
        if k == 3:
            pixels[0, :2] = 255  # these are background
        truth.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(truth / f"{k}.png"), pixels)
    assert run(tmp_path, tmp_path / "masks", tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert f"{truth}/3.png: 2 of 50176 pixels" in error and "see --unknown-colors" in error and error.count("\n") == 1
    assert run(tmp_path, tmp_path / "masks", tmp_path / "out", "--unknown-colors", "background") == 0
    assert "2 pixels of no class in 1 ground truth taken for background" in capsys.readouterr().err
    record = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert record["unknown_colors"] == {"ground_truths": 1, "pixels": 2}
    assert record["models"]["masks"]["miou_truth"] == 1


@pytest.mark.parametrize("size", [(360, 640), (512, 512), (719, 1280)])
def test_ground_truths_of_another_size_score_1(tmp_path: Path, size: tuple[int, int]) -> None:
    """Labels have the size of their video; as predictions they are resized like ground truths."""
    write_text(tmp_path / "metadata.csv", "vid,uid,s_min,s_sec,a_obj,split,label\nclip0,clip0,0,0,dog,test,v1m\n")
    labels = np.random.default_rng(0).integers(0, 71, (5, *size))
    for k, label in enumerate(labels):
        write_colors(tmp_path / "v1m" / "clip0" / "labels_rgb" / f"{k}.png", label, 32)
    assert run(tmp_path, tmp_path / "v1m", tmp_path / "out", "--resize") == 0
    (found,) = json.loads((tmp_path / "out" / "scores.json").read_text())["models"].values()
    assert (found["miou_truth"], found["miou_pooled"]) == (1, 1) and found["f_truth"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("color", "form"), [((128, 0, 0), "palette"), ((128, 128, 128), "palette"), (5, "index"), ((64, 64, 64), None)]
)
def test_masks_that_are_mostly_black_are_read_as_what_they_are(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], color: int | tuple[int, ...], form: str | None
) -> None:
    masks = write_masks(tmp_path / "masks", np.zeros((4, 10, 32, 32), int))
    pixels = np.zeros((224, 224, 3) if isinstance(color, tuple) else (224, 224), np.uint8)
    pixels[:50] = color
    cv2.imwrite(str(masks / "clip2/clip2_7.png"), pixels)
    assert run(root, masks, tmp_path / "out") == (1 if form is None else 0)
    if form is None:
        assert "clip2/clip2_7.png: holds 0 and 64" in capsys.readouterr().err
        return
    (found,) = json.loads((tmp_path / "out" / "scores.json").read_text())["models"].values()
    assert found["format"] == form


def test_indices_above_70_are_named(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for i, subset in enumerate(SUBSETS):
        for k in range(10 if subset == "v2" else 5):
            path = tmp_path / "masks" / f"clip{i}" / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full((224, 224), 71 if (i, k) == (0, 3) else 70, np.uint8))
    assert run(root, tmp_path / "masks", tmp_path / "out") == 1
    assert f"1 mask has class indices above 70: {tmp_path}/masks/clip0/3.png holds 71" in capsys.readouterr().err
    for words, message in (
        (["--format", "binary"], "has no classes"),
        (["--rule", "m_j"], "choose from miou_published"),
        (["--audio-condition", "silent", "--rule", "miou_truth"], "choose from pIA"),
    ):
        assert run(root, tmp_path / "masks", tmp_path / "out", "--incomplete", "skip", *words) == 1
        assert message in capsys.readouterr().err
