"""What a job's numbers depend on, as digests: options, weights and data. A result counts only under its own key."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import supervised.options
import zero_shot.options
from utils.config import drop_options, resolve_options
from utils.files import sha256
from utils.layout import BenchmarkName
from utils.run_identity import dataset_files

MISSING = "missing"
OPTIONS: dict[str, Any] = {"zero_shot": zero_shot.options.Options, "supervised": supervised.options.Options}
WITHOUT_EFFECT = {  # options that change no number, or stand for what is in the key by its content
    "zero_shot": ("data.root", "grounding.labels", *zero_shot.options.RUNTIME_ONLY, *zero_shot.options.WEIGHTS),
    "supervised": (*supervised.options.RUNTIME_ONLY, *supervised.options.WEIGHTS),
}


def parse(kind: str, words: Sequence[str]) -> Any:
    """The options that a job's words say, by its kind. Raises InputError."""
    return resolve_options(OPTIONS[kind], words)


def checkpoint_files(kind: str, options: Any) -> list[Path]:
    """The checkpoints that a job starts from, whether they exist or not."""
    return (options if kind == "zero_shot" else options.model).checkpoint_files()


def fingerprint_parts(kind: str, options: Any, root: Path, benchmark: BenchmarkName) -> tuple[str, ...]:
    """Of the options, however they are written, and of each file that the numbers depend on."""
    described = json.dumps(drop_options(options, WITHOUT_EFFECT[kind]), sort_keys=True, default=str)
    # Composed clips have the same names whatever they were composed of; how they were, their recipe says.
    files = [*checkpoint_files(kind, options), *dataset_files(root, benchmark)]
    if kind == "zero_shot" and options.method == "box_prompt":
        files.append(options.grounding.labels)
    return (hashlib.sha256(described.encode()).hexdigest(), *map(digest, files))


def matches(key: Sequence[str], recorded: Any) -> bool:
    """Whether a recorded key is still the job's. A file that has gone since then speaks neither for nor against it."""
    same = isinstance(recorded, list) and len(recorded) == len(key)
    return same and all(now in (then, MISSING) for now, then in zip(key, recorded, strict=True))


def digest(path: Path) -> str:
    """sha256 of a file, read once as long as it stays as it is; MISSING where there is none."""
    if not path.is_file():
        return MISSING
    state = path.stat()
    return _digest(path, state.st_size, state.st_mtime_ns)


@cache
def _digest(path: Path, size: int, changed: int) -> str:
    return sha256(path)
