"""Decide whether a run folder holds the requested run: by what a run computes, not by where its files are."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.cli import InputError
from utils.files import read_json, sha256, write_text
from utils.layout import BENCHMARKS, BenchmarkName

RECIPE = "compose.json"  # written by synthetic.compose next to its clips
RECORD = "data.json"  # in a run folder: the digests of the files that define the data set
SOUNDS = "offscreen_sounds.json"  # in a run folder: the digests of the sounds of condition "offscreen"


def differing_options(recorded: Any, requested: Any, ignore: Sequence[str] = ()) -> list[str]:
    """The dotted names of the options whose values differ, except those to ignore."""
    one, other = _flatten(asdict(recorded)), _flatten(asdict(requested))
    return [name for name in one if one[name] != other[name] and name not in ignore]


def check_same_options(folder: Path, recorded: Any, requested: Any, names: Sequence[str]) -> None:
    """Raise InputError that lists how the named options differ; nothing happens without names."""
    if not names:
        return
    one, other = _flatten(asdict(recorded)), _flatten(asdict(requested))
    differences = ", ".join(f"{name} ({one[name]}, not {other[name]})" for name in names[:4])
    raise InputError(f"{folder} holds a run with other options: {differences}; choose another --out")


def files_match(recorded: Sequence[str], files: Sequence[Path]) -> bool:
    """Whether the sha256 of every file that exists is among the recorded ones. Missing files are ignored."""
    return all(not path.is_file() or sha256(path) in recorded for path in files)


def dataset_files(root: Path, benchmark: BenchmarkName) -> list[Path]:
    """The files that define a data set: the meta CSV and, for composed clips, their recipe."""
    return [root / BENCHMARKS[benchmark].meta, root.parent / RECIPE]


def check_same_data(folder: Path, root: Path, benchmark: BenchmarkName) -> None:
    """Raise InputError if the run in the folder was started with other clips. The data may have been moved."""
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not started, or by an earlier version
        return
    if recorded != (current := _digests(root, benchmark)):
        names = ", ".join(name for name in {**recorded, **current} if recorded.get(name) != current.get(name))
        raise InputError(f"{folder} holds a run with other clips than those of {root} ({names}); choose another --out")


def record_data(folder: Path, root: Path, benchmark: BenchmarkName) -> None:
    """Write the record that `check_same_data` compares to a run folder."""
    write_text(folder / RECORD, json.dumps(_digests(root, benchmark), indent=1) + "\n")


def record_sounds(folder: Path, sounds: Iterable[Path]) -> None:
    """Write which offscreen sounds a run folder was evaluated with.

    Raises:
        InputError: if its record is of other sounds, whose results would be replaced. They may have been moved.
    """
    record = folder / SOUNDS
    current = sorted(sha256(path) for path in sounds)
    if record.is_file() and read_json(record) != current:
        raise InputError(f"{folder} holds results under other offscreen sounds; choose another --out")
    write_text(record, json.dumps(current, indent=1) + "\n")


def _digests(root: Path, benchmark: BenchmarkName) -> dict[str, str]:
    return {path.name: sha256(path) for path in dataset_files(root, benchmark) if path.is_file()}


def _flatten(options: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
