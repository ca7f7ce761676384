"""Where things lie: ~ is the home directory, and what ships with the code is found from any current directory."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
WRITTEN = ("cache",)  # options that name folders to write into, which lie where the command is given


def expanded(path: Path | str) -> Path:
    """The path with ~ replaced by the home directory; as it is where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        return Path(path)


def found(path: Path | str) -> Path:
    """A path to read from. Where nothing lies at a relative one, what the code came with by that path, if anything."""
    path = expanded(path)
    if path.is_absolute() or path.exists() or not (REPOSITORY / path).exists():
        return path
    return REPOSITORY / path


def placed(options: Any) -> Any:
    """Options whose paths, and weights that are not named by a word such as "mini", are `found`, or `expanded`."""
    changes: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        if is_dataclass(value):
            changes[each.name] = placed(value)
        elif isinstance(value, Path):
            changes[each.name] = (expanded if each.name in WRITTEN else found)(value)
        elif each.name == "weights" and "/" in value:
            changes[each.name] = str(found(value))
    return replace(options, **changes)


def configs_found(words: Sequence[str]) -> list[str]:
    """Words of a command line in which each --config is `found`."""
    out: list[str] = []
    for word in words:
        if out and out[-1] == "--config":
            word = str(found(word))
        elif word.startswith("--config="):
            word = f"--config={found(word.removeprefix('--config='))}"
        out.append(word)
    return out


def beside(path: Path) -> str:
    """For a message about a missing file: the file of the same name but for its ending that lies in its place."""
    if not path.parent.is_dir():
        return ""
    others = [other.name for other in path.parent.iterdir() if other.stem == path.stem and other.is_file()]
    return f", but {', '.join(sorted(others)[:3])} is there; {path.suffix} is what is read" if others else ""
