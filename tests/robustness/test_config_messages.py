"""A message about a YAML file of options names the file, whichever of several it is."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

import demo
from supervised import train
from zero_shot import evaluate, tune

Main = Callable[[Sequence[str]], int]
COMMANDS = {"zero_shot.evaluate": evaluate.main, "zero_shot.tune": tune.main, "supervised.train": train.main}
WRONG = {
    b"dataa: {root: x}": "dataa",
    b"data: {rooot: x}": "rooot",
    b"data: {num_workers: many}": "num_workers",
    b"data: {num_workers: -3}": "data.num_workers is -3",
    b"data: 3": "data is a group of options",
    b"data:\n  a: b: c": "line 2",
    b"- data": "data",
    b"fidelity: \xff": "not UTF-8 text",
}


def message(main: Main, words: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """What the command says, in one line."""
    try:
        assert main(words) == 1
    except SystemExit as end:
        assert end.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and said.count("\n") == 1
    return said.removeprefix("error: ")


@pytest.mark.parametrize("main", [pytest.param(main, id=name) for name, main in COMMANDS.items()])
@pytest.mark.parametrize("content", WRONG)
def test_the_file_is_named(main: Main, content: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, wrong = tmp_path / "good.yaml", tmp_path / "wrong.yaml"
    good.write_text("fidelity: published\n")
    wrong.write_bytes(content)
    for words in (["--config", str(wrong)], ["--config", str(good), f"--config={wrong}"]):
        said = message(main, words, capsys)
        assert said.startswith(f"{wrong}: ") and WRONG[content] in said


def test_an_error_of_the_command_line_names_no_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("fidelity: published\n")
    for word in ("--data.num_workers=-3", "--data.num_workers=many", "--dataa=3"):
        said = message(evaluate.main, ["--config", str(good), word], capsys)
        assert str(good) not in said and word.partition("=")[0].lstrip("-") in said


def test_a_missing_argument_is_no_fault_of_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    """The demo reads a configuration of its own, which is not to blame either."""
    config = "zero_shot/configs/mini/s4_point_local.yaml"
    for words in ([], ["--config", config]):
        assert message(demo.main, words, capsys).startswith("the following arguments are required: ")


def test_a_shortened_option_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As "--config", it would be read after the demo's own configuration, and mix with it."""
    words = [str(tmp_path / "video.mp4"), "--conf", "zero_shot/configs/s4_no_prompt.yaml"]
    assert "--conf" in message(demo.main, words, capsys)
