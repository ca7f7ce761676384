"""Options are dataclasses; a command line, a YAML file and a run folder are three views of them.

    python -m supervised.train --config FILE.yaml --data.root DIR --train.epochs 3

Values on the command line win over the file's, and unknown keys are refused. `--print_config` shows everything.
"""

from collections.abc import Sequence
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import ArgumentParser, Namespace

from utils.cli import InputError

T = TypeVar("T")


def option_parser(options: type, description: str | None, prog: str | None = None) -> ArgumentParser:
    """A parser with one argument per (nested) field of the dataclass, and --config for a YAML file."""
    parser = ArgumentParser(prog=prog, description=description, exit_on_error=True)
    parser.add_argument("--config", action="config", help="a YAML file of these options")
    parser.add_class_arguments(options, fail_untyped=True)
    return parser


def parse_options(parser: ArgumentParser, options: type[T], argv: Sequence[str] | None) -> tuple[T, Namespace]:
    """Parse; returns the options and the whole namespace (for arguments added by hand). Bad usage exits 2."""
    namespace = parser.parse_args(None if argv is None else list(argv))
    return _build(parser, options, namespace), namespace


def to_yaml(options: Any) -> str:
    """The options as YAML; paths become strings."""
    assert is_dataclass(options) and not isinstance(options, type)
    return yaml.safe_dump(_plain(asdict(options)), sort_keys=False)


def from_yaml(options: type[T], path: Path) -> T:
    """Read options that `to_yaml` wrote. Raises InputError if the file is missing or holds anything else."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} a run folder?")
    return resolve(options, ["--config", str(path)])


def resolve(options: type[T], words: Sequence[str]) -> T:
    """The options that words of a command line stand for. Raises InputError, naming the words, if they are none."""
    parser = _quiet_parser(options)  # type: ignore[arg-type]
    try:
        namespace = parser.parse_args(list(words))
    except Exception as error:  # jsonargparse's errors have no common base that is public
        named = words[1] if words[:1] == ["--config"] and len(words) == 2 else " ".join(words)
        raise InputError(f"{named}: {' '.join(str(error).split())}") from error
    return _build(parser, options, namespace)


@cache  # building one takes longer than parsing with it
def _quiet_parser(options: type) -> ArgumentParser:
    parser = option_parser(options, None)
    parser.exit_on_error = False
    return parser


def _build(parser: ArgumentParser, options: type[T], namespace: Namespace) -> T:
    built = parser.instantiate(namespace)
    return options(**{name: getattr(built, name) for name in options.__dataclass_fields__})  # type: ignore[attr-defined]


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
