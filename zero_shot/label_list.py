"""Lists of names for sounds and of what makes them, in files.

A file is a JSON list of names, or text with a name on each line, where each name is also what to look for; or a JSON
object from names to what to look for, with null for sounds of nothing that could be seen.

zero_shot/data has
    audioset_labels.json     the 527 classes of AudioSet
    avsbench_labels.json     the 70 classes of AVSBench-semantic, with spaces for hyphens
    avsbench_s4_labels.json  the 23 categories of S4
    everyday_sounds.json     sounds of people's own videos, with what makes them
"""

from pathlib import Path
from typing import Any

from utils.cli import InputError
from utils.files import read_json


def read_labels(path: Path) -> list[str]:
    """The names in a file of labels. Raises InputError as `read_targets` does."""
    return list(read_targets(path))


def read_targets(path: Path) -> dict[str, str | None]:
    """Read a file of labels.

    Args:
        path: .txt for text, otherwise JSON.

    Returns:
        For each name what to look for; None for nothing.

    Raises:
        InputError: if the file is missing or is no such list, or if it has no name or one of them twice.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such list of labels")
    content = _read_lines(path) if path.suffix.lower() == ".txt" else read_json(path)
    targets = content if isinstance(content, dict) else None
    names: list[Any] = list(content) if isinstance(content, dict | list) else [None]
    if not all(map(_is_text, names)) or not all(value is None or _is_text(value) for value in (targets or {}).values()):
        raise InputError(
            f"{path}: not a JSON list of names, nor an object from names to what to look for; text is read from a .txt"
        )
    if not names:
        raise InputError(f"{path}: the list of labels is empty")
    normalized = [name.strip().lower() for name in names]
    if twice := next((name for index, name in enumerate(names) if normalized[index] in normalized[:index]), None):
        raise InputError(f"{path}: the list of labels has '{twice}' twice")
    return targets or {name: name for name in names}


def _read_lines(path: Path) -> list[str]:
    """The lines of a text that are not empty."""
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not UTF-8 text ({type(error).__name__})") from error


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip(" ."))
