"""Where things lie: ~ is the home directory, and what ships with the code is found from any current directory."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
OUTPUT_OPTIONS = ("cache",)  # options that name folders to write into, which lie where the command is given
WEIGHTS_OPTIONS = ("weights", "clap", "detector")  # options that are a name or a path


def expand_user(path: Path | str) -> Path:
    """The path with ~ replaced by the home directory; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def resolve_path(path: Path | str) -> Path:
    """A path to read from. Where nothing lies at a relative one, what the code came with by that path, if anything."""
    path = expand_user(path)
    if path.is_absolute() or path.exists() or not (REPOSITORY / path).exists():
        return path
    return REPOSITORY / path


def resolve_option_paths(options: Any) -> Any:
    """Options whose paths, and weights that are not named by a word such as "mini", are `found`, or `expanded`."""
    changes: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            changes[each.name] = resolve_option_paths(value)
        elif isinstance(value, Path):
            changes[each.name] = (expand_user if each.name in OUTPUT_OPTIONS else resolve_path)(value)
        elif isinstance(value, str) and each.name in WEIGHTS_OPTIONS and "/" in value:
            changes[each.name] = str(resolve_path(value))
    return replace(options, **changes)


def resolve_config_paths(words: Sequence[str]) -> list[str]:
    """Words of a command line in which each --config is `found`."""
    out: list[str] = []
    for word in words:
        if out and out[-1] == "--config":
            word = str(resolve_path(word))
        elif word.startswith("--config="):
            word = f"--config={resolve_path(word.removeprefix('--config='))}"
        out.append(word)
    return out


def describe_siblings(path: Path) -> str:
    """For a message about a missing file: the file of the same name but for its ending that lies in its place."""
    if not path.parent.is_dir():
        return ""
    others = [other.name for other in path.parent.iterdir() if other.stem == path.stem and other.is_file()]
    return f", but {', '.join(sorted(others)[:3])} is there; {path.suffix} is what is read" if others else ""
