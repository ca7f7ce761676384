"""Train and evaluate end to end, as a user calls them."""

import json
import subprocess
import sys
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.layers import DropPath
from torch import nn

from supervised import evaluate, train, trainer
from supervised.distributed import StochasticDepth, loss_scale, rank_slice, set_video_lengths, shuffled_batches
from supervised.model import AVSModel
from supervised.options import Options
from utils import results
from utils.config import from_yaml, to_yaml
from utils.files import sha256

REPOSITORY = Path(__file__).parents[2]
CONFIGS = REPOSITORY / "supervised" / "configs"


def arguments(composed: Path, out: Path, *more: str, benchmark: str = "s4") -> list[str]:
    folder = {"s4": "Single-source", "ms3": "Multi-sources"}[benchmark]
    small = (
        "--data.image_size 32 --data.num_workers 0 --model.backbone resnet18 --model.weights random --train.device cpu"
    )
    small += (
        " --model.channels 8 --model.vggish.weights random --model.vggish.widths [4,4,4,8] --model.vggish.hidden 16"
    )
    small += " --train.epochs 2 --train.batch_size 4 --train.lr 1e-3"
    root = ["--data.root", str(composed / folder), "--data.benchmark", benchmark]
    return [*small.split(), *root, "--out", str(out), *more]


def read(run: Path, name: str = "metrics.json") -> dict:
    return json.loads((run / name).read_text())


@pytest.mark.parametrize("benchmark, more", [("s4", []), ("ms3", ["--loss.distance", "kl", "--loss.weight", "0.1"])])
def test_train_then_evaluate(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], benchmark: str, more: list[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, run, *more, benchmark=benchmark)) == 0
    log = pd.read_csv(run / "log.csv")
    assert list(log["epoch"]) == [0, 1] and np.isfinite(log.to_numpy()).all()
    assert (log["avm"] > 0).all() == (benchmark == "ms3")
    np.testing.assert_allclose(log["loss"], log["bce"] + 0.1 * log["avm"], rtol=1e-5)
    assert list((run / "tensorboard").iterdir())
    assert Image.open(run / "curves.png").size == (960, 360)
    assert evaluate.main(["--run-dir", str(run), "--sheets", "1", "--masks"]) == 0
    result = read(run)
    assert result["metric_batch"] == 4 and result["frames"] == 5 * result["videos"]
    assert 0 <= result["m_j"] <= 1 and result["m_f"] >= result["m_f_whole_set"] - 1e-9
    assert result["checkpoints"] == {"best.safetensors": sha256(run / "best.safetensors")}
    assert result["versions"]["torch"] == torch.__version__.split("+")[0] and result["seed"] == 123
    frames = pd.read_csv(run / "per_frame.csv")
    assert len(frames) == result["frames"] and frames["iou"].mean() == pytest.approx(result["m_j"], abs=1e-5)
    masks = sorted((run / "masks").rglob("*.png"))
    assert len(masks) == result["frames"]
    assert set(np.unique(np.asarray(Image.open(masks[0])))) <= {0, 255}
    (sheet,) = (run / "sheets").iterdir()
    assert Image.open(sheet).size == (5 * 232, 3 * (232 + 26))
    capsys.readouterr()
    assert results.main([str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert f"{result['m_j']:.4f}" in table and "| run " in table


def test_audio_conditions(composed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, run, "--train.epochs", "1")) == 0
    words = ["--audio", "silent", "noise", "shuffled", "mixed", "--audio-seeds", "0", "1"]
    assert evaluate.main(["--run-dir", str(run), *words]) == 0
    original = read(run)
    for audio in ("silent", "noise", "shuffled", "mixed"):
        assert read(run, f"metrics_test_{audio}.json")["audio"] == audio
    assert read(run, "metrics_test_noise_seed1.json")["audio_seed"] == 1
    content = read(run, "robustness.json")
    assert content["m_j"] == pytest.approx(original["m_j"], abs=1e-6)
    conditions = content["conditions"]
    assert list(conditions) == ["original", "silent", "noise", "shuffled", "mixed"]
    for name, values in conditions.items():
        if name != "original":
            same = read(run, f"metrics_test_{name}.json")["m_j"]
            low, high = values["range"]["MJ_same"]
            assert low - 1e-6 <= same <= high + 1e-6
            assert values["seeds"] == ([0] if name == "silent" else [0, 1]) and values["dropped_clips"][0] == 0
            assert values["mean"]["drop"] == pytest.approx(content["m_j"] - values["mean"]["MJ_same"], abs=1e-6)
            assert ("FPR" in values["mean"]) == (name != "mixed")
        assert values["sweep"] == sorted(values["sweep"], reverse=True) and len(values["sweep"]) == 9
    areas = [conditions[name]["mean"]["pIA"] for name in ("silent", "noise", "shuffled")]
    quiet, m_j = 1 - np.mean(areas), content["m_j"]
    assert content["H"] == pytest.approx(2 * m_j * quiet / (m_j + quiet))
    frames = pd.read_csv(run / "robustness_per_frame.csv")
    assert len(frames) == original["frames"] * (1 + 1 + 2 + 2 + 2)
    assert (frames[frames["audio"] == "original"]["agree"] == 1).all()


def test_a_model_without_audio_is_the_same_under_every_condition(composed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["--train.epochs", "1", "--model.attention", "vv"]
    assert train.main(arguments(composed, run, *words)) == 0
    assert evaluate.main(["--run-dir", str(run), "--audio", "silent", "noise", "shuffled"]) == 0
    content = read(run, "robustness.json")
    for name in ("silent", "noise", "shuffled"):
        mean = content["conditions"][name]["mean"]
        assert (mean["agree"], mean["keep"], mean["drop"]) == (1, 1, 0) and mean["pIA"] == content["pIA"]


def test_random_vggish_depends_on_its_input() -> None:
    """Under PyTorch's default initialization its output would be nearly constant."""
    options = from_yaml(Options, CONFIGS / "mini" / "s4_tpavi.yaml").model
    vggish = AVSModel(options).vggish
    assert vggish is not None
    with torch.no_grad():
        features = vggish(torch.randn(16, 1, 96, 64) * torch.linspace(0.5, 4, 16)[:, None, None, None])
    assert features.std(0).mean() > 0.2 * features.mean()


def test_evaluation_does_not_depend_on_the_batch(composed: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, run, "--train.epochs", "1", benchmark="ms3")) == 0
    seen = []
    for batch in ("1", "3"):
        assert evaluate.main(["--run-dir", str(run), "--batch-size", batch, "--metric-batch", "1"]) == 0
        seen.append(read(run))
    for name in ("m_j", "m_f", "m_f_whole_set", "iou_dataset"):
        assert seen[0][name] == pytest.approx(seen[1][name], abs=1e-5)


def test_a_finished_run_is_left_as_it_is(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, run, "--train.epochs", "1")) == 0
    before = {name: (run / name).read_bytes() for name in ("best.safetensors", "state.pt", "log.csv")}
    capsys.readouterr()
    assert train.main(arguments(composed, run, "--train.epochs", "1")) == 0
    assert "finished, 1 epoch" in capsys.readouterr().out
    assert all((run / name).read_bytes() == content for name, content in before.items())


def test_best_checkpoint_is_the_first_best(composed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.3, 0.5, 0.5, 0.4])

    class Scripted:
        def result(self, metric_batch: int) -> dict[str, float]:
            assert metric_batch == 1
            return {"m_j": next(scores), "m_f": 0.0}

    saved: list[bool] = []
    original = trainer.Trainer.save

    def save(self: trainer.Trainer, improved: bool) -> None:
        saved.append(improved)
        original(self, improved)

    monkeypatch.setattr(trainer, "evaluate", lambda *_, **__: Scripted())
    monkeypatch.setattr(trainer.Trainer, "save", save)
    assert train.main(arguments(composed, tmp_path / "run", "--train.epochs", "4")) == 0
    assert saved == [True, True, False, False]


def test_a_frozen_vggish_does_not_change(composed: Path, tmp_path: Path) -> None:
    for name, freeze in (("frozen", "[audio]"), ("trained", "[]")):
        run = tmp_path / name
        assert train.main(arguments(composed, run, "--model.freeze", freeze, "--train.epochs", "1")) == 0
        options = from_yaml(Options, run / "config.yaml")
        trainer.set_seed(options.train.seed)
        before = AVSModel(options.model).state_dict()
        after = load_file(run / "best.safetensors")
        moved = {key for key in after if not torch.equal(before[key], after[key])}
        assert any(key.startswith("vggish.") for key in moved) == (name == "trained")
        assert "segmentor.conv1.conv2d_list.0.weight" in moved


def test_pretrained_files_reach_the_model(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from models.backbones import build_backbone

    backbone = build_backbone("resnet18")
    torch.save(backbone.state_dict() | {"fc.weight": torch.zeros(2), "fc.bias": torch.zeros(2)}, tmp_path / "r.pth")
    options = from_yaml(Options, CONFIGS / "mini" / "s4_tpavi.yaml")
    options.model.weights = str(tmp_path / "r.pth")
    model = AVSModel(options.model)
    assert [start.file for start in model.load_pretrained()] == [tmp_path / "r.pth", None]
    assert torch.equal(model.visual_tower.state_dict()["conv1.weight"], backbone.state_dict()["conv1.weight"])
    assert train.main(arguments(composed, tmp_path / "a", "--model.weights", str(tmp_path / "none.pth"))) == 1
    assert "none.pth: no such checkpoint; see pretrained/README.md" in capsys.readouterr().err
    assert train.main(arguments(composed, tmp_path / "b", "--model.vggish.weights", str(tmp_path / "r.pth"))) == 1
    assert "does not fit VGGish" in capsys.readouterr().err


@pytest.mark.parametrize(
    "more, code, message",
    [
        (["--data.image_size", "50"], 1, "a multiple of 32"),
        (["--train.batch_size", "0"], 1, "at least 1"),
        (["--loss.distance", "kl", "--model.attention", "vv"], 1, "does not use"),
        (["--loss.distance", "kl", "--model.stages", "[3]"], 1, "must be among model.stages"),
        (["--data.root", "nowhere"], 1, "nowhere/s4_meta_data.csv: no such file"),
        (["--data.fraction", "1.5"], 1, "data.fraction is 1.5"),
        (["--train.epochs", "many"], 2, "train.epochs"),
        (["--model.backbone", "alexnet"], 2, "alexnet"),
        (["--train.speed", "9"], 2, "train.speed"),
    ],
)
def test_bad_options(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], code: int, message: str
) -> None:
    try:
        assert train.main(arguments(composed, tmp_path / "run", *more)) == code == 1
    except SystemExit as stop:
        assert stop.code == code == 2
    errors = capsys.readouterr().err
    assert message in errors and "Traceback" not in errors
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_run_can_be_made_longer(composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(arguments(composed, tmp_path / "whole", "--train.epochs", "2")) == 0
    for epochs in ("1", "2"):
        assert train.main(arguments(composed, tmp_path / "longer", "--train.epochs", epochs)) == 0
    whole, longer = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "longer"))
    assert all(torch.equal(value, longer["model"][name]) for name, value in whole["model"].items())
    assert from_yaml(Options, tmp_path / "longer" / "config.yaml").train.epochs == 2
    capsys.readouterr()
    cosine = ("--train.epochs", "3", "--train.schedule", "cosine")
    for more in (("--train.epochs", "1"), cosine):  # shorter, or at other rates from the first step on
        assert train.main(arguments(composed, tmp_path / "longer", *more)) == 1
        assert "holds a run with other options" in capsys.readouterr().err
    assert train.main(arguments(composed, tmp_path / "cosine", *cosine[2:], "--train.epochs", "1")) == 0
    assert train.main(arguments(composed, tmp_path / "cosine", *cosine)) == 1


def test_other_options_do_not_overwrite_a_run(
    composed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, run, "--train.epochs", "1")) == 0
    assert train.main(arguments(composed, run, "--train.epochs", "1", "--train.lr", "1e-5")) == 1
    assert "holds a run with other options" in capsys.readouterr().err
    (run / "best.safetensors").write_bytes(b"cut")
    assert evaluate.main(["--run-dir", str(run)]) == 1
    assert "best.safetensors: damaged, or not a checkpoint" in capsys.readouterr().err
    assert evaluate.main(["--run-dir", str(tmp_path)]) == 1
    assert "is" in capsys.readouterr().err
    (run / "config.yaml").write_text("train: {speed: 9}\n")
    assert evaluate.main(["--run-dir", str(run)]) == 1
    assert "speed" in capsys.readouterr().err


def test_options_survive_yaml(tmp_path: Path) -> None:
    options = from_yaml(Options, CONFIGS / "ms3_tpavi_pvt.yaml")
    (tmp_path / "config.yaml").write_text(to_yaml(options))
    assert from_yaml(Options, tmp_path / "config.yaml") == options


def test_shares_make_up_the_batch() -> None:
    for count, size, world in ((10, 4, 2), (7, 3, 4), (5, 5, 3)):
        for batch in shuffled_batches(count, size, seed=1):
            shares = [rank_slice(batch, rank, world) for rank in range(world)]
            weights = [loss_scale(len(part), len(batch), world) for part in shares]
            assert sum(weights) == pytest.approx(world)
            if len(batch) < world:
                assert shares == [batch] * world
            else:
                assert sorted(chain(*shares)) == sorted(batch)
    assert shuffled_batches(9, 4, 1) == shuffled_batches(9, 4, 1) != shuffled_batches(9, 4, 2)
    assert sorted(chain(*shuffled_batches(9, 4, 1))) == list(range(9))


@pytest.mark.parametrize("videos, world", [(4, 2), (7, 3), (2, 4)])
def test_stochastic_depth_decides_as_one_process_does(videos: int, world: int) -> None:
    """Each process's share is, to the bit, what timm's makes of the whole batch."""
    x = torch.randn(videos * 5, 6, 3, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(1)
    whole = DropPath(0.4)(x).unflatten(0, (videos, 5))
    assert 0 < (whole == 0).float().mean() < 1
    for rank in range(world):
        mine, part = rank_slice(list(range(videos)), rank, world), StochasticDepth(0.4, True, rank, world)
        set_video_lengths(nn.Sequential(part), [5] * videos)
        torch.manual_seed(1)
        assert torch.equal(part(x.unflatten(0, (videos, 5))[mine].flatten(0, 1)), whole[mine].flatten(0, 1))
        assert torch.equal(part.eval()(x), x)


@pytest.mark.slow
@pytest.mark.parametrize("benchmark, more", [("s4", []), ("ms3", ["--loss.distance", "kl"])])
def test_two_processes_train_and_evaluate_as_one(
    composed: Path, tmp_path: Path, benchmark: str, more: list[str]
) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    extra = ["--train.epochs", "1", "--train.lr", "1e-4", "--model.freeze", "[]", *more]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    assert train.main(arguments(composed, one, *extra, benchmark=benchmark)) == 0
    assert evaluate.main(["--run-dir", str(one)]) == 0
    for words in (
        ["supervised.train", *arguments(composed, two, *extra, benchmark=benchmark)],
        ["supervised.evaluate", "--run-dir", str(two)],
    ):
        run = subprocess.run([*launch, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
        assert run.returncode == 0, run.stderr[-3000:]
    logs = [pd.read_csv(run / "log.csv") for run in (one, two)]
    for name in ("loss", "bce", "avm", "val_m_f"):
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=2e-3, atol=1e-6)
    results_ = [read(run) for run in (one, two)]
    for name in ("m_j", "m_f", "m_f_whole_set", "iou_dataset"):
        assert results_[0][name] == pytest.approx(results_[1][name], abs=2e-3), name
    assert results_[0]["frames"] == results_[1]["frames"] and results_[0]["frames"] > 0
