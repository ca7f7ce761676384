"""Runs of the FPN segmentor end to end: trained, killed, gone on with, shared among processes, and refused."""

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from supervised import evaluate, objective, optim, state, train, trainer
from supervised.losses import LossTerms
from supervised.model import AVSModel
from supervised.options import Options
from tests.helpers.tiny_checkpoints import arguments, folder, same
from utils.config import from_yaml, to_yaml
from utils.device import AsyncCopy

__all__ = ["folder"]  # a fixture

REPOSITORY = Path(__file__).parents[2]
# Everything with a memory of its own: moments, moving average, rates; and a tower that is trained.
MODERN = [
    "--train.optimizer",
    "adamw",
    "--train.ema_decay",
    "0.9",
    "--train.warmup_steps",
    "2",
    "--train.schedule",
    "cosine",
]
MODERN += ["--train.max_grad_norm", "1"]
# Stochastic depth draws random numbers at every step.
PVT = "--model.segmentor tpavi --model.backbone pvt_v2_b0 --model.weights random --model.vggish.weights random"
PVT += " --model.vggish.widths [4,4,4,8] --model.vggish.hidden 16 --model.freeze []"


def read(run: Path, name: str = "metrics.json") -> dict[str, Any]:
    return json.loads((run / name).read_text())


@pytest.mark.parametrize(
    "benchmark, more",
    [
        ("s4", ["--fidelity", "published"]),
        ("ms3", [*MODERN, "--model.freeze", "[]", "--train.precision", "bf16", "--train.channels_last", "true"]),
    ],
)
def test_train_then_evaluate(
    composed: Path, folder: Path, tmp_path: Path, benchmark: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, folder, run, *more, benchmark=benchmark)) == 0
    log = pd.read_csv(run / "log.csv")
    assert list(log["epoch"]) == [0, 1] and np.isfinite(log.to_numpy()).all() and (log["avm"] == 0).all()
    assert log["loss"].iloc[1] < log["loss"].iloc[0]
    assert evaluate.main(["--run-dir", str(run)]) == 0
    result = read(run)
    assert result["metric_batch"] == 1 and result["fidelity"] == ("published" if benchmark == "s4" else "corrected")
    for audio in ("silent", "shuffled") if benchmark == "s4" else ("silent",):  # MS3 has but one test clip here
        assert evaluate.main(["--run-dir", str(run), "--audio", audio]) == 0
        assert read(run, f"metrics_test_{audio}.json")["frames"] == result["frames"]
    # The kept model is the one that had the best score on val.
    assert evaluate.main(["--run-dir", str(run), "--split", "val", "--metric-batch", "1"]) == 0
    chosen = log.iloc[int(log["val_m_j"].argmax())]
    for name in ("m_j", "m_f"):
        assert read(run, "metrics_val_original.json")[name] == pytest.approx(chosen[f"val_{name}"], abs=2e-3)
    with safe_open(run / "best.safetensors", "pt") as file:
        assert file.metadata() == {
            "segmentor": "fpn",
            "classes": "1",
            "fusion": "concate",
            "upsample": "bilinear",
            "vggish": "False",
        }


def test_run_folders_are_called_by_config_and_fidelity(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("row.yaml").write_text("data: {fraction: 0.3}\n")
    words = ["--config", "row.yaml", *arguments(composed, folder, Path("unused"), "--train.epochs", "1")]
    place = words.index("--out")
    for more in ([], ["--fidelity", "published"]):
        assert train.main([*words[:place], *words[place + 2 :], *more]) == 0
    assert {path.name for path in Path("runs/supervised").iterdir()} == {"row", "row_published"}


# --- killed and gone on with -----------------------------------------------------------------------------


def kill_at(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """The process is interrupted within its step number `count` from now."""
    steps, original = iter(range(1, 1000)), objective.segmentation_loss

    def loss(*words: Any) -> LossTerms:
        if next(steps) == count:
            raise KeyboardInterrupt
        return original(*words)

    monkeypatch.setattr(objective, "segmentation_loss", loss)


@pytest.mark.parametrize(
    "more, minutes",
    [
        ([*MODERN, "--model.freeze", "[]"], "0"),
        (["--fidelity", "published"], "0"),
        pytest.param([*PVT.split(), *MODERN], "0", marks=pytest.mark.slow),
        (MODERN, "99"),
    ],
    ids=["fpn", "published", "pvt", "seldom saved"],
)
def test_killed_at_any_step_it_ends_as_if_it_had_not_been(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: list[str], minutes: str
) -> None:
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    more = [*more, "--train.batch_size", "2", "--train.checkpoint_minutes", minutes]
    assert train.main(arguments(composed, folder, whole, *more)) == 0
    log = pd.read_csv(whole / "log.csv").drop(columns="seconds")
    for count in (2, 3, 5):  # from the beginning, and from there, and on into the second epoch
        kill_at(monkeypatch, count)
        assert train.main(arguments(composed, folder, cut, *more)) == 130
        monkeypatch.undo()
        if minutes == "0":
            progress, _ = state.load_state(cut / "state.pt")
            assert progress.step > 0 and 0 <= len(progress.history) < 2
    assert train.main(arguments(composed, folder, cut, *more)) == 0
    same(whole, cut)
    pd.testing.assert_frame_equal(pd.read_csv(cut / "log.csv").drop(columns="seconds"), log)


def test_machine_options_may_change_on_the_way(composed: Path, folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, folder, run, "--train.epochs", "1")) == 0
    more = ["--data.num_workers", "1", "--data.cache", str(tmp_path / "cache"), "--train.checkpoint_minutes", "1"]
    assert train.main(arguments(composed, folder, run, "--train.epochs", "1", *more)) == 0


# --- several processes -----------------------------------------------------------------------------------


def named_moments(run: Path, saved: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Adam's first moments by the names of the weights."""
    options = from_yaml(Options, run / "config.yaml")
    model = AVSModel(options.model, options.fidelity)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = optim.param_groups(model, options.train, options.fidelity)
    ordered = [names[id(parameter)] for group in groups for parameter in group["params"]]
    return {ordered[k]: moments["exp_avg"] for k, moments in saved["optimizer"]["state"].items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "benchmark, more",
    [
        ("s4", ["--model.freeze", "[]"]),
        ("s4", PVT.split()),
        ("ms3", [*PVT.split(), "--train.grad_checkpointing", "true"]),
        ("ms3", ["--fidelity", "published", *MODERN]),
        ("s4", ["--model.fpn.fusion", "noprior", "--train.grad_checkpointing", "true"]),
    ],
)
def test_two_processes_train_and_evaluate_as_one(
    composed: Path, folder: Path, tmp_path: Path, benchmark: str, more: list[str]
) -> None:
    """One step, so that the moments of Adam are the gradients: later, signs of near-zero ones go their own ways."""
    one, two = tmp_path / "one", tmp_path / "two"
    fraction = {"s4": "0.4", "ms3": "0.7"}[benchmark]  # of 10 and 6 clips: 4
    extra = ["--train.epochs", "1", "--data.fraction", fraction, "--train.lr", "1e-5", *more]
    assert train.main(arguments(composed, folder, one, *extra, benchmark=benchmark)) == 0
    assert evaluate.main(["--run-dir", str(one)]) == 0
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    for words in (
        ["supervised.train", *arguments(composed, folder, two, *extra, benchmark=benchmark)],
        ["supervised.evaluate", "--run-dir", str(two)],
    ):
        run = subprocess.run([*launch, *words], cwd=REPOSITORY, capture_output=True, text=True, timeout=400)
        assert run.returncode == 0, run.stderr[-3000:]
    logs = [pd.read_csv(run / "log.csv") for run in (one, two)]
    for name in ("loss", "bce", "val_m_f"):
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=2e-3, atol=1e-6)
    (_, alone), (_, shared) = (state.load_state(run / "state.pt") for run in (one, two))
    gradients = [named_moments(run, saved) for run, saved in ((one, alone), (two, shared))]
    scale = max(float(gradient.norm()) for gradient in gradients[0].values())
    assert gradients[0].keys() == gradients[1].keys() and scale > 0
    for name, gradient in gradients[0].items():
        # Above the 8 kHz of the files the spectrum is rounding, and so is the gradient of those filters. The decibels
        # of its quiet bins magnify rounding in the other filters' gradients: to 1.3e-3 with SSE4.1.
        part, bound = (slice(0, 8), 1e-2) if ".fbsp." in name else (slice(None), 1e-3)
        apart = float((gradients[1][name][part] - gradient[part]).norm())
        assert apart <= bound * float(gradient.norm()) + 1e-6 * scale, name
    for name, value in alone["model"].items():
        if name.endswith(("running_mean", "running_var")):
            torch.testing.assert_close(shared["model"][name], value, rtol=1e-4, atol=1e-5)
    results = [read(run) for run in (one, two)]
    for name in ("m_j", "m_f", "m_f_whole_set", "iou_dataset"):
        assert results[0][name] == pytest.approx(results[1][name], abs=2e-3), name
    assert results[0]["frames"] == results[1]["frames"] > 0


# --- faults ----------------------------------------------------------------------------------------------


def test_nan_loss_stops_and_keeps_the_last_good_state(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, steps, original = tmp_path / "run", iter(range(100)), objective.segmentation_loss

    def loss(*words: Any) -> LossTerms:
        terms = original(*words)
        return LossTerms(terms.total * (float("nan") if next(steps) == 4 else 1), terms.bce, terms.avm)

    monkeypatch.setattr(objective, "segmentation_loss", loss)
    more = ["--train.checkpoint_minutes", "0", "--train.batch_size", "4"]
    assert train.main(arguments(composed, folder, run, *more)) == 1
    monkeypatch.undo()
    told = capsys.readouterr().err
    assert "the loss is nan at step" in told and "of epoch 2; lower --train.lr" in told
    progress, saved = state.load_state(run / "state.pt")
    assert progress.epoch == 1 and all(value.isfinite().all() for value in saved["model"].values())
    assert evaluate.main(["--run-dir", str(run)]) == 0
    assert train.main(arguments(composed, folder, run, *more)) == 0, "what was left is good to go on from"


def test_a_model_that_is_not_finite_is_not_kept(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, original = tmp_path / "run", trainer.Trainer.train_step

    def step(self: trainer.Trainer, *words: Any) -> AsyncCopy:
        terms = original(self, *words)
        if self.progress.epoch == 1:
            next(iter(self.trainable_parameters)).data.fill_(float("inf"))
        return terms

    monkeypatch.setattr(trainer.Trainer, "train_step", step)
    assert train.main(arguments(composed, folder, run, "--train.checkpoint_minutes", "0")) == 1
    assert "is not finite after step 1 of epoch 2; lower --train.lr" in capsys.readouterr().err
    assert state.load_state(run / "state.pt")[0].epoch == 1


@pytest.mark.parametrize("full", ["state.pt", "best.safetensors"])
def test_a_full_disk_leaves_the_last_state_whole(
    composed: Path,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    full: str,
) -> None:
    run, limits = tmp_path / "run", resource.getrlimit(resource.RLIMIT_FSIZE)
    assert train.main(arguments(composed, folder, run, "--train.epochs", "1")) == 0
    kept = {name: (run / name).read_bytes() for name in ("state.pt", "best.safetensors")}
    options = from_yaml(Options, run / "config.yaml")
    options.train.epochs = 2
    (run / "config.yaml").write_text(to_yaml(options))
    monkeypatch.setattr(state.Progress, "best", -1.0)  # any epoch is an improvement, so that best is written too
    best, whole = len(kept["best.safetensors"]), len(kept["state.pt"])
    assert best < whole
    size = (best + whole) // 2 if full == "state.pt" else best // 2
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        assert train.main(arguments(composed, folder, run)) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "cannot save" in capsys.readouterr().err
    assert (run / "state.pt").read_bytes() == kept["state.pt"] and not list(run.glob(".*partial*"))
    assert (full == "state.pt") == ((run / "best.safetensors").read_bytes() != kept["best.safetensors"])
    assert evaluate.main(["--run-dir", str(run)]) == 0
    monkeypatch.undo()
    assert train.main(arguments(composed, folder, run)) == 0


@pytest.mark.parametrize("fusion", ["normed_concate", "noprior", "skip"])
def test_a_checkpoint_of_another_fusion(
    composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], fusion: Any
) -> None:
    """Even where the weights have the same shapes, as concate's and normed_concate's do."""
    run = tmp_path / "run"
    assert train.main(arguments(composed, folder, run, "--train.epochs", "1", "--data.fraction", "0.3")) == 0
    options = from_yaml(Options, run / "config.yaml")
    options.model.fpn.fusion = fusion
    (run / "config.yaml").write_text(to_yaml(options))
    capsys.readouterr()
    assert evaluate.main(["--run-dir", str(run)]) == 1
    told = capsys.readouterr().err
    assert f"best.safetensors: was trained with fusion concate, but the configuration says {fusion}" in told
    assert told.count("\n") == 1


def test_unknown_keys(composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "row.yaml"
    for text, word in (
        ("model: {fpn: {fusoin: concate}}\n", "fusoin"),
        ("model: {fpn: {fusion: sum}}\n", "sum"),
        ("model: {freeze: [ears]}\n", "ears"),
        ("train: {learning_rate: 1.0}\n", "learning_rate"),
        ("fidelity: exact\n", "exact"),
    ):
        config.write_text(text)
        with pytest.raises(SystemExit) as stop:
            train.main(["--config", str(config), "--out", str(tmp_path / "run")])
        assert stop.value.code == 2 and word in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "more, message",
    [
        (["--loss.distance", "kl"], "which the fpn segmentor does not have"),
        (["--train.ema_decay", "1"], "train.ema_decay is 1.0; it must be at least 0 and below 1"),
        (["--train.max_grad_norm", "-1"], "train.max_grad_norm is -1.0; it must be at least 0"),
        (["--data.audio_repeats", "0"], "data.audio_repeats is 0; it must be at least 1"),
        (["--model.fpn.variant", "published"], "does not fit DenseResNet: missing"),
        (["--model.fpn.variant", "nowhere/audioclip.safetensors"], "nowhere/audioclip.json: no such file"),
    ],
)
def test_bad_options(
    composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], message: str
) -> None:
    assert train.main(arguments(composed, folder, tmp_path / "run", *more)) == 1
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told and not (tmp_path / "run").exists()


def test_a_damaged_state(composed: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    assert train.main(arguments(composed, folder, run, "--train.epochs", "1", "--data.fraction", "0.3")) == 0
    (run / "state.pt").write_bytes((run / "state.pt").read_bytes()[:-100])
    assert train.main(arguments(composed, folder, run, "--train.epochs", "1", "--data.fraction", "0.3")) == 1
    assert "state.pt: damaged, or written by another version; remove it" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.skipif(" " in torch.__file__, reason="PyTorch's compiler does not link in a folder with a space")
def test_compiled(composed: Path, folder: Path, tmp_path: Path) -> None:
    """Also after another compiled run in the process, whose sizes PyTorch would otherwise take for changing ones."""
    runs = {"plain": "false 32", "larger": "true 64", "compiled": "true 32"}
    for run, values in runs.items():
        compiled, size = values.split()
        more = ["--train.compile", compiled, "--data.image_size", size, "--train.epochs", "1", "--data.fraction", "0.3"]
        assert train.main(arguments(composed, folder, tmp_path / run, *more)) == 0
    logs = [pd.read_csv(tmp_path / run / "log.csv") for run in ("plain", "compiled")]
    np.testing.assert_allclose(logs[0]["loss"], logs[1]["loss"], rtol=1e-3)
    weights = [load_file(tmp_path / run / "best.safetensors") for run in ("plain", "compiled")]
    assert weights[0].keys() == weights[1].keys()
