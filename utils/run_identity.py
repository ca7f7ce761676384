"""Whether two commands ask for the same run: by what it computes, not by where its data and weights lie."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from utils.cli import InputError
from utils.files import sha256, write_text
from utils.layout import BENCHMARKS, BenchmarkName

RECIPE = "compose.json"  # that synthetic.compose leaves beside its clips
RECORD = "data.json"  # of a run folder: digests of what says which clips there are


def differing_options(held: Any, asked: Any, besides: Sequence[str] = ()) -> list[str]:
    """The dotted names of the options, other than those besides, in which two differ."""
    one, other = _flat(asdict(held)), _flat(asdict(asked))
    return [name for name in one if one[name] != other[name] and name not in besides]


def check_same_options(folder: Path, held: Any, asked: Any, names: Sequence[str]) -> None:
    """Raise InputError that says how the options of the names differ, if there are any."""
    if not names:
        return
    one, other = _flat(asdict(held)), _flat(asdict(asked))
    told = ", ".join(f"{name} ({one[name]}, not {other[name]})" for name in names[:4])
    raise InputError(f"{folder} holds a run with other options: {told}; choose another --out")


def files_match(held: Sequence[str], asked: Sequence[Path]) -> bool:
    """Whether every file that is there is one of those with the digests. One that is gone speaks not against it."""
    return all(not path.is_file() or sha256(path) in held for path in asked)


def dataset_files(root: Path, benchmark: BenchmarkName) -> list[Path]:
    """What says which clips there are, and, for composed ones, of what they were made."""
    return [root / BENCHMARKS[benchmark].meta, root.parent / RECIPE]


def check_same_data(folder: Path, root: Path, benchmark: BenchmarkName) -> None:
    """Raise InputError if the run in the folder was begun with other clips. Data may have moved."""
    try:
        held = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # not begun, or by an earlier version
        return
    if held != (now := _digests(root, benchmark)):
        names = ", ".join(name for name in {**held, **now} if held.get(name) != now.get(name))
        raise InputError(f"{folder} holds a run with other clips than those of {root} ({names}); choose another --out")


def record_data(folder: Path, root: Path, benchmark: BenchmarkName) -> None:
    """Leave in a run folder what `check_same_data` compares."""
    write_text(folder / RECORD, json.dumps(_digests(root, benchmark), indent=1) + "\n")


def _digests(root: Path, benchmark: BenchmarkName) -> dict[str, str]:
    return {path.name: sha256(path) for path in dataset_files(root, benchmark) if path.is_file()}


def _flat(options: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in options.items():
        flat |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {f"{above}{name}": value}
    return flat
