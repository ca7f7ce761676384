"""What a run keeps to go on from after it was killed, at whatever step, and what it refuses to go on from."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from models.checkpoints import check_archive, is_finite
from supervised.model import architecture
from supervised.options import HOW, WEIGHTS, ModelOptions, Options
from supervised.sources import weight_files
from utils.cli import InputError
from utils.config import from_yaml
from utils.files import write_bytes
from utils.identity import differing, refuse_other_data, refuse_other_options, same_files


@dataclass
class Progress:
    """Where a run is.

    history: a row of the log for each finished epoch. epoch, step: of the next step. sums: of the losses of the
    epoch's steps so far, over videos. seconds: that the epoch has taken.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """The best M_J on val so far; -1 before the first epoch."""
        return max((row["val_m_j"] for row in self.history), default=-1.0)


def save_state(path: Path, progress: Progress, tensors: Mapping[str, Any]) -> None:
    """Write the state whole or not at all; tensors: state dicts by name."""
    buffer = io.BytesIO()
    torch.save({"progress": vars(progress), **tensors}, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> tuple[Progress, dict[str, Any]]:
    """What `save_state` wrote. Raises InputError if it is damaged, down to a single bit."""
    try:
        check_archive(path, sums=True)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**saved.pop("progress"))
        counts = (progress.epoch, progress.step, len(progress.history) - progress.epoch)
        numbers = [progress.best, progress.seconds, *progress.sums.values()]
        if min(counts) < 0 or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("its progress makes no sense")
        return progress, saved
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(f"{path}: damaged, or of another version; remove it to start the run anew") from error


@contextmanager
def told_of_misfits(path: Path) -> Iterator[None]:
    """Turn what torch raises when a state is not of this run's model and optimiser into InputError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not this run's state ({what[:200]}); remove it to start the run anew") from error


@contextmanager
def told_of_full_disks(out: Path) -> Iterator[None]:
    """Turn a failed write into InputError. All writes are atomic, so the last state is still whole."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{out}: cannot save ({error.strerror or error}); what was saved before is whole. "
            "Make room and run the same command again"
        ) from error


def must_be_finite(model: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError if a weight is NaN or infinite, so that such a model never takes the place of a good one."""
    for name, value in model.items():
        if not is_finite(value):
            raise InputError(f"{name} is not finite {where}; lower --train.lr. The last good state is kept")


def must_be_the_same_run(config: Path, options: Options) -> None:
    """Raise InputError if `config` holds a run whose numbers would be others.

    Data and weights may have moved. At a constant rate more epochs may be asked for: the first ones are the same,
    however many follow.
    """
    if not config.is_file():
        return
    held = from_yaml(Options, config)
    if options.train.schedule == "constant" and options.train.epochs > held.train.epochs:
        held = replace(held, train=replace(held.train, epochs=options.train.epochs))
    names = differing(held, options, HOW)
    if _random(held) == _random(options) and same_files(_started_from(config.parent), weight_files(options.model)):
        names = [name for name in names if name not in WEIGHTS]
    refuse_other_options(config.parent, held, options, names)
    refuse_other_data(config.parent, options.data.root, options.data.benchmark)


def _random(options: Options) -> tuple[bool, bool]:
    return options.model.weights == "random", options.model.ear.weights == "random"


def _started_from(run: Path) -> list[str]:
    """The digests of the files that the towers of a run started from."""
    try:
        towers = json.loads((run / "initial_weights.json").read_text(encoding="utf-8"))
        return [tower["sha256"] for tower in towers.values()]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return []


def must_be_of_this_kind(path: Path, options: ModelOptions) -> None:
    """Raise InputError if a trained model's file says that it is of another kind than the options ask for.

    Several fusions have weights of the same shapes, so that loading would not notice.
    """
    try:
        with safe_open(path, "pt") as file:
            kind = file.metadata() or {}
    except Exception:  # missing or damaged, of which loading it gives account
        return
    for name, asked in architecture(options).items():
        if kind.get(name, asked) != asked:
            raise InputError(f"{path}: was trained with {name} {kind[name]}, but the configuration says {asked}")
