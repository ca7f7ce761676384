"""The resumable state of a training run: saving and loading it, and refusing one that belongs to another run."""

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
from models.registry import list_weights
from models.weights import checkpoint_name, list_checkpoints
from supervised.model import architecture
from supervised.model_options import ModelOptions
from supervised.options import RUNTIME_ONLY, WEIGHTS, Options
from utils.cli import InputError
from utils.config import from_yaml
from utils.files import write_bytes
from utils.run_identity import check_same_data, check_same_options, differing_options, files_match

BEST_MEASURES = ("val_m_j", "val_miou_truth", "val_miou_published")  # of which a run logs one
TOWERS = (  # checkpoints, which may be paths
    *("model.fpn.visual", "model.fpn.audio", "model.fpn.variant"),
    *("model.audio", "model.variant"),
)


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        history: a row of log.csv for each finished epoch.
        epoch: of the next step, from 0.
        step: the next step within the epoch, from 0.
        sums: each loss summed over the videos of the epoch so far.
        seconds: time that the epoch has taken so far.
    """

    history: list[dict[str, Any]] = field(default_factory=list)
    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def best(self) -> float:
        """The best validation measure so far, M_J or of AVSS mean IoU; -1 before the first validation."""
        values = (row.get(name) for row in self.history for name in BEST_MEASURES)
        return max((value for value in values if value is not None), default=-1.0)


def save_state(path: Path, progress: Progress, tensors: Mapping[str, Any]) -> None:
    """Write the state atomically; `tensors` holds state dicts by name."""
    buffer = io.BytesIO()
    torch.save({"progress": vars(progress), **tensors}, buffer)
    write_bytes(path, buffer.getvalue())


def load_state(path: Path) -> tuple[Progress, dict[str, Any]]:
    """Read what `save_state` wrote.

    Raises:
        InputError: if the file is damaged, even in a single bit.
    """
    try:
        check_archive(path, checksums=True)
        saved = torch.load(path, map_location="cpu", weights_only=True)
        progress = Progress(**saved.pop("progress"))
        counts = (progress.epoch, progress.step, len(progress.history) - progress.epoch)
        numbers = [progress.best, progress.seconds, *progress.sums.values()]
        if min(counts) < 0 or not all(isinstance(number, int | float) for number in numbers):
            raise ValueError("implausible progress")
        return progress, saved
    except Exception as error:  # a damaged archive can raise anything
        raise InputError(f"{path}: damaged, or written by another version; remove it to restart the run") from error


@contextmanager
def wrap_load_errors(path: Path) -> Iterator[None]:
    """Turn errors of loading a state into another model or optimizer into InputError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise InputError(f"{path}: not the state of this run ({what[:200]}); remove it to restart the run") from error


@contextmanager
def wrap_disk_errors(out: Path) -> Iterator[None]:
    """Turn a failed write into InputError. All writes are atomic, so the last saved state is intact."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"{out}: cannot save ({error.strerror or error}); the last saved state is intact. "
            "Free some space and run the same command again to resume"
        ) from error


def check_finite(model: Mapping[str, Tensor], where: str) -> None:
    """Raise InputError if a weight is NaN or infinite, so that such a model never replaces a good one."""
    for name, value in model.items():
        if not is_finite(value):
            raise InputError(f"{name} is not finite {where}; lower --train.lr. The last good state is kept")


def check_same_run(config: Path, options: Options) -> None:
    """Raise InputError if `config`, of an existing run folder, belongs to a run with other results.

    Data and weights may have moved. With a constant learning rate, train.epochs may be increased, because it does not
    affect the epochs before.
    """
    if not config.is_file():
        return
    previous = from_yaml(Options, config)
    if options.train.schedule == "constant" and options.train.epochs > previous.train.epochs:
        previous = replace(previous, train=replace(previous.train, epochs=options.train.epochs))
    names = differing_options(previous, options, RUNTIME_ONLY)
    if files_match(_initial_digests(config.parent), options.model.checkpoint_files()):
        before, now = _weight_sources(previous.model), _weight_sources(options.model)
        names = [name for name in names if name not in now or before[name] != now[name]]
    check_same_options(config.parent, previous, options, names)
    check_same_data(config.parent, options.data.root, options.data.benchmark)


def _weight_sources(model: ModelOptions) -> dict[str, str]:
    """What each option's checkpoint is, wherever it lies: its registered name, "random", or "file"."""
    fpn = model.fpn
    given = [model.weights, model.vggish.weights, str(model.init_from), fpn.visual, fpn.audio, fpn.variant]
    given += [model.audio, model.variant]
    known = {*list_weights(), *(checkpoint.name for checkpoint in list_checkpoints()), "published", str(None)}
    names = map(checkpoint_name, given)
    return dict(zip((*WEIGHTS, *TOWERS), (name if name in known else "file" for name in names), strict=True))


def _initial_digests(run: Path) -> list[str]:
    """The sha256 of the checkpoints that a run started from."""
    try:
        towers = json.loads((run / "initial_weights.json").read_text(encoding="utf-8"))
        return [tower["sha256"] for tower in towers.values()]
    except (OSError, ValueError, AttributeError, KeyError, TypeError):
        return []


def check_architecture(path: Path, options: ModelOptions, classes: int = 1) -> None:
    """Raise InputError if the metadata of a trained model differ from the architecture in the options.

    Several fusions have weights of the same shapes, so that strict loading does not tell them apart.
    """
    try:
        with safe_open(path, "pt") as file:
            trained = file.metadata() or {}
    except Exception:  # missing or damaged: load_checkpoint reports it
        return
    for name, expected in architecture(options, classes).items():
        if trained.get(name, expected) != expected:
            raise InputError(f"{path}: was trained with {name} {trained[name]}, but the configuration says {expected}")
