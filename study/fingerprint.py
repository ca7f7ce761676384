"""What the results of a job depend on, as digests of its options, weights and data."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import supervised.options
import zero_shot.options
from study.study_file import Regime
from utils.config import drop_options, resolve_options
from utils.files import sha256
from utils.layout import BenchmarkName
from utils.run_identity import dataset_files

MISSING = "missing"  # in place of the digest of a file that does not exist
OPTIONS: dict[Regime, Any] = {"zero_shot": zero_shot.options.Options, "supervised": supervised.options.Options}
IGNORED_OPTIONS: dict[Regime, tuple[str, ...]] = {  # without effect on results, or represented by a file's content
    "zero_shot": ("data.root", "grounding.labels", *zero_shot.options.RUNTIME_ONLY, *zero_shot.options.WEIGHTS),
    "supervised": (*supervised.options.RUNTIME_ONLY, *supervised.options.WEIGHTS),
}


def parse_options(regime: Regime, words: Sequence[str]) -> Any:
    """The options of a run from the words of its command line.

    Raises:
        InputError: for an unknown option or a wrong value.
    """
    return resolve_options(OPTIONS[regime], words)


def checkpoint_files(regime: Regime, options: Any) -> list[Path]:
    """The checkpoints that a run loads, whether they exist or not."""
    return (options if regime == "zero_shot" else options.model).checkpoint_files()


def compute_fingerprint(
    regime: Regime, options: Any, root: Path, benchmark: BenchmarkName, more: Mapping[str, Any] | None = None
) -> tuple[str, ...]:
    """The digest of the options, however they are written, and of each file that the results depend on.

    Args:
        regime: of the run.
        options: of the run.
        root: folder of the data.
        benchmark: their layout.
        more: what else the results depend on, if anything.
    """
    known = {**drop_options(options, IGNORED_OPTIONS[regime]), **(more or {})}
    described = json.dumps(known, sort_keys=True, default=str)
    # Composed clips have the same names whatever they were composed of; their compose.json tells them apart.
    files = [*checkpoint_files(regime, options), *dataset_files(root, benchmark)]
    files += options.label_files() if regime == "zero_shot" else []
    return (hashlib.sha256(described.encode()).hexdigest(), *map(file_digest, files))


def matches(fingerprint: Sequence[str], recorded: Any) -> bool:
    """Whether a recorded fingerprint is still the job's; files that have been removed since then are not compared."""
    same = isinstance(recorded, list) and len(recorded) == len(fingerprint)
    return same and all(now in (then, MISSING) for now, then in zip(fingerprint, recorded, strict=True))


def file_digest(path: Path) -> str:
    """The sha256 of a file, computed again only when the file changes; MISSING if it does not exist."""
    if not path.is_file():
        return MISSING
    state = path.stat()
    return _cached_sha256(path, state.st_size, state.st_mtime_ns)


@cache
def _cached_sha256(path: Path, size: int, modified: int) -> str:
    return sha256(path)
