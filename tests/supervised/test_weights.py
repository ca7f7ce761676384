"""Whole models from files: checkpoints of the original's and AVSBench's code, and runs that start from another one."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from models.tpavi_segmentor import TPAVISegmentor
from supervised import evaluate, train
from supervised.model import AVSModel, architecture
from supervised.options import Options, check_options
from supervised.trainer import Trainer
from tests.helpers.tiny_checkpoints import arguments, folder
from utils.cli import InputError
from utils.config import resolve_options, to_yaml

__all__ = ["folder"]  # a fixture

TPAVI = "--model.segmentor tpavi --model.backbone resnet18 --model.weights random --model.vggish.widths [4,4,4,8]"
TPAVI += " --model.vggish.hidden 16"


@pytest.fixture(scope="module")
def vggish(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the small VGGish."""
    path = tmp_path_factory.mktemp("vggish") / "vggish.pth"
    torch.manual_seed(5)
    model = AVSModel(resolve_options(Options, [*TPAVI.split(), "--model.vggish.weights", "random"]).model)
    assert model.vggish is not None
    torch.save(model.vggish.state_dict(), path)
    return path


def reference_state(model: AVSModel) -> dict[str, Tensor]:
    """The weights of a segmentor as the original's code (fpn) or AVSBench's (TPAVI with a ResNet) would save them."""
    own, renamed = model.segmentor.state_dict(), dict[str, Tensor]()
    for key, value in own.items():
        if not isinstance(model.segmentor, TPAVISegmentor):
            tower, _, rest = key.partition(".")
            renamed[f"{tower}_encoder.{rest}" if tower in ("visual", "audio") else key] = value
            if tower in ("visual", "audio"):
                renamed[f"aclp.{key}"] = value
            continue
        name = key.replace("backbone.", "resnet.", 1) if key.startswith("backbone.") else key.removeprefix("decoder.")
        for level in ("layer3", "layer4"):
            if name.startswith(f"resnet.{level}."):  # of which AVSBench keeps two, and uses one
                renamed[name.replace(level, f"{level}_2")] = torch.full_like(value, 3)
                name = name.replace(level, f"{level}_1")
        renamed[name] = value
    return {f"module.{key}": value for key, value in renamed.items()}


def words_of(segmentor: str, composed: Path, folder: Path, vggish: Path, benchmark: str = "s4") -> list[str]:
    """Options of a small run, without --out."""
    words = arguments(composed, folder, Path("unused"), "--train.epochs", "1", benchmark=benchmark)
    place = words.index("--out")
    words = words[:place] + words[place + 2 :]
    return words if segmentor == "fpn" else [*words, *TPAVI.split(), "--model.vggish.weights", str(vggish)]


def small_model(words: list[str], seed: int, fidelity: Any = "published") -> tuple[Options, AVSModel]:
    options = replace(resolve_options(Options, words), fidelity=fidelity)
    torch.manual_seed(seed)
    model = AVSModel(options.model, options.fidelity)
    if model.vggish is not None:
        model.vggish.load_state_dict(torch.load(options.model.vggish.weights, weights_only=True))
    return options, model


def write_run(run: Path, options: Options, model: AVSModel) -> None:
    """A run folder that keeps the model."""
    run.mkdir()
    (run / "config.yaml").write_text(to_yaml(options))
    save_file(model.state_dict(), run / "best.safetensors", architecture(options.model))


def numbers(run: Path) -> dict[str, Any]:
    found = json.loads((run / "metrics.json").read_text())
    return {name: found[name] for name in ("m_j", "m_f", "m_f_whole_set", "iou_dataset", "frames", "fidelity")}


# --- evaluate --reference --------------------------------------------------------------------------------


@pytest.mark.parametrize("segmentor", ["fpn", "tpavi"])
def test_a_reference_file_gives_the_numbers_of_its_weights(
    composed: Path, folder: Path, vggish: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, segmentor: str
) -> None:
    monkeypatch.chdir(tmp_path)
    words = words_of(segmentor, composed, folder, vggish)
    options, model = small_model(words, 7)
    write_run(tmp_path / "run", options, model)
    assert evaluate.main(["--run-dir", "run"]) == 0
    torch.save(reference_state(model), "S4_best.pth")
    Path("row.yaml").write_text("fidelity: corrected\n")
    given = ["--reference", "S4_best.pth", "--config", "row.yaml", *words]
    assert evaluate.main([*given, "--masks"]) == 0
    out = Path("runs/supervised/row_S4_best")
    assert numbers(out) == numbers(tmp_path / "run")
    assert numbers(out)["fidelity"] == "published", "by which such weights were trained"
    files = {"S4_best.pth", *([str(vggish)] if segmentor == "tpavi" else [])}
    assert set(json.loads((out / "metrics.json").read_text())["checkpoints"]) == files and (out / "masks").is_dir()
    assert evaluate.main(given) == 0, "again"
    # The audio of the reference's frozen tower and of VGGish matters here.
    assert evaluate.main([*given, "--audio", "silent", "--out", "other"]) == 0
    assert Path("other/metrics_test_silent.json").is_file()


def test_what_is_no_reference_file_of_the_row_is_refused(
    composed: Path, folder: Path, vggish: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = words_of("fpn", composed, folder, vggish)
    options, model = small_model(words, 7)
    state = reference_state(model)
    files = {name: tmp_path / f"{name}.pth" for name in ("good", "cut", "other", "wide", "more", "ours", "absent")}
    torch.save(state, files["good"])
    files["cut"].write_bytes(files["good"].read_bytes()[:-1000])
    torch.save(reference_state(small_model(words_of("tpavi", composed, folder, vggish), 7)[1]), files["other"])
    torch.save({key: value[:1] if value.ndim else value for key, value in state.items()}, files["wide"])
    torch.save(state | {"module.head.stranger": torch.zeros(1)}, files["more"])
    torch.save(model.state_dict(), files["ours"])
    out = tmp_path / "out"
    row = tmp_path / "row.yaml"
    row.write_text("train: {seed: 1}\n")
    messages = {
        "cut": "damaged, or not a checkpoint",
        "other": "does not fit AVSModel: missing",
        "wide": "misshapen",
        "more": "unexpected 1: head.stranger",
        "ours": "it was trained by this code; evaluate its run folder with --run-dir",
        "absent": "no such checkpoint",
    }
    for name, message in messages.items():
        capsys.readouterr()
        assert evaluate.main(["--reference", str(files[name]), "--config", str(row), *words, "--out", str(out)]) == 1
        told = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("note: ")]
        assert len(told) == 1 and message in told[0] and name in told[0]
    assert not out.exists()
    good = ["--reference", str(files["good"]), "--config", str(row), *words]
    write_run(tmp_path / "run", options, model)
    assert evaluate.main([*good, "--out", str(tmp_path / "run")]) == 1
    assert "holds a training run; choose another --out" in capsys.readouterr().err
    assert evaluate.main([*good, "--out", str(out)]) == 0
    state["module.head.seg_conv.bias"] += 1
    torch.save(state, files["good"])
    assert evaluate.main([*good, "--out", str(out)]) == 1
    assert "holds the results of another checkpoint; choose another --out" in capsys.readouterr().err
    assert evaluate.main([*good, "--data.soft_masks", "dither", "--out", str(out)]) == 1
    assert "holds a run with other options: data.soft_masks (refuse, not dither)" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "one of the arguments --run-dir --reference is required"),
        (["--run-dir", ".", "--reference", "x.pth"], "not allowed with argument"),
        (["--reference", "x.pth"], "--reference needs --config"),
        (["--run-dir", ".", "--data.root", "x"], "belong to --reference"),
        (["--run-dir", ".", "--config", "x.yaml"], "belong to --reference"),
        (["--reference", "x.pth", "--config", "x.yaml"], "x.yaml"),
        (["--reference", "x.pth", "--config", "row.yaml", "--train.speed", "3"], "train.speed"),
    ],
)
def test_bad_usage(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    words: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("row.yaml").write_text("train: {seed: 1}\n")
    with pytest.raises(SystemExit) as stop:
        evaluate.main(words)
    told = capsys.readouterr().err
    assert stop.value.code == 2 and message in told and told.count("\n") == 1


# --- train --init-from -----------------------------------------------------------------------------------


@pytest.mark.parametrize("segmentor", ["fpn", "tpavi"])
@pytest.mark.parametrize("source", ["run", "file", "reference"])
def test_ms3_starts_from_s4(
    composed: Path, folder: Path, vggish: Path, tmp_path: Path, segmentor: str, source: str
) -> None:
    options, model = small_model(words_of(segmentor, composed, folder, vggish), 7, "corrected")
    write_run(tmp_path / "s4", options, model)
    torch.save(reference_state(model), tmp_path / "s4.pth")
    given = {"run": tmp_path / "s4", "file": tmp_path / "s4" / "best.safetensors", "reference": tmp_path / "s4.pth"}
    words = words_of(segmentor, composed, folder, vggish, "ms3")
    options = resolve_options(Options, [*words, "--model.init_from", str(given[source])])
    # The checkpoints of the towers are not needed: everything is in the file (and VGGish beside AVSBench's).
    options.model.weights = options.model.fpn.visual = options.model.fpn.audio = "nowhere.pth"
    if source != "reference":
        options.model.vggish.weights = "nowhere.pth"
    check_options(options)
    trainer = Trainer(options, tmp_path / "ms3")
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    assert trainer.model.fidelity == getattr(trainer.model.segmentor, "fidelity", "corrected") == "corrected"
    recorded = {record.tower: record.file for record in trainer.initial_weights}
    expected = given["file"] if source == "run" else given[source]
    both = segmentor == "tpavi" and source == "reference"
    assert recorded == {"model": expected, **({"audio": vggish} if both else {})}
    assert set(options.model.checkpoint_files()) >= set(recorded.values())


def test_init_from_is_part_of_a_run(
    composed: Path, folder: Path, vggish: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s4, model = small_model(words_of("fpn", composed, folder, vggish), 7, "corrected")
    write_run(tmp_path / "s4", s4, model)
    words = words_of("fpn", composed, folder, vggish, "ms3")
    run = ["--out", str(tmp_path / "ms3")]
    assert train.main([*words, *run, "--init-from", str(tmp_path / "s4")]) == 0
    record = json.loads((tmp_path / "ms3" / "initial_weights.json").read_text())
    assert list(record) == ["model"] and record["model"]["file"].endswith("s4/best.safetensors")
    # The weights may move, but not change.
    shutil.move(tmp_path / "s4", tmp_path / "moved")
    assert train.main([*words, *run, "--model.init_from", str(tmp_path / "moved")]) == 0
    assert "finished, 1 epoch" in capsys.readouterr().out
    assert train.main([*words, *run]) == 1
    assert "ms3 holds a run with other options: model.init_from" in capsys.readouterr().err
    write_run(tmp_path / "s4", s4, small_model(words, 8, "corrected")[1])
    assert train.main([*words, *run, "--init-from", str(tmp_path / "s4")]) == 1
    assert "ms3 holds a run with other options: model.init_from" in capsys.readouterr().err


def test_what_does_not_fit_is_not_started_from(
    composed: Path, folder: Path, vggish: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    s4, model = small_model(words_of("fpn", composed, folder, vggish), 7, "corrected")
    write_run(tmp_path / "s4", s4, model)
    (tmp_path / "empty").mkdir()
    words = [*words_of("fpn", composed, folder, vggish, "ms3"), "--out", str(tmp_path / "ms3")]
    cases = [
        (["--init-from", str(tmp_path / "s4"), "--model.fpn.fusion", "normed_concate"], "trained with fusion concate"),
        (["--init-from", str(tmp_path / "s4"), "--model.channels", "16"], "does not fit AVSModel: misshapen"),
        (["--init-from", str(tmp_path / "empty")], "no such checkpoint"),
        (["--init-from", str(tmp_path / "absent")], "no such checkpoint"),
        (["--init-from", str(folder / "CLIP.pt")], "does not fit AVSModel: missing"),
    ]
    for more, message in cases:
        assert train.main([*words, *more]) == 1
        told = capsys.readouterr().err
        assert message in told and told.count("\n") == 1
    assert not (tmp_path / "ms3").exists()
    with pytest.raises(InputError, match="missing"):
        state = {key: value for key, value in model.state_dict().items() if not key.startswith("segmentor.head.")}
        save_file(state, tmp_path / "s4" / "best.safetensors")
        Trainer(resolve_options(Options, [*words[:-2], "--model.init_from", str(tmp_path / "s4")]), tmp_path / "ms3")
