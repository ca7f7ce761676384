"""Options are dataclasses; the command line, YAML files and run folders all use the same names.

    python -m supervised.train --config FILE.yaml --data.root DIR --train.epochs 3

Values on the command line override those of the file; unknown names are errors. `--print_config` prints all options.
"""

import re
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, DefaultHelpFormatter, Namespace, get_loader, set_loader

from utils.cli import InputError, one_line
from utils.option_ranges import check_ranges
from utils.paths import config_paths, resolve_config_paths, resolve_option_paths

T = TypeVar("T")
YAML_LOADER = "plain yaml"  # the name under which our loader is registered with jsonargparse
USAGE_ERRORS = (InputError, UnicodeDecodeError, ArgumentError)  # of arguments and of their YAML files
MAX_DEPTH = 20  # nesting levels of a YAML file; options have far fewer


def option_parser(options: type, description: str | None, prog: str | None = None) -> ArgumentParser:
    """Create a parser with one argument per (nested) field of a dataclass, and --config for a YAML file.

    Args:
        options: The dataclass.
        description: Printed by --help with its line breaks.
        prog: The program name for --help; default: the script's.

    Returns:
        The parser; more arguments may be added to it.
    """
    set_loader(YAML_LOADER, _load_yaml, (yaml.YAMLError, ValueError))
    parser = _Parser(
        prog=prog,
        description=description,
        exit_on_error=True,
        allow_abbrev=False,
        parser_mode=YAML_LOADER,
        formatter_class=_HelpFormatter,
    )
    group = parser.add_argument_group("configuration", "All options below can also be set in a YAML file.")
    group.add_argument("--config", action="config", metavar="FILE", help="a YAML file of options")
    parser.add_class_arguments(options, fail_untyped=True)
    return parser


def parse_options(parser: ArgumentParser, options: type[T], argv: Sequence[str] | None) -> tuple[T, Namespace]:
    """Parse command-line arguments; bad usage exits with code 2. Messages name the YAML file that is wrong.

    Args:
        parser: Made by `option_parser`.
        options: The same dataclass.
        argv: The arguments; default: sys.argv.

    Returns:
        The options, and the namespace with the arguments that were added to the parser.

    Raises:
        InputError: A value is out of range, or a YAML file is not UTF-8.
    """
    arguments = resolve_config_paths(sys.argv[1:] if argv is None else argv)
    parser.exit_on_error = False
    try:
        namespace = parser.parse_args(arguments)
        return _build(parser, options, namespace), namespace
    except USAGE_ERRORS as error:
        message = _with_file(parser, options, arguments, _usage_message(error))
        if not isinstance(error, ArgumentError):
            raise InputError(message) from error
        parser.exit_on_error = True
        parser.error(message)
    finally:
        parser.exit_on_error = True


def _with_file(parser: ArgumentParser, options: type, arguments: Sequence[str], message: str) -> str:
    """A message about arguments, after the YAML file that gives the same one alone, if there is one."""
    for words in ([], *(["--config", path] for path in config_paths(arguments))):
        try:
            _build(parser, options, parser.parse_args(words))
        except USAGE_ERRORS as error:
            if _usage_message(error) == message:
                return f"{words[1]}: {message}" if words else message  # without words, an argument is missing
    return message


def _usage_message(error: Exception) -> str:
    return f"not UTF-8 text ({error.reason})" if isinstance(error, UnicodeDecodeError) else str(error)


def resolve_options(options: type[T], arguments: Sequence[str]) -> T:
    """Parse command-line arguments as `parse_options` does, but raise InputError on bad usage instead of exiting."""
    parser = _raising_parser(options)  # type: ignore[arg-type]
    try:
        return _build(parser, options, parser.parse_args(resolve_config_paths(arguments)))
    except Exception as error:  # jsonargparse's errors have no public base class
        only_config = arguments[:1] == ["--config"] and len(arguments) == 2
        source = arguments[1] if only_config else " ".join(arguments)
        raise InputError(f"{source}: {error}") from error


def from_yaml(options: type[T], path: Path) -> T:
    """Read options that `to_yaml` wrote. Raises InputError if the file is missing or has other content."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; is {path.parent} a run folder?")
    return resolve_options(options, ["--config", str(path)])


def to_yaml(options: Any) -> str:
    """Convert options to YAML; paths become strings."""
    assert is_dataclass(options) and not isinstance(options, type)
    return yaml.safe_dump(_to_plain(asdict(options)), sort_keys=False)


def drop_options(options: Any, names: Sequence[str]) -> dict[str, Any]:
    """Convert options to nested dicts without those named, such as "GROUP.OPTION"."""
    remaining = asdict(options)
    for name in names:
        *groups, option = name.split(".")
        parent = remaining
        for group in groups:
            parent = parent[group]
        del parent[option]
    return remaining


def read_yaml(path: Path) -> Any:
    """What a YAML file of plain data holds.

    Raises:
        InputError: if it cannot be read, or has anchors, tags or deep nesting.
    """
    try:
        return _load_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from error


def from_dict(options: type[T], content: Mapping[str, Any], place: str) -> T:
    """A dataclass from plain data, such as a part of a YAML file.

    Args:
        options: the dataclass.
        content: values by field.
        place: where they come from, for messages.

    Raises:
        InputError: for an unknown field, or one with a wrong value.
    """
    try:
        parser = _field_parser(options)  # type: ignore[arg-type]
        return _build(parser, options, parser.parse_object(dict(content)))
    except Exception as error:  # jsonargparse's errors have no common base that is public
        raise InputError(f"{place}: {_field_message(str(error))}") from error


def _field_message(message: str) -> str:
    """A message of jsonargparse in the words of fields rather than options."""
    for pattern, words in (
        (r"Parser key \"(\S+)\"", r"field \1"),
        (r"Option '(\S+)' is not accepted", r"no field \1"),
        (r"<class '(\w+)'>", r"\1"),
        (r"a typing\.Literal", "one of "),
    ):
        message = re.sub(pattern, words, message)
    return " ".join(message.split())


class _HelpFormatter(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the description's line breaks; the usage line lists only arguments that are not dataclass options."""

    def _get_type_str(self, action: Any) -> None:
        return None  # names, choices and defaults say enough

    def _format_usage(self, usage: Any, actions: Any, *rest: Any) -> str:
        own = [action for action in actions if action.container.title in ("options", "positional arguments")]
        return super()._format_usage(usage, own, *rest).rstrip() + " [--config FILE] [--OPTION VALUE ...]\n\n"


class _Parser(ArgumentParser):
    """A jsonargparse parser that reports bad usage in one line."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Exit with code 2, or raise if `exit_on_error` is False."""
        if not self.exit_on_error:
            super().error(message, ex)
        self.exit(2, f"error: {one_line(' '.join(message.split()))}; run with --help for usage\n")


@cache
def _field_parser(options: type) -> ArgumentParser:
    parser = _Parser(exit_on_error=False)
    parser.add_class_arguments(options, fail_untyped=True)
    return parser


@cache  # building a parser takes longer than parsing with it
def _raising_parser(options: type) -> ArgumentParser:
    parser = option_parser(options, None)
    parser.exit_on_error = False
    return parser


def _load_yaml(text: str) -> Any:
    """Load YAML as jsonargparse does, but reject tags, deep nesting, and anchors, which can expand to any size."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise yaml.YAMLError(f"anchors and tags are not supported in options (line {line})")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise yaml.YAMLError(f"nested deeper than any option (line {line})")
    return get_loader("yaml")(text)


def _build(parser: ArgumentParser, options: type[T], namespace: Namespace) -> T:
    _check_groups(options, namespace)
    instantiated = parser.instantiate(namespace)
    built = options(**{name: getattr(instantiated, name) for name in options.__dataclass_fields__})  # type: ignore[attr-defined]
    check_ranges(built)
    return resolve_option_paths(built)


def _check_groups(options: type, namespace: Namespace, prefix: str = "") -> None:
    """Raise InputError if a group of options was set to a single value."""
    for field in fields(options):
        group, name = field.default_factory, f"{prefix}{field.name}"
        if isinstance(group, type) and is_dataclass(group):
            if not isinstance(namespace[field.name], Namespace):
                raise InputError(f"{name} is a group of options, such as {name}.{fields(group)[0].name}")
            _check_groups(group, namespace[field.name], f"{name}.")


def _to_plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value
