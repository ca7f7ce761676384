"""Every numeric option of every command has a range, and what lies outside is refused in a line that names it."""

import argparse
import importlib
import math
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from pathlib import Path
from typing import Any

import jsonargparse
import pytest

from supervised.options import Options as Supervised
from utils.cli import InputError
from utils.config import resolve_options, to_yaml
from utils.option_ranges import MAX_INT, Range, bounded_number, range_of
from zero_shot.options import Options as ZeroShot

REPOSITORY = Path(__file__).parents[2]
PACKAGES = (
    ".",
    "avsbench_data",
    "benchmarks",
    "pretrained",
    "scoring",
    "study",
    "supervised",
    "synthetic",
    "utils",
    "zero_shot",
)
FILES = [path for package in PACKAGES for path in sorted((REPOSITORY / package).glob("*.py"))]
COMMANDS = [
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
    for path in FILES
    if 'if __name__ == "__main__"' in path.read_text(encoding="utf-8")
]


class Captured(Exception):
    """Carries the parser of a command."""


def outside(allowed: Range, whole: bool) -> list[str]:
    """Numbers beyond both ends, between multiples, and none at all."""
    step = 1 if whole else 1e-6
    found: list[float] = [
        allowed.minimum if allowed.exclude_minimum else allowed.minimum - step,
        -(10**9),
        10**12 if whole else -1e300,
    ]
    if math.isfinite(allowed.maximum):
        found.append(allowed.maximum if allowed.exclude_maximum else allowed.maximum + step)
    if allowed.multiple_of and allowed.multiple_of > 1:
        found.append(allowed.minimum + 1)
    words = [str(int(value) if whole else value) for value in found if value != allowed.also_allowed]
    return words if whole else [*words, ".inf", "-.inf", ".nan"]


def numeric(options: type, above: str = "") -> Iterator[tuple[str, "Field[Any]", Any]]:
    """Name, field and default of each option whose default is a number or a list of numbers."""
    built = options()
    for each in fields(options):
        value = getattr(built, each.name)
        if is_dataclass(value):
            yield from numeric(type(value), f"{above}{each.name}.")
        elif not isinstance(first := value[0] if isinstance(value, list) else value, bool | str | Path | None):
            assert isinstance(first, int | float)
            yield f"{above}{each.name}", each, value


@pytest.mark.parametrize("options", [Supervised, ZeroShot])
def test_options(options: type) -> None:
    found = list(numeric(options))
    assert len(found) > 15
    for name, option, default in found:
        allowed = range_of(option)
        assert allowed is not None, f"{name} has no range"
        assert not allowed.error_message(default), name
        whole = not isinstance(default, float)
        for word in outside(allowed, whole):
            value = f"[{', '.join([word] * (allowed.length or 1))}]" if isinstance(default, list) else word
            with pytest.raises(InputError) as refused:
                resolve_options(options, [f"--{name}={value}"])
            assert name in str(refused.value) and "\n" not in str(refused.value)
        inside = (
            3 if name.endswith("stages") else allowed.maximum if math.isfinite(allowed.maximum) else allowed.minimum + 1
        )
        assert inside in allowed or allowed.exclude_maximum


def test_a_list_has_its_length() -> None:
    with pytest.raises(InputError, match=r"model.vggish.widths has 3 numbers instead of 4"):
        resolve_options(Supervised, ["--model.vggish.widths=[1, 2, 3]"])


def test_a_run_folder_is_checked_like_a_command_line(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(to_yaml(Supervised()).replace("batch_size: 4", "batch_size: 0", 1))
    with pytest.raises(InputError, match=r"train.batch_size is 0; it must be at least 1"):
        resolve_options(Supervised, ["--config", str(config)])


def actions(parser: argparse.ArgumentParser, before: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each option of a parser, with the words that must come before it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, inner in action.choices.items():
                yield from actions(inner, (*before, name))
        else:
            yield before, action


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """A parser and those of its subcommands."""
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from action.choices.values()


@pytest.mark.parametrize("module", COMMANDS)
def test_commands(module: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command = importlib.import_module(module).main

    def capture(parser: Any, *_: Any, **__: Any) -> None:
        raise Captured(parser)

    with monkeypatch.context() as patched:
        patched.setattr(argparse.ArgumentParser, "parse_known_args", capture)  # which parse_args calls
        patched.setattr(jsonargparse.ArgumentParser, "parse_args", capture)
        with pytest.raises(Captured) as caught:
            command(["x.mp4"] if module == "demo" else [])
    found = list(actions(caught.value.args[0]))
    assert found
    assert not any(parser.allow_abbrev for parser in parsers(caught.value.args[0])), "a shortened option is refused"
    for before, action in found:
        assert action.type not in (int, float), f"{module} {action.option_strings} has no range"
        if not isinstance(action.type, bounded_number):
            continue
        assert (
            action.default is None
            or isinstance(action.default, list)
            or not action.type.range.error_message(action.default)
            or math.isinf(action.default)
        )
        for word in outside(action.type.range, action.type.number_type is int):
            with pytest.raises(SystemExit) as stop:
                command([*before, f"{action.option_strings[0]}={word}"])
            told = capsys.readouterr().err
            assert stop.value.code == 2 and told.count("\n") == 1 and action.option_strings[0] in told


def test_commands_are_found() -> None:
    assert {"demo", "preprocess_s4", "supervised.train", "zero_shot.evaluate", "benchmarks.__main__"} <= set(COMMANDS)
    assert MAX_INT < 10**10
