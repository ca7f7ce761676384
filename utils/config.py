"""Options are dataclasses; a command line, a YAML file and a run folder are three views of them.

    python -m supervised.train --config FILE.yaml --data.root DIR --train.epochs 3

Values on the command line win over the file's, and unknown keys are refused. `--print_config` shows everything.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader

from utils.cli import InputError, one_line
from utils.option_ranges import check_ranges
from utils.paths import resolve_config_paths, resolve_option_paths

T = TypeVar("T")
PLAIN = "plain yaml"  # our loader's name among jsonargparse's
MAX_DEPTH = 20  # levels of options within options, far more than there are


def option_parser(options: type, description: str | None, prog: str | None = None) -> ArgumentParser:
    """A parser with one argument per (nested) field of the dataclass, and --config for a YAML file.

    Its help shows the description as it is written. What is added to the parser comes before all these options, which
    have groups of their own.
    """
    set_loader(PLAIN, _plain_yaml, (yaml.YAMLError, ValueError))
    parser = _Parser(
        prog=prog, description=description, exit_on_error=True, parser_mode=PLAIN, formatter_class=_HelpFormatter
    )
    group = parser.add_argument_group("configuration", "Each option below can stand in a YAML file, too.")
    group.add_argument("--config", action="config", metavar="FILE", help="a YAML file of these options")
    parser.add_class_arguments(options, fail_untyped=True)
    return parser


def parse_options(parser: ArgumentParser, options: type[T], argv: Sequence[str] | None) -> tuple[T, Namespace]:
    """Parse; returns the options and the whole namespace (for arguments added by hand). Bad usage exits 2."""
    try:
        namespace = parser.parse_args(resolve_config_paths(sys.argv[1:] if argv is None else argv))
    except UnicodeDecodeError as error:
        raise InputError(f"a file of options is not text in UTF-8 ({error.reason})") from error
    return _build(parser, options, namespace), namespace


def to_yaml(options: Any) -> str:
    """The options as YAML; paths become strings."""
    assert is_dataclass(options) and not isinstance(options, type)
    return yaml.safe_dump(_plain(asdict(options)), sort_keys=False)


def drop_options(options: Any, names: Sequence[str]) -> dict[str, Any]:
    """The options as nested dicts, less those of the names, each GROUP.OPTION or GROUP.GROUP.OPTION."""
    kept = asdict(options)
    for name in names:
        *groups, option = name.split(".")
        held = kept
        for group in groups:
            held = held[group]
        del held[option]
    return kept


def from_yaml(options: type[T], path: Path) -> T:
    """Read options that `to_yaml` wrote. Raises InputError if the file is missing or holds anything else."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} a run folder?")
    return resolve_options(options, ["--config", str(path)])


def resolve_options(options: type[T], words: Sequence[str]) -> T:
    """The options that words of a command line stand for. Raises InputError, naming the words, if they are none."""
    parser = _quiet_parser(options)  # type: ignore[arg-type]
    try:
        return _build(parser, options, parser.parse_args(resolve_config_paths(words)))
    except Exception as error:  # jsonargparse's errors have no common base that is public
        named = words[1] if words[:1] == ["--config"] and len(words) == 2 else " ".join(words)
        raise InputError(f"{named}: {error}") from error


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the line breaks of descriptions, and sums up in the usage line what is in a group with another title."""

    def _get_type_str(self, action: Any) -> None:
        return None  # names, choices and defaults say enough

    def _format_usage(self, usage: Any, actions: Any, *rest: Any) -> str:
        own = [action for action in actions if action.container.title in ("options", "positional arguments")]
        return super()._format_usage(usage, own, *rest).rstrip() + " [--config FILE] [--OPTION VALUE ...]\n\n"


class _Parser(ArgumentParser):
    """jsonargparse's, with bad usage told in a line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End the command with exit code 2, or raise where `exit_on_error` is off."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {one_line(' '.join(message.split()))}; --help tells what there is\n")


@cache  # building one takes longer than parsing with it
def _quiet_parser(options: type) -> ArgumentParser:
    parser = option_parser(options, None)
    parser.exit_on_error = False
    return parser


def _plain_yaml(text: str) -> Any:
    """YAML as jsonargparse reads it, without tags, deep nesting, and anchors, by which a few lines fill the memory."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.YAMLError(f"anchors and tags are not read in options (line {line})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than any option (line {line})")
    return get_loader("yaml")(text)


def _build(parser: ArgumentParser, options: type[T], namespace: Namespace) -> T:
    _must_be_groups(options, namespace)
    instantiated = parser.instantiate(namespace)
    built = options(**{name: getattr(instantiated, name) for name in options.__dataclass_fields__})  # type: ignore[attr-defined]
    check_ranges(built)
    return resolve_option_paths(built)


def _must_be_groups(options: type, namespace: Namespace, above: str = "") -> None:
    for field in fields(options):
        group, name = field.default_factory, f"{above}{field.name}"
        if isinstance(group, type) and is_dataclass(group):
            if not isinstance(namespace[field.name], Namespace):
                raise InputError(f"{name} is a group of options, such as {name}.{fields(group)[0].name}")
            _must_be_groups(group, namespace[field.name], f"{name}.")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
