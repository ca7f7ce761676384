"""Runs on AVSS: training, evaluation and their files, for both segmentors and fidelities."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from accelerate import Accelerator

from models import TPAVISegmentor
from models.vggish import VGGish
from supervised import avss_rules, evaluate, measures, objective, train
from supervised.audio_features import extract_audio_features
from supervised.data import open_dataset
from supervised.model import AVSModel
from supervised.options import Options
from supervised.trainer import Trainer
from supervised.weights import load_run
from tests.helpers import golden_values as golden
from tests.helpers.tiny_checkpoints import folder
from utils.audio import log_mel, read_wav
from utils.class_figures import legend_image, overlay_classes, plot_confusion
from utils.classes import PALETTE, decode
from utils.cli import InputError
from utils.config import resolve_options
from utils.files import read_image
from utils.layout import BENCHMARKS, Clip
from utils.robustness_report import RobustnessRecorder
from utils.semantic import SemanticMetrics
from utils.sound_conditions import SoundCondition, clip_classes

__all__ = ["folder"]  # a fixture

TPAVI = (
    "--data.benchmark avss --data.image_size 32 --data.mask_size 56 --data.num_workers 0 --model.backbone resnet18"
    " --model.weights random --model.channels 8 --model.vggish.weights random --model.vggish.widths [4,4,4,8]"
    " --model.vggish.hidden 16 --train.device cpu --train.batch_size 4"
)


def arguments(root: Path, *more: str) -> list[str]:
    return [*TPAVI.split(), "--data.root", str(root), *more]


@pytest.fixture(scope="module")
def trained(composed_avss: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A TPAVI run of one epoch, evaluated."""
    out = tmp_path_factory.mktemp("runs") / "tpavi"
    more = ("--train.epochs", "1", "--loss.distance", "kl", "--out", str(out))
    assert train.main(arguments(composed_avss, *more)) == 0
    assert evaluate.main(["--run-dir", str(out), "--sheets", "2", "--masks"]) == 0
    return out


def test_files_of_a_run(trained: Path, composed_avss: Path) -> None:
    log = pd.read_csv(trained / "log.csv")
    assert list(log.columns) == ["epoch", "loss", "cross_entropy", "avm", "val_miou_truth", "val_f_truth", "seconds"]
    np.testing.assert_allclose(log["loss"], log["cross_entropy"] + 0.5 * log["avm"], rtol=1e-5)
    numbers = json.loads((trained / "metrics.json").read_text())
    rules = ("published", "published_nobg", "real", "seen", "truth", "foreground")
    names = {f"{measure}_{rule}" for measure in ("miou", "f") for rule in rules} | {"miou_pooled"}
    assert names <= set(numbers) and numbers["miou_published"] > 0
    assert numbers["frames"] + numbers["padded_frames"] == 10 * numbers["videos"]
    frames = pd.read_csv(trained / "per_frame.csv")
    assert len(frames) == numbers["frames"] and set(frames["subset"]) == {"v1s", "v1m", "v2"}
    classes = pd.read_csv(trained / "per_class.csv")
    assert len(classes) == 71
    labeled = classes["labeled_pixels"] > 0
    assert classes["iou"][labeled].mean() == pytest.approx(numbers["miou_truth"], abs=1e-5)
    assert (trained / "confusion.png").stat().st_size > 1000
    sheets = list((trained / "sheets").glob("*.png"))
    assert len(sheets) == 2
    masks = sorted((trained / "masks").rglob("*.png"))
    assert len(masks) == numbers["frames"]
    picture = read_image(masks[0])
    assert picture.shape == (224, 224, 3) and np.array_equal(PALETTE[decode(picture)], picture)


def test_saved_masks_have_the_reported_metrics(trained: Path, composed_avss: Path) -> None:
    """The same numbers from the pictures alone: 0 to 4 of a five-second clip, 0 to 9 of a ten-second one."""
    model, options, _ = load_run(trained)
    dataset = open_dataset(options.data, model.inputs, "test")
    metrics = measures.new_metrics(dataset.data.benchmark)
    assert not isinstance(metrics, measures.Metrics)
    for index, clip in enumerate(dataset.clips):
        count = dataset.data.benchmark.num_frames(clip)
        paths = [trained / "masks" / clip.name / f"{clip.name}_{k}.png" for k in range(count)]
        predicted = np.stack([decode(read_image(path)) for path in paths])
        metrics.add_clip(index, predicted, dataset[index]["labels"][:count], 10)
    numbers = json.loads((trained / "metrics.json").read_text())
    assert {name: numbers[name] for name in metrics.result()} == pytest.approx(metrics.result())


def test_evaluate_other_conditions(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main(["--run-dir", str(trained), "--split", "train", "--audio", "silent"]) == 0
    assert "v1s training clips have one labeled frame" in capsys.readouterr().out
    numbers = json.loads((trained / "metrics_train_silent.json").read_text())
    assert numbers["frames"] < 10 * numbers["videos"]
    assert "largest_in_silence" in json.loads((trained / "robustness_train.json").read_text())


def test_classes_of_the_new_and_of_the_own_sound() -> None:
    """Ten predicted pixels: four dog, the clip's class; one cat, the partner's; five car."""
    clips = [Clip(name, "test", objects=name, subset="v2") for name in ("dog", "cat")]
    classes = [clip_classes("avss", clip) for clip in clips]
    predicted = torch.zeros(2, 4, 4, dtype=torch.long)
    predicted[0, 0], predicted[0, 1, 0], predicted[1, :2, :2], predicted[1, 2, 0] = 17, 12, 11, 11
    recorder, labels = RobustnessRecorder(), torch.zeros(2, 4, 4, dtype=torch.long)
    files: dict[Path, Any] = {Path("a.wav"): frozenset(["car", "bus"])}
    for name in ("original", "silent", "shuffled", "offscreen", "mixed"):
        sound = SoundCondition(name, clips, classes, lambda _: np.ones(3), sounds=files)  # type: ignore[arg-type]
        dataset = SimpleNamespace(
            data=SimpleNamespace(benchmark=BENCHMARKS["avss"]), clips=clips, sound=None if name == "original" else sound
        )
        evaluate.recorder_callback(recorder, (name, 0), dataset)(0, predicted, labels)  # type: ignore[arg-type]
    found = {name: each["mean"] for name, each in recorder.summary(clips)["conditions"].items()}
    assert {name: mean["seen"] for name, mean in found.items()} == pytest.approx(dict.fromkeys(found, 0.4))
    heard = {name: mean["heard"] for name, mean in found.items() if "heard" in mean}
    assert heard == pytest.approx({"shuffled": 0.1, "offscreen": 0.5, "mixed": 0.1})


def test_metrics_do_not_depend_on_the_batch(trained: Path) -> None:
    model, options, _ = load_run(trained)
    dataset = open_dataset(options.data, model.inputs, "test")
    metrics = evaluate.evaluate(model, dataset, Accelerator(cpu=True), batch_size=1)
    numbers = json.loads((trained / "metrics.json").read_text())
    result = measures.result(metrics, 1)
    assert {name: numbers[name] for name in result} == pytest.approx(result)


def test_a_run_of_one_benchmark_is_not_one_of_another(trained: Path, composed: Path) -> None:
    more = ("--data.benchmark", "ms3", "--data.root", str(composed / "Multi-sources"), "--out", str(trained))
    with pytest.raises(InputError, match="other options"):
        Trainer(resolve_options(Options, [*arguments(composed, *more[:-2])]), trained)


def test_published_run(composed_avss: Path, tmp_path: Path) -> None:
    """It is validated after even epochs only, and its best model is chosen by the published rule."""
    out = tmp_path / "published"
    words = "--fidelity published --train.epochs 2 --train.validate_every 2 --data.fraction 0.3"
    assert train.main(arguments(composed_avss, *words.split(), "--out", str(out))) == 0
    log = pd.read_csv(out / "log.csv")
    assert log["val_miou_published"].notna().tolist() == [True, False]
    assert (out / "best.safetensors").is_file() and (out / "curves.png").is_file()
    model, options, _ = load_run(out)
    assert isinstance(model.segmentor, TPAVISegmentor) and model.segmentor.fidelity == "published"
    dataset = open_dataset(options.data, model.inputs, "train", fidelity="published")
    assert dataset.center_crop and dataset.unknown_colors == "background"


def test_fpn_run(composed_avss: Path, folder: Path, tmp_path: Path) -> None:
    small, out = folder / "small", tmp_path / "fpn"
    words = f"--model.segmentor fpn --model.fpn.variant {small} --model.fpn.visual {small} --model.fpn.audio {small}"
    words += " --data.audio_repeats 1 --model.freeze [] --train.epochs 1 --data.fraction 0.3"
    assert train.main(arguments(composed_avss, *words.split(), "--out", str(out))) == 0
    assert evaluate.main(["--run-dir", str(out)]) == 0
    assert json.loads((out / "metrics.json").read_text())["miou_published"] > 0


def test_audio_features_of_clips_of_both_lengths(composed_avss: Path) -> None:
    options = resolve_options(Options, arguments(composed_avss))
    torch.manual_seed(0)
    model = AVSModel(options.model, classes=71)
    dataset = open_dataset(options.data, model.inputs, "val")
    features = extract_audio_features(model, dataset, Accelerator(cpu=True))
    lengths = [dataset.data.benchmark.num_frames(clip) for clip in dataset.clips]
    assert set(lengths) == {5, 10} and features.shape == (len(lengths), 10, 128)
    for index, length in enumerate(lengths):
        assert features[index, :length].any() and not features[index, length:].any()
        item = dataset[index]
        computed = model(  # the same from the item's log-mel examples
            {"frames": item["frames"][None], "log_mel": item["log_mel"][None], "valid": item["valid"][None]}
        )
        given = {"frames": item["frames"][None], "audio_features": features[index][None], "valid": item["valid"][None]}
        torch.testing.assert_close(computed.logits, model(given).logits, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_golden_embedding(tmp_path: Path) -> None:
    """VGGish on the batch of the original's loader: 16-bit wavs, padded to ten rows with zeros."""
    root = Path(__file__).parents[1] / "golden"
    shapes = json.loads((root / "vggish_keys.json").read_text())
    network = VGGish()
    network.load_state_dict(golden.fill({name: torch.zeros(shape) for name, shape in shapes.items()}, 1))
    rows = []
    for name, seconds in (("avss_wav10", 10.0), ("avss_wav5", 5.0)):
        waveform = golden.audio(1, name, seconds, 16_000)
        soundfile.write(tmp_path / "a.wav", waveform, 16_000, subtype="PCM_16")
        mel = torch.from_numpy(log_mel(*read_wav(tmp_path / "a.wav")))
        rows.append(torch.cat([mel, torch.zeros(10 - len(mel), 1, 96, 64)]))
    with torch.no_grad():
        features = network.eval()(torch.cat(rows))
    expected = torch.from_numpy(np.load(root / "avss_vggish_seed1.npz")["embedding"])
    assert (features - expected).norm() / expected.norm() < 1e-4


def test_batches_of_both_lengths_are_weighted_by_frame(composed_avss: Path, tmp_path: Path) -> None:
    trainer = Trainer(resolve_options(Options, arguments(composed_avss)), tmp_path / "run")
    dataset = trainer.datasets["train"]
    items = [dataset[index] for index in range(4)]
    batch = {name: torch.stack([item[name] for item in items]) for name in items[0] if torch.is_tensor(items[0][name])}
    clips = [dataset.clips[index] for index in range(4)]
    trainer.model.eval()
    whole, factor = trainer.objective(trainer.model, batch, clips)
    parts = []
    for index in range(4):
        part = {name: value[index : index + 1] for name, value in batch.items()}
        loss, _ = trainer.objective(trainer.model, part, clips[index : index + 1])
        parts.append(loss.total * BENCHMARKS["avss"].num_labeled(clips[index]))
    total = sum(BENCHMARKS["avss"].num_labeled(clip) for clip in clips)
    torch.testing.assert_close(whole.total * factor, torch.stack(parts).sum() / total, rtol=1e-4, atol=1e-5)


def test_the_loss_is_told_what_is_padding(composed_avss: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(resolve_options(Options, arguments(composed_avss)), tmp_path / "run")
    dataset = trainer.datasets["train"]
    item = {name: value[None] for name, value in dataset[0].items() if torch.is_tensor(value)}
    given: list[torch.Tensor] = []
    loss = objective.semantic_segmentation_loss
    monkeypatch.setattr(
        objective, "semantic_segmentation_loss", lambda *args, valid: given.append(valid) or loss(*args, valid=valid)
    )
    trainer.objective(trainer.model.eval(), item, dataset.clips[:1])
    assert given[0] is item["valid"]


def test_pictures_of_classes() -> None:
    frames = [np.full((40, 60, 3), 100, np.uint8)] * 3
    classes = np.zeros((2, 40, 60), np.uint8)
    classes[0, :20] = 41
    drawn = overlay_classes(frames, list(classes))
    assert len(drawn) == 3 and (drawn[0][:18] != frames[0][:18]).any() and (drawn[0][25:] == 100).all()
    assert np.array_equal(drawn[1], frames[1])
    legend = legend_image(np.array([0, 41, 70]))
    assert (legend[12, 10] == PALETTE[41]).all() and (legend[12, 170] == PALETTE[70]).all()
    assert legend_image([0]).shape[0] > 0
    assert plot_confusion(np.eye(3, dtype=np.int64), ["a", "b", "c"]).startswith(b"\x89PNG")


def test_one_invented_class_lowers_the_rules_that_average_over_it() -> None:
    labels = np.zeros((2, 8, 8), int)
    labels[:, :4] = 7
    perfect, wrong = SemanticMetrics(), SemanticMetrics()
    perfect.add_clip(0, labels, labels, 10)
    wrong.add_clip(0, avss_rules.with_wrong_pixel(labels, 3), labels, 10)
    before, after = avss_rules.rule_values(perfect), avss_rules.rule_values(wrong)
    seen, truth = "classes in ground truth or prediction", "real frames, classes in the ground truth"
    assert before[seen] == before[truth] == (1, 1) and after[seen][0] < 0.7 < 0.95 < after[truth][0] < 1


def test_rules_of_the_same_predictions(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert avss_rules.main(["--run-dir", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    values = {row[0]: row[1:] for row in table}
    numbers = json.loads((trained / "metrics.json").read_text())
    first = values["real frames, classes in the ground truth"]
    assert first[:2] == [f"{numbers['miou_truth']:.4f}", f"{numbers['f_truth']:.4f}"]
    assert values["defect: all of them, as published"][0] == f"{numbers['miou_published']:.4f}"
    assert len(values) == 8 and values["pooled over all pixels"][1] == "–"
