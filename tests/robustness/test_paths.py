"""Paths are resolved from any directory, runs are identified by what they compute, and missing files are explained."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from models.registry import create_model
from study.plan import load_study
from supervised import train
from supervised.options import Options as Supervised
from supervised.state import load_state
from tests.helpers.tiny_checkpoints import arguments, folder
from utils.cli import InputError
from utils.config import resolve_options
from utils.files import read_image
from utils.run_identity import differing_options
from zero_shot.evaluate import prepare_folder
from zero_shot.options import WEIGHTS
from zero_shot.options import Options as ZeroShot
from zero_shot.search_space import get_option

__all__ = ["folder"]  # a fixture

REPOSITORY = Path(__file__).parents[2]


def test_files_of_the_repository_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = resolve_options(ZeroShot, ["--config", "zero_shot/configs/mini/s4_point_local.yaml"])
    assert options.sam.model == "mini" and options.grounding.labels.is_file()
    resolve_options(Supervised, ["--config=supervised/configs/s4_fpn_concate.yaml"])
    assert all(job.config.is_file() and job.options for job in load_study("mini").jobs)
    words = ["--model.weights=pretrained/mini"]
    assert resolve_options(Supervised, words).model.weights == str(REPOSITORY / "pretrained" / "mini")
    (tmp_path / "pretrained" / "mini").mkdir(parents=True)  # the current directory comes first
    assert resolve_options(Supervised, words).model.weights == "pretrained/mini"


@pytest.mark.parametrize("name", WEIGHTS)
def test_weights_of_the_repository_are_found_from_anywhere(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = resolve_options(ZeroShot, [f"--{name}=pretrained/mini"])
    assert get_option(options, name) == str(REPOSITORY / "pretrained" / "mini")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("data: {root: ~/data}\naudioclip: {weights: ~/a.pt}\n")
    options = resolve_options(
        ZeroShot, ["--config=~/own.yaml", "--run.cache=~/cache", "--grounding.clap=~nobody-here/x"]
    )
    assert (options.data.root, options.run.cache) == (tmp_path / "data", tmp_path / "cache")
    assert options.audioclip.weights == str(tmp_path / "a.pt") and str(options.grounding.clap) == "~nobody-here/x"


def test_training_resumes_when_data_and_weights_were_moved(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, few = tmp_path / "run", ["--data.fraction", "0.3"]
    assert train.main(arguments(composed, folder, run, *few, "--train.epochs", "1")) == 0
    shutil.copytree(composed, tmp_path / "data")
    shutil.copytree(folder / "small", tmp_path / "weights")
    monkeypatch.chdir(tmp_path)
    moved = ["--data.root", "data/Single-source"]
    for tower in ("visual", "audio", "variant"):
        moved += [f"--model.fpn.{tower}", "weights"]
    assert train.main(arguments(composed, folder, run, *few, *moved)) == 0
    assert load_state(run / "state.pt")[0].epoch == 2
    capsys.readouterr()
    for words, said in (
        (["--train.lr", "0.1"], "other options: train.lr (0.001, not 0.1)"),
        (["--model.fpn.audio", "random"], "other options: model.fpn.audio (weights, not random)"),
    ):
        assert train.main(arguments(composed, folder, run, *few, *moved, *words)) == 1
        assert said in capsys.readouterr().err
    shutil.copytree(folder, tmp_path / "others")
    (tmp_path / "others" / "small" / "audioclip.safetensors").write_bytes(b"other weights")
    assert train.main(arguments(composed, folder, run, *few, *moved, "--model.fpn.audio", "others/small")) == 1
    assert "other options: model.fpn.audio" in capsys.readouterr().err
    meta = tmp_path / "data" / "Single-source" / "s4_meta_data.csv"
    meta.write_text(meta.read_text() + "\n")
    assert train.main(arguments(composed, folder, run, *few, *moved)) == 1
    assert "other clips than those of data/Single-source (s4_meta_data.csv)" in capsys.readouterr().err


def test_a_zero_shot_run_is_identified_by_what_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root, out = Path("Single-source"), Path("run")
    root.mkdir()
    (root / "s4_meta_data.csv").write_text("name,start,category,split\n")
    one = resolve_options(ZeroShot, [f"--data.root={root}", "--run.batch_size=2"])
    prepare_folder(out, one)
    prepare_folder(out, resolve_options(ZeroShot, [f"--data.root={root.resolve()}", "--run.device=cpu"]))
    with pytest.raises(InputError, match=r"other options: prompt.threshold \(0.6, not 0.1\)"):
        prepare_folder(out, resolve_options(ZeroShot, [f"--data.root={root}", "--prompt.threshold=0.1"]))
    (root / "s4_meta_data.csv").write_text("name,start,category,split\nb,0,x,test\n")
    with pytest.raises(InputError, match="other clips"):
        prepare_folder(out, one)


def test_options_that_differ_are_named() -> None:
    one, other = (
        Supervised(),
        resolve_options(Supervised, ["--train.lr=1", "--model.fpn.upsample=nearest", "--data.num_workers=0"]),
    )
    assert differing_options(one, other, ["data.num_workers"]) == ["model.fpn.upsample", "train.lr"]


@pytest.mark.parametrize("name, said", [("sam_vit_b_01ec64.pth", "vit_b"), ("own.pth", "vit_h or vit_l or vit_b")])
def test_a_checkpoint_for_the_small_sam_names_its_model(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"takes a folder of small weights, for this file --sam.model {said}$"):
        create_model("sam_mini", tmp_path / name)


def test_the_model_of_a_sam_checkpoint_is_detected_by_its_size(tmp_path: Path) -> None:
    with (tmp_path / "own.pth").open("wb") as file:
        file.truncate(375_042_383)  # that of the public ViT-B; it takes no room
    with pytest.raises(InputError, match=r"for this file --sam.model vit_b$"):
        create_model("sam_mini", tmp_path / "own.pth")


@pytest.mark.parametrize(
    "there, asked", [("a.JPG", "a.png"), ("a.PNG", "a.png"), ("a.webm", "a.mp4"), ("a.MP4", "a.mp4")]
)
def test_a_missing_file_names_files_with_another_suffix(tmp_path: Path, there: str, asked: str) -> None:
    from utils.video import open_media

    (tmp_path / there).touch()
    with pytest.raises(InputError, match=f"{asked}: no such file, but {there} is there"):
        if asked.endswith("png"):
            read_image(tmp_path / asked)
        else:
            with open_media(tmp_path / asked):
                pass


def test_a_checkout_in_a_folder_with_a_space(tmp_path: Path) -> None:
    place = tmp_path / "a folder"
    (place / "environment_config").mkdir(parents=True)
    shutil.copy(REPOSITORY / "Makefile", place)
    (place / "environment_config" / "requirements.txt").touch()
    fake = tmp_path / "python3"  # makes an environment of programs that only look at theirs
    program = '#!/bin/sh\\n[ -z "$VIRTUAL_ENV" ] || [ -d "$VIRTUAL_ENV" ]\\n'
    fake.write_text(
        f"#!/bin/sh\nmkdir -p .venv/bin\nfor n in python pip uv; do printf '{program}' > .venv/bin/$n; "
        "chmod +x .venv/bin/$n; done\n"
    )
    fake.chmod(0o755)
    there = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    made = subprocess.run(["make", "demo", f"PYTHON={fake}"], cwd=place, env=there, capture_output=True, text=True)
    assert made.returncode == 0 and (place / ".venv" / "ready").exists(), made.stderr
