"""A run is what it computes, not where its files lie; what is missing is told by what is there."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from models.mini import load_mini_sam
from study.plan import load_study
from supervised import train
from supervised.options import Options as Supervised
from supervised.state import load_state
from tests.small_fpn import arguments, folder
from utils.cli import InputError
from utils.config import resolve
from utils.files import read_image
from utils.identity import differing
from zero_shot.evaluate import prepare_folder
from zero_shot.options import Options as ZeroShot

__all__ = ["folder"]  # a fixture

REPOSITORY = Path(__file__).parent.parent


def test_what_ships_is_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = resolve(ZeroShot, ["--config", "zero_shot/configs/mini/s4_point_local.yaml"])
    assert options.sam.size == "mini" and options.grounding.labels.is_file()
    assert resolve(Supervised, ["--config=supervised/configs/s4_fpn_concate.yaml"]).model.fpn.folder.is_dir()
    assert all(job.config.is_file() and job.options for job in load_study("mini").jobs)
    (tmp_path / "pretrained").mkdir()  # what lies here comes first
    assert resolve(Supervised, []).model.fpn.folder == Path("pretrained")


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("data: {root: ~/data}\naudioclip: {weights: ~/a.pt}\n")
    options = resolve(ZeroShot, ["--config=~/own.yaml", "--run.cache=~/cache", "--grounding.clap=~nobody-here/x"])
    assert (options.data.root, options.run.cache) == (tmp_path / "data", tmp_path / "cache")
    assert options.audioclip.weights == str(tmp_path / "a.pt") and options.grounding.clap == Path("~nobody-here/x")


def test_a_training_goes_on_when_data_and_weights_have_moved(
    composed: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run, few = tmp_path / "run", ["--data.fraction", "0.3"]
    assert train.main(arguments(composed, folder, run, *few, "--train.epochs", "1")) == 0
    shutil.copytree(folder, tmp_path / "moved")
    shutil.copytree(composed, tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    moved = ["--data.root", "data/Single-source", "--model.fpn.folder", "moved"]
    assert train.main(arguments(composed, folder, run, *few, *moved)) == 0
    assert load_state(run / "state.pt")[0].epoch == 2
    capsys.readouterr()
    for words, said in (
        (["--train.lr", "0.1"], "other options: train.lr (0.001, not 0.1)"),
        (["--model.fpn.audio", "random"], "other options: model.fpn.audio (mini, not random)"),
    ):
        assert train.main(arguments(composed, folder, run, *few, *words)) == 1
        assert said in capsys.readouterr().err
    shutil.copytree(folder, tmp_path / "others")
    (tmp_path / "others" / "mini" / "audioclip.safetensors").write_bytes(b"other weights")
    assert train.main(arguments(composed, folder, run, *few, "--model.fpn.folder", "others")) == 1
    assert "other options: model.fpn.folder (moved, not others)" in capsys.readouterr().err
    meta = tmp_path / "data" / "Single-source" / "s4_meta_data.csv"
    meta.write_text(meta.read_text() + "\n")
    assert train.main(arguments(composed, folder, run, *few, *moved[:2])) == 1
    assert "other clips than those of data/Single-source (s4_meta_data.csv)" in capsys.readouterr().err


def test_a_zero_shot_run_is_known_by_what_it_computes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    root, out = Path("Single-source"), Path("run")
    root.mkdir()
    (root / "s4_meta_data.csv").write_text("name,start,category,split\n")
    one = resolve(ZeroShot, [f"--data.root={root}", "--run.batch=2"])
    prepare_folder(out, one)
    prepare_folder(out, resolve(ZeroShot, [f"--data.root={root.resolve()}", "--run.cpu=true"]))
    with pytest.raises(InputError, match=r"other options: prompt.threshold \(0.6, not 0.1\)"):
        prepare_folder(out, resolve(ZeroShot, [f"--data.root={root}", "--prompt.threshold=0.1"]))
    (root / "s4_meta_data.csv").write_text("name,start,category,split\nb,0,x,test\n")
    with pytest.raises(InputError, match="other clips"):
        prepare_folder(out, one)


def test_options_that_differ_are_named() -> None:
    one, other = Supervised(), resolve(Supervised, ["--train.lr=1", "--model.fpn.upsample=nearest", "--data.workers=0"])
    assert differing(one, other, ["data.workers"]) == ["model.fpn.upsample", "train.lr"]


@pytest.mark.parametrize("name, said", [("sam_vit_b_01ec64.pth", "vit_b"), ("own.pth", "vit_h or vit_l or vit_b")])
def test_a_file_for_a_miniature_says_which_size(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=f"is a file, but a miniature is a folder .* say --sam.size {said}$"):
        load_mini_sam(tmp_path / name)


def test_the_size_of_a_file_tells_the_size_of_a_sam(tmp_path: Path) -> None:
    with (tmp_path / "own.pth").open("wb") as file:
        file.truncate(375_042_383)  # that of the public ViT-B; it takes no room
    with pytest.raises(InputError, match=r"say --sam.size vit_b$"):
        load_mini_sam(tmp_path / "own.pth")


@pytest.mark.parametrize(
    "there, asked", [("a.JPG", "a.png"), ("a.PNG", "a.png"), ("a.webm", "a.mp4"), ("a.MP4", "a.mp4")]
)
def test_a_missing_file_names_what_lies_in_its_place(tmp_path: Path, there: str, asked: str) -> None:
    from utils.video import opened

    (tmp_path / there).touch()
    with pytest.raises(InputError, match=f"{asked}: no such file, but {there} is there"):
        if asked.endswith("png"):
            read_image(tmp_path / asked)
        else:
            with opened(tmp_path / asked):
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
