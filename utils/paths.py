"""Resolve paths: ~ is the home directory, and files of this repository are found from any current directory."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT_OPTIONS = ("cache",)  # options that name folders to write to: always relative to the current directory
WEIGHTS_OPTIONS = ("weights", "clap", "detector", "pe_a_frame", "sam3")  # options that are a name or a path


def expand_user(path: Path | str) -> Path:
    """Replace a leading ~ by the home directory; a path with an unknown user name is returned unchanged."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def resolve_path(path: Path | str) -> Path:
    """Resolve a path to read: expand ~, and look in the repository for a relative path that does not exist here."""
    path = expand_user(path)
    if path.is_absolute() or path.exists() or not (REPOSITORY / path).exists():
        return path
    return REPOSITORY / path


def resolve_option_paths(options: Any) -> Any:
    """Resolve all paths in (nested) options, and those of WEIGHTS_OPTIONS that are no names such as "mini"."""
    changes: dict[str, Any] = {}
    for option in fields(options):
        value = getattr(options, option.name)
        if is_dataclass(value):
            changes[option.name] = resolve_option_paths(value)
        elif isinstance(value, Path):
            changes[option.name] = (expand_user if option.name in OUTPUT_OPTIONS else resolve_path)(value)
        elif isinstance(value, str) and option.name in WEIGHTS_OPTIONS and "/" in value:
            changes[option.name] = str(resolve_path(value))
    return replace(options, **changes)


def resolve_config_paths(arguments: Sequence[str]) -> list[str]:
    """Resolve the file of each `--config FILE` and `--config=FILE` among command-line arguments."""
    resolved: list[str] = []
    for argument in arguments:
        if resolved and resolved[-1] == "--config":
            argument = str(resolve_path(argument))
        elif argument.startswith("--config="):
            argument = f"--config={resolve_path(argument.removeprefix('--config='))}"
        resolved.append(argument)
    return resolved


def config_paths(arguments: Sequence[str]) -> list[str]:
    """The files of `--config FILE` and `--config=FILE` among command-line arguments."""
    pairs = zip(["", *arguments], arguments, strict=False)
    return [
        argument.removeprefix("--config=")
        for previous, argument in pairs
        if previous == "--config" or argument.startswith("--config=")
    ]


def describe_siblings(path: Path) -> str:
    """For an error message about a missing file: names the files that differ from it only in their suffix, if any."""
    if not path.parent.is_dir():
        return ""
    others = [other.name for other in path.parent.iterdir() if other.stem == path.stem and other.is_file()]
    return f", but {', '.join(sorted(others)[:3])} is there; {path.suffix} is what is read" if others else ""
